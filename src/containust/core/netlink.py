"""Netlink messages: building, batching, dumping.

A netlink request is a header, a fixed family structure and type-length-value attributes, all in host byte
order and
aligned to four bytes (netlink(7)). The kernel works through a buffer of many requests inside one
``sendmsg(2)``, so a
whole network is one system call: nothing of it is left half-done by a signal, and a process killed with
SIGKILL has
either sent the batch or not.

``_socket`` and ``struct`` are all this needs; it is on the start-up path of every container.
"""

from __future__ import annotations

import _socket
from _struct import Struct, unpack_from

from containust.common import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

AF_NETLINK = 16
NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11

NLM_F_REQUEST = 0x001
NLM_F_ACK = 0x004
NLM_F_DUMP_INTR = 0x010
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

SO_SNDBUF = 7
SO_SNDBUFFORCE = 32

HEADER = Struct("=IHHII")
ATTRIBUTE = Struct("=HH")

# One sendmsg must fit the socket's send buffer (net.core.wmem_default, 212992 bytes unless the host says
# otherwise).
CHUNK = 96 * 1024


class NetlinkError(OSError):
    """A request that the kernel refused. ``index`` is its position in the batch, ``detail`` the kernel's own
    words."""

    def __init__(self, number: int, index: int, what: str, detail: str) -> None:
        super().__init__(number, f"{what}: {detail or os.strerror(number)}")
        self.index = index
        self.detail = detail


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return ATTRIBUTE.pack(len(payload) + 4, kind) + payload + b"\0" * (-len(payload) & 3)


def text(kind: int, value: str) -> bytes:
    """An attribute holding a NUL-terminated string."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *children: bytes) -> bytes:
    """An attribute holding attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(children))


def message(kind: int, flags: int, payload: bytes) -> bytes:
    """One request. Its sequence number is filled in when it is sent."""
    return HEADER.pack(16 + len(payload), kind, NLM_F_REQUEST | flags, 0, 0) + payload


def attributes(buffer: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """``(type, start, end)`` of the payload of each attribute in ``buffer[start:end]``; stops at a damaged
    one."""
    while start + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(buffer, start)
        if length < 4 or start + length > end:
            return
        yield kind & NLA_TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


def attribute_map(buffer: bytes, start: int, end: int) -> dict[int, bytes]:
    """The attributes of ``buffer[start:end]`` by type; the last one of a type wins."""
    return {kind: buffer[a:b] for kind, a, b in attributes(buffer, start, end)}


def numbered(messages: Sequence[bytes], base: int, acknowledged: int) -> bytearray:
    """Requests as one datagram, with sequence numbers from ``base`` on; the one at ``acknowledged`` asks for an
    answer."""
    buffer = bytearray(b"".join(messages))
    offset = 0
    for position, one in enumerate(messages):
        length, kind, flags, _, _ = HEADER.unpack_from(one)
        if position == acknowledged:
            flags |= NLM_F_ACK
        HEADER.pack_into(buffer, offset, length, kind, flags, base + position, 0)
        offset += len(one)
    return buffer


class Connection:
    """A netlink socket of one protocol, in the network namespace of the thread that makes it.

    Not shared between threads or processes: a forked child makes its own.
    """

    __slots__ = ("_sequence", "_socket")

    def __init__(self, protocol: int) -> None:
        self._socket = _socket.socket(AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, protocol)
        self._sequence = 0
        # The reply to a failed request need not repeat the request, and should say in words what was wrong.
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def execute(self, messages: Sequence[bytes], what: str) -> None:
        """Send requests in as few system calls as fit the send buffer; NetlinkError for the first refused
        one.

        The kernel goes on after a refused request, so the ones that follow it may have been carried out.
        ``what`` names the whole in the error.
        """
        first = 0
        while first < len(messages):
            last, size = first, 0
            while last < len(messages) and (last == first or size + len(messages[last]) <= CHUNK):
                size += len(messages[last])
                last += 1
            errors = self.send_batch(messages[first:last], last - first - 1)
            if errors:
                index, number, detail = errors[0]
                raise NetlinkError(number, first + index, what, detail)
            first = last

    def try_execute(self, messages: Sequence[bytes]) -> list[tuple[int, int, str]]:
        """Send requests; every refusal as ``(position, errno, the kernel's words)`` instead of an
        exception."""
        refused: list[tuple[int, int, str]] = []
        first = 0
        while first < len(messages):
            last, size = first, 0
            while last < len(messages) and (last == first or size + len(messages[last]) <= CHUNK):
                size += len(messages[last])
                last += 1
            refused += [
                (first + index, number, detail)
                for index, number, detail in self.send_batch(messages[first:last], last - first - 1)
            ]
            first = last
        return refused

    def send_batch(self, messages: Sequence[bytes], acknowledged: int) -> list[tuple[int, int, str]]:
        """One ``sendmsg``; the refusals as ``(position, errno, detail)``.

        Only the request at position ``acknowledged`` asks for an answer; refusals answer unasked, in order.
        Its answer
        says that all before it have been worked through.
        """
        base = self._sequence
        self._sequence += len(messages)
        buffer = numbered(messages, base, acknowledged)
        self._room_for(len(buffer))
        self._socket.send(buffer)
        refused: list[tuple[int, int, str]] = []
        while True:
            for kind, flags, sequence, start, end, answer in self._receive():
                if kind != NLMSG_ERROR:
                    continue
                number = -unpack_from("=i", answer, start)[0]
                position = sequence - base
                if number:
                    refused.append((position, number, _detail(answer, flags, start, end)))
                if position == acknowledged:
                    return refused

    def dump(self, request: bytes) -> list[tuple[int, int, int, bytes]]:
        """Every answer to a dump request as ``(type, start, end, buffer)``: the payload is
        ``buffer[start:end]``.

        Asked again when the kernel says that the tables changed under the dump (NLM_F_DUMP_INTR).
        """
        while True:
            answers, consistent = self._dump_once(request)
            if consistent:
                return answers

    def _dump_once(self, request: bytes) -> tuple[list[tuple[int, int, int, bytes]], bool]:
        length, kind, flags, _, _ = HEADER.unpack_from(request)
        sequence = self._sequence
        self._sequence += 1
        self._socket.send(HEADER.pack(length, kind, flags | NLM_F_DUMP, sequence, 0) + request[16:])
        answers: list[tuple[int, int, int, bytes]] = []
        consistent = True
        while True:
            for kind, flags, answered, start, end, buffer in self._receive():
                if answered != sequence:
                    continue
                if flags & NLM_F_DUMP_INTR:
                    consistent = False
                if kind == NLMSG_DONE:
                    return answers, consistent
                if kind == NLMSG_ERROR:
                    number = -unpack_from("=i", buffer, start)[0]
                    raise NetlinkError(number, 0, "netlink dump", _detail(buffer, flags, start, end))
                answers.append((kind, start, end, buffer))

    def _receive(self) -> Iterable[tuple[int, int, int, int, int, bytes]]:
        """The messages of one datagram: ``(type, flags, sequence, payload start, payload end, buffer)``."""
        buffer = self._socket.recv(65536)
        found = []
        offset = 0
        while offset + 16 <= len(buffer):
            length, kind, flags, sequence, _ = HEADER.unpack_from(buffer, offset)
            if length < 16:
                break
            found.append((kind, flags, sequence, offset + 16, offset + length, buffer))
            offset += (length + 3) & ~3
        return found

    def _room_for(self, size: int) -> None:
        if size > CHUNK:
            try:
                self._socket.setsockopt(_socket.SOL_SOCKET, SO_SNDBUFFORCE, size + 65536)
            except OSError:
                self._socket.setsockopt(_socket.SOL_SOCKET, SO_SNDBUF, size + 65536)


def _detail(buffer: bytes, flags: int, start: int, end: int) -> str:
    """The extended acknowledgement's message; empty without one."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    # struct nlmsgerr: the error, then the header of the request (NETLINK_CAP_ACK leaves its payload out).
    found = attribute_map(buffer, start + 4 + 16, end).get(NLMSGERR_ATTR_MSG, b"")
    return found.rstrip(b"\0").decode(errors="replace")
