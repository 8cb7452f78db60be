"""nf_tables by hand: tables, chains, sets and rules as netlink messages, applied in one atomic batch.

The kernel takes a ruleset as lists of small expressions that load something into a register, compare it, and
act; this
module has one function for each expression that container networks need, named as ``nft --debug=netlink``
prints it.
Registers: 1 is the first 16-byte one (4-byte register 8 is the same place), 9, 10, ... are the 4-byte ones
after it.

Source: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h. What ``nft list ruleset`` reads back is the
test.
"""

from __future__ import annotations

from _struct import pack

from containust.core.netlink import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    Connection,
    NetlinkError,
    attribute,
    attribute_map,
    attributes,
    message,
    nested,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NFPROTO_INET = 1
NFPROTO_IPV4 = 2
NFPROTO_NETDEV = 5
NFPROTO_IPV6 = 10

SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
_NEWTABLE, _GETTABLE, _DELTABLE = SUBSYSTEM | 0, SUBSYSTEM | 1, SUBSYSTEM | 2
_NEWCHAIN = SUBSYSTEM | 3
_NEWRULE = SUBSYSTEM | 6
_NEWSET = SUBSYSTEM | 9
_NEWSETELEM, _GETSETELEM = SUBSYSTEM | 12, SUBSYSTEM | 13

NF_INET_PRE_ROUTING = 0
NF_INET_LOCAL_IN = 1
NF_INET_FORWARD = 2
NF_INET_LOCAL_OUT = 3
NF_INET_POST_ROUTING = 4

META_PROTOCOL = 1
META_MARK = 3
META_IIFNAME = 6
META_OIFNAME = 7
META_NFPROTO = 15
META_L4PROTO = 16
CT_STATE = 0
CT_STATUS = 2
CT_STATE_ESTABLISHED_RELATED = 2 | 4
CT_STATUS_DNAT = 32
PAYLOAD_LINK = 0
PAYLOAD_NETWORK = 1
PAYLOAD_TRANSPORT = 2
EQ, NEQ = 0, 1
ACCEPT, DROP, JUMP, GOTO, RETURN = 1, 0, -3, -4, -5

_CHAIN_POLICY_DROP = 0
_CHAIN_POLICY_ACCEPT = 1
_SET_MAP = 0x8
_SET_ANONYMOUS_CONSTANT = 0x3
_SET_CONCAT = 0x80

# Type numbers that only nft's printing needs (its datatype table); a concatenation has six bits for each.
TYPE_IPV4 = 7
TYPE_IPV6 = 8
TYPE_PROTO = 12
TYPE_SERVICE = 13
TYPE_IFNAME = 41


def header(family: int, resource: int = 0) -> bytes:
    """struct nfgenmsg."""
    return pack("=BB", family, 0) + pack(">H", resource)


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, pack(">I", value & 0xFFFFFFFF))


def begin() -> bytes:
    """Start of a batch: nothing of it holds until its end is reached without an error."""
    return message(_BATCH_BEGIN, 0, header(0, 10))


def end() -> bytes:
    """End of a batch."""
    return message(_BATCH_END, 0, header(0, 10))


def apply(connection: Connection, messages: Sequence[bytes], what: str) -> None:
    """Carry out ``messages`` as one transaction: all of them or, with NetlinkError, none."""
    batch = [begin(), *messages, end()]
    # The last message, not the end of the batch, asks for the answer: older kernels do not acknowledge the
    # end.
    refused = connection.send_batch(batch, len(batch) - 2)
    if refused:
        index, number, detail = refused[0]
        raise NetlinkError(number, index - 1, what, detail)


def table(name: str, comment: str = "", family: int = NFPROTO_INET) -> bytes:
    """Make a table, if it is not there."""
    payload = header(family) + text(1, name)
    if comment:
        # NFTA_TABLE_USERDATA in libnftnl's own encoding: type 0 (comment), length, string.
        value = comment.encode() + b"\0"
        payload += attribute(6, bytes((0, len(value))) + value)
    return message(_NEWTABLE, NLM_F_CREATE, payload)


def delete_table(name: str, family: int = NFPROTO_INET) -> bytes:
    """Delete a table with all that is in it; the batch fails with ENOENT if there is none."""
    return message(_DELTABLE, 0, header(family) + text(1, name))


def chain(table: str, name: str) -> bytes:
    """A chain to jump to."""
    return message(_NEWCHAIN, NLM_F_CREATE, header(NFPROTO_INET) + text(1, table) + text(3, name))


def base_chain(table: str, name: str, kind: str, hook: int, priority: int, family: int = NFPROTO_INET) -> bytes:
    """A chain on a netfilter hook, policy accept. ``kind`` is ``"filter"`` or ``"nat"``."""
    return message(
        _NEWCHAIN,
        NLM_F_CREATE,
        header(NFPROTO_INET)
        + text(1, table)
        + text(3, name)
        + nested(4, _u32(1, hook), _u32(2, priority))
        + _u32(5, _CHAIN_POLICY_ACCEPT)
        + text(7, kind),
    )


def ingress_chain(table: str, name: str, device: str) -> bytes:
    """A chain of a table of family netdev, on what a device receives, before any protocol sees it."""
    return message(
        _NEWCHAIN,
        NLM_F_CREATE,
        header(NFPROTO_NETDEV)
        + text(1, table)
        + text(3, name)
        + nested(4, _u32(1, 0), _u32(2, 0), text(3, device))
        + _u32(5, _CHAIN_POLICY_ACCEPT)
        + text(7, "filter"),
    )


def rule(table: str, chain: str, *expressions: bytes, family: int = NFPROTO_INET) -> bytes:
    """A rule at the end of a chain."""
    return message(
        _NEWRULE,
        NLM_F_CREATE | NLM_F_APPEND,
        header(family) + text(1, table) + text(2, chain) + nested(4, *expressions),
    )


def _type_number(types: Sequence[int]) -> int:
    number = 0
    for one in types:
        number = number << 6 | one
    return number


_WIDTH = {TYPE_IPV4: 4, TYPE_IPV6: 16, TYPE_PROTO: 4, TYPE_SERVICE: 4}  # padded to whole registers


def new_map(table: str, name: str, number: int, key: Sequence[int], data: Sequence[int]) -> bytes:
    """A map from a concatenation of ``key`` types to one of ``data`` types.

    ``number`` identifies it to the rules and elements of the same batch.
    """
    return message(
        _NEWSET,
        NLM_F_CREATE,
        header(NFPROTO_INET)
        + text(1, table)
        + text(2, name)
        + _u32(3, _SET_MAP)
        + _u32(4, _type_number(key))
        + _u32(5, sum(_WIDTH[one] for one in key))
        + _u32(6, _type_number(data))
        + _u32(7, sum(_WIDTH[one] for one in data))
        + _u32(10, number),
    )


def interface_set(table: str, name: str, number: int) -> bytes:
    """A set of interface names."""
    return message(
        _NEWSET,
        NLM_F_CREATE,
        header(NFPROTO_INET)
        + text(1, table)
        + text(2, name)
        + _u32(3, 0)
        + _u32(4, TYPE_IFNAME)
        + _u32(5, 16)
        + _u32(10, number)
        # NFTNL_UDATA_SET_KEYBYTEORDER, host order: without it nft prints the names backwards.
        + attribute(13, bytes((0, 4)) + pack("=I", 1)),
    )


def set_elements(table: str, name: str, number: int, elements: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Put pairs of key and data (empty in a set) into a map or set made in the same batch.

    Several messages when they are many, as an attribute holds 64 KB.
    """
    messages: list[bytes] = []
    encoded: list[bytes] = []

    def flush() -> None:
        messages.append(
            message(
                _NEWSETELEM,
                NLM_F_CREATE,
                header(NFPROTO_INET) + text(1, table) + text(2, name) + nested(3, *encoded) + _u32(4, number),
            )
        )
        encoded.clear()

    for key, data in elements:
        encoded.append(nested(1, nested(1, attribute(1, key)), *((nested(2, attribute(1, data)),) if data else ())))
        if len(encoded) == 500:
            flush()
    if encoded:
        flush()
    return messages


# Expressions.


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


def meta(key: int, register: int = 1) -> bytes:
    """Load a property of the packet."""
    return _expression("meta", _u32(2, key), _u32(1, register))


def payload(base: int, offset: int, length: int, register: int = 1) -> bytes:
    """Load bytes of a header."""
    return _expression("payload", _u32(1, register), _u32(2, base), _u32(3, offset), _u32(4, length))


def ct(key: int, register: int = 1) -> bytes:
    """Load a property of the connection."""
    return _expression("ct", _u32(2, key), _u32(1, register))


def fib_daddr_type(register: int = 1) -> bytes:
    """Load what kind of address the destination is here (RTN_LOCAL is the host's own)."""
    return _expression("fib", _u32(1, register), _u32(2, 3), _u32(3, 2))


def compare(value: bytes, operation: int = EQ, register: int = 1) -> bytes:
    """Go on with the rule if the register holds (EQ) or does not hold (NEQ) ``value``."""
    return _expression("cmp", _u32(1, register), _u32(2, operation), nested(3, attribute(1, value)))


def masked(mask: bytes, register: int = 1) -> bytes:
    """Keep the bits of ``mask`` of a register."""
    return _expression(
        "bitwise",
        _u32(1, register),
        _u32(2, register),
        _u32(3, len(mask)),
        nested(4, attribute(1, mask)),
        nested(5, attribute(1, bytes(len(mask)))),
    )


def lookup(name: str, number: int, source: int, destination: int) -> bytes:
    """Look the source register up in a map, put what is found in the destination; no entry ends the rule."""
    return _expression("lookup", text(1, name), _u32(2, source), _u32(3, destination), _u32(4, number))


def member(name: str, number: int, source: int = 1) -> bytes:
    """Go on with the rule if the register is in a set."""
    return _expression("lookup", text(1, name), _u32(2, source), _u32(4, number))


def verdict(code: int, chain: str = "") -> bytes:
    """Accept, drop, return, or go to a chain."""
    return _expression(
        "immediate",
        _u32(1, 0),
        nested(2, nested(2, _u32(1, code), *((text(2, chain),) if chain else ()))),
    )


def dnat(family: int, address_register: int, port_register: int) -> bytes:
    """Send the connection to the address and port in the registers."""
    return _expression(
        "nat",
        _u32(1, 1),
        _u32(2, family),
        _u32(3, address_register),
        _u32(4, address_register),
        _u32(5, port_register),
        _u32(6, port_register),
        _u32(7, 3),
    )


def load(value: bytes, register: int = 1) -> bytes:
    """Load a constant."""
    return _expression("immediate", _u32(1, register), nested(2, attribute(1, value)))


def set_meta(key: int, register: int = 1) -> bytes:
    """Set a property of the packet from a register."""
    return _expression("meta", _u32(2, key), _u32(3, register))


def set_payload(base: int, offset: int, length: int, register: int = 1) -> bytes:
    """Write a register into a header that has no checksum."""
    return _expression("payload", _u32(5, register), _u32(2, base), _u32(3, offset), _u32(4, length), _u32(6, 0))


def forward_to(register: int = 1) -> bytes:
    """Send the packet out by the device whose index is in the register (family netdev)."""
    return _expression("fwd", _u32(1, register))


def masquerade() -> bytes:
    """Give the connection the outgoing interface's own address."""
    return _expression("masq")


def notrack() -> bytes:
    """Keep the packet out of connection tracking."""
    return _expression("notrack")


def counter() -> bytes:
    """Count packets and bytes."""
    return _expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))


def reject() -> bytes:
    """Refuse with an ICMP "administratively prohibited", so that the sender does not wait for a timeout."""
    return _expression("reject", _u32(1, 2), attribute(2, b"\3"))


# Reading.


def tables(connection: Connection, family: int = NFPROTO_INET) -> list[tuple[str, str]]:
    """``(name, comment)`` of each table of a family."""
    found = []
    for _, start, stop, buffer in connection.dump(message(_GETTABLE, 0, header(family))):
        values = attribute_map(buffer, start + 4, stop)
        userdata = values.get(6, b"")
        comment = ""
        if len(userdata) > 2 and userdata[0] == 0:
            comment = userdata[2 : 2 + userdata[1]].rstrip(b"\0").decode(errors="replace")
        found.append((values[1].rstrip(b"\0").decode(), comment))
    return found


def elements(connection: Connection, table: str, name: str) -> list[tuple[bytes, bytes]]:
    """Key and data of each element of a map; empty if there is no such map."""
    found = []
    try:
        listed = set_listing(connection, table, name)
    except NetlinkError as error:
        if error.errno == 2:  # ENOENT
            return []
        raise
    for values in listed:
        key = attribute_map(values.get(1, b""), 0, len(values.get(1, b""))).get(1, b"")
        data = attribute_map(values.get(2, b""), 0, len(values.get(2, b""))).get(1, b"")
        found.append((key, data))
    return found


def set_listing(connection: Connection, table: str, name: str, family: int = NFPROTO_INET) -> list[dict[int, bytes]]:
    """The NFTA_SET_ELEM_* attributes of each element of a set or map."""
    request = message(_GETSETELEM, 0, header(family) + text(1, table) + text(2, name))
    found = []
    for _, start, stop, buffer in connection.dump(request):
        listed = attribute_map(buffer, start + 4, stop).get(3, b"")
        found += [attribute_map(listed, a, b) for _, a, b in attributes(listed, 0, len(listed))]
    return found


def connect() -> Connection:
    """A connection to nf_tables in this network namespace."""
    return Connection(NETLINK_NETFILTER)
