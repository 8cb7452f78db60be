"""Links, addresses and routes by rtnetlink(7): requests as bytes for :mod:`containust.core.netlink`, and the
dumps.

Devices are created with an index that the caller chooses, so that the address, the settings and the route of
a device
that does not exist yet can be in the same batch as its creation.
"""

from __future__ import annotations

from _struct import Struct, pack, unpack_from

from containust.common import os
from containust.core.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Connection,
    attribute,
    attribute_map,
    attributes,
    message,
    nested,
    text,
)

AF_UNSPEC = 0
AF_INET = 2
AF_INET6 = 10
AF_BRIDGE = 7

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_SETLINK = 19
RTM_NEWADDR = 20
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RTM_NEWNEIGH = 28

IFF_UP = 0x1

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_MASTER = 10
IFLA_PROTINFO = 12
IFLA_LINKINFO = 18
IFLA_NET_NS_PID = 19
IFLA_AF_SPEC = 26
IFLA_GROUP = 27
IFLA_EXT_MASK = 29
IFLA_NUM_TX_QUEUES = 31
IFLA_NUM_RX_QUEUES = 32
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_BR_FORWARD_DELAY = 1
IFLA_BR_MCAST_SNOOPING = 23
IFLA_BRPORT_MODE = 4
IFLA_BRPORT_LEARNING = 8
IFLA_INET_CONF = 1
VETH_INFO_PEER = 1

RTEXT_FILTER_SKIP_STATS = 8

# Indexes into the per-interface IPv4 settings (linux/ip.h, enum of IPV4_DEVCONF_*).
IPV4_DEVCONF_FORWARDING = 1
IPV4_DEVCONF_ROUTE_LOCALNET = 26

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_F_NODAD = 0x02

NDA_LLADDR = 2
NUD_NOARP = 0x40
NTF_MASTER = 0x04
NTF_STICKY = 0x40

RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_TABLE = 15
RT_TABLE_MAIN = 254
RT_TABLE_LOCAL = 255
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1
RTN_LOCAL = 2

_ifinfomsg = Struct("=BxHiII")
_ifaddrmsg = Struct("=BBBBI")
_ndmsg = Struct("=BxxxiHBB")
_rtmsg = Struct("=BBBBBBBBI")


def new_bridge(name: str, index: int, mac: bytes, mtu: int, group: int) -> bytes:
    """A bridge without spanning tree or multicast snooping, up at once. Refused if name or index exist.

    The address is given, so that it does not change with the ports that come and go. ``group`` is what
    :func:`delete_group` takes.
    """
    return message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        _ifinfomsg.pack(AF_UNSPEC, 0, index, IFF_UP, IFF_UP)
        + text(IFLA_IFNAME, name)
        + attribute(IFLA_ADDRESS, mac)
        + attribute(IFLA_MTU, pack("=I", mtu))
        + attribute(IFLA_GROUP, pack("=I", group))
        + nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "bridge"),
            nested(
                IFLA_INFO_DATA,
                attribute(IFLA_BR_FORWARD_DELAY, pack("=I", 0)),
                attribute(IFLA_BR_MCAST_SNOOPING, b"\0"),
            ),
        ),
    )


def new_veth(
    name: str,
    index: int,
    master: int,
    mtu: int,
    group: int,
    peer: str,
    peer_index: int,
    peer_mac: bytes,
    pid: int,
) -> bytes:
    """A veth pair: ``name`` here, up and a port of the bridge ``master``; ``peer`` in the namespace of
    ``pid``.

    The kernel heeds ``peer_index`` only when this end's index is chosen too. The peer never exists in this
    network namespace. It is down: veth refuses to come up before both ends exist.

    Both ends are made with the one queue that they use. By itself the kernel makes one a processor and then takes all
    but the first away, for which it waits for a grace period of RCU at each end.
    """
    queues = attribute(IFLA_NUM_TX_QUEUES, pack("=I", 1)) + attribute(IFLA_NUM_RX_QUEUES, pack("=I", 1))
    return message(
        RTM_NEWLINK,
        NLM_F_CREATE | NLM_F_EXCL,
        _ifinfomsg.pack(AF_UNSPEC, 0, index, IFF_UP, IFF_UP)
        + text(IFLA_IFNAME, name)
        + attribute(IFLA_MTU, pack("=I", mtu))
        + attribute(IFLA_MASTER, pack("=I", master))
        + attribute(IFLA_GROUP, pack("=I", group))
        + queues
        + nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "veth"),
            nested(
                IFLA_INFO_DATA,
                nested(
                    VETH_INFO_PEER,
                    _ifinfomsg.pack(AF_UNSPEC, 0, peer_index, 0, 0),
                    text(IFLA_IFNAME, peer),
                    attribute(IFLA_ADDRESS, peer_mac),
                    attribute(IFLA_MTU, pack("=I", mtu)),
                    attribute(IFLA_NET_NS_PID, pack("=I", pid)),
                    queues,
                ),
            ),
        ),
    )


def bridge_port(index: int, *, hairpin: bool) -> bytes:
    """Let a bridge learn no Ethernet address from what comes in by a port; whether a packet may leave by it again."""
    return message(
        RTM_SETLINK,
        0,
        _ifinfomsg.pack(AF_BRIDGE, 0, index, 0, 0)
        + nested(
            IFLA_PROTINFO, attribute(IFLA_BRPORT_MODE, bytes((hairpin,))) + attribute(IFLA_BRPORT_LEARNING, b"\0")
        ),
    )


def bridge_neighbour(port: int, mac: bytes) -> bytes:
    """Tell the bridge of ``port`` that ``mac`` is there and stays there, whoever else may claim it."""
    return message(
        RTM_NEWNEIGH,
        NLM_F_CREATE | NLM_F_REPLACE,
        _ndmsg.pack(AF_BRIDGE, port, NUD_NOARP, NTF_MASTER | NTF_STICKY, 0) + attribute(NDA_LLADDR, mac),
    )


def link_up(index: int) -> bytes:
    """Bring a link up."""
    return message(RTM_NEWLINK, 0, _ifinfomsg.pack(AF_UNSPEC, 0, index, IFF_UP, IFF_UP))


def ipv4_settings(index: int, settings: dict[int, int]) -> bytes:
    """Set a link's IPV4_DEVCONF_* settings, which are also its files under ``/proc/sys/net/ipv4/conf``."""
    return message(
        RTM_NEWLINK,
        0,
        _ifinfomsg.pack(AF_UNSPEC, 0, index, 0, 0)
        + nested(
            IFLA_AF_SPEC,
            nested(
                AF_INET,
                nested(IFLA_INET_CONF, *(attribute(k, pack("=I", v)) for k, v in settings.items())),
            ),
        ),
    )


def delete_link(name: str) -> bytes:
    """Delete a link by its name."""
    return message(RTM_DELLINK, 0, _ifinfomsg.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, name))


def delete_group(group: int) -> bytes:
    """Delete every link of a group. One by one each costs the kernel a grace period of about 20 ms, together
    one."""
    return message(RTM_DELLINK, 0, _ifinfomsg.pack(AF_UNSPEC, 0, 0, 0, 0) + attribute(IFLA_GROUP, pack("=I", group)))


def new_address(index: int, address: bytes, prefix: int) -> bytes:
    """Give a link an address (4 or 16 bytes in network order). IPv6 addresses skip duplicate detection: we
    hand them
    out ourselves, and a second of waiting would be the longest step of a start."""
    if len(address) == 16:
        return message(
            RTM_NEWADDR,
            NLM_F_CREATE | NLM_F_EXCL,
            _ifaddrmsg.pack(AF_INET6, prefix, IFA_F_NODAD, RT_SCOPE_UNIVERSE, index)
            + attribute(IFA_LOCAL, address)
            + attribute(IFA_ADDRESS, address),
        )
    hosts = (1 << (32 - prefix)) - 1
    broadcast = (int.from_bytes(address) | hosts).to_bytes(4)
    return message(
        RTM_NEWADDR,
        NLM_F_CREATE | NLM_F_EXCL,
        _ifaddrmsg.pack(AF_INET, prefix, 0, RT_SCOPE_UNIVERSE, index)
        + attribute(IFA_LOCAL, address)
        + attribute(IFA_ADDRESS, address)
        + attribute(IFA_BROADCAST, broadcast),
    )


def default_route(index: int, gateway: bytes, priority: int = 0) -> bytes:
    """A default route through ``gateway`` (4 or 16 bytes) on link ``index``. ``priority`` 0 is the kernel's
    default."""
    family = AF_INET6 if len(gateway) == 16 else AF_INET
    payload = _rtmsg.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    payload += attribute(RTA_GATEWAY, gateway) + attribute(RTA_OIF, pack("=I", index))
    if priority:
        payload += attribute(RTA_PRIORITY, pack("=I", priority))
    return message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, payload)


def local_route(index: int, address: bytes, priority: int) -> bytes:
    """Deliver packets for ``address`` (16 bytes) that come in on link ``index`` to this host, whoever has the
    address."""
    return message(
        RTM_NEWROUTE,
        NLM_F_CREATE | NLM_F_APPEND,
        _rtmsg.pack(AF_INET6, 128, 0, 0, RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_LOCAL, 0)
        + attribute(RTA_DST, address)
        + attribute(RTA_OIF, pack("=I", index))
        + attribute(RTA_PRIORITY, pack("=I", priority)),
    )


class Link:
    """One link of a dump. ``master`` is 0 without one; ``forwarding`` is its IPv4 setting."""

    __slots__ = ("forwarding", "group", "index", "kind", "master", "mtu", "name", "up")

    def __init__(
        self, index: int, name: str, up: bool, mtu: int, master: int, group: int, kind: str, forwarding: bool
    ) -> None:
        self.index = index
        self.name = name
        self.up = up
        self.mtu = mtu
        self.master = master
        self.group = group
        self.kind = kind
        self.forwarding = forwarding


class Route:
    """One unicast or local prefix of a dump: ``destination`` as a number, ``bits`` 32 or 128, ``index`` 0 if
    it has
    several next hops or none."""

    __slots__ = ("bits", "destination", "index", "prefix", "table")

    def __init__(self, bits: int, destination: int, prefix: int, index: int, table: int) -> None:
        self.bits = bits
        self.destination = destination
        self.prefix = prefix
        self.index = index
        self.table = table


def links(connection: Connection) -> list[Link]:
    """Every link of the namespace."""
    request = message(
        RTM_GETLINK,
        0,
        _ifinfomsg.pack(AF_UNSPEC, 0, 0, 0, 0) + attribute(IFLA_EXT_MASK, pack("=I", RTEXT_FILTER_SKIP_STATS)),
    )
    found = []
    for _, start, end, buffer in connection.dump(request):
        _, _, index, flags, _ = _ifinfomsg.unpack_from(buffer, start)
        values = attribute_map(buffer, start + 16, end)
        kind = b""
        for name, a, b in attributes(values.get(IFLA_LINKINFO, b""), 0, len(values.get(IFLA_LINKINFO, b""))):
            if name == IFLA_INFO_KIND:
                kind = values[IFLA_LINKINFO][a:b]
        found.append(
            Link(
                index,
                _string(values[IFLA_IFNAME]),
                bool(flags & IFF_UP),
                _number(values.get(IFLA_MTU)),
                _number(values.get(IFLA_MASTER)),
                _number(values.get(IFLA_GROUP)),
                _string(kind),
                _forwarding(values.get(IFLA_AF_SPEC, b"")),
            )
        )
    return found


def _forwarding(af_spec: bytes) -> bool:
    """The forwarding setting in an IFLA_AF_SPEC: AF_INET, IFLA_INET_CONF, an array of numbers from index 1
    on."""
    inet = attribute_map(af_spec, 0, len(af_spec)).get(AF_INET, b"")
    conf = attribute_map(inet, 0, len(inet)).get(IFLA_INET_CONF, b"")
    return len(conf) >= 4 and unpack_from("=i", conf, (IPV4_DEVCONF_FORWARDING - 1) * 4)[0] != 0


def link_index(name: str) -> int:
    """Index of a link by name, 0 if there is none."""
    try:
        import _socket

        return _socket.if_nametoindex(name)
    except OSError:
        return 0


def host_prefixes(connection: Connection) -> list[Route]:
    """Every prefix that the namespace routes or is part of, of both families and all tables.

    Addresses are in it as local routes, connected networks as unicast ones.
    """
    found = []
    request = message(RTM_GETROUTE, 0, _rtmsg.pack(AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0))
    for _, start, end, buffer in connection.dump(request):
        family, prefix, _, _, table, _, _, kind, _ = _rtmsg.unpack_from(buffer, start)
        if family not in (AF_INET, AF_INET6) or kind not in (RTN_UNICAST, RTN_LOCAL):
            continue
        values = attribute_map(buffer, start + 12, end)
        destination = int.from_bytes(values.get(RTA_DST, b""))
        found.append(
            Route(
                128 if family == AF_INET6 else 32,
                destination,
                prefix,
                _number(values.get(RTA_OIF)),
                _number(values[RTA_TABLE]) if RTA_TABLE in values else table,
            )
        )
    return found


def fresh_index() -> int:
    """A link index that nothing else has: the kernel counts up from 1, this is far above what it can
    reach."""
    return 0x40000000 | int.from_bytes(os.urandom(4)) >> 2


def _number(value: bytes | None) -> int:
    return unpack_from("=I", value)[0] if value else 0


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
