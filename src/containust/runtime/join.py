"""Another program in a running container: the way of `ctst exec` and of health probes.

The new process has the container's confinement: its namespaces, its cgroup, its user, capabilities, filter and
environment. It is never a child of the container's init, so it is waited for by whoever started it.
"""

from __future__ import annotations

import _signal
import _socket

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import syscalls
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


def join(launch: Launch, pidfd: int) -> Child:
    """Start ``launch``'s program in the namespaces of the process behind ``pidfd``; wait with ``wait_exec``.

    Only argv, paths, env, workdir, user, privileges, stdio, tty, network, id_base and cgroup of ``launch`` are used.
    Raises ContainustError R008 when the container has ended.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    flags = CLONE_CLEAR_SIGHAND | (CLONE_INTO_CGROUP if launch.cgroup.clone_fd >= 0 else 0)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A PID namespace is entered by children only; the parent takes its own back right away.
        syscalls.setns(pidfd, CLONE_NEWPID)
        try:
            pid, child_fd = syscalls.clone3(flags, max(launch.cgroup.clone_fd, 0))
            if pid == 0:
                try:
                    close_others(ours)
                    enter(launch, pidfd, theirs)
                finally:
                    os._exit(125)
        finally:
            syscalls.setns(own, CLONE_NEWPID)
    except OSError as error:
        ours.close()
        theirs.close()
        raise refused(launch, error) from None
    finally:
        os.close(own)
    theirs.close()
    return Child(launch, pid, child_fd, ours)


def refused(launch: Launch, error: OSError) -> ContainustError:
    """R008 for a container that cannot be entered."""
    return ContainustError(
        "R008",
        f"cannot enter {launch.name}: {error.strerror}",
        "the container may have just ended; see `ctst ps -a`",
    )


def enter(launch: Launch, pidfd: int, channel: _socket.socket) -> None:
    """The child: join the other namespaces, then execute the program. Never returns."""
    launch.channel_fd = channel.fileno()
    step = "ids"
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        for signal in IGNORED_BY_PYTHON:
            _signal.signal(signal, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        step = "cgroup"
        for fd in launch.cgroup.join_fds:
            os.write(fd, b"0")
        step = "ids"
        flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
        if launch.id_base is not None:
            flags |= CLONE_NEWUSER
        if launch.network != "host":
            flags |= CLONE_NEWNET
        syscalls.setns(pidfd, flags)
        if launch.id_base is not None:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        finish(launch, channel)
    except OSError as error:
        report(channel, step, error.errno or 0, f"{error.strerror} ({error.filename})")
    except BaseException as error:
        report(channel, step, 0, repr(error))
