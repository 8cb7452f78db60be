"""What our process spends on networks for each container, beyond what the kernel takes for the same requests.

    python bench/network_setup.py [--rounds N] [--containers N,N,...]

The floor is raw netlink: the very bytes that our code sent, sent again from buffers that lie ready, after everything
has been removed. Ours is the whole: reading the host's links and routes, choosing subnets and addresses, building
requests and rules, sending them, and configuring the container's end from within. The order alternates; in a network
namespace of the benchmark's own; two bridges, two interfaces and a published port each. Target: 2.5 ms a container
beyond the floor. From ten containers on, the difference is less than what the kernel's own part varies by.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from containust.common.types import Expose
from containust.core import netlink
from containust.core import syscalls as sc
from containust.core.calls import at_once
from containust.runtime.network import inside
from containust.runtime.network.stack import StackNetworks, collect

PROJECT = "bec4beec00"
NAMES = ["front", "back"]
Recorded = list[tuple[int, bytes]]  # netlink protocol, batch


class Container:
    """A process in a network namespace of its own that carries out what it is sent and says how long that took."""

    def __init__(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid:
            theirs.close()
            self.pipe.recv()
            return
        try:
            sc.unshare(sc.CLONE_NEWNET)
            theirs.send(None)
            while True:
                function, argument = theirs.recv()
                begin = time.perf_counter()
                function(argument)
                theirs.send(time.perf_counter() - begin)
        finally:
            os._exit(0)

    def timed(self, function: Callable[[Any], None], argument: Any) -> float:
        """Seconds that ``function(argument)`` takes in here."""
        self.pipe.send((function, argument))
        return float(self.pipe.recv())

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pipe.close()


def raw(batches: Recorded) -> None:
    """Send batches as they are; each ends with a request that asks for an answer."""
    _open.clear()  # not afterwards: closing a socket of nf_tables waits for a grace period, and ours stays open
    for protocol, batch in batches:
        if protocol not in _open:
            _open[protocol] = socket.socket(netlink.AF_NETLINK, socket.SOCK_RAW, protocol)
        _open[protocol].send(batch)
        answer = _open[protocol].recv(65536)
        assert int.from_bytes(answer[16:20], sys.byteorder) == 0, "refused"


_open: dict[int, socket.socket] = {}


def recorder() -> Recorded:
    """From now on what our code sends is kept too."""
    kept: Recorded = []
    protocols: dict[int, int] = {}
    construct, send = netlink.Connection.__init__, netlink.Connection.send_batch

    def constructed(self: netlink.Connection, protocol: int) -> None:
        construct(self, protocol)
        protocols[id(self)] = protocol

    def sent(self: netlink.Connection, messages: list[bytes], acknowledged: int) -> Any:
        buffer = bytearray(b"".join(messages))
        offset = 0
        for position, one in enumerate(messages):
            length, kind, flags, _, _ = netlink.HEADER.unpack_from(one)
            flags |= netlink.NLM_F_ACK if position == acknowledged else 0
            netlink.HEADER.pack_into(buffer, offset, length, kind, flags, position, 0)
            offset += len(one)
        kept.append((protocols[id(self)], bytes(buffer)))
        return send(self, messages, acknowledged)

    netlink.Connection.__init__ = constructed  # type: ignore[method-assign]
    netlink.Connection.send_batch = sent  # type: ignore[assignment]
    return kept


def ours(containers: list[Container]) -> tuple[float, list[list[bytes]]]:
    """Seconds for all containers together, on the host's side and their own; and what each sent."""
    begin = time.perf_counter()
    networks = StackNetworks(PROJECT)
    networks.ensure(NAMES)
    names = [f"c{number}" for number in range(len(containers))]
    attachments = {name: networks.allocate(name, NAMES) for name in names}
    networks.publish([Expose(name, 8000 + number, 80) for number, name in enumerate(names)], attachments)
    networks.attach([(one.pid, attachments[name]) for one, name in zip(containers, names, strict=True)])
    spent = time.perf_counter() - begin
    requests = []
    for one, name in zip(containers, names, strict=True):
        begin = time.perf_counter()
        requests.append(inside.prepare(attachments[name]))
        spent += time.perf_counter() - begin + one.timed(partial(at_once, inside.configure), requests[-1])
    return spent, requests


def floor(containers: list[Container], host: Recorded, requests: list[list[bytes]]) -> float:
    """Seconds for the same requests, raw."""
    begin = time.perf_counter()
    raw(host)
    spent = time.perf_counter() - begin
    for one, messages in zip(containers, requests, strict=True):
        batch = bytearray(b"".join(messages))
        last = len(batch) - len(messages[-1])
        length, kind, flags, _, _ = netlink.HEADER.unpack_from(batch, last)
        netlink.HEADER.pack_into(batch, last, length, kind, flags | netlink.NLM_F_ACK, 0, 0)
        spent += one.timed(raw, [(netlink.NETLINK_ROUTE, bytes(batch))])
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--containers", default="1,10,50")
    options = parser.parse_args()
    sc.unshare(sc.CLONE_NEWNET)
    kept = recorder()
    print(f"{'containers':>10} {'ours ms':>8} {'floor ms':>9} {'beyond, each':>13}")
    for count in map(int, options.containers.split(",")):
        containers = [Container() for _ in range(count)]
        kept.clear()
        results = []
        try:
            _, requests = ours(containers)
            host = list(kept)
            collect(PROJECT)
            for number in range(options.rounds):
                first = ours(containers)[0] if number % 2 else floor(containers, host, requests)
                collect(PROJECT)
                second = floor(containers, host, requests) if number % 2 else ours(containers)[0]
                collect(PROJECT)
                _open.clear()
                results.append((first, second) if number % 2 else (second, first))
        finally:
            for one in containers:
                one.close()
        mine, least = (statistics.median(one[i] for one in results) * 1e3 for i in (0, 1))
        each = statistics.median(a - b for a, b in results) * 1e3 / count
        print(f"{count:10} {mine:8.2f} {least:9.2f} {each:10.2f} ms")


if __name__ == "__main__":
    main()
