"""The way to the project's keeper, and by it into the project's namespaces."""

from __future__ import annotations

import _socket
import fcntl
import marshal
from struct import unpack

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import syscalls
from containust.core.syscalls import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER
from containust.runtime import project
from containust.runtime.rootless.keeper import PACKET, SOCKET, live

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.runtime.project import Project


class Client:
    """This process's connection, which a forked supervisor goes on with. As long as one is open the keeper lives."""

    __slots__ = ("_connection", "_project", "inside", "networked")

    def __init__(self, project: Project) -> None:
        self._project = project
        self._connection: _socket.socket | None = None
        self.inside = False
        self.networked = False

    def enter(self) -> None:
        """Make the calling process root of the project's user namespace, in a mount namespace of its own.

        Raises ContainustError S003 where something is missing for that.
        """
        if self.inside:
            return
        self._project.create()
        user = os.geteuid()
        _, fds = self.ask("user")
        try:
            syscalls.setns(fds[0], CLONE_NEWUSER)
        finally:
            os.close(fds[0])
        project.rootless_user = user
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        syscalls.unshare(CLONE_NEWNS)
        self.inside = True

    def enter_network(self) -> None:
        """Into the project's network namespace as well; there is no way back."""
        if not self.networked:
            self.enter()
            _, fds = self.ask("network")
            try:
                syscalls.setns(fds[0], CLONE_NEWNET)
            finally:
                os.close(fds[0])
            self.networked = True

    def ask(self, verb: str, *arguments: Any) -> tuple[Any, list[int]]:
        """The keeper's answer and the descriptors that came with it. Raises the ContainustError that it answers."""
        for attempt in (0, 1):
            if self._connection is None:
                self._connection = self._connect()
            try:
                return self._exchange(self._connection, verb, *arguments)
            except OSError:
                self._connection.close()
                self._connection = None
                if attempt:
                    break
        raise ContainustError("R001", "the keeper of the project's namespaces has ended", "try again")

    @staticmethod
    def _exchange(connection: _socket.socket, verb: str, *arguments: Any) -> tuple[Any, list[int]]:
        connection.send(marshal.dumps((verb, *arguments)))
        data, ancillary, _, _ = connection.recvmsg(PACKET, 64, _socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise ConnectionResetError(104, "the keeper has ended")
        fds = [fd for _, _, raw in ancillary for fd in unpack(f"{len(raw) // 4}i", raw)]
        failure, value = marshal.loads(data)
        if failure:
            code, message, help = failure
            raise ContainustError(code, message, *help)
        return value, fds

    def _connect(self) -> _socket.socket:
        """A connection to the keeper that lives, or to one that is brought to life.

        The lock keeps one from ending meanwhile, and two from being made. A process that is inside already cannot
        make one, for it would be inside too.
        """
        run = os.open(self._project.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(run, fcntl.LOCK_EX)
            connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
            try:
                connection.connect(f"/proc/self/fd/{run}/{SOCKET}")
                return connection
            except OSError:
                connection.close()
            if self.inside:
                raise ContainustError(
                    "R001",
                    "the keeper of the project's namespaces was killed while this command needed it",
                    "any next `ctst` command brings another to life",
                )
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            if os.fork() == 0:
                ours.close()
                live(self._project, theirs)
            theirs.close()
            # It holds the socket's name once it answers: only then may others look for it.
            self._exchange(ours, "present")
            return ours
        finally:
            os.close(run)
