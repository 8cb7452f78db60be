"""Throughput and latency between containers and of published ports, beside plain veth pairs, docker and podman.

    python bench/network.py [--rounds N] [--seconds S] [--one-cpu] [--ctst PATH] [--only NAME,NAME] [--json FILE]

All in one run and one network namespace, interleaved. The sender is bench/stream.c, the same static binary everywhere;
one line compares it with iperf3. Three kinds of paths, each beside a plain one of the same shape:

between   two containers on a network; plain: two namespaces on a bridge
host      the host to a published port; plain: the host to a namespace by a veth pair
outside   a test host to a published port; plain: the test host to a namespace, forwarded by the host

What a published port costs at least is beside it: "bridge", the namespace's own address on a bridge, and "dnat", the
same by one rule that translates, without a firewall. "-lo" is by 127.0.0.1, whose connections are translated twice.

With --one-cpu, sender and receiver share a processor: a rate is then what a path costs in all, and steadier than what
two processors make of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from peers import engines
from peers.place import Place, run

PORT = 5000
HOST, OUTSIDE = "192.0.2.1", "192.0.2.9"
Client = Callable[..., list[str]]  # the words of a command -> those that run it where the client is
Way = tuple[str, str, str, Client, str, int]  # shape, whose, note, client, address, port
SHAPES = ("between", "host", "outside")


class Namespace:
    """A network namespace, held by a sleeping process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "100000"])
        while os.readlink(f"/proc/{self.process.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.005)
        self("ip", "link", "set", "lo", "up")

    def command(self, *words: str) -> list[str]:
        """``words`` as a command that runs in here."""
        return ["nsenter", "-t", str(self.process.pid), "-n", *words]

    def __call__(self, *words: str) -> str:
        return str(run(*self.command(*words)))

    def veth(self, here: str, address: str, mine: str = "", master: str = "") -> None:
        """A pair from the benchmark's namespace, ``here``, to ``eth0`` with ``address``; ``mine`` is the near end's."""
        pid = str(self.process.pid)
        run("ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", pid)
        if master:
            run("ip", "link", "set", here, "master", master)
        else:
            run("ip", "addr", "add", mine, "dev", here)
        run("ip", "link", "set", here, "up")
        self("ip", "addr", "add", address, "dev", "eth0")
        self("ip", "link", "set", "eth0", "up")


def plain(stream: str) -> tuple[list[Way], Namespace]:
    """The plain paths, and the test host."""
    outside, server, one, two = (Namespace() for _ in range(4))
    outside.veth("out0", f"{OUTSIDE}/24", f"{HOST}/24")
    outside("ip", "route", "add", "default", "via", HOST)
    server.veth("plain0", "198.51.100.2/24", "198.51.100.1/24")
    server("ip", "route", "add", "default", "via", "198.51.100.1")
    run("ip", "link", "add", "plainbr", "type", "bridge", "mcast_snooping", "0")
    run("ip", "addr", "add", "203.0.113.1/24", "dev", "plainbr")
    run("ip", "link", "set", "plainbr", "up")
    one.veth("plain1", "203.0.113.2/24", master="plainbr")
    two.veth("plain2", "203.0.113.3/24", master="plainbr")
    two("ip", "route", "add", "default", "via", "203.0.113.1")
    run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.plainbr.route_localnet=1")
    run("nft", DNAT)
    for place in (server, two):
        subprocess.Popen(place.command(stream, "serve", str(PORT)))
    return [
        ("between", "plain", "two namespaces on a bridge", one.command, "203.0.113.3", PORT),
        ("host", "plain", "a veth pair", on_host, "198.51.100.2", PORT),
        ("host", "bridge", "a veth pair on a bridge, as containers have", on_host, "203.0.113.3", PORT),
        ("host", "dnat", "that, translated by one rule", on_host, HOST, 8090),
        ("host", "dnat-lo", "translated twice", on_host, "127.0.0.1", 8090),
        ("outside", "plain", "two veth pairs and forwarding", outside.command, "198.51.100.2", PORT),
        ("outside", "bridge", "the second on a bridge", outside.command, "203.0.113.3", PORT),
        ("outside", "dnat", "that, translated by one rule", outside.command, HOST, 8090),
    ], outside


DNAT = """
    table ip plain {
        chain arrive { type nat hook prerouting priority -100; }
        chain output { type nat hook output priority -100; }
        chain leave { type nat hook postrouting priority 100; }
    }
    add rule ip plain arrive tcp dport 8090 fib daddr type local dnat to 203.0.113.3:5000
    add rule ip plain output tcp dport 8090 fib daddr type local dnat to 203.0.113.3:5000
    add rule ip plain leave oifname plainbr ip saddr 127.0.0.0/8 masquerade
"""


def on_host(*words: str) -> list[str]:
    """A client in the benchmark's own namespace."""
    return list(words)


STACK = """
COMPONENT server {{
    image   = "tar://{tar}"
    command = ["/bin/stream", "serve", "{port}"]
}}
COMPONENT client {{
    image   = "tar://{tar}"
    command = ["/bin/sleep", "100000"]
}}
EXPOSE "0.0.0.0":8080:{port} -> server
"""


@contextlib.contextmanager
def ctst(place: Place, program: str | None, outside: Namespace) -> Iterator[list[Way]]:
    command, environment, skipped = engines.ctst(place, program)
    if skipped:
        raise OSError(skipped)
    file = Path(place.scratch, "ctst", "containust.ctst")
    file.write_text(STACK.format(tar=place.tar, port=PORT))
    run(*command, "run", "-d", environment=environment)
    try:
        rows = json.loads(run(*command, "ps", "--json", environment=environment))["containers"]
        at = {row["name"]: row["networks"]["bridge"] for row in rows}

        def inside(*words: str) -> list[str]:
            return [*command, "exec", "client", "--", "/bin/stream", *words[1:]]

        yield [
            ("between", "ctst", "", inside, at["server"], PORT),
            ("host", "ctst", f"by {HOST}", on_host, HOST, 8080),
            ("host", "ctst-lo", "by 127.0.0.1", on_host, "127.0.0.1", 8080),
            ("outside", "ctst", "", outside.command, HOST, 8080),
        ]
    finally:
        run(*command, "rm", "--force", environment=environment)


@contextlib.contextmanager
def engine(place: Place, name: str, image: str, port: int, outside: Namespace) -> Iterator[list[Way]]:
    """docker or podman, whose address is HOST: what goes to 127.0.0.1 docker copies in a process."""

    def call(*words: str) -> str:
        return str(run(name, *words, environment=ENVIRONMENTS[name])).strip()

    def inside(*words: str) -> list[str]:
        return [name, "exec", client, "/bin/stream", *words[1:]]

    server = call("run", "-d", "-p", f"{port}:{PORT}", image, "/bin/stream", "serve", str(PORT))
    client = call("run", "-d", image, "/bin/sleep", "100000")
    inspected = json.loads(call("inspect", server))[0]["NetworkSettings"]
    networks = inspected.get("Networks") or {}
    address = inspected.get("IPAddress") or next(iter(networks.values()))["IPAddress"]
    try:
        yield [
            ("between", name, "", inside, address, PORT),
            ("host", name, f"by {HOST}", on_host, HOST, port),
            ("outside", name, "", outside.command, HOST, port),
        ]
    finally:
        for container in (server, client):
            call("rm", "-f", container)


ENVIRONMENTS: dict[str, dict[str, str]] = {}


def measure(path: Way, stream: str, seconds: float, turns: int) -> tuple[float, float]:
    """``(bytes a second, microseconds a round trip)``."""
    _, who, _, client, address, port = path
    environment = ENVIRONMENTS.get(who)
    rate = run(*client(stream, "send", address, str(port), str(seconds)), environment=environment)
    turn = run(*client(stream, "turn", address, str(port), str(turns)), environment=environment)
    return float(rate), float(turn)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one throughput measurement")
    parser.add_argument("--turns", type=int, default=5000, help="round trips of one latency measurement")
    parser.add_argument("--one-cpu", action="store_true", help="run everything on one processor")
    parser.add_argument("--ctst", help="path of the ctst to measure")
    parser.add_argument("--only", default="ctst,docker,podman", help="names, separated by commas")
    parser.add_argument("--json", help="write the raw figures to this file")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if options.one_cpu:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with Place() as place, contextlib.ExitStack() as stack:
        stream = f"{place.rootfs}/bin/stream"
        run("gcc", "-O2", "-static", "-o", stream, str(Path(__file__).with_name("stream.c")))
        run("tar", "-C", place.rootfs, "-cf", place.tar, ".")
        paths, outside = plain(stream)
        stack.callback(place.end_children)
        if "ctst" in wanted:
            paths += stack.enter_context(ctst(place, options.ctst, outside))
        for name in ("docker", "podman"):
            if name in wanted:
                try:
                    paths += stack.enter_context(started(place, name, stack, outside))
                except OSError as error:
                    print(f"{name}: left out: {error}", file=sys.stderr)
        results: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(options.rounds):
            for path in random.sample(paths, len(paths)):  # what a path's neighbour leaves behind falls on all alike
                figures = measure(path, stream, options.seconds, options.turns)
                results.setdefault(path[:2], []).append(figures)
        print(f"iperf3 on the plain veth pair: {iperf3(outside, options.seconds)}")
    show(paths, results)
    if options.json:
        named = {f"{shape} {who}": figures for (shape, who), figures in results.items()}
        Path(options.json).write_text(json.dumps(named))


def started(
    place: Place, name: str, stack: contextlib.ExitStack, outside: Namespace
) -> contextlib.AbstractContextManager[list[Way]]:
    if name == "docker":
        if engines.missing("docker", "dockerd", "iptables"):
            raise OSError(engines.missing("docker", "dockerd", "iptables"))
        daemon = engines.Dockerd(place, bridge=True)
        stack.callback(daemon.stop)
        ENVIRONMENTS[name] = daemon.environment
        # Its policy for what is forwarded is to drop; the plain path and the others are no business of it.
        run("iptables", "-P", "FORWARD", "ACCEPT")
        return engine(place, name, "bench", 8081, outside)
    if engines.missing("podman", "runc"):
        raise OSError(engines.missing("podman", "runc"))
    engines.podman(place)
    ENVIRONMENTS[name] = place.environment
    return engine(place, name, "localhost/bench", 8082, outside)


def iperf3(outside: Namespace, seconds: float) -> str:
    """What iperf3 gets through a veth pair, for comparison with our sender."""
    if engines.missing("iperf3"):
        return str(engines.missing("iperf3"))
    server = subprocess.Popen(outside.command("iperf3", "-s", "-1"), stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError, KeyError):  # it does not listen yet
                said = json.loads(run("iperf3", "-c", OUTSIDE, "-J", "-t", str(max(1, round(seconds * 3)))))
                return f"{said['end']['sum_received']['bits_per_second'] / 8e9:.2f} GB/s"
            time.sleep(0.05)
        return "no answer"
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


def show(paths: list[Way], results: dict[tuple[str, str], list[tuple[float, float]]]) -> None:
    """Medians, their ratios to the plain path of the same shape, and the ratios of the best of each.

    On a machine that does other things too the best is what the path allows; the median is what it got.
    """
    print(
        f"{'path':8} {'who':7} {'GB/s':>6} {'x plain':>8} {'best':>6} {'us/turn':>8} {'x plain':>8} {'best':>6}  note"
    )
    for shape in SHAPES:
        base = results[shape, "plain"]
        for path in paths:
            if path[0] != shape:
                continue
            own = results[path[:2]]
            rate, turn = (statistics.median(one[i] for one in own) for i in (0, 1))
            rates, turns = (
                statistics.median(mine[i] / its[i] for mine, its in zip(own, base, strict=True)) for i in (0, 1)
            )
            fastest = max(one[0] for one in own) / max(one[0] for one in base)
            shortest = min(one[1] for one in own) / min(one[1] for one in base)
            print(
                f"{shape:8} {path[1]:7} {rate / 1e9:6.2f} {rates:8.2f} {fastest:6.2f} {turn:8.1f} {turns:8.2f} "
                f"{shortest:6.2f}  {path[2]}"
            )


if __name__ == "__main__":
    main()
