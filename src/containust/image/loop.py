"""Loop devices: a file as a read-only block device that vanishes with its last user (loop(4))."""

from __future__ import annotations

import errno
import fcntl
import os
from _struct import pack

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
_ATTEMPTS = 64


def attach(path: str) -> tuple[str, int]:
    """A free loop device on the file ``path``: its name and an open descriptor, which keeps it until
    something else does.

    Raises OSError: ENODEV where there are no loop devices, ENXIO or EBUSY when none could be had in time.
    """
    backing = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        control = _device("/dev/loop-control", os.O_RDWR)
        try:
            for _ in range(_ATTEMPTS):
                name = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
                device = _device(name, os.O_RDONLY)
                # struct loop_config: fd, block size, struct loop_info64 with its flags at byte 52, 64
                # reserved bytes.
                config = bytearray(304)
                config[0:8] = pack("<II", backing, 512)
                config[60:64] = pack("<I", LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR)
                try:
                    fcntl.ioctl(device, LOOP_CONFIGURE, bytes(config))
                except OSError as error:
                    os.close(device)
                    if error.errno == errno.EBUSY:
                        continue  # another process was quicker
                    raise
                return name, device
            raise OSError(errno.EBUSY, "no loop device stayed free", path)
        finally:
            os.close(control)
    finally:
        os.close(backing)


def _device(path: str, flags: int) -> int:
    """A descriptor of a device node. That it is not there says nothing of the file: ENODEV, not ENOENT."""
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        raise OSError(errno.ENODEV, "there are no loop devices here", path) from None
