"""The birth of a container: one clone3, then only prepared system calls until exec.

The parent describes everything in a :class:`~containust.runtime.launch.Launch` (descriptors of detached mounts,
bytes of arguments, masks) and calls :func:`spawn`. The child is the container's init, PID 1 of its namespaces; it
works through the steps of :func:`_init` in their order, which is the documentation of what a container is. Three
messages pass between them:

1. parent to child, ``M``: the id maps are written and the layers idmapped; the child builds its root,
2. parent to child, ``N``: the network interfaces are in place; the child configures them and executes the program,
3. child to parent: nothing (exec closed the channel, all is well) or one report of the step that failed.

If the parent dies before exec the child dies too (PDEATHSIG), so no half-made container survives.
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
from _struct import pack

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import idmap, syscalls
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
from containust.runtime.launch import IGNORED_BY_PYTHON, SIGKILL, Child, Launch, close_others, finish, report

SIOCSIFFLAGS = 0x8914
LOOPBACK_UP = pack("16sH14x", b"lo", 0x1 | 0x8)  # struct ifreq with IFF_UP | IFF_LOOPBACK


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
            f"cannot map the ids of {launch.name}: {error.filename or 'its user namespace'}: {error.strerror}",
            "this kernel may not know idmapped mounts of the file system that it is on; ext4, xfs and btrfs have them",
            'or set `userns = "host"` on the component, and its root is the host\'s (`ctst explain R001`)',
        ) from None
    return child


def _map(child: Child, launch: Launch) -> None:
    assert launch.id_base is not None
    if launch.id_base == 0:  # the caller's own ids: what is on disk looks right as it is
        idmap.write_same_maps(child.pid)
        return
    idmap.write_maps(child.pid, launch.id_base)
    userns = idmap.open_userns(child.pid)
    try:
        volumes = [(bind.fd, f"the volume at {bind.target}") for bind in launch.binds if bind.idmapped]
        for fd, what in ((launch.layer_fd, "its image"), *volumes):
            try:
                idmap.idmap(fd, userns)
            except OSError as error:
                error.filename = what
                raise
    finally:
        os.close(userns)


def namespace_error(name: str, error: OSError) -> ContainustError:
    """R001 for a clone that failed, with the usual causes."""
    return ContainustError(
        "R001",
        f"cannot make the namespaces of {name}: {error.strerror}",
        "`ctst doctor` shows what this host allows; user.max_user_namespaces and similar sysctls limit it",
    )


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


def loopback_up() -> None:
    """Bring ``lo`` of the calling process's network namespace up (netdevice(7))."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    fcntl.ioctl(control.fileno(), SIOCSIFFLAGS, LOOPBACK_UP)
    control.close()


def _mounts(launch: Launch, root: int) -> None:
    if launch.overlay != "none":  # what is missing is made above the image; a live directory may lack all of it
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
    rootfs.mount_dev(root, dev, launch.shm_size, launch.nodes)
    rootfs.mask(root, dev)
    for target, options in launch.tmpfs:
        rootfs.mount_tmpfs(root, target, options, noexec=False)
    for bind in launch.binds:
        rootfs.attach(bind.fd, root, bind.target)
    if launch.readonly:
        syscalls.mount_setattr(root, "", 0, set=syscalls.MOUNT_ATTR_RDONLY)
