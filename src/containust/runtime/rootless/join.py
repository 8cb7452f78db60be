"""Entering a container for an ordinary user, who cannot go back to the PID namespace that the command is in.

The root way (:mod:`containust.runtime.join`) borrows the container's PID namespace for a moment. Here a helper does,
makes the process as a sibling of its own (CLONE_PARENT), hands its pidfd over and ends.
"""

from __future__ import annotations

import _socket
from struct import pack, unpack

from containust.common import os
from containust.core import syscalls
from containust.core.syscalls import CLONE_NEWPID, CLONE_PARENT
from containust.runtime.join import enter, refused
from containust.runtime.launch import Child, Launch
from containust.runtime.pty import SCM_RIGHTS


def join(launch: Launch, pidfd: int) -> Child:
    """As :func:`containust.runtime.join.join`. Raises ContainustError R008 when the container has ended."""
    child = Child(launch)
    enter(child, pidfd)
    answer, answerer = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    helper, helper_fd = syscalls.clone3(0)
    if helper == 0:
        try:
            _help(child, pidfd, answerer)
        finally:
            os._exit(0)
    child.close_theirs()
    answerer.close()
    data, ancillary, _, _ = answer.recvmsg(64, 64, _socket.MSG_CMSG_CLOEXEC)
    answer.close()
    os.waitpid(helper, 0)
    os.close(helper_fd)
    pid, number = unpack("2i", data) if len(data) == 8 else (0, 3)
    if number:
        child.abort()
        raise refused(launch, OSError(number, os.strerror(number)))
    child.is_cloned(pid, unpack("i", ancillary[0][2][:4])[0])
    return child


def _help(child: Child, pidfd: int, answerer: _socket.socket) -> None:
    try:
        syscalls.setns(pidfd, CLONE_NEWPID)
        child.clone(CLONE_PARENT)
    except OSError as error:
        answerer.send(pack("2i", 0, error.errno or 5))
        return
    answerer.sendmsg([pack("2i", child.pid, 0)], [(_socket.SOL_SOCKET, SCM_RIGHTS, pack("i", child.pidfd))])
