"""Subnets and addresses: which the project's networks take, and which a container gets.

Subnets come from pools (``CONTAINUST_NETWORK_POOL``, comma-separated prefixes, each optionally ``/SIZE`` of
the subnets
after a colon: ``10.201.0.0/16:23``). One that overlaps anything the host has an address in or a route to is
never taken.
``ipaddress`` would cost more to import than a bridge costs to make, so addresses are plain numbers here.
"""

from __future__ import annotations

import _socket
from zlib import crc32

from containust.common import os
from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from containust.core.rtnetlink import Route

AF_INET = 2
AF_INET6 = 10

# Several, because a company's VPN often routes all of 10.0.0.0/8 or of 172.16.0.0/12.
DEFAULT_POOLS = "10.201.0.0/16:23,172.29.0.0/16:23,192.168.160.0/19:24"

# A route this short is a default route, or one of the halves that VPN programs split it into: not a claim
# on a subnet.
_DEFAULT_ROUTE_PREFIX = 1


class Subnet:
    """A prefix: ``base`` its first address as a number, ``bits`` 32 or 128. The first host address is the
    gateway."""

    __slots__ = ("base", "bits", "prefix")

    def __init__(self, base: int, prefix: int, bits: int) -> None:
        self.base = base
        self.prefix = prefix
        self.bits = bits

    def __str__(self) -> str:
        return f"{self.text(0)}/{self.prefix}"

    def text(self, host: int) -> str:
        """Address number ``host`` of the subnet as text."""
        return _socket.inet_ntop(AF_INET6 if self.bits == 128 else AF_INET, self.packed(host))

    def packed(self, host: int) -> bytes:
        """Address number ``host`` of the subnet, in network order."""
        return (self.base + host).to_bytes(self.bits // 8, "big")

    @property
    def hosts(self) -> int:
        """The highest host number: all below the broadcast address."""
        return min((1 << (self.bits - self.prefix)) - 2, 0xFFFF)

    def overlaps(self, other: Subnet | Route) -> bool:
        """Whether the two share an address."""
        base = other.base if isinstance(other, Subnet) else other.destination
        shift = self.bits - min(self.prefix, other.prefix)
        return self.bits == other.bits and self.base >> shift == base >> shift


def parse(text: str) -> Subnet:
    """``ADDRESS/PREFIX`` as a subnet; ValueError if it is none or has bits set after the prefix."""
    address, slash, length = text.partition("/")
    packed = pack_address(address)
    bits = len(packed) * 8
    prefix = int(length) if slash else bits
    base = int.from_bytes(packed, "big")
    if not 0 <= prefix <= bits or base & ((1 << (bits - prefix)) - 1):
        raise ValueError(text)
    return Subnet(base, prefix, bits)


def pack_address(text: str) -> bytes:
    """An address as 4 or 16 bytes in network order; ValueError if the text is none."""
    try:
        return _socket.inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except OSError:
        raise ValueError(text) from None


def pools() -> list[tuple[Subnet, int]]:
    """The configured pools as ``(prefix, length of the subnets cut from it)``."""
    value = os.environ.get("CONTAINUST_NETWORK_POOL") or DEFAULT_POOLS
    found = []
    for one in value.split(","):
        text, _, size = one.strip().partition(":")
        try:
            pool = parse(text)
            length = int(size) if size else max(24, pool.prefix)
        except ValueError:
            length = -1
        if length < 0 or pool.bits != 32 or not pool.prefix <= length <= 30:
            raise ContainustError(
                "R013",
                f"CONTAINUST_NETWORK_POOL: {one.strip()!r} is no IPv4 prefix with an optional :SIZE up to 30",
                "write it as 10.201.0.0/16 or 10.201.0.0/16:23, several separated by commas",
            )
        found.append((pool, length))
    return found


def choose(taken: Iterable[Route], hint: str) -> Subnet:
    """A free IPv4 subnet. Projects start their search at different places (``hint``), so they rarely meet."""
    claimed = [r for r in taken if r.bits == 32 and r.prefix > _DEFAULT_ROUTE_PREFIX]
    for pool, length in pools():
        near = [r for r in claimed if pool.overlaps(r)]
        count = 1 << (length - pool.prefix)
        start = crc32(hint.encode()) % count
        for n in range(count):
            subnet = Subnet(pool.base + ((start + n) % count << (32 - length)), length, 32)
            if not any(subnet.overlaps(r) for r in near):
                return subnet
    raise ContainustError(
        "R013",
        "no free subnet: the host has addresses in or routes to all of the pool",
        "set CONTAINUST_NETWORK_POOL to a prefix that nothing here uses, such as 10.77.0.0/16:24",
        "`ctst doctor` lists the networks of projects that are no longer running",
    )


def choose6(taken: Iterable[Route], project: str, number: int) -> Subnet:
    """A free IPv6 /64 under a unique local prefix (RFC 4193) of the project."""
    claimed = [r for r in taken if r.bits == 128 and r.prefix > _DEFAULT_ROUTE_PREFIX]
    for salt in range(64):
        base = bytes((0xFD, 0x63 + salt)) + crc32(project.encode()).to_bytes(4, "big") + number.to_bytes(2, "big")
        subnet = Subnet(int.from_bytes(base + bytes(8), "big"), 64, 128)
        if not any(subnet.overlaps(r) for r in claimed):
            return subnet
    raise ContainustError("R013", "no free IPv6 subnet: the host routes all of fd63::/10")
