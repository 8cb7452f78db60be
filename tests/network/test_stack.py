"""Networks of a project against the kernel: what is reachable, what is not, and what is left."""

from __future__ import annotations

import os
import signal

import pytest
from played_host import FULL, HOST, HOST6, OUTSIDE, OUTSIDE6, Host, ask, links, listen, setting, sh

from containust.common.errors import ContainustError
from containust.common.types import Expose
from containust.core import netlink
from containust.core import nftables as nf
from containust.core.calls import at_once
from containust.runtime.network import forwarding
from containust.runtime.network.attachment import Attachment
from containust.runtime.network.stack import StackNetworks, collect, leftovers

ONE, TWO = "a1b2c3d4e5", "f6a7b8c9d0"


def test_peers_reach_each_other_on_their_network_in_both_families(host: Host) -> None:
    containers, at = host.containers(host.networks(ONE), {"web": ["bridge"], "db": ["bridge"]})
    for address in ("0.0.0.0", "::"):
        containers["db"].call(listen, address, 5432 if address == "::" else 5433)
    assert containers["web"].call(ask, at["db"][0].address, 5433) == at["web"][0].address
    assert containers["web"].call(ask, at["db"][0].address6, 5432) == at["web"][0].address6


def test_published_ports_are_reached_from_the_host_and_from_outside(host: Host) -> None:
    exposes = [
        Expose("web", 8080, 80),
        Expose("web", 8081, 80, "tcp", "0.0.0.0"),
        Expose("web", 5300, 53, "udp", "0.0.0.0"),
        Expose("web", 8082, 80, "tcp", HOST),
    ]
    containers, at = host.containers(host.networks(ONE), {"web": ["bridge"], "db": ["bridge"]}, exposes)
    containers["web"].call(listen, "0.0.0.0", 80)
    containers["web"].call(listen, "0.0.0.0", 53, "udp")
    gateway = at["web"][0].gateway
    assert ask("127.0.0.1", 8080) == gateway
    assert ask("127.0.0.1", 8081) == gateway
    assert ask(HOST, 8082) == HOST
    assert ask("127.0.0.1", 5300, "udp") == gateway
    assert host.outside.call(ask, HOST, 8081) == OUTSIDE, "the container sees the client's address"
    assert host.outside.call(ask, HOST, 5300, "udp") == OUTSIDE
    assert host.outside.call(ask, HOST, 8082) == OUTSIDE
    assert host.outside.call(ask, HOST, 8080) == "", "published on loopback only"
    assert containers["db"].call(ask, HOST, 8081) == gateway, "a peer by the host's address"
    assert containers["web"].call(ask, HOST, 8081) == gateway, "the container itself"


@pytest.mark.parametrize("filtered", ["0", "1"])
def test_published_ports_in_ipv6(host: Host, filtered: str) -> None:
    if not os.path.exists("/proc/sys/net/bridge"):
        pytest.skip("no br_netfilter")
    sh(f"sysctl -qw net.bridge.bridge-nf-call-ip6tables={filtered} net.bridge.bridge-nf-call-iptables={filtered}")
    exposes = [Expose("web", 8080, 80), Expose("web", 8081, 80, "tcp", "[::]")]
    containers, at = host.containers(host.networks(ONE), {"web": ["bridge"]}, exposes)
    containers["web"].call(listen, "::", 80)
    assert ask("::1", 8080), "localhost is ::1 too"
    assert ask(HOST6, 8081) == HOST6
    assert host.outside.call(ask, HOST6, 8081) == OUTSIDE6
    assert host.outside.call(ask, HOST6, 8080) == ""
    assert host.outside.call(ask, HOST, 8081) == OUTSIDE, "[::] is both families, as for a socket"
    assert at["web"][0].address6


def test_networks_and_projects_are_apart_in_both_directions(host: Host) -> None:
    first, at_first = host.containers(host.networks(ONE), {"a": ["front"], "b": ["back"], "ab": ["front", "back"]})
    second, at_second = host.containers(host.networks(TWO), {"a": ["front"]})
    everyone = {"a": first["a"], "b": first["b"], "other": second["a"]}
    places = {"a": at_first["a"][0], "b": at_first["b"][0], "other": at_second["a"][0]}
    for one in everyone.values():
        one.call(listen, "::", 80)
    for who, process in everyone.items():
        for whom, place in places.items():
            if who != whom:
                assert process.call(ask, place.address, 80, "tcp", 0.5) == "", (who, whom)
                assert process.call(ask, place.address6, 80, "tcp", 0.5) == "", (who, whom)
    assert first["ab"].call(ask, places["a"].address, 80)
    assert first["ab"].call(ask, places["b"].address, 80)


def test_containers_reach_no_service_of_the_host(host: Host) -> None:
    containers, at = host.containers(host.networks(ONE), {"web": ["bridge"]})
    listen("127.0.0.1", 7000)
    listen("0.0.0.0", 7001)
    listen("::", 7002)
    web, place = containers["web"], at["web"][0]
    assert web.call(ask, place.gateway, 7001, "tcp", 0.5) == ""
    assert web.call(ask, HOST, 7001, "tcp", 0.5) == ""
    assert web.call(ask, place.gateway6, 7002, "tcp", 0.5) == ""
    listen("::1", 7003)
    gateway_mac = web.call(sh, f"ping -c1 -W1 {place.gateway6} >/dev/null; ip -6 neigh show {place.gateway6}").split()[
        4
    ]
    web.call(sh, "ip addr del ::1/128 dev lo; ip -6 neigh add ::1 dev eth0 lladdr " + gateway_mac)
    web.call(sh, f"ip -6 route add ::1/128 dev eth0 src {place.address6}")
    assert web.call(ask, "::1", 7003, "tcp", 0.5) == ""
    # An attacker with all network privileges inside sends to 127.0.0.1 by way of the bridge.
    web.call(sh, "ip addr del 127.0.0.1/8 dev lo; sysctl -qw net.ipv4.conf.all.route_localnet=1")
    web.call(sh, f"ip route add 127.0.0.1/32 via {place.gateway} src {place.address}")
    assert web.call(ask, "127.0.0.1", 7000, "tcp", 0.5) == ""


def test_the_metadata_service_is_blocked(host: Host) -> None:
    host.outside.call(sh, "ip addr add 169.254.169.254/32 dev lo")
    sh(f"ip route add 169.254.169.254/32 via {OUTSIDE}")
    host.outside.call(listen, "0.0.0.0", 80)
    containers, _ = host.containers(host.networks(ONE), {"web": ["bridge"]})
    assert ask("169.254.169.254", 80), "the host reaches it"
    assert containers["web"].call(ask, OUTSIDE, 80) == HOST
    assert containers["web"].call(ask, "169.254.169.254", 80, "tcp", 0.5) == ""


def test_the_outside_reaches_nothing_that_is_not_published(host: Host) -> None:
    containers, at = host.containers(host.networks(ONE), {"web": ["bridge"]}, [Expose("web", 8080, 80)])
    containers["web"].call(listen, "0.0.0.0", 80)
    place = at["web"][0]
    host.outside.call(sh, f"ip route add {place.gateway}/32 via {HOST}; ip route add {place.address}/32 via {HOST}")
    assert host.outside.call(ask, place.address, 80, "tcp", 0.5) == ""
    # A neighbour on the wire sends to the host's 127.0.0.1.
    host.outside.call(sh, "ip addr del 127.0.0.1/8 dev lo; sysctl -qw net.ipv4.conf.all.route_localnet=1")
    host.outside.call(sh, f"ip route add 127.0.0.1/32 via {HOST} src {OUTSIDE}")
    sh("sysctl -qw net.ipv4.conf.up0.route_localnet=1")
    assert host.outside.call(ask, "127.0.0.1", 8080, "tcp", 0.5) == ""


def test_forwarding_is_for_containers_only_and_given_back(host: Host) -> None:
    third = host.namespace()
    sh(f"ip link add up1 type veth peer name eth0 netns {third.pid}")
    sh("ip addr add 198.51.100.1/24 dev up1; ip link set up1 up")
    third.call(sh, "ip addr add 198.51.100.9/24 dev eth0; ip link set eth0 up; ip route add default via 198.51.100.1")
    third.call(listen, "0.0.0.0", 80)
    host.outside.call(sh, f"ip route add 198.51.100.0/24 via {HOST}")
    one, two = host.networks(ONE), host.networks(TWO)
    host.containers(one, {"web": ["bridge"]})
    containers, _ = host.containers(two, {"web": ["bridge"]})
    assert setting("ipv4/conf/up0/forwarding") == "1"
    assert containers["web"].call(ask, "198.51.100.9", 80) == "198.51.100.1"
    assert host.outside.call(ask, "198.51.100.9", 80, "tcp", 0.5) == "", "the host is no router between its networks"
    nft = nf.connect()
    assert forwarding.changed(nft)["forwarding4"] == ["up0", "up1"]
    nft.close()
    one.teardown()
    assert setting("ipv4/conf/up0/forwarding") == "1", "the other project still needs it"
    two.teardown()
    assert setting("ipv4/conf/up0/forwarding") == "0"
    assert sh("nft list ruleset") == ""


def test_offline_containers_reach_peers_only(host: Host) -> None:
    host.outside.call(listen, "::", 80)
    exposes = [Expose("web", 8080, 80)]
    containers, at = host.containers(host.networks(ONE), {"web": ["bridge"], "db": ["bridge"]}, exposes, ["bridge"])
    containers["web"].call(listen, "0.0.0.0", 80)
    sh("nft 'add table inet own; add chain inet own c { type filter hook postrouting priority 300; }'")
    sh("nft 'add rule inet own c oifname up0 meta l4proto { tcp, udp, icmp } counter'")
    assert containers["db"].call(ask, at["web"][0].address, 80) == at["db"][0].address
    assert ask("127.0.0.1", 8080)
    assert containers["web"].call(ask, OUTSIDE, 80, "tcp", 0.5) == ""
    assert containers["web"].call(ask, OUTSIDE6, 80, "tcp", 0.5) == ""
    assert setting("ipv4/conf/up0/forwarding") == "0", "nothing of the host was changed for it"
    assert containers["web"].call(ask, OUTSIDE, 53, "udp", 0.2) == ""
    assert "counter packets 0 bytes 0" in sh("nft list chain inet own c"), "nothing left"


def test_the_hosts_forward_policy_applies_to_published_ports(host: Host) -> None:
    exposes = [Expose("web", 8081, 80, "tcp", "0.0.0.0")]
    containers, _ = host.containers(host.networks(ONE), {"web": ["bridge"]}, exposes)
    containers["web"].call(listen, "0.0.0.0", 80)
    assert host.outside.call(ask, HOST, 8081) == OUTSIDE
    sh("nft 'add table inet own; add chain inet own f { type filter hook forward priority 10; policy drop; }'")
    assert host.outside.call(ask, HOST, 8081, "tcp", 0.5) == ""
    sh("nft 'add rule inet own f meta l4proto tcp ct original proto-dst 8081 accept'")
    sh("nft 'add rule inet own f ct state established accept'")
    assert host.outside.call(ask, HOST, 8081) == OUTSIDE


def test_the_table_is_what_nft_reads_and_applying_it_again_changes_nothing(host: Host) -> None:
    networks = host.networks(ONE)
    networks.ensure(["bridge"])
    at = {"web": networks.allocate("web", ["bridge"])}
    exposes = [Expose("web", 8080, 80), Expose("web", 53, 53, "udp", "0.0.0.0")]
    networks.publish(exposes, at)
    first = sh("nft -s list ruleset")
    networks.publish(exposes, at)
    assert sorted(sh("nft -s list ruleset").split("\n}\n")) == sorted(first.split("\n}\n")), "in whatever order"
    assert f"127.0.0.1 . tcp . 8080 : {at['web'][0].address} . 80" in first
    assert f"udp . 53 : {at['web'][0].address} . 53" in first
    assert 'set forwarding4 {\n\t\ttype ifname\n\t\telements = { "up0" }' in first


def test_a_restarted_container_keeps_its_address(host: Host) -> None:
    networks = host.networks(ONE)
    containers, at = host.containers(networks, {"web": ["bridge"], "db": ["bridge"]})
    containers["db"].call(listen, "0.0.0.0", 80)
    assert containers["web"].call(ask, at["db"][0].address, 80)
    os.kill(containers["db"].pid, signal.SIGKILL)
    fresh = host.namespace()
    again = networks.allocate("db", ["bridge"], at["db"])
    assert (again[0].address, again[0].mac) == (at["db"][0].address, at["db"][0].mac)
    networks.attach([(fresh.pid, again)])
    from containust.runtime.network import inside

    fresh.call(at_once, inside.configure, inside.prepare(again))
    fresh.call(listen, "0.0.0.0", 80)
    assert containers["web"].call(ask, again[0].address, 80)
    assert Attachment.from_dict(again[0].as_dict()) == again[0]


def test_a_peer_cannot_draw_anothers_packets_by_its_ethernet_address(host: Host) -> None:
    containers, at = host.containers(host.networks(ONE), {"web": ["bridge"], "db": ["bridge"], "evil": ["bridge"]})
    containers["db"].call(listen, "0.0.0.0", 80)
    evil = containers["evil"]
    evil.call(sh, f"ip link set eth0 down; ip link set eth0 address {at['db'][0].mac}; ip link set eth0 up")
    evil.call(ask, at["web"][0].address, 80, "tcp", 0.2)
    for _ in range(3):
        assert containers["web"].call(ask, at["db"][0].address, 80) == at["web"][0].address


def test_a_subnet_that_the_host_uses_is_never_chosen(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINUST_NETWORK_POOL", "10.66.0.0/22:24")
    sh(f"ip route add 10.66.0.0/24 via {OUTSIDE}; ip addr add 10.66.1.5/24 dev up0; ip rule add to 1.2.3.4 table 77")
    sh(f"ip route add 10.66.2.128/25 via {OUTSIDE} table 77")
    networks = host.networks(ONE)
    assert networks.ensure(["bridge"])["bridge"]["subnet"] == "10.66.3.0/24"
    with pytest.raises(ContainustError) as caught:
        host.networks(TWO).ensure(["bridge"])
    assert caught.value.code == "R013"


def test_leftovers_of_a_crash_are_replaced(host: Host) -> None:
    host.networks(ONE).ensure(["bridge", "front"])
    assert leftovers(ONE)
    networks = host.networks(ONE)  # its state was never written
    networks.ensure(["front"])
    assert [name for name in links() if name.startswith("ctb")] == [networks.recorded["front"]["bridge"]]
    networks.teardown()
    assert not leftovers(ONE)
    collect(ONE)


def _kill_before(number: int) -> None:
    """From now on SIGKILL this process instead of its ``number``-th netlink request."""
    original = netlink.Connection.send_batch
    count = 0

    def send(self: netlink.Connection, messages: list[bytes], acknowledged: int) -> list[tuple[int, int, str]]:
        nonlocal count
        refused: list[tuple[int, int, str]] = []
        if messages and messages[0][4:6] == b"\x10\x00" and messages[-1][4:6] == b"\x11\x00":
            if count >= number:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return original(self, messages, acknowledged)
        for one in messages:  # worse than in reality: each message on its own
            if count >= number:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            refused += original(self, [one], 0)
        return refused

    netlink.Connection.send_batch = send  # type: ignore[assignment, method-assign]


@pytest.mark.timeout(3600 if FULL else 120)
def test_sigkill_between_any_two_messages_leaves_nothing_after_the_next_command(host: Host) -> None:
    before = links()
    exposes = [Expose("web", 8080, 80, "tcp", "0.0.0.0")]
    finished = False
    number = 0
    while not finished:
        pid = os.fork()
        if not pid:
            try:
                _kill_before(number)
                networks = StackNetworks(ONE)
                networks.ensure(["bridge", "front"])
                at = {"web": networks.allocate("web", ["bridge", "front"])}
                networks.publish(exposes, at)
                target = host.outside.pid
                for one in at["web"]:
                    one.interface = "x" + one.interface
                networks.attach([(target, at["web"])])
                networks.teardown()
                os._exit(0)
            finally:
                os._exit(9)
        _, status = os.waitpid(pid, 0)
        finished = os.waitstatus_to_exitcode(status) == 0
        assert finished or os.WIFSIGNALED(status)
        collect(ONE)
        assert links() == before, number
        assert sh("nft list ruleset") == "", number
        assert setting("ipv4/conf/up0/forwarding") == "0", number
        number += 1 if FULL or number < 3 else 3
    assert number > 10


@pytest.mark.timeout(3600 if FULL else 120)
def test_many_cycles_leave_nothing(host: Host) -> None:
    before = links()
    networks = host.networks(ONE)
    for cycle in range(1000 if FULL else 8):
        networks.ensure(["bridge"])
        at = {str(n): networks.allocate(f"{cycle}-{n}", ["bridge"]) for n in range(3)}
        networks.publish([Expose("1", 8080, 80)], at)
        processes = {who: host.namespace() for who in at}
        networks.attach([(processes[who].pid, at[who]) for who in at])
        for one in processes.values():
            host.started.remove(one)
            one.close()
        for n in range(3):
            networks.release(f"{cycle}-{n}")
        if cycle % 2:
            networks.teardown()
    networks.teardown()
    assert links() == before
    assert sh("nft list ruleset") == ""


@pytest.mark.timeout(3600 if FULL else 120)
def test_many_components_on_a_network(host: Host) -> None:
    networks = host.networks(ONE)
    networks.ensure(["bridge"])
    count = 200
    at = {f"c{n}": networks.allocate(f"c{n}", ["bridge"]) for n in range(count)}
    assert len({one[0].address for one in at.values()}) == count
    networks.publish([Expose(f"c{n}", 10000 + n, 80) for n in range(count)], at)
    target = host.outside.pid
    for n, one in enumerate(at.values()):
        one[0].interface = f"e{n}"
    from containust.runtime.network import inside

    if FULL:
        everyone = {who: host.namespace() for who in at}
        networks.attach([(everyone[who].pid, at[who]) for who in at])
        for who in at:
            everyone[who].call(at_once, inside.configure, inside.prepare(at[who]))
        everyone["c199"].call(listen, "0.0.0.0", 80)
        assert ask("127.0.0.1", 10199)
        assert everyone["c0"].call(ask, at["c199"][0].address, 80)
    else:
        last = host.namespace()
        networks.attach([(last.pid, at["c199"])])
        last.call(at_once, inside.configure, inside.prepare(at["c199"]))
        last.call(listen, "0.0.0.0", 80)
        assert ask("127.0.0.1", 10199)
    assert target


def test_a_full_network_says_so(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINUST_NETWORK_POOL", "10.66.0.0/24:29")
    networks = host.networks(ONE)
    networks.ensure(["bridge"])
    for n in range(5):
        networks.allocate(str(n), ["bridge"])
    with pytest.raises(ContainustError, match="all 5 addresses"):
        networks.allocate("one more", ["bridge"])
    networks.release("3")
    assert networks.allocate("one more", ["bridge"])[0].address.endswith(tuple("0123456789"))
