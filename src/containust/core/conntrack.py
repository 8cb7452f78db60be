"""Connection tracking by netlink (libnetfilter_conntrack's protocol, linux/netfilter/nfnetlink_conntrack.h)."""

from __future__ import annotations

from struct import pack, unpack_from

from containust.core.netlink import Connection, attribute_map, message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

AF_INET, AF_INET6 = 2, 10
_GET, _DELETE = 0x0101, 0x0102
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID = 1, 2, 12
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
NESTED = 0x8000
UDP = 17


def forget_udp(connection: Connection, targets: Mapping[int, set[tuple[bytes, int]]]) -> int:
    """Delete tracked UDP flows to a published port that go elsewhere than where it leads now; how many there were.

    ``targets`` gives for each host port the ``(packed address, port)`` pairs behind it. Address translation looks at
    the first packet of a flow only, so a client that keeps its source port would go on sending to where the port led
    before, or to nobody. ``connection`` is one of NETLINK_NETFILTER. Raises OSError.
    """
    stale = []
    for family in (AF_INET, AF_INET6):
        for _, start, end, buffer in connection.dump(message(_GET, 0, _header(family))):
            entry = attribute_map(buffer, start + 4, end)
            sent, answered = entry.get(CTA_TUPLE_ORIG), entry.get(CTA_TUPLE_REPLY)
            if sent is None or answered is None:
                continue
            protocol, _, port, _ = _tuple(sent)
            if protocol != UDP or port not in targets:
                continue
            _, source_port, _, source = _tuple(answered)
            if (source, source_port) not in targets[port]:
                content = _attribute(CTA_TUPLE_ORIG | NESTED, sent) + _attribute(CTA_ID, entry[CTA_ID])
                stale.append(message(_DELETE, 0, _header(family) + content))
    if stale:
        connection.try_execute(stale)  # one that has expired meanwhile is refused, and as good as deleted
    return len(stale)


def _tuple(content: bytes) -> tuple[int, int, int, bytes]:
    """Protocol, source port, destination port and source address of a tuple."""
    parts = attribute_map(content, 0, len(content))
    proto = parts.get(CTA_TUPLE_PROTO, b"")
    ports = attribute_map(proto, 0, len(proto))
    address = parts.get(CTA_TUPLE_IP, b"")
    addresses = attribute_map(address, 0, len(address))

    def port(kind: int) -> int:
        return int(unpack_from(">H", ports[kind])[0]) if kind in ports else 0

    return (
        ports.get(CTA_PROTO_NUM, b"\0")[0],
        port(CTA_PROTO_SRC_PORT),
        port(CTA_PROTO_DST_PORT),
        addresses.get(1) or addresses.get(3) or b"",
    )


def _header(family: int) -> bytes:
    """struct nfgenmsg"""
    return pack(">BBH", family, 0, 0)


def _attribute(kind: int, content: bytes) -> bytes:
    size = 4 + len(content)
    return pack("=HH", size, kind) + content + b"\0" * (-size % 4)
