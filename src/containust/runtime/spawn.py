"""The birth of a container: one clone3, then only prepared system calls until execve.

The parent describes everything in a :class:`~containust.runtime.launch.Launch` (descriptors of detached mounts,
bytes of arguments, masks). What the child does is written down by :func:`isolate` and :func:`build`: its steps in their
order are the documentation of what a container is. The child is the container's init, PID 1 of its namespaces, and runs
no Python (:mod:`containust.core.calls`). It waits for its parent twice, on an eventfd, and for the outcome the parent
waits on a pipe:

1. the id maps are written and the layers idmapped: the child builds its root,
2. the network interfaces are in place: the child configures them and executes the program,
3. child to parent: nothing (exec closed the channel, all is well) or one report of the call that failed.

If the parent dies before exec the child dies too (PDEATHSIG, and the end of the channel), so no half-made container
survives.
"""

from __future__ import annotations

from _struct import pack

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import idmap, syscalls
from containust.core.calls import CLONE_VM, Calls, NR_ioctl
from containust.core.filesystem import rootfs
from containust.core.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from containust.runtime.launch import (
    SIGKILL,
    Child,
    Launch,
    become_root,
    close_others,
    finish,
    like_new,
    namespace_error,
)

AF_INET = 2
SOCK_DGRAM = 2
SIOCSIFFLAGS = 0x8914
LOOPBACK_UP = pack("16sH14x", b"lo", 0x1 | 0x8)  # struct ifreq with IFF_UP | IFF_LOOPBACK


def begin(launch: Launch) -> Child:
    """Clone the container's init, which makes its namespaces; what the calls are about need not be known yet.

    Of ``launch`` everything is there already that is open for the child to inherit. A child with memory of its own is
    cloned by :func:`complete`. Raises ContainustError R001 when a namespace cannot be made.
    """
    child = Child(launch, os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    isolate(child)
    if launch.shares_memory:
        _clone(child)
    return child


def complete(child: Child) -> None:
    """Map the child's ids and let it build its root and, once it may go on again, execute its program.

    Raises ContainustError R001; the caller aborts the child then.
    """
    launch = child.launch
    build(child)
    try:
        if launch.shares_memory:
            child.calls.hand_over()
        else:
            _clone(child)
        child.close_theirs()
        if launch.id_base is not None:
            _map(child, launch)
        child.go_on()
    except OSError as error:
        raise ContainustError(
            "R001",
            f"cannot map the ids of {launch.name}: {error.filename or 'its user namespace'}: {error.strerror}",
            "this kernel may not know idmapped mounts of the file system that it is on; ext4, xfs and btrfs have them",
            'or set `userns = "host"` on the component, and its root is the host\'s (`ctst explain R001`)',
        ) from None


def _clone(child: Child) -> None:
    launch = child.launch
    flags = CLONE_NEWPID
    if launch.id_base is not None:
        flags |= CLONE_NEWUSER
    if launch.attachments:  # their interfaces are put into it from outside
        flags |= CLONE_NEWNET
    if launch.shares_memory:
        flags |= CLONE_VM
    try:
        child.clone(flags)
    except OSError as error:
        child.abort()
        raise namespace_error(launch.name, error) from None


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


def isolate(child: Child) -> None:
    """What the child does first, whose parent prepares the rest meanwhile."""
    calls, launch = child.calls, child.launch
    calls.step = "ids"
    calls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)
    close_others(calls, child.channel)
    like_new(calls)
    calls.step = "namespaces"
    calls.unshare(CLONE_NEWNS | CLONE_NEWUTS | (0 if launch.network == "host" or launch.attachments else CLONE_NEWNET))
    rootfs.isolate_mounts(calls)
    calls.wait(child.go, child.theirs)


def build(child: Child) -> None:
    """What it does then: build the container around itself, and execute the program."""
    calls, launch = child.calls, child.launch
    calls.step = "ids"
    if launch.id_base is not None:
        become_root(calls)
    else:
        calls.prctl(syscalls.PR_SET_DUMPABLE, 0)

    calls.step = "cgroup"
    for fd in launch.cgroup.join_fds:
        calls.write(fd, b"0", "tasks")
    calls.unshare(CLONE_NEWCGROUP | CLONE_NEWIPC)

    calls.step = "root"
    root: int = launch.layer_fd
    rootfs.stack_on_root(calls, root)
    if launch.overlay != "none":
        if launch.overlay == "upper":
            rootfs.stack_on_root(calls, launch.writable_fd)
            root = rootfs.writable_overlay(calls, root, launch.writable_fd, launch.spare)
            rootfs.unstack_root(calls)
        else:
            root = rootfs.scratch_overlay(calls, root, launch.spare)
        rootfs.unstack_root(calls)
        rootfs.stack_on_root(calls, root)

    calls.step = "mounts"
    _mounts(calls, launch, root)
    rootfs.leave_old_root(calls, root)

    calls.step = "network"
    calls.wait(child.go, child.theirs)
    calls.sethostname(launch.hostname)
    if launch.network != "host":
        loopback_up(calls)
        if launch.network_messages:
            from containust.runtime.network.inside import configure

            configure(calls, launch.network_messages)

    finish(child, joins=False)


def loopback_up(calls: Calls) -> None:
    """Bring ``lo`` of the network namespace up (netdevice(7))."""
    control = calls.socket(AF_INET, SOCK_DGRAM, 0)
    calls.add("ioctl", "lo", NR_ioctl, control, SIOCSIFFLAGS, LOOPBACK_UP)


def _mounts(calls: Calls, launch: Launch, root: int) -> None:
    if launch.overlay != "none":  # what is missing is made above the image; a live directory may lack all of it
        for target in ("proc", "sys", "dev"):
            rootfs.create_target(calls, root, target, True)
        for bind in launch.binds:
            rootfs.create_target(calls, root, bind.target, bind.directory)
        for target, _ in launch.tmpfs:
            rootfs.create_target(calls, root, target, True)
    dev = launch.dev_fd
    proc = rootfs.mount_proc(calls, root)
    for path, value in launch.sysctls:  # before /proc/sys becomes read-only
        rootfs.write_sysctl(calls, proc, path, value)
    sys = rootfs.mount_sys(calls, root, launch.network != "host")
    rootfs.mount_cgroup(calls, sys, tuple(getattr(launch.cgroup, "controllers", ())))
    rootfs.mount_dev(calls, root, dev, launch.shm_size, launch.nodes)
    rootfs.mask(calls, proc, sys, dev)
    for target, options in launch.tmpfs:
        rootfs.mount_tmpfs(calls, root, target, options)
    for bind in launch.binds:
        rootfs.attach(calls, bind.fd, root, bind.target)
    if launch.readonly:
        calls.mount_setattr(root, 0, set=syscalls.MOUNT_ATTR_RDONLY)
