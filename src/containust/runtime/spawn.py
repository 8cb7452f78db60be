"""The birth of a container: one clone3, then only prepared system calls until exec.

The parent describes everything in a :class:`Launch` (descriptors of detached mounts, bytes of arguments, masks) and
calls :func:`spawn`. The child is the container's init, PID 1 of its namespaces; it works through the steps of
:func:`_init` in their order, which is the documentation of what a container is. Three messages pass between them:

1. parent to child, ``M``: the id maps are written and the layers idmapped; the child builds its root,
2. parent to child, ``N``: the network interfaces are in place; the child configures them and executes the program,
3. child to parent: nothing (exec closed the channel, all is well) or one report of the step that failed.

If the parent dies before exec the child dies too (PDEATHSIG), so no half-made container survives.
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import os
from errno import EACCES, ENOENT, ENOTDIR
from struct import pack

from containust.common.errors import ContainustError
from containust.core import capability, idmap, seccomp, syscalls
from containust.core.filesystem import rootfs
from containust.core.syscalls import (
    CLONE_CLEAR_SIGHAND,
    CLONE_INTO_CGROUP,
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.core.cgroup import Cgroup
    from containust.runtime.network.attachment import Attachment

SIGKILL = 9
# Dispositions that exec would keep: what the interpreter ignores, and what nohup and shells do.
IGNORED_BY_PYTHON = (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT)
RLIMIT_CORE = 4
TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
TIOCSCTTY = 0x540E
SCM_RIGHTS = 1
SIOCSIFFLAGS = 0x8914
LOOPBACK_UP = pack("16sH14x", b"lo", 0x1 | 0x8)  # struct ifreq with IFF_UP | IFF_LOOPBACK


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
        "configure_network",
        "death_signal",
        "dev_fd",
        "env",
        "gid",
        "groups",
        "hostname",
        "id_base",
        "layer_fd",
        "name",
        "network",
        "network_messages",
        "overlay",
        "paths",
        "readonly",
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
    workdir: bytes
    hostname: str
    uid: int
    gid: int
    groups: list[int]
    capabilities: capability.Prepared
    seccomp: seccomp.Filter | None
    id_base: int | None  # None: the host's user namespace
    layer_fd: int  # detached read-only mount of the image
    overlay: str  # "none", "scratch" (room for mount points only) or "upper"
    writable_fd: int  # detached mount of the directory with ``upper`` and ``work``
    readonly: bool
    dev_fd: int
    binds: list[Bind]
    tmpfs: list[tuple[str, dict[str, str | int | None]]]
    shm_size: int
    network: str  # "own", "host"
    attachments: list[Attachment]
    configure_network: Callable[[list[bytes]], None] | None
    network_messages: list[bytes]  # netlink requests that the child sends in its own network namespace
    cgroup: Cgroup
    stdio: tuple[int, int, int]
    tty: bool
    sysctls: list[tuple[str, bytes]]
    death_signal: int  # what the program gets when its parent dies: 0 for a container, SIGKILL for an exec

    def close(self) -> None:
        """Close every descriptor that only the child needs."""
        for fd in (
            self.layer_fd,
            self.writable_fd,
            self.dev_fd,
            *(bind.fd for bind in self.binds),
        ):
            if fd >= 0:
                os.close(fd)
        self.layer_fd = self.writable_fd = self.dev_fd = -1
        self.binds = []
        self.cgroup.close()


class Child:
    """A container between clone3 and exec, seen from its parent."""

    __slots__ = ("channel", "launch", "pid", "pidfd")

    def __init__(self, launch: Launch, pid: int, pidfd: int, channel: _socket.socket) -> None:
        self.launch = launch
        self.pid = pid
        self.pidfd = pidfd
        self.channel = channel
        _open_channels.add(channel)

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
        """Return when the program runs; raise what stopped it, with the child reaped."""
        report = self.channel.recv(4096)
        self.channel.close()
        _open_channels.discard(self.channel)
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
        _open_channels.discard(self.channel)
        return explain(self.launch, data) if data else None

    def _failure(self, report: bytes) -> ContainustError:
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        return explain(self.launch, report)


_open_channels: set[_socket.socket] = set()


def spawn(launch: Launch) -> Child:
    """Clone the container's init, map its ids and let it build its root.

    Raises ContainustError R001 when a namespace cannot be made.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_CLEAR_SIGHAND
    if launch.id_base is not None:
        flags |= CLONE_NEWUSER
    if launch.network != "host":
        flags |= CLONE_NEWNET
    if launch.cgroup.clone_fd >= 0:
        flags |= CLONE_INTO_CGROUP
    try:
        pid, pidfd = syscalls.clone3(flags, max(launch.cgroup.clone_fd, 0))
    except OSError as error:
        ours.close()
        theirs.close()
        raise namespace_error(launch.name, error) from None
    if pid == 0:
        try:
            close_others(ours)
            _init(launch, theirs)
        finally:
            os._exit(125)
    theirs.close()
    child = Child(launch, pid, pidfd, ours)
    try:
        if launch.id_base is not None:
            _map(child, launch)
        ours.send(b"M")
    except OSError as error:
        child.abort()
        raise ContainustError(
            "R001",
            f"cannot map the ids of {launch.name}: {error.strerror}",
            'set `userns = "host"` on the component where the kernel or a file system cannot map ids',
        ) from None
    return child


def close_others(ours: _socket.socket) -> None:
    """In a new child: close the parent's ends of all channels, so that the parent's death is seen on each."""
    for channel in _open_channels:
        os.close(channel.fileno())
    os.close(ours.fileno())


def _map(child: Child, launch: Launch) -> None:
    assert launch.id_base is not None
    idmap.write_maps(child.pid, launch.id_base)
    userns = idmap.open_userns(child.pid)
    try:
        idmap.idmap(launch.layer_fd, userns)
        for bind in launch.binds:
            if bind.idmapped:
                idmap.idmap(bind.fd, userns)
    finally:
        os.close(userns)


def namespace_error(name: str, error: OSError) -> ContainustError:
    """R001 for a clone that failed, with the usual causes."""
    return ContainustError(
        "R001",
        f"cannot make the namespaces of {name}: {error.strerror}",
        "`ctst doctor` shows what this host allows; user.max_user_namespaces and similar sysctls limit it",
    )


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
                "the loader or `#!` interpreter that the program names may be what is missing",
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


def _init(launch: Launch, channel: _socket.socket) -> None:
    """The child: build the container around this process, then execute the program. Never returns."""
    step = "ids"
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)
        for signal in IGNORED_BY_PYTHON:
            _signal.signal(signal, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        if channel.recv(1) != b"M":
            os._exit(125)
        if launch.id_base is not None:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)  # a change of ids clears it
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)

        step = "cgroup"
        for fd in launch.cgroup.join_fds:
            os.write(fd, b"0")
        syscalls.unshare(CLONE_NEWCGROUP)

        step = "root"
        rootfs.isolate_mounts()
        root = launch.layer_fd
        rootfs.stack_on_root(root)
        if launch.overlay != "none":
            if launch.overlay == "upper":
                rootfs.stack_on_root(launch.writable_fd)
                root = rootfs.writable_overlay(root, launch.writable_fd)
                rootfs.unstack_root()
            else:
                root = rootfs.scratch_overlay(root)
            rootfs.unstack_root()
            rootfs.stack_on_root(root)

        step = "mounts"
        _mounts(launch, root)
        rootfs.leave_old_root(root)

        step = "network"
        if channel.recv(1) != b"N":
            os._exit(125)
        syscalls.sethostname(launch.hostname)
        if launch.network != "host":
            loopback_up()
            if launch.configure_network:
                launch.configure_network(launch.network_messages)

        finish(launch, channel)
    except OSError as error:
        report(channel, step, error.errno or 0, f"{error.strerror} ({error.filename})")
    except BaseException as error:
        report(channel, step, 0, repr(error))


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
        os.umask(0o022)
        _become(launch)

        step = "exec"
        failure = ENOENT
        for path in launch.paths:
            try:
                os.execve(path, launch.argv, launch.env)
            except OSError as error:
                if error.errno not in (ENOENT, ENOTDIR):
                    failure = error.errno or EACCES
        report(channel, step, failure, "")
    except OSError as error:
        report(channel, step, error.errno or 0, f"{error.strerror} ({error.filename})")


def loopback_up() -> None:
    """Bring ``lo`` of the calling process's network namespace up (netdevice(7))."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    fcntl.ioctl(control.fileno(), SIOCSIFFLAGS, LOOPBACK_UP)
    control.close()


def report(channel: _socket.socket, step: str, number: int, detail: str) -> None:
    """Tell the parent which step failed, and end. Never returns."""
    channel.send(b"%s\0%d\0%s" % (step.encode(), number, detail.encode()))
    os._exit(125)


def _mounts(launch: Launch, root: int) -> None:
    if launch.overlay == "scratch":
        for bind in launch.binds:
            rootfs.create_target(root, bind.target, bind.directory)
        for target, _ in launch.tmpfs:
            rootfs.create_target(root, target, True)
    elif launch.overlay == "upper":
        for target in ("proc", "sys", "dev"):
            rootfs.create_target(root, target, True)
        for bind in launch.binds:
            rootfs.create_target(root, bind.target, bind.directory)
        for target, _ in launch.tmpfs:
            rootfs.create_target(root, target, True)
    dev = launch.dev_fd
    rootfs.mount_proc(root)
    for path, value in launch.sysctls:  # before /proc/sys becomes read-only
        rootfs.write_sysctl(root, path, value)
    rootfs.mount_sys(root, launch.network != "host")
    rootfs.mount_cgroup(root, tuple(getattr(launch.cgroup, "controllers", ())))
    rootfs.mount_dev(root, dev, launch.shm_size)
    rootfs.mask(root, dev)
    for target, options in launch.tmpfs:
        rootfs.mount_tmpfs(root, target, options, noexec=False)
    for bind in launch.binds:
        rootfs.attach(bind.fd, root, bind.target)
    if launch.readonly:
        syscalls.mount_setattr(root, "", 0, set=syscalls.MOUNT_ATTR_RDONLY)


def _stdio(launch: Launch, channel: _socket.socket) -> None:
    if launch.tty:
        master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(master, TIOCSPTLCK, pack("i", 0))
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
        os.fchown(slave, launch.uid, 5)
        fcntl.ioctl(slave, TIOCSCTTY, 0)
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
    seccomp.load(launch.seccomp)
