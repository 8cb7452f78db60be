"""Exit status of a process that is not our child (proc_pid_stat(5); PIDFD_GET_INFO of Linux 6.15)."""

from __future__ import annotations

import fcntl
import time
from struct import pack_into, unpack_from

from containust.core import syscalls

PIDFD_INFO_EXIT = 1 << 3
SIZE = 64
PIDFD_GET_INFO = 3 << 30 | SIZE << 16 | 0xFF << 8 | 11


def exit_status(pidfd: int, pid: int, patience: float = 0.2) -> int | None:
    """Wait status of the process ``pid`` behind ``pidfd``, which has ended; None when this kernel does not tell.

    Until its parent reaps it, and no other process can have its pid, it is in /proc; from then on the pidfd tells. A
    kernel that never does is asked for ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        before = _reaped(pidfd)
        if before is not None:
            return before
        status = _zombie(pid)
        # Still not reaped: then it was this process that /proc has shown.
        if status is not None and _reaped(pidfd) is None and _exists(pidfd):
            return status
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)


def _reaped(pidfd: int) -> int | None:
    info = bytearray(SIZE)
    pack_into("<Q", info, 0, PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:
        return None
    return int(unpack_from("<i", info, 60)[0]) if unpack_from("<Q", info)[0] & PIDFD_INFO_EXIT else None


def _exists(pidfd: int) -> bool:
    try:
        syscalls.pidfd_send_signal(pidfd, 0)
    except OSError:
        return False
    return True


def _zombie(pid: int) -> int | None:
    """The last field of a zombie's line in /proc; root may read it."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096)
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return int(fields[49]) if fields[0] == b"Z" and len(fields) > 49 else None
