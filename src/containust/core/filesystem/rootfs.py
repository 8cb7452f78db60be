"""Building a container's root from inside its new namespaces.

Each function adds calls to the sequence that the container's init process makes (:mod:`containust.core.calls`), as root
of the container's user namespace but before anything of the image runs. Each target is resolved inside the root with
``openat2(RESOLVE_IN_ROOT)`` and the mount is attached to that descriptor, so a symbolic link in an image leads no mount
outside (attacks.md, F1, F2). Below mounts that are our own (/proc, /sys, /dev) nothing can be a link of an image's, and
names are enough. Descriptors are left for execve to close.
"""

from __future__ import annotations

from containust.common import os
from containust.core import syscalls
from containust.core.syscalls import (
    AT_FDCWD,
    EEXIST,
    ENOENT,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FD,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
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
    S_IFREG,
    openat2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.core.calls import Calls, Result

O_PATH = os.O_PATH
INSIDE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
STRICT = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC

# What is hidden, and what is made read-only, below /proc and /sys (OCI runtime specification, maskedPaths and
# readonlyPaths). A path that this kernel does not have is passed over.
MASKED_FILES = (  # below /proc
    "kcore",
    "keys",
    "key-users",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "kmsg",
    "interrupts",
    "vmallocinfo",
    "config.gz",
)
MASKED_IN_PROC = ("acpi", "asound", "scsi")
MASKED_IN_SYS = ("firmware", "devices/virtual/powercap")
READONLY_PATHS = ("bus", "fs", "irq", "sys", "sysrq-trigger")  # below /proc


def resolve(root_fd: int, target: str) -> int:
    """An O_PATH descriptor of ``target`` inside ``root_fd``; links are followed but never leave the root."""
    return openat2(root_fd, target, O_PATH, INSIDE)


def attach(calls: Calls, mount_fd: int, root: int, target: str) -> None:
    """Attach a detached mount at ``target`` inside the root."""
    at = calls.openat2(root, target, O_PATH, INSIDE)
    calls.move_mount(mount_fd, at)
    calls.close(at)


def create_target(calls: Calls, root: int, target: str, directory: bool) -> None:
    """Create ``target`` (and its parents) inside the root as a directory or an empty file, where it is missing."""
    current = root
    parts = [part for part in target.split("/") if part]
    walked = ""
    for position, part in enumerate(parts):
        walked = f"{walked}/{part}"
        # When it is there the two calls that make it are passed over.
        following = calls.openat2(root, walked, O_PATH, INSIDE, forgiven=ENOENT, after=2)
        if position == len(parts) - 1 and not directory:
            calls.mknodat(current, part, S_IFREG | 0o644, forgiven=EEXIST)
        else:
            calls.mkdirat(current, part, 0o755, forgiven=EEXIST)
        calls.reopen(following, root, walked, O_PATH, INSIDE)
        if current is not root:
            calls.close(current)
        current = following
    if current is not root:
        calls.close(current)


def overlay(calls: Calls, lower: int, upper: int, work: int, spare: tuple[int, int] | None = None) -> Result:
    """A detached OverlayFS of one lower directory, mounted by the container's own root.

    ``userxattr`` is what a mount inside a user namespace needs (Documentation/filesystems/overlayfs.rst). The lower
    directory is an idmapped mount, so nothing in it is copied or chowned.

    Before Linux 6.13 OverlayFS takes no descriptors, before 6.8 no ``lowerdir+``; names of descriptors do the same.
    ``spare`` are two descriptors' numbers for that (:func:`spare_numbers`).
    """
    fs_fd = calls.fsopen("overlay")
    calls.fsconfig(fs_fd, FSCONFIG_SET_STRING, "source", "containust")
    if spare is None:
        calls.fsconfig(fs_fd, FSCONFIG_SET_FD, "lowerdir+", None, lower)
        calls.fsconfig(fs_fd, FSCONFIG_SET_FD, "upperdir", None, upper)
        calls.fsconfig(fs_fd, FSCONFIG_SET_FD, "workdir", None, work)
    else:
        calls.dup3(upper, spare[0], os.O_CLOEXEC)
        calls.dup3(work, spare[1], os.O_CLOEXEC)
        for key, fd in (("lowerdir", lower), ("upperdir", spare[0]), ("workdir", spare[1])):
            calls.fsconfig(fs_fd, FSCONFIG_SET_STRING, key, f"/proc/self/fd/{fd}")
    calls.fsconfig(fs_fd, FSCONFIG_SET_FLAG, "userxattr")
    calls.fsconfig(fs_fd, FSCONFIG_CMD_CREATE, None)
    return calls.fsmount(fs_fd)


def spare_numbers(fd: int) -> tuple[int, int] | None:
    """Two descriptors, copies of ``fd``, whose numbers :func:`overlay` uses; None where the kernel needs none."""
    major, minor = os.uname().release.split(".")[:2]
    if (int(major), int("".join(c for c in minor if c.isdigit()) or 0)) >= (6, 13):
        return None
    return os.dup(fd), os.dup(fd)


def writable_overlay(calls: Calls, lower: int, writable: int, spare: tuple[int, int] | None = None) -> Result:
    """An OverlayFS over ``upper`` and ``work`` of the attached mount ``writable``."""
    upper = calls.openat(writable, "upper", O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    work = calls.openat(writable, "work", O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    return overlay(calls, lower, upper, work, spare)


def scratch_overlay(calls: Calls, lower: int, spare: tuple[int, int] | None = None) -> Result:
    """An OverlayFS whose upper directory is a tmpfs of its own: room for mount points of a read-only container."""
    scratch = calls.new_mount("tmpfs", {"size": "1m", "mode": "755"}, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID)
    calls.mkdirat(scratch, "upper", 0o755)
    calls.mkdirat(scratch, "work", 0o755)
    stack_on_root(calls, scratch)
    mounted = writable_overlay(calls, lower, scratch, spare)
    unstack_root(calls)
    return mounted


def isolate_mounts(calls: Calls) -> None:
    """Let no mount event in or out of this mount namespace."""
    calls.mount(None, "/", None, MS_REC | MS_PRIVATE)


def stack_on_root(calls: Calls, mount_fd: int) -> None:
    """Attach a detached mount over ``/`` of this mount namespace.

    That needs no directory which the container's root could reach on the host, and the kernel lets a user namespace
    use only its own mounts as layers of an overlay.
    """
    calls.move_mount(mount_fd, AT_FDCWD, "/")


def unstack_root(calls: Calls) -> None:
    """Detach the topmost mount over ``/``; an overlay made of it keeps what it needs.

    Whatever is still stacked when the root is left stays in the namespace below it, the host's tree included.
    """
    calls.umount2("/", MNT_DETACH)


def leave_old_root(calls: Calls, root: int) -> None:
    """``pivot_root`` into the attached ``root`` and detach the host's tree."""
    calls.fchdir(root)
    calls.pivot_root(".", ".")
    calls.umount2(".", MNT_DETACH)
    calls.chdir(b"/")


def mount_proc(calls: Calls, root: int) -> Result:
    """A procfs of the container's own PID namespace."""
    proc = calls.new_mount("proc", {"source": "proc"}, STRICT)
    attach(calls, proc, root, "proc")
    return proc


def write_sysctl(calls: Calls, proc: int, name: str, value: bytes) -> None:
    """Write ``/proc/sys/<name>`` of the container's own namespaces; one that this kernel lacks is passed over."""
    fd = calls.openat2(proc, f"sys/{name}", os.O_WRONLY, INSIDE, forgiven=ENOENT)
    there = calls.if_there()
    calls.write(fd, value, name)
    calls.close(fd)
    calls.end_if(there)


def mount_sys(calls: Calls, root: int, own_network: bool) -> Result:
    """sysfs, read-only. With the host's network it is the host's sysfs, since a new one cannot be mounted."""
    if own_network:
        fd = calls.new_mount("sysfs", {"source": "sysfs"}, STRICT | MOUNT_ATTR_RDONLY)
    else:
        fd = calls.open_tree(AT_FDCWD, "/sys", OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
        calls.mount_setattr(fd, syscalls.AT_RECURSIVE, set=STRICT | MOUNT_ATTR_RDONLY)
    attach(calls, fd, root, "sys")
    return fd


def mount_cgroup(calls: Calls, sys: int, controllers: tuple[str, ...]) -> None:
    """``/sys/fs/cgroup``, read-only, of the container's own cgroup namespace.

    ``controllers`` are the v1 hierarchies the container is in; empty on a pure v2 host.
    """
    attributes = STRICT | MOUNT_ATTR_RDONLY
    if not controllers:
        calls.move_mount(calls.new_mount("cgroup2", {"source": "cgroup2"}, attributes), sys, "fs/cgroup")
        return
    base = calls.new_mount("tmpfs", {"size": "4k", "mode": "755"}, STRICT)
    for controller in controllers:
        calls.mkdirat(base, controller, 0o755)
    calls.move_mount(base, sys, "fs/cgroup")
    for controller in controllers:
        fd = calls.new_mount("cgroup", {"source": "cgroup", controller: None}, attributes)
        calls.move_mount(fd, base, controller)
        calls.free(fd)
    calls.mount_setattr(base, 0, set=MOUNT_ATTR_RDONLY)


def mount_dev(calls: Calls, root: int, dev_fd: int, shm_size: int, nodes: list[tuple[str, int]]) -> None:
    """``/dev`` from the prepared tmpfs, with devpts, shm and mqueue of the container's own.

    ``nodes`` are mounts of the host's device nodes, where the tmpfs has files for them instead of nodes.
    """
    attach(calls, dev_fd, root, "dev")
    for name, fd in nodes:
        calls.move_mount(fd, dev_fd, name)
    pts = {"source": "devpts", "newinstance": None, "ptmxmode": "0666", "mode": "0620", "gid": "5"}
    shm = {"source": "shm", "mode": "1777", "size": str(shm_size)}
    for name, fstype, options, attributes in (
        ("pts", "devpts", pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC),
        ("shm", "tmpfs", shm, STRICT),
        ("mqueue", "mqueue", {"source": "mqueue"}, STRICT),
    ):
        fd = calls.new_mount(fstype, options, attributes)  # type: ignore[arg-type]
        calls.move_mount(fd, dev_fd, name)
        calls.free(fd)


def mount_tmpfs(calls: Calls, root: int, target: str, options: dict[str, str | int | None]) -> None:
    """A private tmpfs at ``target``."""
    fd = calls.new_mount("tmpfs", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    attach(calls, fd, root, target)
    calls.free(fd)


def mask(calls: Calls, proc: int, sys: int, dev_fd: int) -> None:
    """Hide and write-protect the paths of ``/proc`` and ``/sys`` that tell of or act on the host.

    Files are covered by the null device of our own tmpfs, taken by descriptor (CVE-2025-31133), directories by an empty
    read-only tmpfs. What is missing is asked for first: a mount that was made for nothing costs a grace period of RCU.
    """
    for name in MASKED_FILES:
        at = calls.openat(proc, name, O_PATH | os.O_NOFOLLOW, forgiven=ENOENT)
        there = calls.if_there()
        null = calls.open_tree(dev_fd, "null", OPEN_TREE_CLONE)
        calls.move_mount(null, at)
        calls.end_if(there)
        calls.free(null)
        calls.free(at)
    for place, names in ((proc, MASKED_IN_PROC), (sys, MASKED_IN_SYS)):
        for name in names:
            at = calls.openat(place, name, O_PATH | os.O_NOFOLLOW, forgiven=ENOENT)
            there = calls.if_there()
            empty = calls.new_mount("tmpfs", {"size": "4k", "mode": "555"}, STRICT | MOUNT_ATTR_RDONLY)
            calls.move_mount(empty, at)
            calls.end_if(there)
            calls.free(empty)
            calls.free(at)
    for name in READONLY_PATHS:
        copy = calls.open_tree(proc, name, OPEN_TREE_CLONE, forgiven=ENOENT)
        there = calls.if_there()
        calls.mount_setattr(copy, 0, set=MOUNT_ATTR_RDONLY | STRICT)
        calls.move_mount(copy, proc, name)
        calls.end_if(there)
        calls.free(copy)
