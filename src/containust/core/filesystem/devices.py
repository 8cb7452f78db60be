"""The container's ``/dev``: a tmpfs with real device nodes, made by the host's root as a detached mount.

A process inside a user namespace may not create device nodes, so the runtime makes them beforehand on a tmpfs of the
initial user namespace and hands the mount over. The nodes belong to the container's root.
"""

from __future__ import annotations

from _stat import S_IFCHR

from containust.common import os
from containust.core.syscalls import MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, new_mount

# name, major, minor (Documentation/admin-guide/devices.txt of the kernel)
NODES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
LINKS = (
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
DIRECTORIES = ("pts", "shm", "mqueue")


def open_dev(owner: int) -> int:
    """A detached tmpfs with the standard nodes, links and mount points, owned by host id ``owner``.

    Returns the mount's descriptor. Raises OSError (EPERM when the caller lacks CAP_MKNOD).
    """
    fd = new_mount(
        "tmpfs",
        {"mode": "755", "size": "64k", "nr_inodes": "256", "uid": str(owner), "gid": str(owner)},
        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
    )
    previous = os.umask(0)
    for name, major, minor in NODES:
        os.mknod(name, S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=fd)
        if owner:
            os.chown(name, owner, owner, dir_fd=fd)
    for name in DIRECTORIES:
        os.mkdir(name, 0o755, dir_fd=fd)
    for name, target in LINKS:
        os.symlink(target, name, dir_fd=fd)
    os.umask(previous)
    return fd
