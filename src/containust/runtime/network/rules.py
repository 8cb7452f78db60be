"""A project's nf_tables table, built whole from what should hold.

The same batch makes the table if it is missing and replaces it if it is there, so applying it twice, or after
a
crash at any point, ends in the same rules. Everything a container sends passes:

``guard`` (before connection tracking): nothing from our bridges is for the host's loopback or for link-local
addresses,
the cloud metadata service among them.
``publish`` (destination NAT for what comes in and for what the host itself sends): published ports.
``forward``: within a network everything; into our networks only answers and published ports; between networks
and
projects nothing; out of the host anything, or nothing from a network that is offline.
``input``: containers may not talk to the host beyond neighbour discovery, ping, and what components on the host's
own network offer to those connected to them.
``leave`` (source NAT): the outside sees the host's address.

Packets of an established connection pay for all of it again and again: a chain's first rule lets go of them, or of what
is none of its business.

A verdict of "accept" here does not overrule another table, as one "drop" anywhere is final: the host's own
``forward`` policy applies to published ports and to what containers send. Its ``input`` policy:
:mod:`containust.runtime.network.firewall`.
"""

from __future__ import annotations

from _struct import pack

from containust.common.types import Record
from containust.core import nftables as nf
from containust.core.netlink import NetlinkError
from containust.runtime.network.addresses import pack_address, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    from containust.common.types import Expose
    from containust.core.netlink import Connection
    from containust.core.nfjudge import Packet
    from containust.runtime.network.attachment import Attachment

BRIDGE_PREFIX = "ctb"
TABLE_PREFIX = "containust-"

PROTOCOLS = {"tcp": 6, "udp": 17}
_ICMP, _ICMPV6 = 1, 58
_RTN_LOCAL = pack("=I", 2)
_V4, _V6 = bytes((nf.NFPROTO_IPV4,)), bytes((nf.NFPROTO_IPV6,))

_LOOPBACK6 = pack_address("::1")
# On the few packets of route_loopback6 only, and only until they leave the bridge.
ANSWER_MARK = pack("=I", 0x63740001)

# The four maps of published ports: an exact host address, or any address of the host.
MAPS = {
    "published4": ((nf.TYPE_IPV4, nf.TYPE_PROTO, nf.TYPE_SERVICE), (nf.TYPE_IPV4, nf.TYPE_SERVICE)),
    "published6": ((nf.TYPE_IPV6, nf.TYPE_PROTO, nf.TYPE_SERVICE), (nf.TYPE_IPV6, nf.TYPE_SERVICE)),
    "open4": ((nf.TYPE_PROTO, nf.TYPE_SERVICE), (nf.TYPE_IPV4, nf.TYPE_SERVICE)),
    "open6": ((nf.TYPE_PROTO, nf.TYPE_SERVICE), (nf.TYPE_IPV6, nf.TYPE_SERVICE)),
}


class HostService(Record):
    """What ``source`` may reach of the host: ``port`` at ``gateway``, the bridge's own address. Addresses are text."""

    __slots__ = ("gateway", "port", "protocol", "source")

    def __init__(self, source: str, gateway: str, port: int, protocol: str) -> None:
        self.source = source
        self.gateway = gateway
        self.port = port
        self.protocol = protocol

    def match(self) -> tuple[bytes, ...]:
        """The expressions that only such a packet passes."""
        return (
            *_ip(12, pack_address(self.source) + pack_address(self.gateway)),
            *_to_port(PROTOCOLS[self.protocol], self.port),
        )


def table_name(project: str) -> str:
    """The project's table."""
    return TABLE_PREFIX + project


def host_addresses(address: str, ipv6: bool) -> list[str]:
    """The host addresses that an EXPOSE address stands for, ``0.0.0.0`` and ``::`` being all of a family.

    The loopback default is ``localhost`` in both families, as programs try ``::1`` first; ``::`` is both
    families, as
    it is for a listening socket.
    """
    address = address.strip("[]")
    if address in ("127.0.0.1", "localhost"):
        return ["127.0.0.1", "::1"] if ipv6 else ["127.0.0.1"]
    if address == "::":
        return ["0.0.0.0", "::"] if ipv6 else ["0.0.0.0"]
    return [address]


def published(
    exposes: Iterable[Expose], attachments: Mapping[str, list[Attachment]]
) -> dict[str, list[tuple[bytes, bytes]]]:
    """The elements of :data:`MAPS` for the exposed ports of the components that have an address."""
    maps: dict[str, list[tuple[bytes, bytes]]] = {name: [] for name in MAPS}
    for expose in exposes:
        if not attachments.get(expose.component):
            continue
        target = attachments[expose.component][0]
        service = _padded(PROTOCOLS[expose.protocol].to_bytes(1, "big"))
        service += _padded(expose.host_port.to_bytes(2, "big"))
        port = _padded(expose.container_port.to_bytes(2, "big"))
        for host in host_addresses(expose.address, target.address6 is not None):
            packed = pack_address(host)
            inside = target.address6 if len(packed) == 16 else target.address
            if inside is None:
                continue
            family = 6 if len(packed) == 16 else 4
            exact = any(packed)
            key = (packed if exact else b"") + service
            maps[f"published{family}" if exact else f"open{family}"].append((key, pack_address(inside) + port))
    return maps


def udp_targets(
    exposes: Iterable[Expose], attachments: Mapping[str, list[Attachment]]
) -> dict[int, set[tuple[bytes, int]]]:
    """Where each published UDP port leads: host port -> ``(packed address, port)`` of its component."""
    targets: dict[int, set[tuple[bytes, int]]] = {}
    for expose in exposes:
        if expose.protocol == "udp" and attachments.get(expose.component):
            place = attachments[expose.component][0]
            for address in (place.address, place.address6):
                if address:
                    targets.setdefault(expose.host_port, set()).add((pack_address(address), expose.container_port))
    return targets


def build(
    project: str,
    networks: Mapping[str, Mapping[str, Any]],
    maps: Mapping[str, list[tuple[bytes, bytes]]],
    offline: Collection[str] = (),
    services: Iterable[HostService] = (),
    closed: Iterable[Packet] = (),
) -> list[bytes]:
    """The messages of one transaction that leaves exactly the table for these networks and published
    ports. ``offline`` names the networks without a way out; ``closed`` is what other hosts may not reach."""
    table = table_name(project)
    ours = bridge_pattern(project)
    messages = [nf.table(table), nf.delete_table(table), nf.table(table)]
    rule = _Rules(table, messages)
    from_us, to_us, to_others = _iif(ours), _oif(ours), _oif(BRIDGE_PREFIX, operation=nf.NEQ)
    not_from_us = _iif(ours, operation=nf.NEQ)

    used = {name: number for number, name in enumerate(MAPS, 1) if maps.get(name)}
    for name, number in used.items():
        messages.append(nf.new_map(table, name, number, *MAPS[name]))
        messages += nf.set_elements(table, name, number, maps[name])

    # Every packet of the host passes these chains. What there is nothing to say of leaves each by its first rule.
    messages.append(nf.base_chain(table, "guard", "filter", nf.NF_INET_PRE_ROUTING, -300))
    rule("guard", not_from_us, nf.verdict(nf.ACCEPT))
    rule("guard", *_ip(16, b"\x7f"), nf.verdict(nf.DROP))
    rule("guard", *_ip(16, b"\xa9\xfe"), nf.counter(), nf.verdict(nf.DROP))
    for network in networks.values():
        # Seen here only where br_netfilter hands bridged frames to these hooks: keep their cost down.
        subnet = parse(network["subnet"])
        rule(
            "guard",
            _iif(network["bridge"], exact=True),
            *_in_subnet(12, subnet.packed(0), subnet.prefix),
            *_in_subnet(16, subnet.packed(0), subnet.prefix),
            nf.payload(nf.PAYLOAD_NETWORK, 16, 4),
            nf.compare(subnet.packed(1), nf.NEQ),
            nf.notrack(),
        )
    rule("guard", *_ip6(24, pack_address("fd00:ec2::254")), nf.counter(), nf.verdict(nf.DROP))
    rule("guard", *_ip6(24, _LOOPBACK6), nf.verdict(nf.DROP))

    if used:
        if "published6" in used or "open6" in used:
            messages.append(nf.base_chain(table, "answer", "filter", nf.NF_INET_PRE_ROUTING, 0))
            rule(
                "answer",
                from_us,
                *_ip6(24, _LOOPBACK6),
                *_ct(nf.CT_STATE, nf.CT_STATE_ESTABLISHED_RELATED),
                *_ct(nf.CT_STATUS, nf.CT_STATUS_DNAT),
                nf.load(ANSWER_MARK) + nf.set_meta(nf.META_MARK),
            )
        _publish(table, messages, rule, used, closed)

    messages.append(nf.base_chain(table, "forward", "filter", nf.NF_INET_FORWARD, 0))
    messages.append(nf.chain(table, "out"))
    messages.append(nf.chain(table, "in"))
    rule("forward", *_ct(nf.CT_STATE, nf.CT_STATE_ESTABLISHED_RELATED), nf.verdict(nf.ACCEPT))
    for network in networks.values():
        name = network["bridge"]
        rule("forward", _iif(name, exact=True), _oif(name, exact=True), nf.verdict(nf.ACCEPT))
    rule("forward", from_us, nf.verdict(nf.JUMP, "out"))
    rule("forward", to_us, nf.verdict(nf.JUMP, "in"))
    for chain in ("out", "in"):
        rule(chain, *_ct(nf.CT_STATUS, nf.CT_STATUS_DNAT), nf.verdict(nf.RETURN))
    rule("out", _oif(BRIDGE_PREFIX), nf.counter(), nf.reject())
    for name, network in networks.items():
        if name in offline:
            rule("out", _iif(network["bridge"], exact=True), nf.counter(), nf.reject())
    rule("in", nf.counter(), nf.verdict(nf.DROP))

    messages.append(nf.base_chain(table, "input", "filter", nf.NF_INET_LOCAL_IN, 0))
    messages.append(nf.chain(table, "host"))
    rule("input", from_us, nf.verdict(nf.JUMP, "host"))
    rule("host", *_ct(nf.CT_STATE, nf.CT_STATE_ESTABLISHED_RELATED), nf.verdict(nf.RETURN))
    rule("host", *_family(_V4), *_icmp(_ICMP, 8), nf.verdict(nf.RETURN))
    # Echo request, neighbour solicitation and advertisement; no router advertisement.
    for kind in (128, 135, 136):
        rule("host", *_family(_V6), *_icmp(_ICMPV6, kind), nf.verdict(nf.RETURN))
    for service in services:
        rule("host", *service.match(), nf.verdict(nf.RETURN))
    rule("host", nf.counter(), nf.reject())

    messages.append(nf.base_chain(table, "leave", "nat", nf.NF_INET_POST_ROUTING, 100))
    rule("leave", to_us, *_ip(12, b"\x7f"), nf.masquerade())
    rule("leave", to_us, *_ip6(8, _LOOPBACK6), nf.masquerade())
    for network in networks.values():
        for text, offset, family in ((network["subnet"], 12, _V4), (network.get("subnet6"), 8, _V6)):
            if not text:
                continue
            subnet = parse(text)
            ours_source = _in_subnet(offset, subnet.packed(0), subnet.prefix, family)
            # Out of the host; and from a container to a published port of its own network, where the answer would
            # otherwise go straight back, past the translation.
            rule("leave", *ours_source, to_others, nf.masquerade())
            rule(
                "leave",
                *ours_source,
                _oif(network["bridge"], exact=True),
                *_ct(nf.CT_STATUS, nf.CT_STATUS_DNAT),
                nf.masquerade(),
            )
    return messages


def _publish(
    table: str, messages: list[bytes], rule: _Rules, used: Mapping[str, int], closed: Iterable[Packet]
) -> None:
    """The chains that translate published ports: for packets that come in, and for the host's own."""
    messages.append(nf.chain(table, "publish"))
    for name, number in used.items():
        family = nf.NFPROTO_IPV6 if name.endswith("6") else nf.NFPROTO_IPV4
        wide = 4 if family == nf.NFPROTO_IPV6 else 1  # 4-byte registers of an address
        load = []
        register = 8
        if name.startswith("published"):
            offset = 24 if family == nf.NFPROTO_IPV6 else 16
            load.append(nf.payload(nf.PAYLOAD_NETWORK, offset, 4 * wide, 1))
            register += wide
        load.append(nf.meta(nf.META_L4PROTO, 1 if register == 8 else register))
        load.append(nf.payload(nf.PAYLOAD_TRANSPORT, 2, 2, register + 1))
        rule(
            "publish",
            *_family(bytes((family,))),
            *load,
            nf.lookup(name, number, 1, 1),
            nf.dnat(family, 1, 8 + wide),
        )
    messages.append(nf.base_chain(table, "arrive", "nat", nf.NF_INET_PRE_ROUTING, -100))
    # A neighbour on the wire can send to 127.0.0.1; translating it would publish to it what is for this
    # host alone.
    rule("arrive", *_ip(16, b"\x7f"), nf.verdict(nf.RETURN))
    for packet in closed:  # the host's own input chains will see it as it came
        rule(
            "arrive",
            _iif(BRIDGE_PREFIX, operation=nf.NEQ),
            *_family(bytes((packet.family,))),
            *_to_port(packet.protocol, packet.port),
            nf.verdict(nf.RETURN),
        )
    rule("arrive", nf.fib_daddr_type(), nf.compare(_RTN_LOCAL), nf.verdict(nf.JUMP, "publish"))
    messages.append(nf.base_chain(table, "output", "nat", nf.NF_INET_LOCAL_OUT, -100))
    rule("output", nf.fib_daddr_type(), nf.compare(_RTN_LOCAL), nf.verdict(nf.JUMP, "publish"))


def enforce(nft: Connection, project: str, content: list[bytes]) -> None:
    """Put a table with ``content`` in force, in place of the one that is there; NetlinkError leaves all as
    it was.

    Deletes only what is there, because the kernel makes somebody wait a grace period of 20 ms for what is
    deleted.
    """
    table = table_name(project)
    there = any(name == table for name, _ in nf.tables(nft))
    replaced = [nf.delete_table(table)] if there else []
    nf.apply(nft, [*replaced, nf.table(table), *content], "nf_tables")


def route_loopback6(nft: Connection, project: str, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Make published ``::1`` ports work where br_netfilter is at work.

    There answers are translated back to ``::1`` while still in the bridge, and IPv6 would then refuse a loopback
    address that did not come in by the loopback device. So a chain on the bridge hands them to that device. It
    takes only what the rule of chain ``answer`` has marked: connection tracking knew it as an answer. Where a
    kernel lacks this, ``::1`` does not lead to published ports; 127.0.0.1 does.
    """
    table, family = table_name(project), nf.NFPROTO_NETDEV
    messages = [nf.table(table, family=family)]
    if any(name == table for name, _ in nf.tables(nft, family)):
        messages.insert(0, nf.delete_table(table, family))
    for network in networks.values():
        if not network.get("subnet6"):
            continue
        bridge = network["bridge"]
        messages.append(nf.ingress_chain(table, bridge, bridge))
        messages.append(
            nf.rule(
                table,
                bridge,
                nf.meta(nf.META_MARK) + nf.compare(ANSWER_MARK),
                nf.meta(nf.META_PROTOCOL) + nf.compare(b"\x86\xdd"),
                nf.payload(nf.PAYLOAD_NETWORK, 24, 16) + nf.compare(_LOOPBACK6),
                nf.load(bytes(4)) + nf.set_meta(nf.META_MARK),
                nf.load(bytes(6)) + nf.set_payload(nf.PAYLOAD_LINK, 0, 6),
                nf.load(pack("=I", 1)) + nf.forward_to(),
                family=family,
            )
        )
    try:
        nf.apply(nft, messages, "nf_tables: netdev")
    except NetlinkError:
        return


def bridge_pattern(project: str) -> str:
    """What the names of the project's bridges begin with."""
    return BRIDGE_PREFIX + project[:7]


class _Rules:
    """Appends rules of one table to a list of messages."""

    __slots__ = ("messages", "table")

    def __init__(self, table: str, messages: list[bytes]) -> None:
        self.table = table
        self.messages = messages

    def __call__(self, chain: str, *expressions: bytes) -> None:
        self.messages.append(nf.rule(self.table, chain, *expressions))


def _padded(value: bytes) -> bytes:
    """A part of a concatenation, which fills whole registers."""
    return value + bytes(-len(value) & 3)


def _iif(name: str, *, exact: bool = False, operation: int = nf.EQ) -> bytes:
    return nf.meta(nf.META_IIFNAME) + nf.compare(_interface(name, exact), operation)


def _oif(name: str, *, exact: bool = False, operation: int = nf.EQ) -> bytes:
    return nf.meta(nf.META_OIFNAME) + nf.compare(_interface(name, exact), operation)


def _interface(name: str, exact: bool) -> bytes:
    """The bytes of an interface name to compare: all sixteen, or the beginning that the pattern gives."""
    return name.encode().ljust(16, b"\0") if exact else name.encode()


def _family(family: bytes) -> tuple[bytes, bytes]:
    return nf.meta(nf.META_NFPROTO), nf.compare(family)


def _ip(offset: int, value: bytes) -> tuple[bytes, ...]:
    """IPv4, and the address at ``offset`` of the header begins with ``value``."""
    return (*_family(_V4), nf.payload(nf.PAYLOAD_NETWORK, offset, len(value)), nf.compare(value))


def _ip6(offset: int, value: bytes) -> tuple[bytes, ...]:
    return (*_family(_V6), nf.payload(nf.PAYLOAD_NETWORK, offset, len(value)), nf.compare(value))


def _in_subnet(offset: int, base: bytes, prefix: int, family: bytes = _V4) -> tuple[bytes, ...]:
    """The address at ``offset`` of the header is in a subnet."""
    length = len(base)
    mask = ((1 << prefix) - 1 << (length * 8 - prefix)).to_bytes(length, "big")
    return (
        *_family(family),
        nf.payload(nf.PAYLOAD_NETWORK, offset, length),
        nf.masked(mask),
        nf.compare(base),
    )


def _ct(key: int, bits: int) -> tuple[bytes, ...]:
    """Any of ``bits`` is set in a property of the connection."""
    return nf.ct(key), nf.masked(pack("=I", bits)), nf.compare(bytes(4), nf.NEQ)


def _to_port(protocol: int, port: int) -> tuple[bytes, ...]:
    return (
        nf.meta(nf.META_L4PROTO),
        nf.compare(bytes((protocol,))),
        nf.payload(nf.PAYLOAD_TRANSPORT, 2, 2),
        nf.compare(port.to_bytes(2, "big")),
    )


def _icmp(protocol: int, kind: int) -> tuple[bytes, ...]:
    return (
        nf.meta(nf.META_L4PROTO),
        nf.compare(bytes((protocol,))),
        nf.payload(nf.PAYLOAD_TRANSPORT, 0, 1),
        nf.compare(bytes((kind,))),
    )
