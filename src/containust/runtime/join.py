"""Another program in a running container: the way of `ctst exec` and of health probes.

The new process has the container's confinement: its namespaces, its cgroup, its user, capabilities, filter and
environment. It is never a child of the container's init, so it is waited for by whoever started it.
"""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import syscalls
from containust.core.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from containust.runtime.launch import SIGKILL, Child, Launch, become_root, close_others, finish, like_new


def join(launch: Launch, pidfd: int) -> Child:
    """Start ``launch``'s program in the namespaces of the process behind ``pidfd``; wait with ``wait_exec``.

    Only argv, paths, env, workdir, user, privileges, stdio, tty, network, id_base and cgroup of ``launch`` are used.
    The child's memory is a copy: one that shared ours would take us along when the container's memory runs out, and
    processes of the container see it. Raises ContainustError R008 when the container has ended.
    """
    child = Child(launch)
    enter(child, pidfd)
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A PID namespace is entered by children only; the parent takes its own back right away.
        syscalls.setns(pidfd, CLONE_NEWPID)
        try:
            child.clone(0)
        finally:
            syscalls.setns(own, CLONE_NEWPID)
    except OSError as error:
        child.abort()
        raise refused(launch, error) from None
    finally:
        os.close(own)
    child.close_theirs()
    return child


def refused(launch: Launch, error: OSError) -> ContainustError:
    """R008 for a container that cannot be entered."""
    return ContainustError(
        "R008",
        f"cannot enter {launch.name}: {error.strerror}",
        "the container may have just ended; see `ctst ps -a`",
    )


def enter(child: Child, pidfd: int) -> None:
    """What the child does: join the other namespaces, then execute the program."""
    calls, launch = child.calls, child.launch
    calls.step = "ids"
    calls.prctl(syscalls.PR_SET_PDEATHSIG, SIGKILL)
    calls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    close_others(calls, child.channel)
    like_new(calls)

    calls.step = "cgroup"
    for fd in launch.cgroup.join_fds:
        calls.write(fd, b"0", "tasks")

    calls.step = "ids"
    namespaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
    if launch.id_base is not None:
        namespaces |= CLONE_NEWUSER
    if launch.network != "host":
        namespaces |= CLONE_NEWNET
    calls.setns(pidfd, namespaces)
    if launch.id_base is not None:
        become_root(calls)

    finish(child, joins=True)
