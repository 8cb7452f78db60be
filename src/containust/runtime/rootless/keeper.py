"""The keeper: one process a project of an ordinary user, which lives as long as anything of the project does.

It stays in the host's namespaces and holds descriptors of the project's user namespace and, once a container has a
network, of its network namespace; whoever connects to its socket in ``run/`` gets them. Being outside it can do what
those inside cannot: look for taken ports and start the program that connects the project to the host's network. It
does nothing else, so that killing it costs nothing: the next command brings another to life.

A message is one marshalled tuple a packet; the answer is ``(error or None, value)``, with descriptors beside it.
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import marshal
import select
from struct import pack

from containust.common import os
from containust.common.errors import ContainustError
from containust.common.types import Expose
from containust.core import syscalls
from containust.runtime.project import Project
from containust.runtime.rootless import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.runtime.network.ports import Reservation
    from containust.runtime.rootless.programs import Program

SOCKET = "keeper"
PACKET = 1 << 18
SCM_RIGHTS = 1


class Keeper:
    """The keeper's side."""

    def __init__(self, project: Project, first: _socket.socket) -> None:
        self.project = project
        self.run = os.open(project.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.clients: dict[int, _socket.socket] = {first.fileno(): first}
        self.user = self.network = -1
        self.program: Program | None = None
        self.reservation: Reservation | None = None
        self.reserved: list[Expose] = []
        self.watched: list[int] = []  # pidfds, while there is no client
        try:
            os.unlink(SOCKET, dir_fd=self.run)
        except FileNotFoundError:
            pass
        self.listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        # By descriptor: a socket's path may have 107 bytes, and a project may lie deeper.
        self.listener.bind(f"/proc/self/fd/{self.run}/{SOCKET}")
        self.listener.listen(64)
        self.listener.setblocking(False)

    def serve(self) -> None:
        """Answer clients until nothing of the project is left."""
        while True:
            poll = select.poll()
            poll.register(self.listener.fileno(), select.POLLIN)
            for fd in self.clients:
                poll.register(fd, select.POLLIN)
            for fd in self.watched:
                poll.register(fd, select.POLLIN)
            program = self.program.pidfd if self.program else -1
            if program >= 0:
                poll.register(program, select.POLLIN)
            ready = {fd for fd, _ in poll.poll()}
            if program in ready:
                self._restart()
            if self.listener.fileno() in ready:
                self._accept()
            for fd in ready & set(self.clients):
                self._receive(fd)
            if not self.clients and self._ended():
                return

    def _accept(self) -> bool:
        try:
            fd, _ = self.listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return False
        self.clients[fd] = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        return True

    def _receive(self, fd: int) -> None:
        client = self.clients[fd]
        try:
            data = client.recv(PACKET)
        except OSError:
            data = b""
        if not data:
            del self.clients[fd]
            client.close()
            return
        verb, *arguments = marshal.loads(data)
        fds: list[int] = []
        failure: Any = None
        value: Any = None
        try:
            value = getattr(self, f"do_{verb}")(fds, *arguments)
        except ContainustError as error:
            failure = (error.code, error.message, error.help)
        except Exception as error:
            failure = ("R001", f"the keeper of the project's namespaces failed: {error!r}", [])
        rights = [(_socket.SOL_SOCKET, SCM_RIGHTS, pack(f"{len(fds)}i", *fds))] if fds else []
        try:
            client.sendmsg([marshal.dumps((failure, value))], rights)
        except OSError:
            pass  # it has gone, and is seen to go

    # -- requests -----------------------------------------------------------------------------------------------

    def do_present(self, fds: list[int]) -> None:
        """Nothing but the answer."""

    def do_user(self, fds: list[int]) -> None:
        """The user namespace."""
        if self.user < 0:
            self.user, self.network = namespaces.surviving(self.project)
            if self.user < 0:
                self.user = namespaces.new_user()
            from containust.runtime.rootless import programs

            self.program = programs.resume(self.user, self.network, self.run)
        fds.append(self.user)

    def do_network(self, fds: list[int]) -> None:
        """The network namespace."""
        if self.network < 0:
            self.network = namespaces.new_network(self.user)
        fds.append(self.network)

    def do_reserve(self, fds: list[int], exposes: list[dict[str, Any]]) -> None:
        """Find out whether the host ports are free, and hold those that are not published yet.

        Raises ContainustError R011, R013, S003.
        """
        from containust.runtime.network.ports import reserve

        published = self.program.ports if self.program else set()
        wanted = [Expose(**values) for values in exposes]
        fresh = [one for one in wanted if (one.address, one.host_port, one.protocol) not in published]
        if self.reservation:
            self.reservation.close()
            self.reservation = None
        if fresh:
            self.reservation = reserve(fresh, self.project.id)

    def do_publish(self, fds: list[int], exposes: list[dict[str, Any]], outside: bool) -> str:
        """Let the network program forward exactly these ports; start it, if it is not there and is needed.

        The name of the program, which decides how addresses look inside; empty without one.
        """
        from containust.runtime.rootless import programs

        ports = {(one["address"], one["host_port"], one["protocol"]) for one in exposes}
        if self.reservation:
            self.reservation.close()
            self.reservation = None
        if self.program is None:
            if not outside and not ports:
                return ""
            self.program = programs.start(self.user, self.network, self.run, ports)
        else:
            self.program = self.program.forward(ports)
        return self.program.name

    def do_host(self, fds: list[int]) -> list[tuple[int, bytes, int, int]]:
        """What the host routes, and its addresses: subnets must not overlap, containers must not reach them."""
        from containust.core.netlink import NETLINK_ROUTE, Connection
        from containust.core.rtnetlink import host_prefixes

        connection = Connection(NETLINK_ROUTE)
        try:
            routes = host_prefixes(connection)
        finally:
            connection.close()
        return [(r.bits, r.destination.to_bytes(16, "big"), r.prefix, r.table) for r in routes]

    # -- ends ---------------------------------------------------------------------------------------------------

    def _restart(self) -> None:
        """The network program has ended, which nobody asked it to."""
        assert self.program is not None
        former, self.program = self.program, None
        former.close()
        try:
            self.program = former.begin(self.user, self.network, self.run, former.ports)
        except ContainustError:
            pass  # the next start says what is wrong

    def _ended(self) -> bool:
        """With no client left: whether nothing of the project lives, and then everything is taken down."""
        for fd in self.watched:
            os.close(fd)
        self.watched = [pidfd for pidfd, _ in namespaces.living(self.project)]
        if self.watched:
            return False
        fcntl.flock(self.run, fcntl.LOCK_EX)  # as a client does while it connects
        if self._accept():
            fcntl.flock(self.run, fcntl.LOCK_UN)
            return False
        if self.program:
            self.program.end()
        try:
            os.unlink(SOCKET, dir_fd=self.run)
        except FileNotFoundError:
            pass
        return True


def live(project: Project, first: _socket.socket) -> None:
    """The life of a forked process as the keeper; ``first`` is the connection to who forked it. Never returns."""
    status = 1
    try:
        os.setsid()
        for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGCHLD, _signal.SIGUSR1):
            _signal.signal(number, _signal.SIG_DFL)
        _signal.set_wakeup_fd(-1)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
        with open("/proc/self/comm", "w") as file:
            file.write("ctst-keeper")
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        kept = first.fileno()
        if kept > 3:
            syscalls.close_range(3, kept - 1)
        syscalls.close_range(kept + 1, 0xFFFFFFFF)
        os.chdir("/")
        Keeper(project, first).serve()
        status = 0
    finally:
        os._exit(status)
