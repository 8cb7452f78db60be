"""Building a container's root from inside its new namespaces.

Everything here runs in the container's init process between fork and exec, as root of the container's user namespace
but before anything of the image runs. Each target is resolved inside the root with ``openat2(RESOLVE_IN_ROOT)`` and
the mount is attached to that descriptor, so a symbolic link in an image leads no mount outside (attacks.md, F1, F2).
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

from containust.common import os
from containust.core import syscalls
from containust.core.syscalls import (
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FD,
    FSCONFIG_SET_FLAG,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    OPEN_TREE_CLONE,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    move_mount,
    new_mount,
    open_tree,
    openat2,
)

O_PATH = os.O_PATH
STRICT = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC

# What is hidden, and what is made read-only, below /proc and /sys (OCI runtime specification, maskedPaths and
# readonlyPaths). A path that this kernel does not have is passed over.
MASKED_FILES = (
    "proc/kcore",
    "proc/keys",
    "proc/key-users",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "proc/kmsg",
    "proc/interrupts",
    "proc/vmallocinfo",
    "proc/config.gz",
)
MASKED_DIRECTORIES = ("proc/acpi", "proc/asound", "proc/scsi", "sys/firmware", "sys/devices/virtual/powercap")
READONLY_PATHS = ("proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger")


def resolve(root_fd: int, target: str) -> int:
    """An O_PATH descriptor of ``target`` inside ``root_fd``; links are followed but never leave the root."""
    return openat2(root_fd, target, O_PATH, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def attach(mount_fd: int, root_fd: int, target: str) -> None:
    """Attach a detached mount at ``target`` inside ``root_fd`` and close it."""
    target_fd = resolve(root_fd, target)
    move_mount(mount_fd, target_fd, "")
    os.close(target_fd)
    os.close(mount_fd)


def create_target(root_fd: int, target: str, directory: bool) -> None:
    """Create ``target`` (and its parents) inside the root as a directory or an empty file, where it is missing."""
    current = os.dup(root_fd)
    parts = [part for part in target.split("/") if part]
    walked = ""
    try:
        for position, part in enumerate(parts):
            walked = f"{walked}/{part}"
            last = position == len(parts) - 1
            try:
                following = resolve(root_fd, walked)
            except OSError as error:
                if error.errno != ENOENT:
                    raise
                try:
                    if last and not directory:
                        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=current))
                    else:
                        os.mkdir(part, 0o755, dir_fd=current)
                except OSError as failed:
                    if failed.errno != EEXIST:
                        raise
                following = resolve(root_fd, walked)
            os.close(current)
            current = following
    finally:
        os.close(current)


def overlay(lower_fd: int, upper_fd: int, work_fd: int) -> int:
    """A detached OverlayFS of one lower directory, mounted by the container's own root.

    ``userxattr`` is what a mount inside a user namespace needs (Documentation/filesystems/overlayfs.rst). The lower
    directory is an idmapped mount, so nothing in it is copied or chowned.
    """
    try:
        return _overlay(FSCONFIG_SET_FD, lower_fd, upper_fd, work_fd)
    except OSError as error:
        if error.filename != "lowerdir+":
            raise
    # Before Linux 6.13 it takes no descriptors, before 6.8 no ``lowerdir+``; names of descriptors lead to the same.
    return _overlay(syscalls.FSCONFIG_SET_STRING, lower_fd, upper_fd, work_fd)


def _overlay(how: int, lower_fd: int, upper_fd: int, work_fd: int) -> int:
    fs_fd = syscalls.fsopen("overlay")
    try:
        syscalls.fsconfig(fs_fd, syscalls.FSCONFIG_SET_STRING, "source", "containust")
        if how == FSCONFIG_SET_FD:
            syscalls.fsconfig(fs_fd, FSCONFIG_SET_FD, "lowerdir+", None, lower_fd)
            syscalls.fsconfig(fs_fd, FSCONFIG_SET_FD, "upperdir", None, upper_fd)
            syscalls.fsconfig(fs_fd, FSCONFIG_SET_FD, "workdir", None, work_fd)
        else:
            for key, fd in (("lowerdir", lower_fd), ("upperdir", upper_fd), ("workdir", work_fd)):
                syscalls.fsconfig(fs_fd, how, key, f"/proc/self/fd/{fd}")
        syscalls.fsconfig(fs_fd, FSCONFIG_SET_FLAG, "userxattr")
        syscalls.fsconfig(fs_fd, FSCONFIG_CMD_CREATE, None)
        return syscalls.fsmount(fs_fd, 0)
    finally:
        os.close(fs_fd)


def writable_overlay(lower_fd: int, writable_fd: int) -> int:
    """An OverlayFS over ``upper`` and ``work`` of the attached mount ``writable_fd``."""
    upper = os.open("upper", O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=writable_fd)
    work = os.open("work", O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=writable_fd)
    mounted = overlay(lower_fd, upper, work)
    os.close(upper)
    os.close(work)
    return mounted


def scratch_overlay(lower_fd: int) -> int:
    """An OverlayFS whose upper directory is a tmpfs of its own: room for mount points of a read-only container."""
    scratch = new_mount("tmpfs", {"size": "1m", "mode": "755"}, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID)
    os.mkdir("upper", 0o755, dir_fd=scratch)
    os.mkdir("work", 0o755, dir_fd=scratch)
    upper = os.open("upper", O_PATH | os.O_DIRECTORY, dir_fd=scratch)
    work = os.open("work", O_PATH | os.O_DIRECTORY, dir_fd=scratch)
    stack_on_root(scratch)
    mounted = overlay(lower_fd, upper, work)
    unstack_root()
    os.close(upper)
    os.close(work)
    os.close(scratch)
    return mounted


def isolate_mounts() -> None:
    """Let no mount event in or out of this mount namespace."""
    syscalls.mount(None, "/", None, MS_REC | MS_PRIVATE)


def stack_on_root(mount_fd: int) -> None:
    """Attach a detached mount over ``/`` of this mount namespace.

    That needs no directory which the container's root could reach on the host, and the kernel lets a user namespace
    use only its own mounts as layers of an overlay.
    """
    move_mount(mount_fd, syscalls.AT_FDCWD, "/")


def unstack_root() -> None:
    """Detach the topmost mount over ``/``; an overlay made of it keeps what it needs.

    Whatever is still stacked when the root is left stays in the namespace below it, the host's tree included.
    """
    syscalls.umount2("/", MNT_DETACH)


def leave_old_root(root_fd: int) -> None:
    """``pivot_root`` into the attached ``root_fd`` and detach the host's tree."""
    os.fchdir(root_fd)
    syscalls.pivot_root(".", ".")
    syscalls.umount2(".", MNT_DETACH)
    os.chdir("/")


def mount_proc(root_fd: int) -> None:
    """A procfs of the container's own PID namespace."""
    attach(new_mount("proc", {"source": "proc"}, STRICT), root_fd, "proc")


def write_sysctl(root_fd: int, name: str, value: bytes) -> None:
    """Write ``/proc/sys/<name>`` of the container's own namespaces; one that this kernel lacks is passed over."""
    try:
        fd = openat2(root_fd, f"proc/sys/{name}", os.O_WRONLY, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == ENOENT:
            return
        raise
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


def mount_sys(root_fd: int, own_network: bool) -> None:
    """sysfs, read-only. With the host's network it is the host's sysfs, since a new one cannot be mounted."""
    if own_network:
        fd = new_mount("sysfs", {"source": "sysfs"}, STRICT | MOUNT_ATTR_RDONLY)
    else:
        fd = open_tree(syscalls.AT_FDCWD, "/sys", OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
        syscalls.mount_setattr(fd, "", syscalls.AT_RECURSIVE, set=STRICT | MOUNT_ATTR_RDONLY)
    attach(fd, root_fd, "sys")


def mount_cgroup(root_fd: int, controllers: tuple[str, ...]) -> None:
    """``/sys/fs/cgroup``, read-only, of the container's own cgroup namespace.

    ``controllers`` are the v1 hierarchies the container is in; empty on a pure v2 host.
    """
    attributes = STRICT | MOUNT_ATTR_RDONLY
    if not controllers:
        attach(new_mount("cgroup2", {"source": "cgroup2"}, attributes), root_fd, "sys/fs/cgroup")
        return
    base = new_mount("tmpfs", {"size": "4k", "mode": "755"}, STRICT)
    for controller in controllers:
        os.mkdir(controller, 0o755, dir_fd=base)
    target = resolve(root_fd, "sys/fs/cgroup")
    move_mount(base, target, "")
    os.close(target)
    for controller in controllers:
        fd = new_mount("cgroup", {"source": "cgroup", controller: None}, attributes)
        target = os.open(controller, O_PATH | os.O_DIRECTORY, dir_fd=base)
        move_mount(fd, target, "")
        os.close(target)
        os.close(fd)
    syscalls.mount_setattr(base, "", 0, set=MOUNT_ATTR_RDONLY)
    os.close(base)


def mount_dev(root_fd: int, dev_fd: int, shm_size: int, nodes: list[tuple[str, int]]) -> None:
    """``/dev`` from the prepared tmpfs, with devpts, shm and mqueue of the container's own.

    ``nodes`` are mounts of the host's device nodes, where the tmpfs has files for them instead of nodes.
    """
    target = resolve(root_fd, "dev")
    move_mount(dev_fd, target, "")
    os.close(target)
    for name, fd in nodes:
        at = os.open(name, O_PATH | os.O_NOFOLLOW, dir_fd=dev_fd)
        move_mount(fd, at, "")
        os.close(at)
    pts = new_mount(
        "devpts",
        {"source": "devpts", "newinstance": None, "ptmxmode": "0666", "mode": "0620", "gid": "5"},
        MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
    )
    shm = new_mount("tmpfs", {"source": "shm", "mode": "1777", "size": str(shm_size)}, STRICT)
    queue = new_mount("mqueue", {"source": "mqueue"}, STRICT)
    for fd, name in ((pts, "pts"), (shm, "shm"), (queue, "mqueue")):
        at = os.open(name, O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dev_fd)
        move_mount(fd, at, "")
        os.close(at)
        os.close(fd)


def mount_tmpfs(root_fd: int, target: str, options: dict[str, str | int | None], noexec: bool) -> None:
    """A private tmpfs at ``target``."""
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (MOUNT_ATTR_NOEXEC if noexec else 0)
    attach(new_mount("tmpfs", options, attributes), root_fd, target)


def mask(root_fd: int, dev_fd: int) -> None:
    """Hide and write-protect the paths of ``/proc`` and ``/sys`` that tell of or act on the host.

    Files are covered by the null device of our own tmpfs, taken by descriptor (CVE-2025-31133), directories by one
    empty read-only tmpfs.
    """
    for path in MASKED_FILES:
        target = _existing(root_fd, path)
        if target >= 0:
            null = open_tree(dev_fd, "null", OPEN_TREE_CLONE)
            move_mount(null, target, "")
            os.close(null)
            os.close(target)
    empty = -1
    for path in MASKED_DIRECTORIES:
        target = _existing(root_fd, path)
        if target >= 0:
            if empty < 0:
                empty = new_mount("tmpfs", {"size": "4k", "mode": "555"}, STRICT | MOUNT_ATTR_RDONLY)
                cover = empty
            else:
                cover = open_tree(empty, "", OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
            move_mount(cover, target, "")
            if cover != empty:
                os.close(cover)
            os.close(target)
    if empty >= 0:
        os.close(empty)
    for path in READONLY_PATHS:
        target = _existing(root_fd, path)
        if target >= 0:
            copy = open_tree(target, "", OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)
            syscalls.mount_setattr(copy, "", 0, set=MOUNT_ATTR_RDONLY | STRICT)
            move_mount(copy, target, "")
            os.close(copy)
            os.close(target)


def _existing(root_fd: int, path: str) -> int:
    try:
        return openat2(root_fd, path, O_PATH | os.O_NOFOLLOW, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno == ENOENT:
            return -1
        raise
