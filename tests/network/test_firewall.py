"""The host's own firewall applies to published ports, whether it filters what is forwarded or only what comes in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from outside import HOST, HOST6, OUTSIDE, OUTSIDE6, Outside, ask, component
from played_host import sh

from containust.core import nftables as nf
from containust.core import syscalls as sc
from containust.core.nfjudge import Judge, Packet, filter_chains
from harness import Ctst, eventually

TCP, UDP = 6, 17
NAMES = {"input": nf.NF_INET_LOCAL_IN, "forward": nf.NF_INET_FORWARD}


@pytest.fixture
def alone() -> Iterator[None]:
    """A network namespace of the test's own."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    sc.unshare(sc.CLONE_NEWNET)
    yield
    sc.setns(before, sc.CLONE_NEWNET)
    os.close(before)


def chain(policy: str, *rules: str, hook: str = "input") -> str:
    lines = "\n".join(rules)
    return f"""table inet own {{
        set wide {{
            type inet_service; flags interval; elements = {{ 8000-8999 }}
        }}
        chain sub {{
            tcp dport 8081 accept
        }}
        chain c {{
            type filter hook {hook} priority 0; policy {policy};
            {lines}
        }}
    }}"""


IPTABLES_STATE = (
    "iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; "
    "iptables -A INPUT -m conntrack --ctstate INVALID -j DROP; iptables -A INPUT -i lo -j ACCEPT"
)
ESTABLISHED = "ct state established,related accept"


@pytest.mark.parametrize(
    ("rules", "admitted"),
    [
        (["policy accept"], True),
        (["policy drop"], False),
        (["policy drop", ESTABLISHED, 'iif "lo" accept', "tcp dport 22 accept"], False),
        (["policy drop", ESTABLISHED, "ct state invalid drop", "tcp dport 8081 accept"], True),
        (["policy drop", "tcp dport { 22, 8081 } counter accept"], True),
        (["policy drop", "udp dport 8081 accept"], False),
        (["policy drop", "tcp dport 8000-8100 accept"], True),
        (["policy drop", "tcp dport @wide accept"], True),
        (["policy drop", "tcp dport != 22 accept"], True),
        (["policy drop", "tcp dport vmap { 22 : accept, 8081 : jump sub }"], True),
        (["policy drop", "tcp dport vmap { 22 : accept, 8081 : drop }", "accept"], False),
        (["policy drop", "ip protocol tcp jump sub"], True),
        (["policy drop", "meta nfproto ipv6 accept"], False),
        (["policy drop", "ip saddr 198.51.100.0/24 tcp dport 8081 accept"], False),
        (["policy drop", "ip saddr 198.51.100.0/24 drop", "tcp dport 8081 accept"], False),
        (["policy drop", "iifname vmap { up1 : drop, lo : accept }", "tcp dport 8081 accept"], False),
        (["policy drop", "ip saddr . tcp dport { 198.51.100.1 . 8081 } accept"], False),
        (["policy drop", "limit rate 5/second accept"], False),
        (["policy accept", ESTABLISHED, "tcp dport 22 accept", "counter reject with icmpx admin-prohibited"], False),
        (["policy accept", "meta l4proto tcp tcp dport 1-1023 drop"], True),
        (["policy accept", "th dport 8081 drop"], False),
    ],
)
def test_what_rules_of_nft_say_of_a_port(alone: None, rules: list[str], admitted: bool) -> None:
    policy, *rest = rules
    sh(f"nft '{chain(policy.split()[1], *rest)}'")
    assert admits() is admitted


@pytest.mark.parametrize(
    ("commands", "admitted"),
    [
        ("iptables -P INPUT DROP", False),
        ("iptables -P INPUT DROP; iptables -A INPUT -p tcp -m tcp --dport 8081 -j ACCEPT", True),
        ("iptables -P INPUT DROP; iptables -A INPUT -p tcp -m multiport --dports 22,8081 -j ACCEPT", False),
        (
            f"iptables -P INPUT DROP; {IPTABLES_STATE}; iptables -A INPUT -p tcp -m tcp --dport 8081 --syn -j ACCEPT",
            True,
        ),
        (f"{IPTABLES_STATE}; iptables -A INPUT -p tcp --dport 22 -j ACCEPT; iptables -A INPUT -j REJECT", False),
        ("iptables -N own; iptables -A own -p tcp --dport 8081 -j DROP; iptables -A INPUT -j own", False),
        ("ip6tables -P INPUT DROP", True),
    ],
)
def test_what_rules_of_iptables_say_of_a_port(alone: None, commands: str, admitted: bool) -> None:
    for line in commands.split("; "):
        sh(re.sub("^(ip6?tables)", r"\1-nft", line))
    assert admits() is admitted


def admits() -> bool:
    connection = nf.connect()
    try:
        judge = Judge(connection)
        packet = Packet(nf.NFPROTO_IPV4, TCP, 8081)
        return all(judge.admits(one, packet) for one in filter_chains(connection, NAMES["input"]))
    finally:
        connection.close()


def test_a_host_that_filters_only_what_comes_in(ctst: Ctst, outside: Outside) -> None:
    stack = component("web") + 'EXPOSE "[::]":8081:80 -> web\nEXPOSE "[::]":8081:80/udp -> web\nEXPOSE 8080:80 -> web\n'
    path = str(ctst.write(stack))
    everything = ((HOST, 8081), (HOST6, 8081), (HOST, 8081, "udp"), (HOST6, 8081, "udp"))
    quickly = [(*one, "tcp", 0.3)[:4] if len(one) == 2 else (*one, 0.3) for one in everything]
    ctst.on_host(
        "nft",
        chain("drop", ESTABLISHED, 'iif "lo" accept', "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"),
    )
    done = ctst("run", "-d", path)
    assert done.status == 0
    assert "warning: [::]:8081/tcp -> web is closed to other hosts: the chain `inet own c`" in done.err
    assert ask(outside.enter, *quickly) == [""] * 4
    assert all(ask(ctst.enter, ("127.0.0.1", 8080), ("127.0.0.1", 8081), (HOST6, 8081))), "the host is not filtered"
    assert "`inet own c` denies by default: published ports that it does not admit" in ctst("doctor").out
    # What the warning says opens it.
    ctst.on_host("nft", "insert rule inet own c tcp dport 8081 accept")
    assert "tcp" not in ctst("run", "-d", path).err
    assert ask(outside.enter, *quickly) == [OUTSIDE, OUTSIDE6, "", ""]
    # What changes later counts too: the supervisor hears of it.
    ctst.on_host("nft", "flush chain inet own c")
    eventually(lambda: ask(outside.enter, *quickly) == [""] * 4)
    ctst.on_host("nft", "add rule inet own c tcp dport 8081 accept")
    eventually(lambda: ask(outside.enter, *quickly)[0] == OUTSIDE)


def test_a_host_that_filters_what_is_forwarded(ctst: Ctst, outside: Outside) -> None:
    path = str(ctst.write(component("web") + 'EXPOSE "0.0.0.0":8081:80 -> web\nEXPOSE 8080:80 -> web\n'))
    for hook in ("input", "forward"):
        text = chain("drop", ESTABLISHED, 'iif "lo" accept', hook=hook).replace("table inet own", f"table inet {hook}")
        ctst.on_host("nft", text)
    done = ctst("run", "-d", path)
    assert done.status == 0
    assert "closed to other hosts: it is forwarded, and `inet forward c` does not admit it" in done.err
    assert ask(outside.enter, (HOST, 8081, "tcp", 0.3)) == [""]
    assert all(ask(ctst.enter, ("127.0.0.1", 8080), (HOST, 8081)))
    assert "`inet forward c` denies by default: containers reach nothing outside" in ctst("doctor").out
    command = done.err.partition("help: `nft ")[2].partition("`")[0]
    assert command.startswith("insert rule inet forward c ")
    ctst.on_host("nft", command)
    assert ask(outside.enter, (HOST, 8081)) == [OUTSIDE]
    assert "warning" not in ctst("run", "-d", path).err
