"""The host's own firewall, and what it means for published ports.

What is published is forwarded, so the host's rules for ``forward`` see it, and the kernel applies them. A host that
filters only what comes in for itself (``input``) would not see it there. So a published port is closed to other hosts
where ``input`` denies it, unless the host denies by default in ``forward`` too, whose rules decide then. A closed port
is left untranslated for what comes from outside, so that its packets meet ``input`` itself.

The host's rules are read when rules are put in force: at each ``ctst run``, start and restart, and by the supervisor
when they change (:mod:`containust.runtime.network.watch`).
"""

from __future__ import annotations

from containust.core import nftables as nf
from containust.core.netlink import NetlinkError
from containust.core.nfjudge import Judge, Packet, filter_chains
from containust.runtime.network.rules import PROTOCOLS, TABLE_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from containust.common.types import Expose
    from containust.core.netlink import Connection
    from containust.core.nfjudge import Chain

OURS = TABLE_PREFIX.rstrip("-")
LOOPBACK = ("127.", "::1", "localhost")
# A port that no rule names: what happens to it is what happens by default.
NOBODYS = 1
RETRIES = 3  # a chain may go while its rules are read
ENOENT = 2


class Firewall:
    """The chains of the host that filter what comes in and what is forwarded."""

    def __init__(self, connection: Connection) -> None:
        self._judge = Judge(connection)
        self.input = [one for one in filter_chains(connection, nf.NF_INET_LOCAL_IN) if not _ours(one)]
        self.forward = [one for one in filter_chains(connection, nf.NF_INET_FORWARD) if not _ours(one)]

    def refusing(self, chains: list[Chain], packet: Packet) -> Chain | None:
        """The first chain that does not let the packet pass."""
        return next((chain for chain in chains if not self._judge.admits(chain, packet)), None)

    def denies_by_default(self, chains: list[Chain], family: int) -> Chain | None:
        """The first chain that drops what none of its rules names."""
        return self.refusing(chains, Packet(family, PROTOCOLS["tcp"], NOBODYS))

    def closed(self, expose: Expose) -> list[tuple[Packet, Chain]]:
        """As which packets from other hosts a published port is to be left to ``input``, and the chain that says so."""
        found = []
        for packet in _packets(expose):
            chain = self.refusing(self.input, packet)
            if chain and not self.denies_by_default(self.forward, packet.family):
                found.append((packet, chain))
        return found

    def forward_refuses(self, expose: Expose) -> Chain | None:
        """The chain of ``forward`` that does not let other hosts reach a published port."""
        for family in _families(expose):
            packet = Packet(family, PROTOCOLS[expose.protocol], expose.container_port, expose.host_port)
            chain = self.refusing(self.forward, packet)
            if chain:
                return chain
        return None


def open_to_others(expose: Expose) -> bool:
    """Whether a port is published on more than the host's loopback addresses."""
    return not expose.address.strip("[]").startswith(LOOPBACK)


def left_to_input(connection: Connection, exposes: Iterable[Expose]) -> list[Packet]:
    """What the rules have to leave untranslated for the host's ``input`` chains."""
    wide = [expose for expose in exposes if open_to_others(expose)]
    if not wide:
        return []
    for _ in range(RETRIES):
        try:
            firewall = Firewall(connection)
            return [packet for expose in wide for packet, _ in firewall.closed(expose)]
        except NetlinkError as error:
            if error.errno != ENOENT:
                raise
    # It changes all the time; closed is what can be made good later.
    return [packet for expose in wide for packet in _packets(expose)]


def warnings(exposes: Iterable[Expose]) -> list[tuple[str, str]]:
    """What to tell a user of published ports that the host's firewall keeps closed: message and help."""
    wide = [expose for expose in exposes if open_to_others(expose)]
    if not wide:
        return []
    found = []
    connection = nf.connect()
    try:
        firewall = Firewall(connection)
        for expose in wide:
            what = f"{expose.place}/{expose.protocol} -> {expose.component} is closed to other hosts"
            closed = firewall.closed(expose)
            refusing = None if closed else firewall.forward_refuses(expose)
            if closed:
                chain = closed[0][1]
                rule = f"`nft insert rule {chain} {expose.protocol} dport {expose.host_port} accept`"
                found.append((f"{what}: the chain `{chain}` does not admit it", f"{rule}, then run again"))
            elif refusing:
                rule = f"meta l4proto {expose.protocol} ct original proto-dst {expose.host_port} ct status dnat accept"
                help = f"`nft insert rule {refusing} {rule}`, and accept `ct state established`"
                found.append((f"{what}: it is forwarded, and `{refusing}` does not admit it", help))
    except OSError:
        pass  # without nf_tables there is no such firewall
    finally:
        connection.close()
    return found


def _packets(expose: Expose) -> list[Packet]:
    """What other hosts send to a published port."""
    return [Packet(family, PROTOCOLS[expose.protocol], expose.host_port) for family in _families(expose)]


def _families(expose: Expose) -> tuple[int, ...]:
    address = expose.address.strip("[]")
    if address == "::":
        return (nf.NFPROTO_IPV4, nf.NFPROTO_IPV6)
    return (nf.NFPROTO_IPV6,) if ":" in address else (nf.NFPROTO_IPV4,)


def _ours(chain: Chain) -> bool:
    return chain.table == OURS or chain.table.startswith(TABLE_PREFIX)
