"""Exit status of a process that is not our child (pidfd_open(2), PIDFD_GET_INFO of Linux 6.15)."""

from __future__ import annotations

import fcntl
import time
from struct import pack_into, unpack_from

PIDFD_INFO_EXIT = 1 << 3
SIZE = 64
PIDFD_GET_INFO = 3 << 30 | SIZE << 16 | 0xFF << 8 | 11


def exit_status(pidfd: int, patience: float = 0.2) -> int | None:
    """Wait status of the process behind ``pidfd``, which has ended; None when this kernel does not tell.

    The kernel tells once the process was reaped by its new parent, which takes that parent a moment: up to
    ``patience`` seconds are given to it.
    """
    deadline = time.monotonic() + patience
    while True:
        info = bytearray(SIZE)
        pack_into("<Q", info, 0, PIDFD_INFO_EXIT)
        try:
            fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
        except OSError:
            pass
        else:
            if unpack_from("<Q", info)[0] & PIDFD_INFO_EXIT:
                return int(unpack_from("<i", info, 60)[0])
        if time.monotonic() > deadline:
            return None
        time.sleep(0.002)
