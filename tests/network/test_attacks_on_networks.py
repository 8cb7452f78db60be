"""The W lines of the list of attacks, tried for real: the installed command, a host, and a test host beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from outside import HOST, OUTSIDE, OUTSIDE6, Outside, ask, ask_inside, component

from containust.core import syscalls as sc
from harness import FULL, PYTHON, Ctst, eventually, kill, marked, read

NOBODY = 65534
BIND = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
kind = socket.SOCK_STREAM if sys.argv[2] == "tcp" else socket.SOCK_DGRAM
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, kind)
for option in (socket.SO_REUSEPORT, socket.SO_REUSEADDR):
    s.setsockopt(socket.SOL_SOCKET, option, 1)
try:
    s.bind((sys.argv[1], 8080))
except OSError as error:
    print(error.strerror, flush=True)
    sys.exit(1)
if sys.argv[2] == "tcp":
    s.listen()
print("bound", flush=True)
sys.stdin.read()
"""


class Thief:
    """Another user of the host who wants port 8080, with all that lets sockets share."""

    def __init__(self, ctst: Ctst, address: str, protocol: str = "tcp") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", BIND, address, protocol],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=ctst.enter,  # noqa: PLW1509
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().decode().strip()

    def __enter__(self) -> Thief:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(10)


PLACES = [(address, protocol) for address in ("127.0.0.1", "0.0.0.0", "::1", "::") for protocol in ("tcp", "udp")]
WEB = component("web") + "EXPOSE 8080:80 -> web\nEXPOSE 8080:80/udp -> web\n"


def test_w1_nobody_shares_or_takes_over_a_published_port(ctst: Ctst, tmp_path: Path) -> None:
    path = str(ctst.write(WEB))
    for address, protocol in PLACES:  # taken before: found before anything starts, with its owner
        with Thief(ctst, address, protocol) as thief:
            assert thief.said == "bound"
            done = ctst("run", "-d", path)
            assert done.status == 1
            assert "error[R011]" in done.err
            assert f"pid {thief.process.pid}" in done.err
    assert ctst.events("created", "started") == []
    ctst.ok("run", "-d", path)
    for address, protocol in PLACES:
        with Thief(ctst, address, protocol) as thief:
            assert thief.said == "Address already in use", (address, protocol)
    other = tmp_path / "other"
    other.mkdir()
    (other / "containust.ctst").write_text(component("thief") + "EXPOSE 8080:80 -> thief\n")
    done = ctst("-C", str(other), "run", "-d")
    assert "error[R011]: port 127.0.0.1:8080/tcp of thief is taken" in done.err
    # Without the supervisor that held it, the port leads where it led, whoever binds it, and stays taken.
    gateway = ask(ctst.enter, ("127.0.0.1", 8080))
    kill(marked(ctst.token))
    with Thief(ctst, "127.0.0.1") as thief:
        assert thief.said == "bound"
        assert ask(ctst.enter, ("127.0.0.1", 8080)) == gateway
    assert "another project" in ctst("-C", str(other), "run", "-d").err
    ctst.ok("rm", "--force")
    with Thief(ctst, "0.0.0.0") as thief:
        assert thief.said == "bound", "given back"
    assert not (other / ".containust" / "run").exists() or not any((other / ".containust" / "run").iterdir())


# Answers every question for an address with 169.254.169.254 (A) or fd00:ec2::254 (AAAA), and prints the names.
LIAR = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("192.0.2.9", 53))
print("serving", flush=True)
while True:
    data, who = s.recvfrom(2048)
    end = data.index(0, 12)
    question, kind = data[12 : end + 5], data[end + 1 : end + 3]
    address = bytes((169, 254, 169, 254)) if kind == b"\\0\\1" else socket.inet_pton(socket.AF_INET6, "fd00:ec2::254")
    answer = b"\\xc0\\x0c" + kind + b"\\0\\1\\0\\0\\0\\1" + len(address).to_bytes(2, "big") + address
    s.sendto(data[:2] + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + question + answer, who)
    print(data[13:end].decode(errors="replace"), flush=True)
"""


def in_mounts(ctst: Ctst, resolv: Path) -> None:
    """Make the calling process one of the host whose /etc/resolv.conf is ``resolv``."""
    ctst.enter()
    sc.unshare(sc.CLONE_NEWNS)
    for words in (["--make-rprivate", "/"], ["--bind", str(resolv), "/etc/resolv.conf"]):
        subprocess.run(["mount", *words], check=True)


def test_w2_names_of_peers_are_asked_of_nobody(ctst: Ctst, outside: Outside, tmp_path: Path) -> None:
    """There is no resolver of ours: peers are in /etc/hosts, all else the container asks of the host's servers."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {OUTSIDE}\nsearch example.test\noptions timeout:1\n")
    liar = subprocess.Popen(
        [sys.executable, "-c", LIAR],
        stdout=subprocess.PIPE,
        preexec_fn=outside.enter,  # noqa: PLW1509
    )
    assert liar.stdout is not None
    try:
        assert liar.stdout.readline() == b"serving\n"
        path = str(ctst.write(component("web") + component("db")))
        assert ctst("run", "-d", path, preexec_fn=lambda: in_mounts(ctst, resolv)).status == 0
        look = "import socket, sys\nprint({a[4][0] for f in (2, 10) for a in socket.getaddrinfo(sys.argv[1], 80, f)})"
        found = ctst.ok("exec", "web", "/usr/bin/python3", "-c", look, "db")
        at = json.loads(ctst.ok("inspect", "db"))["attachments"][0]
        assert eval(found) == {at["address"], at["address6"]}
        # A name that is led to the metadata service, or to loopback, gains nothing by it.
        assert "169.254.169.254" in ctst.ok("exec", "web", "/usr/bin/python3", "-c", look, "rebound.example")
        assert ask_inside(ctst, "web", ("rebound.example", 80, "tcp", 0.5)) == [""]
        # Nothing answers at the gateway: no server of ours to confuse with loops, compression or large packets.
        assert (
            ask_inside(ctst, "web", (at["gateway"], 53), (at["gateway"], 53, "udp"), (at["gateway6"], 53)) == [""] * 3
        )
        listening = ctst.on_host("ss", "-Hlntu")
        assert ":53 " not in listening
    finally:
        liar.kill()
        liar.wait()
        asked = liar.stdout.read().decode()
        liar.stdout.close()
    assert "rebound" in asked
    assert "db" not in asked.replace("rebound", ""), asked


ADVERTISE = """
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, "2001:db8:bad::")
for _ in range(3):
    s.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix, ("ff02::1%eth0", 0))
print("sent")
"""


def test_w3_router_advertisements_of_a_container_are_heeded_by_nobody(ctst: Ctst, outside: Outside) -> None:
    raw = 'capabilities = ["NET_RAW", "SETUID", "SETGID"]'
    ctst.ok("run", "-d", str(ctst.write(component("web") + component("evil", raw))))
    bridge = json.loads(ctst.ok("inspect", "web"))["attachments"][0]["bridge"]
    ctst.on_host("sysctl", "-qw", f"net.ipv6.conf.{bridge}.accept_ra=2")
    assert ctst.ok("exec", "evil", "/usr/bin/python3", "-c", ADVERTISE) == "sent\n"
    pid = ctst.rows()["web"]["pid"]
    for routes in (ctst.on_host("ip", "-6", "route"), read(f"/proc/{pid}/net/ipv6_route")):
        assert "2001:db8:bad:" not in routes
    assert ctst.on_host("ip", "-6", "route", "show", "default").count("default") == 1
    denied = (
        "import socket\ntry:\n    socket.socket(10, socket.SOCK_RAW, 58)\nexcept PermissionError:\n    print('denied')"
    )
    assert ctst.ok("exec", "web", "/usr/bin/python3", "-c", denied) == "denied\n", (
        "raw sockets are off unless asked for"
    )


HOLD = """
import resource, select, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
s = socket.create_server(("0.0.0.0", 80), backlog=4096)
s.setblocking(False)
poll, clients = select.epoll(), {}
poll.register(s, select.EPOLLIN)
print("serving", flush=True)
while True:
    for fd, event in poll.poll():
        if fd == s.fileno():
            try:
                while True:
                    c, _ = s.accept()
                    clients[c.fileno()] = c
                    poll.register(c, select.EPOLLIN)
            except OSError:
                continue
        try:
            data = clients[fd].recv(65536)
        except OSError as error:
            print("reset", flush=True)
            data = None
        if data:
            clients[fd].sendall(data)
        else:
            if data == b"":
                clients[fd].sendall(b"bye")
            poll.unregister(fd)
            clients.pop(fd).close()
"""
CROWD = """
import resource, socket, struct, sys
count = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
crowd = [socket.create_connection((sys.argv[2], 8080), 20) for _ in range(count)]
for c in crowd:
    c.sendall(b"x")
echoed = sum(c.recv(10) == b"x" for c in crowd)
half = crowd.pop()
half.shutdown(socket.SHUT_WR)
rest = half.recv(10)
reset = crowd.pop()
reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
reset.close()
print(echoed, rest.decode(), flush=True)
sys.stdin.read()
"""


def test_w5_no_process_of_ours_is_between_clients_and_a_published_port(ctst: Ctst, outside: Outside) -> None:
    """Connections that are idle, half-closed, reset, or ten thousand, are the kernel's and the container's affair."""
    words = json.dumps(["/usr/bin/python3", "-c", HOLD])
    stack = f'COMPONENT web {{\n image = "{PYTHON}"\n command = {words}\n}}\nEXPOSE "0.0.0.0":8080:80 -> web\n'
    ctst.ok("run", "-d", str(ctst.write(stack)))
    eventually(lambda: "serving" in ctst.ok("logs", "web"))
    (supervisor,) = marked(ctst.token)
    before = sorted(os.listdir(f"/proc/{supervisor}/fd"))
    count = 5000 if FULL else 1000  # from each of two places
    crowds = [
        subprocess.Popen(
            [sys.executable, "-c", CROWD, str(count), address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=enter,  # noqa: PLW1509
        )
        for enter, address in ((ctst.enter, "127.0.0.1"), (outside.enter, HOST))
    ]
    try:
        for crowd in crowds:
            assert crowd.stdout is not None
            assert crowd.stdout.readline().split() == [str(count).encode(), b"bye"]
        eventually(lambda: ctst.ok("logs", "web").count("reset") == 2)
        assert sorted(os.listdir(f"/proc/{supervisor}/fd")) == before
        assert marked(ctst.token) == [supervisor], "no other process of ours"
    finally:
        for crowd in crowds:
            assert crowd.stdin is not None
            assert crowd.stdout is not None
            crowd.stdin.close()
            crowd.wait(20)
            crowd.stdout.close()


def test_w6_rules_are_gone_after_a_crash_and_replaced_after_a_flush(ctst: Ctst, outside: Outside) -> None:
    path = str(ctst.write(WEB + component("apart", 'network = "apart"')))
    ctst.ok("run", "-d", path)
    at = json.loads(ctst.ok("inspect", "apart"))["attachments"][0]["address"]
    assert ask_inside(ctst, "web", (at, 80, "tcp", 0.5)) == [""]
    # A firewall that is loaded anew: the supervisor hears of it; without one, the next command puts ours back.
    ctst.on_host("nft", "flush", "ruleset")
    eventually(lambda: "table inet containust-" in ctst.on_host("nft", "list", "tables"))
    assert ask_inside(ctst, "web", (at, 80, "tcp", 0.5)) == [""]
    kill(marked(ctst.token))
    ctst.on_host("nft", "flush", "ruleset")
    ctst.ok("run", "-d", path)
    assert ask_inside(ctst, "web", (at, 80, "tcp", 0.5)) == [""]
    assert all(ask(ctst.enter, ("127.0.0.1", 8080)))
    ctst.on_host("nft", "add table inet own")
    kill([*marked(ctst.token), *(row["pid"] for row in ctst.rows().values())])
    ctst.ok("ps")
    assert ctst.on_host("nft", "list", "ruleset").split() == ["table", "inet", "own", "{", "}"]
    assert ": ct" not in ctst.on_host("ip", "-o", "link")


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254"])
def test_w8_the_metadata_service_is_blocked(ctst: Ctst, outside: Outside, address: str) -> None:
    outside.run("ip", "addr", "add", address, "dev", "lo")
    ctst.on_host("ip", "route", "add", address, "via", OUTSIDE6 if ":" in address else OUTSIDE)
    outside.serve(outside.enter, 80)
    ctst.ok("run", "-d", str(ctst.write(component("web"))))
    assert ask(ctst.enter, (address, 80), (address, 80, "udp")) != ["", ""], "the host reaches it"
    away = OUTSIDE6 if ":" in address else OUTSIDE
    questions = ((address, 80, "tcp", 0.5), (address, 80, "udp", 0.5), (OUTSIDE, 80))
    assert ask_inside(ctst, "web", *questions) == ["", "", HOST], away
