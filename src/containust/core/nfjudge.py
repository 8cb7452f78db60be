"""What the rules on this host would do with a packet, read from nf_tables: accept it, drop it, or that depends.

For the question whether a firewall admits connections to a port, from anybody. Expressions are carried out on what is
known of the packet (protocol, port, family, that it is the first of its connection); whatever else a rule looks at,
such as where the packet comes from, is unknown, and a rule that depends on it can close a port here but not open it.

Source: linux/netfilter/nf_tables.h; for rules of iptables, linux/netfilter/xt_tcpudp.h and xt_conntrack.h.
"""

from __future__ import annotations

from struct import pack, unpack_from

from containust.common.types import Record
from containust.core import nftables as nf
from containust.core.netlink import NetlinkError, attribute_map, attributes, message, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.core.netlink import Connection

ACCEPT, DROP, CONTINUE = "accept", "drop", "continue"
CT_PROTO_DST = 12
CT_STATE_NEW = 8  # NF_CT_STATE_BIT(IP_CT_NEW), which only packets of new connections have
TCP, UDP = 6, 17
_GETCHAIN, _GETRULE, _GETSET = nf.SUBSYSTEM | 4, nf.SUBSYSTEM | 7, nf.SUBSYSTEM | 10
_VERDICTS = {0: DROP, 1: ACCEPT}
_DEEP = 16  # as deep as the kernel lets chains jump


class Chain(Record):
    """A base chain: ``family`` NFPROTO_*, ``hook`` NF_INET_*, ``policy`` of what no rule decides."""

    __slots__ = ("family", "hook", "name", "policy", "priority", "table")

    def __init__(self, family: int, table: str, name: str, hook: int, priority: int, policy: str) -> None:
        self.family = family
        self.table = table
        self.name = name
        self.hook = hook
        self.priority = priority
        self.policy = policy

    def __str__(self) -> str:
        return f"{_FAMILIES.get(self.family, 'inet')} {self.table} {self.name}"


_FAMILIES = {nf.NFPROTO_INET: "inet", nf.NFPROTO_IPV4: "ip", nf.NFPROTO_IPV6: "ip6"}


class Packet(Record):
    """The first packet of a connection: ``family`` NFPROTO_IPV4 or IPV6, ``protocol`` TCP or UDP, to ``port``.

    ``published`` is the port that it was sent to, where that has been translated to ``port``.
    """

    __slots__ = ("family", "port", "protocol", "published")

    def __init__(self, family: int, protocol: int, port: int, published: int | None = None) -> None:
        self.family = family
        self.protocol = protocol
        self.port = port
        self.published = published


def filter_chains(connection: Connection, hook: int) -> list[Chain]:
    """Base chains of type filter at a hook, of IPv4, IPv6 and both, in the order in which packets meet them."""
    found = []
    for _, start, stop, buffer in connection.dump(message(_GETCHAIN, 0, nf.header(0))):
        family = buffer[start]
        values = attribute_map(buffer, start + 4, stop)
        place = attribute_map(values.get(4, b""), 0, len(values.get(4, b"")))
        if family not in _FAMILIES or _text(values.get(7, b"")) != "filter" or _number(place.get(1)) != hook:
            continue
        policy = DROP if _number(values.get(5)) == 0 else ACCEPT
        priority = unpack_from(">i", place[2])[0]
        found.append(Chain(family, _text(values[1]), _text(values[3]), hook, priority, policy))
    return sorted(found, key=lambda chain: chain.priority)


class Judge:
    """Reads chains and sets of this network namespace as they are asked about, each once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rules: dict[tuple[int, str, str], list[list[tuple[str, bytes]]]] = {}
        self._sets: dict[tuple[int, str, str], dict[bytes, tuple[bytes, bool]]] = {}

    def admits(self, chain: Chain, packet: Packet) -> bool:
        """Whether the base chain lets the packet pass, whoever it comes from."""
        if chain.family not in (nf.NFPROTO_INET, packet.family):
            return True
        outcome, _ = self._chain(chain.family, chain.table, chain.name, packet, 0)
        return (chain.policy if outcome == CONTINUE else outcome) == ACCEPT

    def _chain(self, family: int, table: str, name: str, packet: Packet, depth: int) -> tuple[str, bool]:
        """The outcome, and whether a rule may drop the packet that looks at something unknown."""
        doubtful = False
        for expressions in self._read(family, table, name) if depth < _DEEP else []:
            certain, verdict, target = _Rule(self, family, table, packet).run(expressions)
            if verdict in ("jump", "goto"):
                outcome, doubt = self._chain(family, table, target, packet, depth + 1)
                doubtful = doubtful or doubt or (not certain and outcome == DROP)
                if certain and (outcome != CONTINUE or verdict == "goto"):
                    return (DROP if doubtful and outcome == ACCEPT else outcome), doubtful
            elif verdict == "return" and certain:
                break
            elif verdict == DROP and not certain:
                doubtful = True
            elif verdict in (ACCEPT, DROP) and certain:
                return (DROP if doubtful else verdict), doubtful
        return CONTINUE, doubtful

    def _read(self, family: int, table: str, name: str) -> list[list[tuple[str, bytes]]]:
        key = (family, table, name)
        if key not in self._rules:
            request = message(_GETRULE, 0, nf.header(family) + text(1, table) + text(2, name))
            found = []
            for _, start, stop, buffer in self._connection.dump(request):
                values = attribute_map(buffer, start + 4, stop)
                if (_text(values.get(1, b"")), _text(values.get(2, b""))) != (table, name):
                    continue
                listed = values.get(4, b"")
                expressions = []
                for _, a, b in attributes(listed, 0, len(listed)):
                    parts = attribute_map(listed, a, b)
                    expressions.append((_text(parts[1]), parts.get(2, b"")))
                found.append(expressions)
            self._rules[key] = found
        return self._rules[key]

    def elements(self, family: int, table: str, name: str) -> dict[bytes, tuple[bytes, bool]]:
        """Key -> (data, whether it ends an interval) of a set or map."""
        key = (family, table, name)
        if key not in self._sets:
            found = {}
            try:
                for element in nf.set_listing(self._connection, table, name, family):
                    data = element.get(2, b"")
                    inner = attribute_map(element.get(1, b""), 0, len(element.get(1, b"")))
                    found[inner.get(1, b"")] = data, bool(_number(element.get(3)) & 1)
            except NetlinkError:
                pass
            self._sets[key] = found
        return self._sets[key]


class _Rule:
    """One rule, carried out on one packet. Registers hold bytes, or None for what is not known."""

    def __init__(self, judge: Judge, family: int, table: str, packet: Packet) -> None:
        self.judge, self.family, self.table, self.packet = judge, family, table, packet
        self.registers: dict[int, bytes | None] = {}
        self.certain = True

    def run(self, expressions: list[tuple[str, bytes]]) -> tuple[bool, str, str]:
        """Whether the packet certainly comes to the end, the verdict there ("" for none), the chain to jump to."""
        for name, data in expressions:
            values = attribute_map(data, 0, len(data))
            if name == "immediate" and _register(values.get(1)) == 0:
                return (self.certain, *_verdict(values[2]))
            if name == "reject":
                return self.certain, DROP, ""
            if name == "target":
                return self.certain, DROP if _text(values.get(1, b"")) in ("REJECT", "DROP") else "", ""
            if name == "lookup" and 3 in values and _register(values[3]) == 0:
                return self._verdict_map(values)
            passes = self._step(name, values)
            if passes is False:
                return True, "", ""
            if passes is None:
                self.certain = False
        return self.certain, "", ""

    def _step(self, name: str, values: dict[int, bytes]) -> bool | None:
        """Whether the packet passes one expression; None when that is not known."""
        if name in ("counter", "log", "immediate", "notrack"):
            if name == "immediate":
                inner = attribute_map(values[2], 0, len(values[2]))
                self.registers[_register(values[1])] = inner.get(1)
            return True
        if name in ("meta", "ct", "payload"):
            self._load(name, values)
            return True
        if name == "bitwise":
            self._mask(values)
            return True
        if name == "cmp":
            return _compare(self.registers.get(_register(values[1])), _number(values[2]), _value(values[3]))
        if name == "range":
            held = self.registers.get(_register(values[1]))
            if held is None:
                return None
            inside = _value(values[3]) <= held <= _value(values[4])
            return inside != bool(_number(values[2]))
        if name == "lookup":
            found = self._find(values)
            return None if found is None else (found != b"") != bool(_number(values.get(5)) & 1)
        if name == "match":
            return _xt_match(_text(values.get(1, b"")), values.get(3, b""), self.packet)
        return None

    def _load(self, name: str, values: dict[int, bytes]) -> None:
        packet = self.packet
        if name == "payload":
            if 1 not in values:
                return
            register, place = _register(values[1]), tuple(_number(values.get(k)) for k in (2, 3, 4))
            known = {(nf.PAYLOAD_TRANSPORT, 2, 2): packet.port.to_bytes(2, "big")}
            if packet.protocol == TCP:
                known[nf.PAYLOAD_TRANSPORT, 13, 1] = b"\x02"  # SYN
            if packet.family == nf.NFPROTO_IPV4:
                known[nf.PAYLOAD_NETWORK, 9, 1] = bytes((packet.protocol,))
            self.registers[register] = known.get(place)  # type: ignore[arg-type]
            return
        kind = _number(values.get(2))
        register = _register(values.get(1))
        if name == "ct":
            self.registers[register] = self._connection(kind, _number(values.get(3)))
            return
        held: bytes | None = None
        if kind == nf.META_L4PROTO:
            held = bytes((packet.protocol,))
        elif kind == nf.META_NFPROTO:
            held = bytes((packet.family,))
        elif kind == nf.META_PROTOCOL:
            held = b"\x08\x00" if packet.family == nf.NFPROTO_IPV4 else b"\x86\xdd"
        self.registers[register] = held

    def _connection(self, kind: int, direction: int) -> bytes | None:
        if kind == nf.CT_STATE:
            return pack("=I", CT_STATE_NEW)
        if kind == nf.CT_STATUS and self.packet.published is not None:
            return pack("=I", nf.CT_STATUS_DNAT)
        if kind == CT_PROTO_DST and not direction and self.packet.published is not None:
            return self.packet.published.to_bytes(2, "big")
        return None

    def _mask(self, values: dict[int, bytes]) -> None:
        held = self.registers.get(_register(values[1]))
        result = None
        if held is not None and 4 in values and 5 in values and not _number(values.get(6)):
            mask, flip = _value(values[4]), _value(values[5])
            result = bytes(h & m ^ f for h, m, f in zip(held, mask, flip, strict=False))
        self.registers[_register(values[2])] = result

    def _find(self, values: dict[int, bytes]) -> bytes | None:
        """Data of the element that the register is in (``b"+"`` in a set), empty for none, None when not known."""
        held = self.registers.get(_register(values[2]))
        if held is None:
            return None
        listed = self.judge.elements(self.family, self.table, _text(values[1]))
        if any(end for _, end in listed.values()):
            keys = [key for key in listed if len(key) == len(held) and key <= held]
            if not keys or listed[max(keys)][1]:
                return b""
            return listed[max(keys)][0] or b"+"
        if any(len(key) > max(4, len(held)) for key in listed):
            return None  # a concatenation, with something unknown behind
        padded = {key[: len(held)]: data for key, (data, _) in listed.items() if not any(key[len(held) :])}
        return (padded[held] or b"+") if held in padded else b""

    def _verdict_map(self, values: dict[int, bytes]) -> tuple[bool, str, str]:
        found = self._find(values)
        if found is None:
            # Some element may drop it.
            listed = self.judge.elements(self.family, self.table, _text(values[1]))
            drops = any(_verdict(data)[0] == DROP for data, _ in listed.values() if data)
            return False, DROP if drops else "", ""
        if found in (b"", b"+"):
            return True, "", ""
        return (self.certain, *_verdict(found))


def _verdict(data: bytes) -> tuple[str, str]:
    """Verdict and chain of an NFTA_DATA that holds one."""
    outer = attribute_map(data, 0, len(data)).get(2, b"")
    inner = attribute_map(outer, 0, len(outer))
    code = unpack_from(">i", inner[1])[0] if 1 in inner else 1
    jumps = {nf.JUMP: "jump", nf.GOTO: "goto", nf.RETURN: "return"}
    return jumps.get(code) or _VERDICTS.get(code & 0xFF, ""), _text(inner.get(2, b""))


def _compare(held: bytes | None, operation: int, value: bytes) -> bool | None:
    if held is None:
        return None
    held = held[: len(value)]
    results = (held == value, held != value, held < value, held <= value, held > value, held >= value)
    return bool(results[operation]) if operation < len(results) else None


def _xt_match(name: str, info: bytes, packet: Packet) -> bool | None:
    """A match of iptables: ports, and the state of the connection."""
    if name in ("tcp", "udp") and len(info) >= 12:
        if (name == "tcp") != (packet.protocol == TCP):
            return False
        first, last, low, high = unpack_from("=4H", info)
        # struct xt_tcp goes on with option, flag mask, flags (SYN alone is what a first packet has) and inversions.
        option, mask, flags, inverted = info[8:12] if name == "tcp" else (0, 0, 0, info[8])
        if (first, last) != (0, 65535) or option or (mask and flags != 2) or inverted & ~2:
            return None
        return bool(low <= packet.port <= high) != bool(inverted)
    if name == "conntrack" and len(info) >= 152:
        flags, inverted, states = unpack_from("=3H", info, 146)  # struct xt_conntrack_mtinfo3; flag 1: the state counts
        return bool(states & CT_STATE_NEW) != bool(inverted) if flags == 1 else None
    if name == "comment":
        return True
    return None


def _register(value: bytes | None) -> int:
    """Number of a register's first four bytes; 0 is the verdict."""
    number = _number(value)
    return number if number in (0,) or number >= 8 else 4 + 4 * number


def _value(data: bytes) -> bytes:
    return attribute_map(data, 0, len(data)).get(1, b"")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, "big") if value else 0


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
