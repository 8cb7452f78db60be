"""System calls that ``os`` does not have.

One variadic entry to the kernel (:func:`syscall`) and one small function a call, named as the kernel names it, which
raises :class:`OSError` with the call's name. Constants carry their kernel names and are plain integers.

This module is on the start-up path of every container, so it uses the ``_ctypes`` extension directly: the ``ctypes``
package around it costs about 1.5 ms of class creation that nothing here needs. Where a libc or an interpreter lacks a
wrapper (``os.unshare`` and ``os.setns`` come with Python 3.12), the raw number is used everywhere, so that there is
one path to test.

The numbers are those of x86_64 and aarch64; calls from ``open_tree`` (428) on have the same number on both.
"""

from __future__ import annotations

import _ctypes
from _struct import pack, unpack_from

from containust.common import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Argument = int | bytes | None


class _Pointer(_ctypes._SimpleCData):  # type: ignore[misc, type-arg, name-defined, unused-ignore]
    _type_ = "P"


class _Long(_ctypes._SimpleCData):  # type: ignore[misc, type-arg, name-defined, unused-ignore]
    _type_ = "l"


class _Function(_ctypes.CFuncPtr):  # type: ignore[misc, type-arg, name-defined, unused-ignore]
    # CDECL | PYTHONAPI | USE_ERRNO: PYTHONAPI keeps the interpreter lock during the call. The calls made through it
    # are short, and a clone3 without the lock could give the child a lock held by a thread that it does not have.
    _flags_ = 1 | 4 | 8
    _restype_ = _Long


_libc = _ctypes.dlopen(None, 0)  # type: ignore[arg-type, unused-ignore]
_address = _ctypes.dlsym(_libc, "syscall")


def _entry(count: int) -> Callable[..., int]:
    """``syscall(2)`` of libc with ``count`` arguments behind the number."""
    entry: Callable[..., int] = _Function(_address)
    entry.argtypes = (_Pointer,) * (count + 1)  # type: ignore[attr-defined]
    return entry


def function(address: int, count: int) -> Callable[..., int]:
    """The function at ``address``, of ``count`` integers or bytes; it returns a long, and no errno."""
    found: Callable[..., int] = _Function(address)
    found.argtypes = (_Pointer,) * count  # type: ignore[attr-defined]
    return found


_raw = tuple(map(_entry, range(7)))  # the right one is faster than one that is always padded
_errno = _ctypes.get_errno

MACHINE = os.uname().machine
_X86 = MACHINE == "x86_64"
if not _X86 and MACHINE != "aarch64":
    raise ImportError(f"containust has no system call numbers for {MACHINE}")

NR_mount = 165 if _X86 else 40
NR_umount2 = 166 if _X86 else 39
NR_pivot_root = 155 if _X86 else 41
NR_prctl = 157 if _X86 else 167
NR_capget = 125 if _X86 else 90
NR_capset = 126 if _X86 else 91
NR_unshare = 272 if _X86 else 97
NR_setns = 308 if _X86 else 268
NR_sethostname = 170 if _X86 else 161
NR_keyctl = 250 if _X86 else 219
NR_seccomp = 317 if _X86 else 277
NR_bpf = 321 if _X86 else 280
NR_inotify_init1 = 294 if _X86 else 26
NR_inotify_add_watch = 254 if _X86 else 27
NR_tee = 276 if _X86 else 77
NR_kill = 62 if _X86 else 129
NR_prlimit64 = 302 if _X86 else 261
NR_pidfd_send_signal = 424
NR_open_tree = 428
NR_move_mount = 429
NR_fsopen = 430
NR_fsconfig = 431
NR_fsmount = 432
NR_clone3 = 435
NR_close_range = 436
NR_openat2 = 437
NR_pidfd_getfd = 438
NR_mount_setattr = 442

# The few errors and kinds of file that a start tells apart; importing ``errno`` and ``stat`` for them costs 0.07 ms.
ENOENT = 2
EACCES = 13
EBUSY = 16
EEXIST = 17
ENOTDIR = 20
EINVAL = 22
ENOTEMPTY = 39
S_IFCHR = 0o020000
S_IFREG = 0o100000

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

CLONE_VM = 0x00000100
CLONE_FILES = 0x00000400
CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_PATH = 3
FSCONFIG_SET_PATH_EMPTY = 4
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

KEYCTL_JOIN_SESSION_KEYRING = 1

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_CAP_AMBIENT_RAISE = 2
PR_SET_KEEPCAPS = 8

CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4


def syscall(number: int, *arguments: Argument) -> int:
    """``syscall(2)`` with up to six arguments: integers, bytes (passed by address) or None.

    Returns the result; on failure returns -1 and leaves the error number for :func:`last_error`. The interpreter lock
    is kept.
    """
    return _raw[len(arguments)](number, *arguments)


def address_of(buffer: bytearray) -> int:
    """Address of a bytearray's memory. It is valid until the bytearray is resized or freed."""
    return int(_ctypes.addressof((_Byte * len(buffer)).from_buffer(buffer)))


class _Byte(_ctypes._SimpleCData):  # type: ignore[misc, type-arg, name-defined, unused-ignore]
    _type_ = "B"


def last_error() -> int:
    """The errno that the last failed :func:`syscall` of this thread left."""
    return int(_errno())


def check(result: int, what: str, target: str | bytes | int | None = None) -> int:
    """``result`` of a system call, or OSError naming the call and its target when it is negative."""
    if result < 0:
        number = last_error()
        raise OSError(number, f"{what}: {os.strerror(number)}", target)
    return result


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    check(
        syscall(
            NR_mount,
            source.encode() if source is not None else None,
            os.fsencode(target),
            fstype.encode() if fstype is not None else None,
            flags,
            data.encode() if data is not None else None,
        ),
        "mount",
        target,
    )


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(syscall(NR_umount2, os.fsencode(target), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    check(syscall(NR_pivot_root, new_root.encode(), put_old.encode()), "pivot_root", new_root)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2): an O_PATH descriptor, or a detached copy of the mount with OPEN_TREE_CLONE."""
    return check(syscall(NR_open_tree, dirfd, os.fsencode(path), flags | OPEN_TREE_CLOEXEC), "open_tree", path)


def move_mount(from_fd: int, to_dirfd: int, to_path: str) -> None:
    """move_mount(2) of the detached mount ``from_fd`` onto ``to_path``, or onto ``to_dirfd`` itself if it is empty."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    check(syscall(NR_move_mount, from_fd, b"", to_dirfd, os.fsencode(to_path), flags), "move_mount", to_path)


def mount_setattr(
    fd: int, path: str, flags: int, set: int = 0, clear: int = 0, userns_fd: int = 0, propagation: int = 0
) -> None:
    """mount_setattr(2); ``userns_fd`` goes with MOUNT_ATTR_IDMAP in ``set``, ``propagation`` is MS_PRIVATE or such."""
    attributes = pack("<4Q", set, clear, propagation, userns_fd)
    flags |= 0 if path else AT_EMPTY_PATH
    check(
        syscall(NR_mount_setattr, fd, os.fsencode(path), flags, attributes, len(attributes)),
        "mount_setattr",
        path,
    )


def fsopen(fstype: str) -> int:
    """fsopen(2)."""
    return check(syscall(NR_fsopen, fstype.encode(), FSOPEN_CLOEXEC), "fsopen", fstype)


def fsconfig(fs_fd: int, command: int, key: str | None, value: str | bytes | None = None, aux: int = 0) -> None:
    """fsconfig(2). The error carries the messages that the file system left in its context."""
    result = syscall(
        NR_fsconfig,
        fs_fd,
        command,
        key.encode() if key is not None else None,
        os.fsencode(value) if value is not None else None,
        aux,
    )
    if result < 0:
        number = last_error()
        messages = fs_messages(fs_fd)
        raise OSError(number, f"fsconfig: {messages or os.strerror(number)}", key)


def fsmount(fs_fd: int, attributes: int = 0) -> int:
    """fsmount(2): a descriptor of the detached mount."""
    result = syscall(NR_fsmount, fs_fd, FSMOUNT_CLOEXEC, attributes)
    if result < 0:
        number = last_error()
        raise OSError(number, f"fsmount: {fs_messages(fs_fd) or os.strerror(number)}")
    return result


def fs_messages(fs_fd: int) -> str:
    """What the file system said in its context, joined by semicolons; empty when it said nothing."""
    messages = []
    while True:
        try:
            messages.append(os.read(fs_fd, 4096).decode(errors="replace").strip())
        except OSError:
            return "; ".join(messages)


def new_mount(fstype: str, options: dict[str, str | int | None], attributes: int = 0) -> int:
    """A detached mount of ``fstype``: fsopen, fsconfig of each option, fsmount.

    An option's value is a string, a descriptor (an integer, passed as FSCONFIG_SET_FD) or None for a flag.
    """
    fs_fd = fsopen(fstype)
    try:
        for key, value in options.items():
            if value is None:
                fsconfig(fs_fd, FSCONFIG_SET_FLAG, key)
            elif isinstance(value, int):
                fsconfig(fs_fd, FSCONFIG_SET_FD, key, None, value)
            else:
                fsconfig(fs_fd, FSCONFIG_SET_STRING, key, value)
        fsconfig(fs_fd, FSCONFIG_CMD_CREATE, None)
        return fsmount(fs_fd, attributes)
    finally:
        os.close(fs_fd)


def openat2(dirfd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2). ``resolve`` is a combination of RESOLVE_*; O_CLOEXEC is always set."""
    how = pack("<3Q", flags | os.O_CLOEXEC, mode, resolve)
    return check(syscall(NR_openat2, dirfd, os.fsencode(path), how, len(how)), "openat2", path)


def prctl(option: int, *arguments: int) -> int:
    """prctl(2)."""
    return check(syscall(NR_prctl, option, *arguments, *(0,) * (4 - len(arguments))), "prctl", option)


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(syscall(NR_unshare, flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """setns(2) on a namespace descriptor or, since Linux 5.8, on a pidfd with several flags at once."""
    check(syscall(NR_setns, fd, flags), "setns")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    encoded = name.encode()
    check(syscall(NR_sethostname, encoded, len(encoded)), "sethostname", name)


def setrlimit(resource: int, soft: int, hard: int) -> None:
    """prlimit64(2) of the calling process; RLIM_INFINITY is 2**64 - 1."""
    check(syscall(NR_prlimit64, 0, resource, pack("<2Q", soft, hard), None), "prlimit64", resource)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2)."""
    check(syscall(NR_close_range, first, last, flags), "close_range")


def tee(from_fd: int, to_fd: int, length: int, flags: int) -> int:
    """tee(2): copy from one pipe to another without taking from the first; the number of bytes."""
    return check(syscall(NR_tee, from_fd, to_fd, length, flags), "tee")


def inotify_init1(flags: int) -> int:
    """inotify_init1(2)."""
    return check(syscall(NR_inotify_init1, flags), "inotify_init1")


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2): the number under which events of ``path`` come."""
    return check(syscall(NR_inotify_add_watch, fd, os.fsencode(path), mask), "inotify_add_watch", path)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2)."""
    check(syscall(NR_pidfd_send_signal, pidfd, signal, None, 0), "pidfd_send_signal")


def clone3(flags: int, cgroup: int = 0) -> tuple[int, int]:
    """clone3(2) like fork: ``(pid, pidfd)`` in the parent, ``(0, -1)`` in the child.

    With CLONE_PARENT the child is one of the caller's parent. With CLONE_INTO_CGROUP ``cgroup`` is the descriptor of a
    cgroup v2 directory. The pidfd is closed on exec. The caller must have one thread; the child shares nothing but what
    ``flags`` says, has not run Python's at-fork hooks, and should go on with system calls and leave by exec or
    ``os._exit``.
    """
    pidfd = bytearray(4)
    signal = 0 if flags & CLONE_PARENT else _SIGCHLD
    arguments = pack("<11Q", flags | CLONE_PIDFD, address_of(pidfd), 0, 0, signal, 0, 0, 0, 0, 0, cgroup)
    pid = check(syscall(NR_clone3, arguments, len(arguments)), "clone3")
    return pid, unpack_from("<i", pidfd)[0] if pid else -1


_SIGCHLD = 17
