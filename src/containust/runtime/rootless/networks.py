"""The networks of an ordinary user's project: bridges, veth pairs and rules as root's, in a namespace of the project's.

Only the outermost step differs: what leaves the namespace goes to pasta or slirp4netns, and published ports come in
by them (:mod:`.programs`).
"""

from __future__ import annotations

from struct import pack

from containust.common.types import Expose
from containust.core import nftables as nf
from containust.core import rtnetlink as rt
from containust.runtime.network import lock
from containust.runtime.network.addresses import pack_address
from containust.runtime.network.rules import BRIDGE_PREFIX, host_addresses
from containust.runtime.network.stack import StackNetworks
from containust.runtime.rootless.programs import MTU, Slirp4netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from containust.core.netlink import Connection
    from containust.runtime.network.attachment import Attachment
    from containust.runtime.network.rules import HostService
    from containust.runtime.project import Project
    from containust.runtime.rootless.client import Client

TABLE = "containust_host"
LOCAL_TABLE = 255
_V4, _V6 = bytes((nf.NFPROTO_IPV4,)), bytes((nf.NFPROTO_IPV6,))


class RootlessNetworks(StackNetworks):
    """Making one enters the project's network namespace."""

    __slots__ = ("_client",)

    def __init__(self, client: Client, project: Project, recorded: dict[str, dict[str, Any]]) -> None:
        super().__init__(project.id, recorded)
        self._client = client
        # The namespace is the project's alone, and /run is not the user's.
        lock.DIRECTORY = f"{project.directory}/state"
        client.enter_network()

    def _read_host(self, connection: Connection) -> None:
        super()._read_host(connection)
        # What the host routes is as good as taken: a container could not reach it any more.
        self._routes = [*self._routes, *(one for one in self._host_routes() if one.prefix)]

    def _host_routes(self) -> list[rt.Route]:
        told, _ = self._client.ask("host")
        return [
            rt.Route(bits, int.from_bytes(destination, "big"), prefix, 0, table)
            for bits, destination, prefix, table in told
        ]

    def _mtu(self) -> int:
        # Connections of the outside end in the network program, whose packets never were on a wire.
        return MTU

    def publish(
        self,
        exposes: Sequence[Expose],
        attachments: Mapping[str, list[Attachment]],
        offline: Iterable[str] = (),
        services: Iterable[HostService] = (),
    ) -> None:
        """As root's; before it, the network program gets the ports."""
        ours = [expose for expose in exposes if attachments.get(expose.component)]
        closed = set(offline)
        outside = bool(set(self.recorded) - closed)
        program, _ = self._client.ask("publish", [expose.as_dict() for expose in ours], outside)
        super().publish([arriving(expose, program) for expose in ours], attachments, closed, services)
        assert self._nft is not None
        keep_apart(self._nft, self._host_routes(), program)


def arriving(expose: Expose, program: str) -> Expose:
    """``expose`` with the address at which its connections arrive in the namespace.

    pasta delivers those of the host's loopback to the namespace's own and all others to the address of its interface,
    slirp4netns all to that. An address of the host's is not one of the namespace's.
    """
    if host_addresses(expose.address, False) == ["127.0.0.1"]:
        address = Slirp4netns.ADDRESS if program == Slirp4netns.name else expose.address
    else:
        address = "::" if ":" in expose.address else "0.0.0.0"
    return Expose(expose.component, expose.host_port, expose.container_port, expose.protocol, address)


def keep_apart(nft: Connection, host: list[rt.Route], program: str) -> None:
    """Keep containers from the host by any of its addresses, as on a host that routes for them itself.

    Both programs open connections as the user on the host would, and so reach what listens there.
    """
    messages = [nf.table(TABLE), nf.delete_table(TABLE), nf.table(TABLE)]
    answers = nf.ct(nf.CT_STATE) + nf.masked(pack("=I", nf.CT_STATE_ESTABLISHED_RELATED)) + nf.compare(bytes(4), nf.NEQ)
    messages.append(nf.base_chain(TABLE, "host", "filter", nf.NF_INET_FORWARD, -10))
    messages.append(nf.rule(TABLE, "host", answers, nf.verdict(nf.RETURN)))
    for route in host:
        if route.table == LOCAL_TABLE and route.prefix == route.bits:
            packed = route.destination.to_bytes(route.bits // 8, "big")
            family, offset = (_V6, 24) if route.bits == 128 else (_V4, 16)
            matches = nf.payload(nf.PAYLOAD_NETWORK, offset, len(packed)) + nf.compare(packed)
            came_in = nf.meta(nf.META_IIFNAME) + nf.compare(BRIDGE_PREFIX.encode())
            of_family = nf.meta(nf.META_NFPROTO) + nf.compare(family)
            messages.append(nf.rule(TABLE, "host", came_in, of_family, matches, nf.counter(), nf.reject()))
    if program == Slirp4netns.name:
        # Published ports arrive at an address of the namespace: they are for who comes from outside.
        messages.append(nf.base_chain(TABLE, "arrive", "filter", nf.NF_INET_PRE_ROUTING, -150))
        messages.append(nf.rule(TABLE, "arrive", answers, nf.verdict(nf.RETURN)))
        messages.append(
            nf.rule(
                TABLE,
                "arrive",
                nf.meta(nf.META_IIFNAME) + nf.compare(BRIDGE_PREFIX.encode()),
                nf.meta(nf.META_NFPROTO) + nf.compare(_V4),
                nf.payload(nf.PAYLOAD_NETWORK, 16, 3) + nf.compare(pack_address(Slirp4netns.ADDRESS)[:3]),
                nf.counter(),
                nf.verdict(nf.DROP),
            )
        )
    nf.apply(nft, messages, "nf_tables: the host apart from containers")
