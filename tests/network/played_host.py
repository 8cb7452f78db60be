"""A host to make networks on: a network namespace of the test's own, with an uplink to another one.

The test itself runs in the namespace that plays the host, so that the code under test does what it does on a host and
the machine's own network is never touched. Containers, and the outside, are processes in further namespaces that carry
out small functions on request.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any

from containust.core import syscalls as sc
from containust.core.calls import at_once
from containust.runtime.network import inside
from containust.runtime.network.attachment import Attachment
from containust.runtime.network.stack import StackNetworks, collect

OUTSIDE = "192.0.2.9"
HOST = "192.0.2.1"
OUTSIDE6 = "2001:db8::9"
HOST6 = "2001:db8::1"


class Namespace:
    """A process in a network namespace of its own that calls functions on request."""

    def __init__(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                sc.unshare(sc.CLONE_NEWNET)
                theirs.send(None)
                while True:
                    function, arguments = theirs.recv()
                    try:
                        theirs.send(function(*arguments))
                    except Exception as error:
                        theirs.send(error)
            finally:
                os._exit(1)
        theirs.close()
        self.pipe.recv()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.pipe.send((function, arguments))
        assert self.pipe.poll(20), "no answer"
        result = self.pipe.recv()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        self.pipe.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def sh(command: str) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def listen(address: str, port: int, protocol: str = "tcp") -> None:
    """Answer each connection or datagram with the address that it comes from, in a thread of this process."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    server = socket.socket(family, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))

    def streams() -> None:
        server.listen(64)
        while True:
            connection, client = server.accept()
            connection.sendall(client[0].encode())
            connection.close()

    def datagrams() -> None:
        while True:
            _, client = server.recvfrom(2048)
            server.sendto(client[0].encode(), client)

    if protocol == "tcp":
        server.listen(64)
    threading.Thread(target=streams if protocol == "tcp" else datagrams, daemon=True).start()


def ask(address: str, port: int, protocol: str = "tcp", timeout: float = 1.5) -> str:
    """What the listener there answers; ``""`` when there is no way to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as client:
        client.settimeout(timeout)
        try:
            client.connect((address, port))
            if protocol == "udp":
                client.send(b"?")
            return client.recv(100).decode().removeprefix("::ffff:")
        except OSError:
            return ""


def links() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


def setting(path: str) -> str:
    with open(f"/proc/sys/net/{path}") as file:
        return file.read().strip()


class Host:
    """The namespace that the test runs in, and what it started there."""

    def __init__(self) -> None:
        self.started: list[Namespace] = []
        self.projects: list[str] = []
        self.outside = self.namespace()

    def namespace(self) -> Namespace:
        one = Namespace()
        self.started.append(one)
        return one

    def networks(self, project: str) -> StackNetworks:
        self.projects.append(project)
        return StackNetworks(project)

    def containers(
        self, networks: StackNetworks, members: dict[str, list[str]], exposes: Any = (), offline: Any = ()
    ) -> tuple[dict[str, Namespace], dict[str, list[Attachment]]]:
        """Bring up a project the way the engine does."""
        networks.ensure(name for names in members.values() for name in names)
        attachments = {who: networks.allocate(who, names) for who, names in members.items()}
        networks.publish(exposes, attachments, offline)
        processes = {who: self.namespace() for who in members}
        networks.attach([(processes[who].pid, attachments[who]) for who in members])
        for who, process in processes.items():
            process.call(at_once, inside.configure, inside.prepare(attachments[who]))
        return processes, attachments

    def close(self) -> None:
        for one in self.started:
            one.close()
        for project in self.projects:
            collect(project)


FULL = bool(os.environ.get("CONTAINUST_FULL"))
