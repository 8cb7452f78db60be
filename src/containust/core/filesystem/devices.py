"""The container's ``/dev``: a tmpfs with real device nodes, made by the host's root as a detached mount.

A process inside a user namespace may not create device nodes, so the runtime makes them beforehand on a tmpfs of the
initial user namespace and hands the mount over. The nodes belong to the container's root.
"""

from __future__ import annotations

from containust.common import os
from containust.core.syscalls import (
    AT_FDCWD,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    OPEN_TREE_CLONE,
    S_IFCHR,
    new_mount,
    open_tree,
)

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


def bound_dev() -> tuple[int, list[tuple[str, int]]]:
    """As :func:`open_dev` for a caller who may make no nodes: empty files, and mounts of the host's nodes for them."""
    fd = new_mount("tmpfs", {"mode": "755", "size": "64k", "nr_inodes": "256"}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    nodes = []
    for name, _, _ in NODES:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=fd))
        nodes.append((name, open_tree(AT_FDCWD, f"/dev/{name}", OPEN_TREE_CLONE)))
    _furnish(fd)
    return fd, nodes


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
    _furnish(fd)
    os.umask(previous)
    return fd


def _furnish(fd: int) -> None:
    for name in DIRECTORIES:
        os.mkdir(name, 0o755, dir_fd=fd)
    for name, target in LINKS:
        os.symlink(target, name, dir_fd=fd)
