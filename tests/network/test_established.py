"""What packets of established connections meet on their way: each of them pays for it."""

from __future__ import annotations

import json
import os
import socket

from played_host import HOST, OUTSIDE, Host, ask, listen, sh

from containust.common.types import Expose
from containust.runtime.network.rules import table_name

ONE = "0123456789"
WEB = Expose("web", 8081, 80, "tcp", "0.0.0.0")
TURNS = 500


def echo(port: int) -> None:
    """Echo the bytes of one connection, in a process of its own."""
    server = socket.create_server(("0.0.0.0", port))
    if os.fork():
        server.close()
        return
    connection, _ = server.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while connection.send(connection.recv(1) or os._exit(0)):
        pass


def turns(address: str, port: int, count: int) -> None:
    """One connection, on which a byte goes to and fro ``count`` times."""
    with socket.create_connection((address, port), 5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            client.sendall(b"?")
            assert client.recv(1) == b"?"


def counted(table: str, chain: str) -> list[int]:
    """The packets of the counters that are marked as the test's, in their order."""
    listed = json.loads(sh(f"nft -j list chain inet {table} {chain}"))["nftables"]
    rules = [one["rule"] for one in listed if one.get("rule", {}).get("comment") == "test"]
    return [next(part["counter"]["packets"] for part in rule["expr"] if "counter" in part) for rule in rules]


def test_packets_of_a_connection_leave_the_chains_by_their_first_rules(host: Host) -> None:
    containers, _ = host.containers(host.networks(ONE), {"web": ["bridge"]}, [WEB])
    containers["web"].call(echo, 80)
    table = table_name(ONE)
    sh("nft 'add table inet own; add chain inet own c { type filter hook forward priority 300; }'")
    for direction in ("iifname", "oifname"):
        sh(f"nft 'add rule inet own c {direction} up0 counter comment test'")
    sh("nft 'add chain inet own first { type filter hook forward priority -300; }'")
    sh("nft 'add rule inet own first ct state != { established, related } counter comment test'")
    # Each behind the rule by which packets are expected to leave.
    sh(f"nft 'add rule inet {table} guard index 0 iifname up0 counter comment test'")
    sh(f"nft 'add rule inet {table} forward index 0 counter comment test'")
    sh("nft 'add rule inet containust forward index 1 counter comment test'")
    sh("nft 'add rule inet containust forward index 0 iifname up0 counter comment test'")
    host.outside.call(turns, HOST, 8081, TURNS)
    there, back = counted("own", "c")
    assert there >= TURNS and back >= TURNS, "the connection was forwarded"
    assert counted(table, "guard") == [0], "only what comes from containers is looked at"
    # One, unless the answer was late and it was sent again: as many as the kernel took for first ones, and no other.
    first = counted("own", "first")
    assert first[0] >= 1
    assert counted(table, "forward") == first, "the first packet of a connection"
    assert counted("containust", "forward") == [0, 0]


def test_a_family_that_the_host_forwards_anyhow_is_not_guarded(host: Host) -> None:
    sh("sysctl -qw net.ipv4.ip_forward=1")
    host.containers(host.networks(ONE), {"web": ["bridge"]}, [WEB])
    guard = sh("nft list chain inet containust forward")
    assert "@forwarding4" not in guard
    assert "@forwarding6" in guard or "nfproto ipv6" in guard


def test_ports_in_ipv4_only_need_no_chain_for_answers_to_the_ipv6_loopback(host: Host) -> None:
    networks = host.networks(ONE)
    _, at = host.containers(networks, {"web": ["bridge"]}, [WEB])
    assert "chain answer" not in sh("nft list ruleset")
    networks.publish([Expose("web", 8081, 80)], at)
    assert "chain answer" in sh("nft list ruleset")


def test_a_bridge_learns_no_address_that_a_container_invents(host: Host) -> None:
    containers, at = host.containers(host.networks(ONE), {"web": ["bridge"], "evil": ["bridge"]}, [WEB])
    before = sh(f"bridge fdb show br {at['web'][0].bridge}")
    assert at["evil"][0].mac in before

    containers["evil"].call(invent, 300)
    assert sh(f"bridge fdb show br {at['web'][0].bridge}") == before
    # One that has another address after all is found by everybody.
    containers["evil"].call(
        sh, "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:77; ip link set eth0 up"
    )
    containers["evil"].call(sh, f"ip route replace default via {at['evil'][0].gateway}")
    containers["evil"].call(listen, "0.0.0.0", 80)
    containers["web"].call(listen, "0.0.0.0", 80)
    assert containers["web"].call(ask, at["evil"][0].address, 80) == at["web"][0].address
    assert containers["evil"].call(ask, at["web"][0].address, 80) == at["evil"][0].address
    assert host.outside.call(ask, HOST, 8081) == OUTSIDE


def invent(count: int) -> None:
    """Send frames to all from ``count`` Ethernet addresses."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        for number in range(count):
            raw.send(b"\xff" * 6 + b"\x02\x55\x55\x55" + number.to_bytes(2, "big") + b"\x88\xb5" + bytes(46))
