"""A test host in a second network namespace, wired to the one that plays the host of a :class:`harness.Ctst`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from containust.core import syscalls as sc
from harness import PYTHON, Ctst

HOST, HOST6 = "192.0.2.1", "2001:db8::1"
OUTSIDE, OUTSIDE6 = "192.0.2.9", "2001:db8::9"

# Serves TCP and UDP of both families on port argv[1] of argv[2] (default all addresses); an answer is the address that
# the request came from.
SERVER = """
import socket, sys, threading
port, where = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "::"
family = socket.AF_INET6 if ":" in where else socket.AF_INET
tcp = socket.create_server((where, port), family=family, backlog=512, dualstack_ipv6=where == "::")
udp = socket.socket(family, socket.SOCK_DGRAM)
if where == "::":
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
udp.bind((where, port))
def datagrams():
    while True:
        _, client = udp.recvfrom(2048)
        udp.sendto(client[0].removeprefix("::ffff:").encode(), client)
threading.Thread(target=datagrams, daemon=True).start()
print("serving", flush=True)
while True:
    connection, client = tcp.accept()
    connection.sendall(client[0].removeprefix("::ffff:").encode())
    connection.close()
"""
# Asks (address or name, port, protocol, seconds) for each argument, given as JSON; prints the answers as a JSON list.
ASK = """
import json, socket, sys
def ask(where, port, protocol="tcp", seconds=2):
    try:
        for family, _, _, _, address in socket.getaddrinfo(where, port):
            with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as client:
                client.settimeout(seconds)
                client.connect(address)
                if protocol == "udp":
                    client.send(b"?")
                return client.recv(100).decode()
    except socket.gaierror:
        return "no such name"
    except OSError as error:
        return ""
print(json.dumps([ask(*json.loads(one)) for one in sys.argv[1:]]))
"""


def component(name: str, properties: str = "", server: str = "80") -> str:
    """The text of a component that runs :data:`SERVER`."""
    words = json.dumps(["/usr/bin/python3", "-c", SERVER, *server.split()])
    return f'COMPONENT {name} {{\n    image = "{PYTHON}"\n    command = {words}\n    {properties}\n}}\n'


class Outside:
    """The test host: a network namespace at the other end of the host's only uplink."""

    def __init__(self, ctst: Ctst) -> None:
        self.ctst = ctst
        self.started: list[subprocess.Popen[bytes]] = []
        self.namespace, process = namespace()
        here, there = ctst.on_host, self.run
        here("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", str(process.pid))
        for run, device, four, six, via, via6 in (
            (here, "up0", HOST, HOST6, OUTSIDE, OUTSIDE6),
            (there, "eth0", OUTSIDE, OUTSIDE6, None, None),
        ):
            run("ip", "addr", "add", f"{four}/24", "dev", device)
            run("ip", "addr", "add", f"{six}/64", "dev", device, "nodad")
            run("ip", "link", "set", device, "up")
            if via and via6:
                run("ip", "route", "add", "default", "via", via)
                run("ip", "-6", "route", "add", "default", "via", via6)
        process.kill()
        process.wait()

    def enter(self) -> None:
        """Make the calling process one of the test host."""
        sc.setns(self.namespace, sc.CLONE_NEWNET)

    def run(self, *command: str) -> str:
        """Output of a program on the test host."""
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=self.enter, check=True, timeout=20)
        return done.stdout

    def serve(self, enter: Callable[[], None], port: int, where: str = "::") -> None:
        """Run :data:`SERVER` where ``enter`` leads, until the end of the test."""
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(port), where],
            stdout=subprocess.PIPE,
            preexec_fn=enter,  # noqa: PLW1509
        )
        self.started.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"serving\n"

    def close(self) -> None:
        for one in self.started:
            one.kill()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()
        os.close(self.namespace)


def namespace() -> tuple[int, subprocess.Popen[bytes]]:
    """A network namespace with loopback: a descriptor of it, and a process in it that is the caller's to end."""
    process = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "ip link set lo up; echo; exec sleep 600"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC), process


def ask(enter: Callable[[], None], *questions: tuple[object, ...]) -> list[str]:
    """Ask several servers from a network namespace, see :data:`ASK`."""
    words = [json.dumps(one) for one in questions]
    done = subprocess.run(
        [sys.executable, "-c", ASK, *words],
        capture_output=True,
        text=True,
        preexec_fn=enter,
        check=True,
        timeout=60,
    )
    return list(json.loads(done.stdout))


def ask_inside(ctst: Ctst, name: str, *questions: tuple[object, ...]) -> list[str]:
    """As :func:`ask`, from a running container with Python in it."""
    words = [json.dumps(one) for one in questions]
    return list(json.loads(ctst.ok("exec", name, "/usr/bin/python3", "-c", ASK, *words)))
