"""What a start is described by, and the last steps before exec, which a container's init and a process that joins a
container share."""

from __future__ import annotations

import _signal
import _socket
import fcntl
from _struct import pack
from errno import EACCES, ENOENT, ENOTDIR

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import capability, landlock, seccomp, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.core.cgroup import Joinable
    from containust.runtime.network.attachment import Attachment

SIGKILL = 9
# Dispositions that exec would keep: what the interpreter ignores, and what nohup and shells do.
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT)
RLIMIT_CORE = 4
RLIMIT_NPROC = 6
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
TIOCSCTTY = 0x540E
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
SCM_RIGHTS = 1


class Bind:
    """A prepared mount: a detached copy of a host tree for ``target`` inside the root."""

    __slots__ = ("directory", "fd", "idmapped", "target")

    def __init__(self, fd: int, target: str, directory: bool, idmapped: bool = True) -> None:
        self.fd = fd
        self.target = target
        self.directory = directory
        self.idmapped = idmapped


class Launch:
    """All that one container's start needs, rendered. Owns its descriptors: :meth:`close` closes them."""

    __slots__ = (
        "argv",
        "attachments",
        "binds",
        "capabilities",
        "cgroup",
        "channel_fd",
        "configure_network",
        "death_signal",
        "dev_fd",
        "env",
        "execute",
        "gid",
        "groups",
        "hostname",
        "id_base",
        "landlock",
        "layer_fd",
        "name",
        "network",
        "network_messages",
        "nodes",
        "overlay",
        "paths",
        "processes",
        "readonly",
        "reaper",
        "seccomp",
        "shm_size",
        "stdio",
        "sysctls",
        "tmpfs",
        "tty",
        "uid",
        "workdir",
        "writable_fd",
    )

    name: str
    argv: list[bytes]
    paths: list[bytes]  # candidates for execve, in order
    env: dict[bytes, bytes]
    execute: Callable[[bytes, list[bytes], dict[bytes, bytes]], object]  # os.execve, or one through the reaper
    reaper: int  # the program of one that is to stay above what joins a container; -1 without
    channel_fd: int  # the child's side of the channel, which that one tells through
    workdir: bytes
    hostname: str
    uid: int
    gid: int
    groups: list[int]
    capabilities: capability.Prepared
    seccomp: seccomp.Filter | None
    landlock: landlock.Ruleset | None
    id_base: int | None  # None: the host's user namespace
    layer_fd: int  # detached read-only mount of the image
    overlay: str  # "none", "scratch" (room for mount points only) or "upper"
    writable_fd: int  # detached mount of the directory with ``upper`` and ``work``
    readonly: bool
    dev_fd: int
    nodes: list[tuple[str, int]]  # device nodes to attach in ``dev_fd``, where it could not be given its own
    binds: list[Bind]
    tmpfs: list[tuple[str, dict[str, str | int | None]]]
    shm_size: int
    network: str  # "own", "host"
    attachments: list[Attachment]
    configure_network: Callable[[list[bytes]], None] | None
    network_messages: list[bytes]  # netlink requests that the child sends in its own network namespace
    cgroup: Joinable
    stdio: tuple[int, int, int]
    tty: bool
    sysctls: list[tuple[str, bytes]]
    processes: int  # of one user id, where no cgroup bounds them; 0: a cgroup does
    death_signal: int  # what the program gets when its parent dies: 0 for a container, SIGKILL for an exec

    def close(self) -> None:
        """Close every descriptor that only the child needs."""
        for fd in (
            self.layer_fd,
            self.writable_fd,
            self.dev_fd,
            *(bind.fd for bind in self.binds),
            *(fd for _, fd in self.nodes),
        ):
            if fd >= 0:
                os.close(fd)
        self.layer_fd = self.writable_fd = self.dev_fd = -1
        if self.landlock:
            os.close(self.landlock.fd)
            self.landlock = None
        self.binds = []
        self.nodes = []
        self.cgroup.close()


class Child:
    """A container between clone3 and exec, seen from its parent."""

    __slots__ = ("channel", "launch", "pid", "pidfd")

    def __init__(self, launch: Launch, pid: int, pidfd: int, channel: _socket.socket) -> None:
        self.launch = launch
        self.pid = pid
        self.pidfd = pidfd
        self.channel = channel
        open_channels.add(channel)

    def network_ready(self) -> None:
        """Let the child go on: its interfaces are in its network namespace."""
        self.channel.send(b"N")

    def receive_terminal(self) -> int:
        """The master side of the terminal the child opened, for a launch with ``tty``."""
        data, ancillary, _, _ = self.channel.recvmsg(4096, 64)
        if not ancillary:
            raise self._failure(data)
        return int.from_bytes(ancillary[0][2][:4], "little")

    def wait_exec(self) -> None:
        """Return when the program runs; raise what stopped it, with the child reaped.

        Below a reaper the channel stays open: it tells the program's end.
        """
        report = self.channel.recv(4096)
        if report == RUNS:
            return
        self.channel.close()
        open_channels.discard(self.channel)
        if report:
            raise self._failure(report)

    def abort(self) -> ContainustError | None:
        """Kill and reap a child that will not be let go on; the failure it had already reported, if any."""
        try:
            data = self.channel.recv(4096, _socket.MSG_DONTWAIT)
        except OSError:
            data = b""
        try:
            syscalls.pidfd_send_signal(self.pidfd, SIGKILL)
        except OSError:
            pass
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.channel.close()
        open_channels.discard(self.channel)
        return explain(self.launch, data) if data else None

    def _failure(self, report: bytes) -> ContainustError:
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        return explain(self.launch, report)


# What a reaper tells (core/data/reaper.c): its program runs; or it has ended, with a byte of status, and left others.
RUNS = b"R"
ENDED = b"S"

open_channels: set[_socket.socket] = set()


def close_others(ours: _socket.socket) -> None:
    """In a new child: close the parent's ends of all channels, so that the parent's death is seen on each."""
    for channel in open_channels:
        os.close(channel.fileno())
    os.close(ours.fileno())


# Steps of a start, each with the error code it fails with.
STEPS = ("ids", "cgroup", "root", "mounts", "network", "terminal", "user", "privileges", "workdir", "exec")
STEP_CODES = {
    "ids": "R001",
    "cgroup": "R002",
    "root": "R003",
    "mounts": "R003",
    "network": "R013",
    "terminal": "R004",
    "user": "R004",
    "privileges": "R004",
    "workdir": "R004",
    "exec": "R004",
}


def explain(launch: Launch, report: bytes) -> ContainustError:
    """The error for a child's report: ``step NUL errno NUL detail``."""
    fields = report.split(b"\0", 2)
    step, number, detail = fields[0].decode(), int(fields[1]), fields[2].decode(errors="replace")
    program = os.fsdecode(launch.argv[0])
    if step == "exec":
        if number in (ENOENT, ENOTDIR):
            return ContainustError(
                "R004",
                f"{launch.name}: {program} is not in the image",
                "check `command` and PATH; for a host:// image name the program in `image` or `include`",
                "the loader or `#!` interpreter that the program names may be what is missing"
                if not program.startswith(("/tmp/", "/run/", "/var/tmp/"))
                else "a read-only container has an empty tmpfs there: put the program elsewhere, or let it be writable",
                status=127,
            )
        if number == EACCES:
            return ContainustError(
                "R004",
                f"{launch.name}: {program} cannot be executed: permission denied",
                "it must be a file with an execute bit that the container's user may read",
                status=126,
            )
        return ContainustError(
            "R004", f"{launch.name}: {program} cannot be executed: {os.strerror(number)}", status=126
        )
    if step == "workdir":
        return ContainustError(
            "R004",
            f"{launch.name}: cannot change to the working directory {os.fsdecode(launch.workdir)}: "
            f"{os.strerror(number)}",
            "`workdir` must be a directory of the image",
        )
    return ContainustError(STEP_CODES.get(step, "R004"), f"{launch.name}: start failed at {step}: {detail}")


def finish(launch: Launch, channel: _socket.socket) -> None:
    """The last steps, which a container's init and a process that joins it share. Never returns."""
    step = "terminal"
    try:
        os.setsid()
        syscalls.join_session_keyring()
        _stdio(launch, channel)

        step = "workdir"
        os.chdir(launch.workdir)
        os.getcwdb()  # fails when the directory is not below this root

        step = "user"
        syscalls.setrlimit(RLIMIT_CORE, 0, 0)
        if launch.processes:
            syscalls.setrlimit(RLIMIT_NPROC, launch.processes, launch.processes)
        os.umask(0o022)
        _become(launch)

        step = "exec"
        failure = ENOENT
        for path in launch.paths:
            try:
                launch.execute(path, launch.argv, launch.env)
            except OSError as error:
                if error.errno not in (ENOENT, ENOTDIR):
                    failure = error.errno or EACCES
        report(channel, step, failure, "")
    except OSError as error:
        report(channel, step, error.errno or 0, f"{error.strerror} ({error.filename})")


def report(channel: _socket.socket, step: str, number: int, detail: str) -> None:
    """Tell the parent which step failed, and end. Never returns."""
    channel.send(b"%s\0%d\0%s" % (step.encode(), number, detail.encode()))
    os._exit(125)


def _stdio(launch: Launch, channel: _socket.socket) -> None:
    if launch.tty:
        master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(master, TIOCSPTLCK, pack("i", 0))
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        os.fchown(slave, launch.uid, 5)
        fcntl.ioctl(slave, TIOCSCTTY, 0)
        try:  # the size of the user's, before the program asks for it
            fcntl.ioctl(slave, TIOCSWINSZ, fcntl.ioctl(0, TIOCGWINSZ, b"\0" * 8))
        except OSError:
            pass
        channel.sendmsg([b"T"], [(_socket.SOL_SOCKET, SCM_RIGHTS, pack("i", master))])
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        return
    stdin, stdout, stderr = launch.stdio
    null = -1
    if stdin < 0 or stdout < 0 or stderr < 0:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    stdout = os.dup(stdout if stdout >= 0 else null)
    stderr = os.dup(stderr if stderr >= 0 else null)
    os.dup2(stdin if stdin >= 0 else null, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)


def _become(launch: Launch) -> None:
    """Take the container's user and give up everything it may not have; the filter comes last."""
    os.setgroups(launch.groups)
    os.setresgid(launch.gid, launch.gid, launch.gid)
    capability.apply(launch.capabilities, launch.uid)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, launch.death_signal)
    syscalls.close_range(3, 0xFFFFFFFF, syscalls.CLOSE_RANGE_CLOEXEC)
    landlock.apply(launch.landlock)
    seccomp.load(launch.seccomp)
