"""Throughput and latency between containers and of a published port, beside a plain veth pair, in one run.

``sudo python bench/network.py [rounds]`` prints medians and their ratios to the plain pair. The rounds alternate
between the three, all inside a network namespace of the benchmark's own. The server and the client are two processes
that move 256 KB at a time for a second, then 2000 one-byte round trips.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import statistics
import subprocess
import sys
import time

from containust.common.types import Expose
from containust.core import syscalls as sc
from containust.runtime.network import inside
from containust.runtime.network.stack import StackNetworks

PROJECT = "bec4beec00"
PORT = 5000
SECONDS = 1.0
TURNS = 2000


def namespace() -> tuple[int, object]:
    """A process in a network namespace of its own that calls what it is sent."""
    ours, theirs = multiprocessing.Pipe()
    pid = os.fork()
    if pid:
        ours.recv()
        return pid, ours
    try:
        sc.unshare(sc.CLONE_NEWNET)
        theirs.send(None)
        while True:
            function, arguments = theirs.recv()
            theirs.send(function(*arguments))
    finally:
        os._exit(0)


def call(process: tuple[int, object], function: object, *arguments: object) -> object:
    """Call a function in a namespace."""
    pipe = process[1]
    pipe.send((function, arguments))  # type: ignore[attr-defined]
    return pipe.recv()  # type: ignore[attr-defined]


def serve() -> None:
    """Start the server: the first byte of a connection says whether it swallows or echoes."""
    if os.fork():
        return
    server = socket.create_server(("0.0.0.0", PORT))
    while True:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if connection.recv(1) == b"e":
            while data := connection.recv(1):
                connection.sendall(data)
        else:
            while connection.recv(1 << 18):
                pass


def measure(address: str, port: int) -> tuple[float, float]:
    """``(bytes a second, seconds a round trip)``."""
    with socket.create_connection((address, port)) as client:
        client.sendall(b"s")
        block = bytes(1 << 18)
        sent, start = 0, time.perf_counter()
        while (now := time.perf_counter()) - start < SECONDS:
            sent += client.send(block)
        rate = sent / (now - start)
    with socket.create_connection((address, port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(b"e")
        start = time.perf_counter()
        for _ in range(TURNS):
            client.sendall(b"x")
            client.recv(1)
        return rate, (time.perf_counter() - start) / TURNS


def main(rounds: int) -> None:
    """Set up the three, measure them in turn, print the table."""
    sc.unshare(sc.CLONE_NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    plain, client, server = namespace(), namespace(), namespace()
    networks = StackNetworks(PROJECT)
    networks.ensure(["bridge"])
    attachments = {name: networks.allocate(name, ["bridge"]) for name in ("client", "server")}
    networks.publish([Expose("server", 8080, PORT)], attachments)
    networks.attach([(client[0], attachments["client"]), (server[0], attachments["server"])])
    call(client, inside.configure, inside.prepare(attachments["client"]))
    call(server, inside.configure, inside.prepare(attachments["server"]))
    # The plain pair leads from the namespace that plays the host into another one, as a published port does.
    script = f"""ip link add plain0 mtu 1500 type veth peer name eth0 mtu 1500 netns {plain[0]}
        ip addr add 192.0.2.1/24 dev plain0; ip link set plain0 up"""
    subprocess.run(script, shell=True, check=True)
    call(plain, os.system, "ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up")
    call(plain, serve)
    call(server, serve)
    time.sleep(0.2)
    results: dict[str, list[tuple[float, float]]] = {}
    try:
        for _ in range(rounds):
            results.setdefault("plain veth", []).append(measure("192.0.2.2", PORT))
            results.setdefault("container to container", []).append(
                call(client, measure, attachments["server"][0].address, PORT)  # type: ignore[arg-type]
            )
            results.setdefault("published port", []).append(measure("127.0.0.1", 8080))
    finally:
        for pid, _ in (plain, client, server):
            children = f"/proc/{pid}/task/{pid}/children"
            for child in open(children).read().split():
                os.kill(int(child), signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        networks.teardown()
    base = [statistics.median(r[i] for r in results["plain veth"]) for i in (0, 1)]
    print(f"{'path':24} {'GB/s':>7} {'ratio':>6} {'us/turn':>8} {'ratio':>6}")
    for name, values in results.items():
        rate, turn = (statistics.median(v[i] for v in values) for i in (0, 1))
        print(f"{name:24} {rate / 1e9:7.2f} {rate / base[0]:6.2f} {turn * 1e6:8.1f} {turn / base[1]:6.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
