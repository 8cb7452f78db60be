"""A group below a container's own: what runs in it can be killed without the rest of the container."""

from __future__ import annotations

from containust.common import os
from containust.core.cgroup import read_text, write_control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.core.cgroup import Cgroup
    from containust.core.cgroup.none import NoCgroup


class Below:
    """The group ``name`` below ``group``, made when it is missing.

    On v1 in the first of the container's hierarchies only: one is enough to find its processes. ``join_fds`` and
    ``clone_fd`` are those of :class:`containust.core.cgroup.Cgroup`, once :meth:`open_join` was called.
    """

    def __init__(self, group: Cgroup, name: str) -> None:
        self._group = group
        self.path = f"{group.path}/{name}"
        self.clone_fd = -1
        self.join_fds: list[int] = []
        controllers: list[str] | None = getattr(group, "controllers", None)
        self._v1 = controllers is not None
        root = getattr(group, "root", "")
        self.directory = f"{root}/{controllers[0]}/{self.path}" if controllers else f"{root}/{self.path}"

    def open_join(self) -> None:
        """Make the group and open the descriptors by which a new process joins it."""
        try:
            os.mkdir(self.directory)
        except FileExistsError:
            pass
        if not self._v1:
            self.clone_fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return
        self._group.open_join()
        os.close(self._group.join_fds[0])
        self._group.join_fds[0] = os.open(f"{self.directory}/tasks", os.O_WRONLY | os.O_CLOEXEC)
        self.join_fds = self._group.join_fds

    def close(self) -> None:
        """Close the descriptors."""
        if self.clone_fd >= 0:
            os.close(self.clone_fd)
            self.clone_fd = -1
        self._group.close()
        self.join_fds = []

    def processes(self) -> list[int]:
        """Pids in the group."""
        return [int(word) for word in (read_text(f"{self.directory}/cgroup.procs") or "").split()]

    def kill(self, spared: Callable[[int], bool] | None = None) -> None:
        """SIGKILL what is in the group, the ``spared`` apart, also what forks meanwhile. Does not wait for the ends."""
        if not self._v1 and not spared:
            try:
                write_control(f"{self.directory}/cgroup.kill", "1")
            except FileNotFoundError:
                pass
            else:
                return
        from containust.core.cgroup.killing import kill_members

        killed: set[int] = set()
        for _ in range(100):
            found = set(self.processes()) - killed
            if not found:
                return
            kill_members([pid for pid in found if not (spared and spared(pid))], self.path)
            killed |= found

    def end(self, reaper: Callable[[int], bool]) -> None:
        """Kill all that is in the group, and have it reaped by its own ``reaper``, which ends with the last of them.

        Where that takes longer than some 50 ms, such as in a frozen group, the reaper is killed too.
        """
        import time

        for _ in range(25):
            self.kill(reaper)
            if not self.processes():
                return
            time.sleep(0.002)
        self.kill()


def below(group: Cgroup, name: str) -> Below | NoCgroup:
    """The group ``name`` below ``group``; where there are no groups, the absence of one."""
    absent: Callable[[str], NoCgroup] | None = getattr(group, "below", None)
    return absent(name) if absent else Below(group, name)


def remove_below(directory: str) -> None:
    """Remove the empty groups directly below ``directory``; the kernel removes none that has others in it."""
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            try:
                os.rmdir(entry.path)
            except OSError:
                pass
