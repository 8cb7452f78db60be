"""No control groups: what an ordinary user has to whom no subtree is delegated.

A limit is refused, for it could not be enforced; a container without limits runs, and its end takes all of its
processes along, as the kernel ends a PID namespace with its init.
"""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.common.types import DEFAULT_PIDS
from containust.core.cgroup import Limits, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# The property of the language that each limit comes from.
PROPERTIES = {
    "memory": "memory",
    "cpu_quota": "cpus",
    "cpu_shares": "cpu_shares",
    "io_weight": "io_weight",
    "io_max": "io_max",
    "pids": "pids",
}


class NoManager:
    """Makes no groups. ``remedy`` says what would let it."""

    version = 0
    controllers: tuple[str, ...] = ()

    def __init__(self, remedy: str) -> None:
        self.remedy = remedy

    def create(self, path: str, limits: Limits) -> NoCgroup:
        properties = declared(limits)
        if limits.pids == DEFAULT_PIDS:  # nobody has asked for it, and RLIMIT_NPROC does for it (one user id each)
            properties.remove("pids")
        refuse(properties, "no control group is delegated to you", self.remedy)
        return NoCgroup(path)

    def find(self, path: str) -> NoCgroup:
        return NoCgroup(path)

    def control_files(self, path: str, limits: Limits) -> list[tuple[str, str]]:
        return []

    def prune(self, path: str) -> None:
        pass


class NoCgroup:
    """The absence of a container's group."""

    clone_fd = -1
    absent = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.directory = ""
        self.join_fds: list[int] = []

    def below(self, name: str) -> NoCgroup:
        """The absence of a group below."""
        return NoCgroup(f"{self.path}/{name}")

    def open_join(self) -> None:
        """Nothing to join."""

    def close(self) -> None:
        pass

    def kill(self, spared: Callable[[int], bool] | None = None) -> None:
        """Nothing can be found by it."""

    def end(self, reaper: Callable[[int], bool]) -> None:
        """Nothing can be found by it."""

    def thaw(self) -> None:
        """Nothing is frozen."""

    def stats(self) -> Stats:
        return Stats()

    def oom_kills(self) -> int:
        return 0

    def remove(self) -> bool:
        return True


def declared(limits: Limits) -> list[str]:
    """The properties that ``limits`` come from."""
    return [name for field, name in PROPERTIES.items() if getattr(limits, field) is not None]


def refuse(properties: list[str], why: str, remedy: str) -> None:
    """Raise ContainustError R002 when there are any."""
    if properties:
        raise ContainustError(
            "R002",
            f"{', '.join(properties)} cannot be enforced: {why}",
            remedy,
            f"or leave {', '.join(properties)} out: the container then runs without that limit",
        )
