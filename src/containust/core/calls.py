"""Prepared sequences of system calls, which a new process makes without the interpreter.

What a container's first process does between clone3 and execve is written down beforehand, call by call, in a
:class:`Calls`; 700 bytes of machine code (``data/calls.c``) then make the calls in the child. Nothing of Python runs
there: nothing is allocated, imported, decoded or looked up by name, no page of the interpreter is copied, and the child
may share the parent's memory (:data:`CLONE_VM`), which saves copying its page tables.

A call's arguments are integers, bytes (passed by address) and :class:`Result` of earlier calls. A call that fails ends
the sequence, unless its error is ``forgiven``. Methods are named like the calls and take the same arguments; those of
:mod:`containust.core.syscalls` make the same calls at once.
"""

from __future__ import annotations

from _struct import pack, pack_into, unpack_from

from containust.common import os
from containust.core import syscalls
from containust.core.syscalls import (
    _X86,
    AT_EMPTY_PATH,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FD,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    FSMOUNT_CLOEXEC,
    FSOPEN_CLOEXEC,
    MACHINE,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    OPEN_TREE_CLOEXEC,
    NR_close_range,
    NR_fsconfig,
    NR_fsmount,
    NR_fsopen,
    NR_mount,
    NR_mount_setattr,
    NR_move_mount,
    NR_open_tree,
    NR_openat2,
    NR_pivot_root,
    NR_prctl,
    NR_prlimit64,
    NR_sethostname,
    NR_setns,
    NR_umount2,
    NR_unshare,
    address_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NR_read = 0 if _X86 else 63
NR_write = 1 if _X86 else 64
NR_close = 3 if _X86 else 57
NR_rt_sigaction = 13 if _X86 else 134
NR_rt_sigprocmask = 14 if _X86 else 135
NR_ioctl = 16 if _X86 else 29
NR_socket = 41 if _X86 else 198
NR_sendto = 44 if _X86 else 206
NR_recvfrom = 45 if _X86 else 207
NR_sendmsg = 46 if _X86 else 211
NR_fcntl = 72 if _X86 else 25
NR_getcwd = 79 if _X86 else 17
NR_chdir = 80 if _X86 else 49
NR_fchdir = 81 if _X86 else 50
NR_umask = 95 if _X86 else 166
NR_setsid = 112 if _X86 else 157
NR_setgroups = 116 if _X86 else 159
NR_setresuid = 117 if _X86 else 147
NR_setresgid = 119 if _X86 else 149
NR_openat = 257 if _X86 else 56
NR_mkdirat = 258 if _X86 else 34
NR_mknodat = 259 if _X86 else 33
NR_fchownat = 260 if _X86 else 54
NR_ppoll = 271 if _X86 else 73
NR_dup3 = 292 if _X86 else 24

# What data/calls.c does itself.
END = -1
LOAD = -2
STORE = -3
COMPARE = -4
EXECUTE = -5
GO_ON = -6

ANY = 0xFFFF  # as an error: whichever
CLONE_VM = syscalls.CLONE_VM
SIGCHLD = 17
F_DUPFD_CLOEXEC = 1030
POLLIN = 1
SOCK_CLOEXEC = os.O_CLOEXEC

# struct call of data/calls.c: number, errors forgiven, slot of the result, arguments that are slots, calls to pass over
# when it succeeded and when it was forgiven, arguments.
_CALL = "<i2H4Bi6q"
_LAST = pack(_CALL, END, *(0,) * 13)
_MORE = pack(_CALL, GO_ON, *(0,) * 13)

# struct sequence: two pointers, a descriptor, slots, a report of three integers and a text, its length, the number of
# calls that were handed over before. Behind it scratch memory and the child's stack.
_SLOTS = 64
_REPORT = 24 + 8 * _SLOTS
_LENGTH = _REPORT + 256
_PASSED = _LENGTH + 8
_SCRATCH = 1024
SCRATCH_SIZE = 5120
_MEMORY = 16384

_PROT_READ, _PROT_EXEC = 1, 4
_MAP_PRIVATE = 2
_NR_mmap = 9 if _X86 else 222

_BYTES = bytes.__basicsize__ - 1  # where the content of a bytes object begins (CPython)


class Result(int):
    """The result of a call that is yet to be made: the number of the slot it will be in."""

    __slots__ = ()


if TYPE_CHECKING:
    Argument = int | bytes | None


class Calls:
    """A sequence of system calls.

    ``step`` is what the calls added next are part of. ``made`` tells of each call which step it belongs to, its name
    and what it is about.
    """

    __slots__ = ("_address", "_free", "_kept", "_memory", "_records", "made", "scratch", "step")

    def __init__(self) -> None:
        self.step = ""
        self.made: list[tuple[str, str, object]] = []
        self._records: list[bytes] = []
        self._kept: list[object] = []
        self._free = list(range(_SLOTS - 1, 0, -1))
        self._memory = bytearray(_MEMORY)
        self._address = address_of(self._memory)
        self.scratch = self._address + _SCRATCH  # SCRATCH_SIZE bytes for what calls write

    def add(
        self,
        name: str,
        about: object,
        number: int,
        *arguments: Argument,
        forgiven: int = 0,
        slot: int = 0,
        after: int = 0,
    ) -> None:
        """Add the system call ``number``.

        ``slot`` takes its result. It may fail with an error that is ``forgiven`` (ANY for each). After success
        ``after`` further calls are passed over.
        """
        values = [0, 0, 0, 0, 0, 0]
        slots = 0
        for position, argument in enumerate(arguments):
            kind = type(argument)
            if kind is int:
                values[position] = argument  # type: ignore[assignment]
            elif kind is bytes:
                values[position] = self.keep(argument)  # type: ignore[arg-type]
            elif argument is not None:
                values[position] = argument  # type: ignore[assignment]
                slots |= 1 << position
        self.made.append((self.step, name, about))
        self._records.append(pack(_CALL, number, forgiven, 0, slot, slots, after, 0, 0, *values))

    def result(self) -> Result:
        """A slot for a result; :meth:`close` gives it back."""
        return Result(self._free.pop())

    def free(self, result: Result) -> None:
        """Give a slot back: what is in it is not used any more, though it may stay open."""
        self._free.append(result)

    def keep(self, data: bytes) -> int:
        """The address of ``data``, which stays where it is as long as this sequence."""
        self._kept.append(data)
        return id(data) + _BYTES

    def strings(self, items: Sequence[bytes]) -> bytes:
        """A vector of addresses as execve(2) takes it."""
        return pack(f"<{len(items) + 1}Q", *map(self.keep, items), 0)

    def if_there(self) -> int:
        """For :meth:`end_if`: what is added from now on is for when the call added last succeeds."""
        return len(self._records) - 1

    def end_if(self, call: int) -> None:
        """The calls since ``call`` are passed over when its error is forgiven."""
        record = self._records[call]
        self._records[call] = record[:11] + bytes((len(self._records) - 1 - call,)) + record[12:]

    # --- one method a call

    def chdir(self, path: bytes) -> None:
        self.add("chdir", path, NR_chdir, path)

    def close(self, fd: int) -> None:
        self.add("close", fd, NR_close, fd, forgiven=ANY)
        if type(fd) is Result:
            self.free(fd)

    def close_range(self, first: int, last: int, flags: int = 0) -> None:
        self.add("close_range", first, NR_close_range, first, last, flags)

    def compare(self, address: int, byte: int, error: int, name: str, about: object) -> None:
        """Fail with ``error`` unless the byte at ``address`` is ``byte``."""
        self.add(name, about, COMPARE, address, byte, error)

    def dup3(self, fd: int, number: int, flags: int) -> None:
        self.add("dup3", fd, NR_dup3, fd, number, flags)

    def duplicate(self, fd: int, lowest: int = 3) -> Result:
        """fcntl(2) with F_DUPFD_CLOEXEC."""
        slot = self.result()
        self.add("fcntl", fd, NR_fcntl, fd, F_DUPFD_CLOEXEC, lowest, slot=slot)
        return slot

    def execute(
        self, paths: Sequence[bytes], argv: Sequence[bytes], env: Sequence[bytes], above: int | None = None
    ) -> None:
        """execve(2) of the first of ``paths`` that is there; the error, if none can be, is the most telling one.

        With the descriptor ``above`` of a program that one is executed, with argument 1 the path.
        """
        vectors = [self.strings(items) for items in (paths, argv, env)]
        self.add("execve", argv[0], EXECUTE, *vectors, -1 if above is None else above)

    def fchdir(self, fd: int) -> None:
        self.add("fchdir", fd, NR_fchdir, fd)

    def fsconfig(self, fs_fd: int, command: int, key: str | None, value: str | None = None, aux: int = 0) -> None:
        self.add(
            "fsconfig",
            key,
            NR_fsconfig,
            fs_fd,
            command,
            key.encode() if key is not None else None,
            os.fsencode(value) if value is not None else None,
            aux,
        )

    def fsmount(self, fs_fd: int, attributes: int = 0) -> Result:
        slot = self.result()
        self.add("fsmount", None, NR_fsmount, fs_fd, FSMOUNT_CLOEXEC, attributes, slot=slot)
        return slot

    def fsopen(self, fstype: str) -> Result:
        slot = self.result()
        self.add("fsopen", fstype, NR_fsopen, fstype.encode(), FSOPEN_CLOEXEC, slot=slot)
        return slot

    def mkdirat(self, dirfd: int, name: str, mode: int, forgiven: int = 0) -> None:
        self.add("mkdir", name, NR_mkdirat, dirfd, os.fsencode(name), mode, forgiven=forgiven)

    def mknodat(self, dirfd: int, name: str, mode: int, forgiven: int = 0) -> None:
        self.add("mknod", name, NR_mknodat, dirfd, os.fsencode(name), mode, 0, forgiven=forgiven)

    def mount(self, source: str | None, target: str, fstype: str | None, flags: int) -> None:
        self.add(
            "mount",
            target,
            NR_mount,
            source.encode() if source is not None else None,
            os.fsencode(target),
            fstype.encode() if fstype is not None else None,
            flags,
        )

    def mount_setattr(self, fd: int, flags: int, set: int = 0) -> None:
        """mount_setattr(2) of the mount ``fd`` itself."""
        attributes = pack("<4Q", set, 0, 0, 0)
        self.add("mount_setattr", None, NR_mount_setattr, fd, b"", flags | AT_EMPTY_PATH, attributes, len(attributes))

    def load(self, address: int, name: str, about: object) -> None:
        """Fail with the error whose negative is the int at ``address``."""
        self.add(name, about, LOAD, address)

    def move_mount(self, from_fd: int, to_dirfd: int, to_path: str = "", forgiven: int = 0) -> None:
        """move_mount(2) of the detached mount ``from_fd`` to ``to_path``, or to ``to_dirfd`` itself if it is empty."""
        flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
        path = os.fsencode(to_path)
        self.add("move_mount", to_path, NR_move_mount, from_fd, b"", to_dirfd, path, flags, forgiven=forgiven)

    def new_mount(self, fstype: str, options: dict[str, str | int | None], attributes: int = 0) -> Result:
        """As :func:`containust.core.syscalls.new_mount`. The context stays open until execve."""
        fs_fd = self.fsopen(fstype)
        for key, value in options.items():
            if value is None:
                self.fsconfig(fs_fd, FSCONFIG_SET_FLAG, key)
            elif isinstance(value, int):
                self.fsconfig(fs_fd, FSCONFIG_SET_FD, key, None, value)
            else:
                self.fsconfig(fs_fd, FSCONFIG_SET_STRING, key, value)
        self.fsconfig(fs_fd, FSCONFIG_CMD_CREATE, None)
        self.free(fs_fd)
        return self.fsmount(fs_fd, attributes)

    def open_tree(self, dirfd: int, path: str, flags: int, forgiven: int = 0) -> Result:
        slot = self.result()
        self.add(
            "open_tree",
            path,
            NR_open_tree,
            dirfd,
            os.fsencode(path),
            flags | OPEN_TREE_CLOEXEC,
            slot=slot,
            forgiven=forgiven,
        )
        return slot

    def openat(self, dirfd: int, path: str, flags: int, mode: int = 0, forgiven: int = 0) -> Result:
        slot = self.result()
        path_bytes = os.fsencode(path)
        flags |= os.O_CLOEXEC
        self.add("openat", path, NR_openat, dirfd, path_bytes, flags, mode, slot=slot, forgiven=forgiven)
        return slot

    def openat2(self, dirfd: int, path: str, flags: int, resolve: int, forgiven: int = 0, after: int = 0) -> Result:
        slot = self.result()
        self.reopen(slot, dirfd, path, flags, resolve, forgiven, after)
        return slot

    def reopen(
        self, slot: Result, dirfd: int, path: str, flags: int, resolve: int, forgiven: int = 0, after: int = 0
    ) -> None:
        """openat2(2) into a slot that is there already."""
        how = pack("<3Q", flags | os.O_CLOEXEC, 0, resolve)
        self.add(
            "openat2",
            path,
            NR_openat2,
            dirfd,
            os.fsencode(path),
            how,
            len(how),
            slot=slot,
            forgiven=forgiven,
            after=after,
        )

    def pivot_root(self, new_root: str, put_old: str) -> None:
        self.add("pivot_root", new_root, NR_pivot_root, new_root.encode(), put_old.encode())

    def prctl(self, option: int, *arguments: int) -> None:
        self.add("prctl", option, NR_prctl, option, *arguments)

    def receive(self, fd: int, about: object) -> None:
        """recvfrom(2) into the scratch memory."""
        self.add("recvfrom", about, NR_recvfrom, fd, self.scratch, SCRATCH_SIZE, 0, None, None)

    def send(self, fd: int, data: bytes, about: object) -> None:
        """sendto(2) without an address."""
        self.add("sendto", about, NR_sendto, fd, data, len(data), 0, None, 0)

    def setgroups(self, groups: Sequence[int]) -> None:
        self.add("setgroups", None, NR_setgroups, len(groups), pack(f"<{len(groups)}I", *groups))

    def sethostname(self, name: str) -> None:
        encoded = name.encode()
        self.add("sethostname", name, NR_sethostname, encoded, len(encoded))

    def setns(self, fd: int, flags: int) -> None:
        self.add("setns", None, NR_setns, fd, flags)

    def setresgid(self, gid: int) -> None:
        self.add("setresgid", gid, NR_setresgid, gid, gid, gid)

    def setresuid(self, uid: int) -> None:
        self.add("setresuid", uid, NR_setresuid, uid, uid, uid)

    def setrlimit(self, resource: int, soft: int, hard: int) -> None:
        self.add("prlimit64", resource, NR_prlimit64, 0, resource, pack("<2Q", soft, hard), None)

    def signal_default(self, number: int) -> None:
        """rt_sigaction(2) with SIG_DFL."""
        self.add("rt_sigaction", number, NR_rt_sigaction, number, _NO_ACTION, None, 8)

    def socket(self, family: int, kind: int, protocol: int) -> Result:
        slot = self.result()
        self.add("socket", family, NR_socket, family, kind | SOCK_CLOEXEC, protocol, slot=slot)
        return slot

    def store(self, address: int, value: int) -> None:
        """Write an int to memory."""
        self.add("store", None, STORE, address, value)

    def umount2(self, target: str, flags: int) -> None:
        self.add("umount2", target, NR_umount2, target.encode(), flags)

    def unblock_signals(self) -> None:
        """rt_sigprocmask(2) with an empty mask."""
        self.add("rt_sigprocmask", None, NR_rt_sigprocmask, 2, _NO_SIGNALS, None, 8)

    def unshare(self, flags: int) -> None:
        self.add("unshare", None, NR_unshare, flags)

    def wait(self, eventfd: int, other_end: int) -> None:
        """Wait until ``eventfd``, which does not block, counts; fail once whoever holds the other end of the pipe
        ``other_end`` is dead."""
        events = pack("<ihhihh", eventfd, POLLIN, 0, other_end, 0, 0)
        self.add("poll", None, NR_ppoll, events, 2, None, None, 0)
        self.add("read", None, NR_read, eventfd, self.scratch, 8)

    def write(self, fd: int, data: bytes, about: object = None) -> None:
        self.add("write", about, NR_write, fd, data, len(data))

    # --- making them

    def run(self) -> None:
        """Make the calls in this process. Raises OSError with the name of the one that failed, and what it is about."""
        made = _code()[0](self._ready(-1, _LAST))
        if made:
            _, name, about = self.made[made - 1]
            _, _, number = unpack_from("<3i", self._memory, _REPORT)
            end = _REPORT + unpack_from("<q", self._memory, _LENGTH)[0]
            words = self._memory[_REPORT + 12 : end].decode(errors="replace").strip()
            raise OSError(number, f"{name}: {words or os.strerror(number)}", about)

    def clone(self, flags: int, channel: int, cgroup: int = 0) -> tuple[int, int]:
        """clone3(2); the child makes the calls. Returns ``(pid, pidfd)``.

        The last of the calls is to be one that does not return. When one fails the child writes a report to
        ``channel``, which :meth:`failed` reads, and ends with status 125. ``flags`` and ``cgroup`` are those of
        :func:`containust.core.syscalls.clone3`; the pidfd is closed on exec. Raises OSError.

        With CLONE_VM this object has to live until the child has executed a program or ended. More calls can be added
        then, and have to be: the child makes those up to now, of which the last is to be one that waits, and goes on
        with what :meth:`hand_over` gives it.
        """
        sequence = self._ready(channel, _MORE if flags & CLONE_VM else _LAST)
        pidfd = self._address + _MEMORY - 16
        signal = 0 if flags & syscalls.CLONE_PARENT else SIGCHLD
        arguments = pack("<11Q", flags | syscalls.CLONE_PIDFD, pidfd, 0, 0, signal, 0, 0, 0, 0, 0, cgroup)
        self._kept.append(arguments)
        pid = _code()[1](arguments, len(arguments), sequence, pidfd)  # the stack grows down from there
        if pid < 0:
            raise OSError(-pid, f"clone3: {os.strerror(-pid)}")
        return pid, unpack_from("<i", self._memory, _MEMORY - 16)[0]

    def hand_over(self) -> None:
        """Give a child that shares this memory the calls that were added since :meth:`clone`."""
        pack_into("<q", self._memory, _PASSED, len(self.made) - len(self._records))
        pack_into("<q", self._memory, 8, self._joined(_LAST))

    def failed(self, report: bytes) -> tuple[str, int, str]:
        """``(step, errno, detail)`` of a child's report."""
        _, position, number = unpack_from("<3i", report)
        step, name, about = self.made[position]
        words = report[12:].decode(errors="replace").strip()
        return step, number, f"{name}: {words or os.strerror(number)} ({about})"

    def _ready(self, channel: int, last: bytes) -> int:
        pack_into("<3q", self._memory, 0, self._joined(last), 0, channel)
        return self._address

    def _joined(self, last: bytes) -> int:
        self._records.append(last)
        records = b"".join(self._records)
        self._records = []
        return self.keep(records)


def at_once(add: Callable[..., object], *arguments: object) -> None:
    """Make in this process what ``add`` adds to a sequence. Raises OSError as :meth:`Calls.run`."""
    calls = Calls()
    add(calls, *arguments)
    calls.run()


_NO_ACTION = bytes(32)  # struct kernel_sigaction: SIG_DFL, no flags, no mask
_NO_SIGNALS = bytes(8)
CODE = f"{os.path.dirname(__file__)}/data/calls-{MACHINE}"
_mapped: list[Callable[..., int]] = []


def is_report(data: bytes) -> bool:
    """Whether ``data`` is a report of a sequence."""
    return len(data) >= 12 and data[:4] == b"\0\0\0\0"


def _code() -> list[Callable[..., int]]:
    """The two entries of ``data/calls.c``, mapped on first use. Raises OSError."""
    if not _mapped:
        fd = os.open(CODE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = syscalls.syscall(_NR_mmap, None, 4096, _PROT_READ | _PROT_EXEC, _MAP_PRIVATE, fd, 0)
            address = syscalls.check(found, "mmap", CODE)
        finally:
            os.close(fd)
        _mapped.append(syscalls.function(address, 1))
        _mapped.append(syscalls.function(address + 16, 4))
    return _mapped
