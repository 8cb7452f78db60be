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
from containust.runtime.join import clone, entering, refused
from containust.runtime.launch import SCM_RIGHTS, Child, Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.core.calls import Calls


def join(launch: Launch, pidfd: int) -> Child:
    """As :func:`containust.runtime.join.join`. Raises ContainustError R008 when the container has ended."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    answer, answerer = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    calls = entering(launch, pidfd, ours, theirs)
    helper, helper_fd = syscalls.clone3(0)
    if helper == 0:
        try:
            _help(launch, calls, pidfd, theirs, answerer)
        finally:
            os._exit(0)
    theirs.close()
    answerer.close()
    data, ancillary, _, _ = answer.recvmsg(64, 64, _socket.MSG_CMSG_CLOEXEC)
    answer.close()
    os.waitpid(helper, 0)
    os.close(helper_fd)
    pid, number = unpack("2i", data) if len(data) == 8 else (0, 3)
    if number:
        ours.close()
        raise refused(launch, OSError(number, os.strerror(number)))
    return Child(launch, calls, pid, unpack("i", ancillary[0][2][:4])[0], ours)


def _help(launch: Launch, calls: Calls, pidfd: int, theirs: _socket.socket, answerer: _socket.socket) -> None:
    try:
        syscalls.setns(pidfd, CLONE_NEWPID)
        pid, child_fd = clone(launch, calls, theirs, CLONE_PARENT)
    except OSError as error:
        answerer.send(pack("2i", 0, error.errno or 5))
        return
    answerer.sendmsg([pack("2i", pid, 0)], [(_socket.SOL_SOCKET, SCM_RIGHTS, pack("i", child_fd))])
