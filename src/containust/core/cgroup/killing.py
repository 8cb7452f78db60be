"""Killing what is in a group process by process, where the kernel has no ``cgroup.kill`` for it: on cgroup v1."""

from __future__ import annotations

from containust.common import os
from containust.core import syscalls
from containust.core.cgroup import read_text, write_control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIGKILL = 9


def kill_members(pids: Iterable[int], group: str, root: str = "") -> None:
    """SIGKILL those of ``pids`` that are in ``group`` or below, thawed where they are frozen. Does not wait.

    A pid was read some time ago and may be another's by now, so each process is held while its group is looked at.
    ``root`` is where the v1 hierarchies are, "" where there are none.
    """
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            groups = read_text(f"/proc/{pid}/cgroup") or ""
            if f"/{group}" in groups:
                syscalls.pidfd_send_signal(pidfd, SIGKILL)
                if root:
                    _thaw(pid, groups, root)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)


def thaw_members(pids: Iterable[int], group: str, root: str) -> None:
    """Let those of ``pids`` that are in ``group`` or below out of a frozen group, so that a signal reaches them."""
    for pid in pids:
        groups = read_text(f"/proc/{pid}/cgroup") or ""
        if f"/{group}" in groups:
            _thaw(pid, groups, root)


def _thaw(pid: int, groups: str, root: str) -> None:
    """Move a process that is frozen to the freezer's root: the group may be anybody's, and others stay frozen in it."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers != "freezer" or path == "/":
            continue
        if (read_text(f"{root}/freezer{path}/freezer.state") or "THAWED").strip() != "THAWED":
            try:
                write_control(f"{root}/freezer/cgroup.procs", str(pid))
            except OSError:
                pass  # it has just ended
