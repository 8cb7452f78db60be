"""User namespaces: id ranges, maps, and idmapped mounts.

Container id 0 is host id ``base``; ``size`` ids follow. Layers and volumes keep their owners on disk and are shown
through idmapped mounts (mount_setattr(2)), so nothing is chowned or copied.
"""

from __future__ import annotations

from containust.common import os
from containust.core.syscalls import AT_RECURSIVE, MOUNT_ATTR_IDMAP, mount_setattr

RANGE_SIZE = 65536


def write_maps(pid: int, base: int, size: int = RANGE_SIZE) -> None:
    """Write ``uid_map`` and ``gid_map`` of a process that was just made in a new user namespace.

    The caller is privileged over both ranges (user_namespaces(7)).
    """
    line = f"0 {base} {size}\n".encode()
    for name in ("uid_map", "gid_map"):
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)


def write_same_maps(pid: int) -> None:
    """As :func:`write_maps`, with the ids of the caller's own user namespace.

    Each line has to lie within one line of the caller's own map (user_namespaces(7)), so they are repeated.
    """
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}") as file:
            lines = [line.split() for line in file]
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write("".join(f"{first} {first} {count}\n" for first, _, count in lines))


def open_userns(pid: int) -> int:
    """A descriptor of the user namespace of ``pid``."""
    return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def idmap(mount_fd: int, userns_fd: int) -> None:
    """Show the detached mount ``mount_fd``, and what is mounted below it, with the ids of a user namespace.

    Where one of those below cannot be idmapped (a procfs, say) none of them is: they then belong to nobody that the
    namespace knows. Raises OSError (EINVAL) where the file system of the mount itself cannot be.
    """
    try:
        mount_setattr(mount_fd, "", AT_RECURSIVE, set=MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
    except OSError:
        mount_setattr(mount_fd, "", 0, set=MOUNT_ATTR_IDMAP, userns_fd=userns_fd)
