"""What a start is described by, and the last steps before exec, which a container's init and a process that joins a
container share."""

from __future__ import annotations

import _signal

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import capability, landlock, seccomp, syscalls
from containust.core.calls import (
    ANY,
    Calls,
    NR_fcntl,
    NR_getcwd,
    NR_setsid,
    NR_umask,
)
from containust.core.syscalls import CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, ENOENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from containust.core.cgroup import Joinable
    from containust.runtime.network.attachment import Attachment

SIGKILL = 9
# Dispositions that exec would keep: what the interpreter ignores, and what nohup and shells do.
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT)
RLIMIT_CORE = 4
RLIMIT_NPROC = 6
F_SETFD = 2
REAPERS_CHANNEL = 3  # core/data/reaper.c


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
        "death_signal",
        "dev_fd",
        "env",
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
        "shares_memory",
        "shm_size",
        "spare",
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
    reaper: int  # the program that is to stay above the container's, or above what joins it; -1 without
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
    network_messages: list[bytes]  # netlink requests that the child sends in its own network namespace
    spare: tuple[int, int] | None  # descriptors whose numbers an overlay of an older kernel needs
    shares_memory: bool  # whether the child may use this process's memory until execve
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
            *(self.spare or ()),
        ):
            if fd >= 0:
                os.close(fd)
        self.layer_fd = self.writable_fd = self.dev_fd = -1
        if self.landlock:
            os.close(self.landlock.fd)
            self.landlock = None
        self.binds = []
        self.nodes = []
        self.spare = None
        self.cgroup.close()


class Child:
    """A container between clone3 and exec, seen from its parent.

    It keeps the ``calls`` that the child makes, and both ends of the ``channel``, a pipe of packets, until it is
    cloned. ``terminals`` are the ends of a socket that the child passes its terminal through, for a launch with
    ``tty``. ``go`` is the eventfd on which the child waits for its parent; -1 where it does not. ``pid`` is 0 before it
    is cloned.
    """

    __slots__ = ("calls", "channel", "go", "launch", "pid", "pidfd", "terminals", "theirs")

    def __init__(self, launch: Launch, go: int = -1) -> None:
        self.launch = launch
        self.calls = Calls()
        self.pid = 0
        self.pidfd = -1
        self.go = go
        self.terminals: tuple[socket, ...] = ()
        if launch.tty:
            import _socket

            self.terminals = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.channel, self.theirs = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)

    def clone(self, flags: int) -> None:
        """Make the process, in its cgroup where the kernel can. Raises OSError."""
        cgroup = self.launch.cgroup.clone_fd
        if cgroup >= 0:
            flags |= CLONE_INTO_CGROUP
        self.is_cloned(*self.calls.clone(flags | CLONE_CLEAR_SIGHAND, self.theirs, max(cgroup, 0)))

    def is_cloned(self, pid: int, pidfd: int) -> None:
        """The process is there."""
        self.pid = pid
        self.pidfd = pidfd
        open_channels.add(self.channel)

    def close_theirs(self) -> None:
        """Close the child's end of the channel, which the child has by now."""
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1
        for end in self.terminals[1:]:
            end.close()

    def go_on(self) -> None:
        """Let the child go on: what it waits for has been done."""
        os.eventfd_write(self.go, 1)

    def receive_terminal(self) -> int:
        """The master side of the terminal the child opened, for a launch with ``tty``."""
        ours = self.terminals[0]
        _, ancillary, _, _ = ours.recvmsg(16, 64)
        ours.close()
        if not ancillary:
            raise self._failure(os.read(self.channel, 4096))
        return int.from_bytes(ancillary[0][2][:4], "little")

    def wait_exec(self) -> None:
        """Return when the program runs; raise what stopped it, with the child reaped.

        Below a reaper the channel stays open: it tells the program's end.
        """
        report = os.read(self.channel, 4096)
        self._stop_waiting()
        if report == RUNS:
            return
        self._close_channel()
        if report:
            raise self._failure(report)

    def abort(self) -> ContainustError | None:
        """Kill and reap a child that will not be let go on; the failure it had already reported, if any."""
        data = b""
        self.close_theirs()
        if self.pid:
            os.set_blocking(self.channel, False)
            try:
                data = os.read(self.channel, 4096)
            except BlockingIOError:
                pass
            try:
                syscalls.pidfd_send_signal(self.pidfd, SIGKILL)
            except OSError:
                pass
            os.waitpid(self.pid, 0)
            os.close(self.pidfd)
        self._stop_waiting()
        self._close_channel()
        for end in self.terminals:
            end.close()
        return self._explained(data) if data else None

    def _failure(self, report: bytes) -> ContainustError:
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self._stop_waiting()
        self._close_channel()
        return self._explained(report)

    def _explained(self, report: bytes) -> ContainustError:
        from containust.runtime.failures import explain

        return explain(self.launch, self.calls, report)

    def _close_channel(self) -> None:
        if self.channel >= 0:
            open_channels.discard(self.channel)
            os.close(self.channel)
            self.channel = -1

    def _stop_waiting(self) -> None:
        if self.go >= 0:
            os.close(self.go)
            self.go = -1


# What a reaper tells (core/data/reaper.c): its program runs; or it has ended, with a byte of status, and left others.
RUNS = b"R"
ENDED = b"S"

open_channels: set[int] = set()


def close_others(calls: Calls, ours: int) -> None:
    """In a new child: close the parent's ends of all channels, so that the parent's death is seen on each."""
    for channel in (*open_channels, ours):
        calls.close(channel)


def like_new(calls: Calls) -> None:
    """Signals as a program expects them: none blocked, none ignored."""
    for signal in IGNORED_BY_PYTHON:
        calls.signal_default(signal)
    calls.unblock_signals()


def become_root(calls: Calls) -> None:
    """Be root of the user namespace that was entered, and of no interest to whoever traces processes."""
    calls.setgroups([])
    calls.setresgid(0)
    calls.setresuid(0)
    calls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)  # a change of ids clears it
    calls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def namespace_error(name: str, error: OSError) -> ContainustError:
    """R001 for a clone that failed, with the usual causes."""
    return ContainustError(
        "R001",
        f"cannot make the namespaces of {name}: {error.strerror}",
        "`ctst doctor` shows what this host allows; user.max_user_namespaces and similar sysctls limit it",
    )


def finish(child: Child, joins: bool) -> None:
    """The last steps, which a container's init and a process that ``joins`` it share. They end with execve."""
    calls, launch = child.calls, child.launch
    calls.step = "terminal"
    calls.add("setsid", None, NR_setsid)
    calls.add("keyctl", None, syscalls.NR_keyctl, syscalls.KEYCTL_JOIN_SESSION_KEYRING, None, forgiven=ANY)
    if launch.tty:
        from containust.runtime.pty import take_terminal

        take_terminal(child)
    else:
        _stdio(calls, launch)

    calls.step = "workdir"
    calls.chdir(launch.workdir)
    calls.add("getcwd", launch.workdir, NR_getcwd, calls.scratch, 4096)
    # One that is not below this root begins otherwise.
    calls.compare(calls.scratch, ord("/"), ENOENT, "getcwd", launch.workdir)

    calls.step = "user"
    calls.setrlimit(RLIMIT_CORE, 0, 0)
    if launch.processes:
        calls.setrlimit(RLIMIT_NPROC, launch.processes, launch.processes)
    calls.add("umask", None, NR_umask, 0o022)
    _become(calls, launch)

    calls.step = "exec"
    env = [b"%s=%s" % item for item in launch.env.items()]
    if launch.reaper < 0:
        calls.execute(launch.paths, launch.argv, env)
        return
    above = launch.reaper
    if joins:
        above = _hand_channel(calls, launch.reaper, child.theirs)
    calls.execute(launch.paths, [b"init", b"", *launch.argv], env, above)


def _hand_channel(calls: Calls, reaper: int, channel: int) -> int:
    """Give the channel to the reaper as the descriptor that it expects; the reaper's own, which may have been that."""
    if reaper == REAPERS_CHANNEL:
        reaper = calls.duplicate(reaper, REAPERS_CHANNEL + 1)
    if channel == REAPERS_CHANNEL:
        calls.add("fcntl", channel, NR_fcntl, channel, F_SETFD, 0)
    else:
        calls.dup3(channel, REAPERS_CHANNEL, 0)
    return reaper


def _stdio(calls: Calls, launch: Launch) -> None:
    null = -1
    if min(launch.stdio) < 0:
        null = calls.openat(syscalls.AT_FDCWD, "/dev/null", os.O_RDWR)
    # Out of the way of 0, 1 and 2 first: what one of them is to be may be another of them now.
    kept = [calls.duplicate(null if fd < 0 else fd) for fd in launch.stdio]
    for number, fd in enumerate(kept):
        calls.dup3(fd, number, 0)


def _become(calls: Calls, launch: Launch) -> None:
    """Take the container's user and give up everything it may not have; the filter comes last."""
    calls.setgroups(launch.groups)
    calls.setresgid(launch.gid)
    capability.apply(calls, launch.capabilities, launch.uid)
    calls.prctl(syscalls.PR_SET_PDEATHSIG, launch.death_signal)
    calls.close_range(3, 0xFFFFFFFF, syscalls.CLOSE_RANGE_CLOEXEC)
    landlock.apply(calls, launch.landlock)
    seccomp.load(calls, launch.seccomp)
