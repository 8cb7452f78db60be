"""Control groups through one interface, with a v2 and a v1/hybrid implementation.

``detect()`` returns the manager of this host; a manager makes a :class:`Cgroup` a container. How a process gets into a
group differs, and is told by two attributes: ``clone_fd`` is the directory for ``clone3(CLONE_INTO_CGROUP)`` (v2, -1
otherwise), ``join_fds`` are files into which the *new process itself* writes ``0`` before it runs anything (v1).

Writing one's own thread into a v1 ``tasks`` file takes no thread-group lock, so it never waits for an RCU grace
period; writing a process into ``cgroup.procs`` does, for 7 to 20 ms after a quiet moment.
"""

from __future__ import annotations

from containust.common import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Joinable(Protocol):
        """A group that a new process can be started in."""

        path: str
        clone_fd: int
        join_fds: list[int]

        def open_join(self) -> None:
            """Open the descriptors by which a new process joins an existing group."""

        def close(self) -> None:
            """Close the descriptors that a new process joins by."""

    class Cgroup(Joinable, Protocol):
        """The group of one container."""

        def kill(self) -> None:
            """SIGKILL every process in the group, also frozen ones."""

        def thaw(self) -> None:
            """Let SIGKILL reach processes of the group that somebody has frozen, here or in a group of their own."""

        def stats(self) -> Stats:
            """What the kernel accounts for the group now."""

        def oom_kills(self) -> int:
            """How many processes of the group the kernel has killed for memory."""

        def remove(self) -> bool:
            """Remove the group; False while a process is still in it. A group that is gone counts as removed."""

    class Manager(Protocol):
        """Makes and finds the groups below ``containust/`` of this host."""

        version: int
        controllers: tuple[str, ...]

        def create(self, path: str, limits: Limits) -> Cgroup:
            """Make the group ``path`` and write its limits. Raises ContainustError R002."""

        def find(self, path: str) -> Cgroup:
            """The existing group ``path``, for stats, joining, killing and removal."""

        def control_files(self, path: str, limits: Limits) -> list[tuple[str, str]]:
            """Paths of the control files that hold ``limits`` of the group ``path``, with their values."""

        def prune(self, path: str) -> None:
            """Remove the group ``path`` and its empty parents up to and with ``containust``."""


class Limits:
    """Limits of a container in kernel terms; None means none.

    ``memory`` bytes, ``cpu_shares`` in v1 shares, ``cpu_quota`` microseconds a ``CPU_PERIOD``, ``io_weight`` 1-10000,
    ``io_max`` bytes a second that are read and as many that are written, on each of ``disks`` (``major:minor``).
    ``devices`` bounds what devices may be opened and made; only containers that can make nodes need it.
    """

    __slots__ = ("cpu_quota", "cpu_shares", "devices", "disks", "io_max", "io_weight", "memory", "pids")

    def __init__(
        self,
        memory: int | None = None,
        cpu_shares: int | None = None,
        cpu_quota: int | None = None,
        io_weight: int | None = None,
        pids: int | None = None,
        devices: bool = False,
        io_max: int | None = None,
        disks: list[str] | None = None,
    ) -> None:
        self.memory = memory
        self.cpu_shares = cpu_shares
        self.cpu_quota = cpu_quota
        self.io_weight = io_weight
        self.pids = pids
        self.devices = devices
        self.io_max = io_max
        self.disks = disks or []


class Stats:
    """Figures of one group: nanoseconds, bytes, percent of waiting; None where the kernel does not account it."""

    __slots__ = (
        "cpu_ns",
        "cpu_pressure",
        "io_pressure",
        "io_read",
        "io_write",
        "memory",
        "memory_limit",
        "memory_peak",
        "memory_pressure",
        "oom_kills",
        "pids",
        "throttled_periods",
    )

    def __init__(self) -> None:
        self.cpu_ns: int | None = None
        self.memory: int | None = None
        self.memory_peak: int | None = None
        self.memory_limit: int | None = None
        self.pids: int | None = None
        self.oom_kills: int | None = None
        self.throttled_periods: int | None = None
        self.io_read: int | None = None
        self.io_write: int | None = None
        # Percent of the last ten seconds in which some process waited (PSI); v2 only.
        self.cpu_pressure: float | None = None
        self.memory_pressure: float | None = None
        self.io_pressure: float | None = None


CPU_PERIOD = 100_000
PARENT = "containust"


def detect() -> Manager:
    """The manager for this host: v2 where the unified hierarchy has the memory and pids controllers, else v1.

    Raises ContainustError R002 when neither is mounted.
    """
    from containust.common.errors import ContainustError

    root = "/sys/fs/cgroup"
    try:
        with open(f"{root}/cgroup.controllers") as file:
            available = file.read().split()
    except OSError:
        available = []
    if "memory" in available and "pids" in available:
        from containust.core.cgroup.v2 import V2Manager

        return V2Manager(root)
    if os.path.isdir(f"{root}/pids"):
        from containust.core.cgroup.v1 import V1Manager

        return V1Manager(root)
    raise ContainustError(
        "R002",
        f"no cgroup hierarchy with the memory and pids controllers at {root}",
        "mount cgroup2 there (`mount -t cgroup2 none /sys/fs/cgroup`) or boot with the controllers enabled",
    )


def read_text(path: str) -> str | None:
    """Content of a control file, or None where it cannot be read."""

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, 65536).decode()
    except OSError:
        return None
    finally:
        os.close(fd)


def read_number(path: str) -> int | None:
    """First number in a control file; None where there is none (``max``) or no file."""
    text = read_text(path)
    if not text:
        return None
    word = text.split(None, 1)[0]
    return int(word) if word.isdigit() else None


def read_keyed(path: str) -> dict[str, int]:
    """A flat-keyed control file (``name value`` a line) as a dictionary."""
    values = {}
    for line in (read_text(path) or "").splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            values[key] = int(value)
    return values


def write_control(path: str, value: str) -> None:
    """Write a control file. Raises OSError with the file's path."""

    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)


def remove_group(directory: str) -> bool:
    """Remove a group with the groups below it; False while a process is in it. One that is gone counts as removed."""
    from containust.core.syscalls import EBUSY, ENOENT

    for last in (False, True):
        try:
            os.rmdir(directory)
        except OSError as error:
            if error.errno == ENOENT:
                return True
            if error.errno != EBUSY:
                raise
        else:
            return True
        if not last:
            from containust.core.cgroup.below import remove_below

            remove_below(directory)
    return False
