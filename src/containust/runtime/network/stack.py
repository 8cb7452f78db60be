"""The networks of one project: bridges, leases, veth pairs and rules, from the recorded state to the kernel
and back.

The order of a start is the order of the methods: :meth:`StackNetworks.ensure`, :meth:`allocate`,
:meth:`publish` (the
rules stand before the first container is connected), :meth:`attach`, and in the container's own process
:func:`containust.runtime.network.inside.configure`. Each is one batch to the kernel for the whole stack.
"""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import nftables as nf
from containust.core import rtnetlink as rt
from containust.core.netlink import NETLINK_ROUTE, Connection, NetlinkError
from containust.runtime.network import forwarding, rules
from containust.runtime.network.addresses import Subnet, choose, choose6, pack_address, parse
from containust.runtime.network.attachment import Attachment
from containust.runtime.network.inside import FIRST_INDEX
from containust.runtime.network.lock import HostLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from containust.common.types import Expose
    from containust.core.nfjudge import Packet

DEFAULT_MTU = 1500
_LOOPBACK6 = pack_address("::1")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class StackNetworks:
    """``project`` is at least 8 hexadecimal digits, one value a project directory. ``recorded`` is what
    state.json
    keeps: name -> {bridge, index, mtu, subnet, subnet6, leases: {container id: [host number, host
    interface]}}; it is
    changed in place and the caller saves it."""

    __slots__ = ("_links", "_nft", "_routes", "group", "left", "project", "recorded", "wide")

    def __init__(self, project: str, recorded: dict[str, dict[str, Any]] | None = None) -> None:
        self.project = project
        self.recorded = {} if recorded is None else recorded
        # Link groups let the kernel delete all our devices in one go. Group 0 is everybody's.
        self.group = int(project[:7], 16) | 0x10000000
        self._links: list[rt.Link] | None = None
        self._routes: list[rt.Route] = []
        # What was published on more than loopback, and which of it the host's firewall keeps closed.
        self.wide: list[Expose] = []
        self.left: list[Packet] = []
        # Kept open: closing it waits for what the kernel has still to free.
        self._nft: Connection | None = None

    def ensure(self, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Make the bridges that are missing, up and with their addresses; the recorded networks, for saving.

        ``bridge`` is a name like any other; ``host`` and ``none`` are no networks. A bridge of this project
        that the
        record does not know is left of a crash and removed.
        """
        wanted = [name for name in dict.fromkeys(names) if name not in ("host", "none")]
        missing = [n for n in wanted if n not in self.recorded or not self._alive(self.recorded[n])]
        if not missing:
            return self.recorded
        with HostLock():
            connection = Connection(NETLINK_ROUTE)
            try:
                self._make(connection, missing)
            finally:
                connection.close()
        return self.recorded

    def _alive(self, network: Mapping[str, Any]) -> bool:
        return bool(rt.link_index(network["bridge"]) == network["index"])

    def _make(self, connection: Connection, missing: list[str]) -> None:
        self._read_host(connection)
        messages = []
        gone = set()
        known = {n["bridge"] for name, n in self.recorded.items() if name not in missing}
        stray = rules.bridge_pattern(self.project)
        taken = {link.name: link.index for link in self._links or ()}
        for name in sorted(taken):
            if name.startswith(stray) and name not in known:
                messages.append(rt.delete_link(name))
                gone.add(taken.pop(name))
        claimed = [route for route in self._routes if route.index not in gone]
        ipv6 = any(route.bits == 128 for route in claimed)
        mtu = self._mtu()
        numbers = (n for n in range(1 << 8) if f"{stray}{n:02x}" not in taken)
        for name in missing:
            number = next(numbers, None)
            if number is None:
                raise ContainustError("R013", f"network {name}: a project has at most 256 networks")
            old = self.recorded.get(name)
            subnet = self._subnet(old, claimed, name)
            subnet6 = choose6(claimed, self.project, number) if ipv6 else None
            claimed.append(rt.Route(32, subnet.base, subnet.prefix, 0, 0))
            if subnet6:
                claimed.append(rt.Route(128, subnet6.base, subnet6.prefix, 0, 0))
            index = rt.fresh_index()
            network = {
                "bridge": f"{stray}{number:02x}",
                "index": index,
                "mtu": mtu,
                "subnet": str(subnet),
                "subnet6": str(subnet6) if subnet6 else None,
                "leases": {},
            }
            self.recorded[name] = network
            messages += self._bridge(network, subnet, subnet6)
        try:
            connection.execute(messages, f"networks {', '.join(missing)}")
        except NetlinkError as error:
            for name in missing:
                connection.try_execute([rt.delete_link(self.recorded.pop(name)["bridge"])])
            raise _refused(error, f"cannot make the networks {', '.join(missing)}") from error

    def _bridge(self, network: Mapping[str, Any], subnet: Subnet, subnet6: Subnet | None) -> list[bytes]:
        index = network["index"]
        messages = [
            rt.new_bridge(network["bridge"], index, _mac(subnet.packed(1)), network["mtu"], self.group),
            # Loopback addresses may be translated to and from this bridge alone; the guard chain keeps
            # containers
            # from using that.
            rt.ipv4_settings(index, {rt.IPV4_DEVCONF_FORWARDING: 1, rt.IPV4_DEVCONF_ROUTE_LOCALNET: 1}),
            rt.new_address(index, subnet.packed(1), subnet.prefix),
        ]
        if subnet6:
            messages.append(rt.new_address(index, subnet6.packed(1), subnet6.prefix))
            # IPv6 has no route_localnet: answers to ::1, translated back, need a route on the bridge they
            # come by.
            messages.append(rt.local_route(index, _LOOPBACK6, 4096))
        return messages

    def _subnet(self, old: Mapping[str, Any] | None, claimed: list[rt.Route], name: str) -> Subnet:
        """The subnet that a network had before, if it is still free; else another."""
        if old:
            subnet = parse(old["subnet"])
            if not any(subnet.overlaps(r) for r in claimed if r.prefix > 1):
                return subnet
        return choose(claimed, f"{self.project}/{name}")

    def _read_host(self, connection: Connection) -> None:
        self._links = rt.links(connection)
        self._routes = rt.host_prefixes(connection)

    def _mtu(self) -> int:
        """The smallest MTU of the interfaces that lead out: larger packets would be dropped on the way."""
        return min((link.mtu for link in forwarding.uplinks(self._links or (), self._routes)), default=DEFAULT_MTU)

    def allocate(self, container_id: str, names: Iterable[str], keep: Sequence[Attachment] = ()) -> list[Attachment]:
        """Addresses for a container on the networks ``names``, the same as last time if it had some
        (``keep``, or the
        recorded lease). Nothing is made; host interface names are new each time."""
        kept = {one.network: one.address for one in keep}
        attachments: list[Attachment] = []
        for name in dict.fromkeys(names):
            if name in ("host", "none"):
                continue
            network = self.recorded[name]
            subnet = parse(network["subnet"])
            host = self._lease(name, network, subnet, container_id, kept.get(name))
            packed = subnet.packed(host)
            six = parse(network["subnet6"]) if network["subnet6"] else None
            attachments.append(
                Attachment(
                    network=name,
                    interface=f"eth{len(attachments)}",
                    host_interface=network["leases"][container_id][1],
                    bridge=network["bridge"],
                    mac=":".join(f"{byte:02x}" for byte in _mac(packed)),
                    mtu=network["mtu"],
                    address=subnet.text(host),
                    prefix=subnet.prefix,
                    gateway=subnet.text(1),
                    address6=six.text(host) if six else None,
                    prefix6=six.prefix if six else None,
                    gateway6=six.text(1) if six else None,
                )
            )
        return attachments

    def _lease(self, name: str, network: dict[str, Any], subnet: Subnet, container_id: str, kept: str | None) -> int:
        leases = network["leases"]
        used = {lease[0] for other, lease in leases.items() if other != container_id}
        host = leases[container_id][0] if container_id in leases else 0
        if kept is not None:
            number = int.from_bytes(pack_address(kept), "big") - subnet.base
            host = number if 2 <= number <= subnet.hosts and number not in used else host
        if not host:
            host = next((n for n in range(2, subnet.hosts + 1) if n not in used), 0)
        if not host:
            raise ContainustError(
                "R013",
                f"network {name}: all {subnet.hosts - 1} addresses of {subnet} are taken",
                "use larger subnets: CONTAINUST_NETWORK_POOL=10.201.0.0/16:20",
            )
        leases[container_id] = [host, self._interface_name()]
        return int(host)

    def _interface_name(self) -> str:
        """A name for a veth that no other has, not even one whose namespace is still being torn down."""
        number = int.from_bytes(os.urandom(4), "big")
        digits = ""
        for _ in range(5):
            number, digit = divmod(number, 36)
            digits += _DIGITS[digit]
        return f"ctv{self.project[:7]}{digits}"

    def release(self, container_id: str) -> None:
        """Give back a removed container's addresses."""
        for network in self.recorded.values():
            network["leases"].pop(container_id, None)

    def publish(
        self,
        exposes: Sequence[Expose],
        attachments: Mapping[str, list[Attachment]],
        offline: Iterable[str] = (),
        services: Iterable[rules.HostService] = (),
    ) -> None:
        """Put the project's rules in force: isolation, egress, and ``exposes`` of the components in
        ``attachments``.

        Networks named in ``offline`` have no way out. ``services`` is what containers may reach on the host itself.
        Idempotent and atomic: the table holds exactly this afterwards, and never something in between.
        """
        maps = rules.published(exposes, attachments)
        closed = set(offline)
        wide = any(key[:1] != b"\x7f" and key[:16] != _LOOPBACK6 for elements in maps.values() for key, _ in elements)
        outside = wide or bool(set(self.recorded) - closed)
        try:
            nft = self._nft = self._nft or nf.connect()
            self.wide, self.left = [], []
            if wide:
                from containust.runtime.network.firewall import left_to_input

                self.wide, self.left = list(exposes), left_to_input(nft, exposes)
            content = rules.build(self.project, self.recorded, maps, closed, services, self.left)
            if (maps["published6"] or maps["open6"]) and forwarding.bridge_is_filtered():
                rules.route_loopback6(nft, self.project, self.recorded)
            if not outside:
                rules.enforce(nft, self.project, content)
            else:
                with HostLock():
                    # The rules first: what forwarding would let through, they already keep apart.
                    rules.enforce(nft, self.project, content)
                    self._forward(nft)
                    self._links = None  # the host's may be others by the next time
            targets = rules.udp_targets(exposes, attachments)
            if targets:
                from containust.core.conntrack import forget_udp

                forget_udp(nft, targets)
        except OSError as error:
            raise _refused(error, "cannot set the rules of the project's networks") from error

    def outdated(self, published: StackNetworks | None) -> bool:
        """Whether rules have to be put in force again: they are gone, or the host admits other ports than it did."""
        if not self.recorded or not any(map(self._alive, self.recorded.values())):
            return False  # taken down: there is nothing to keep apart
        nft = nf.connect()
        try:
            if not any(name == rules.table_name(self.project) for name, _ in nf.tables(nft)):
                return True
            if published is None or not published.wide:
                return published is None
            from containust.runtime.network.firewall import left_to_input

            return left_to_input(nft, published.wide) != published.left
        except OSError:
            return False
        finally:
            nft.close()

    def _forward(self, nft: Connection) -> None:
        if self._links is None:
            connection = Connection(NETLINK_ROUTE)
            try:
                self._read_host(connection)
            finally:
                connection.close()
        forwarding.enable(
            nft,
            forwarding.uplinks(self._links or (), self._routes),
            [network["bridge"] for network in self.recorded.values()],
            ipv6=any(network["subnet6"] for network in self.recorded.values()),
        )

    def attach(self, pairs: Iterable[tuple[int, Sequence[Attachment]]]) -> None:
        """Connect containers: for each ``(pid, attachments)``, veth pairs from the bridges into the process's
        network
        namespace, all in one batch."""
        index = {network["bridge"]: network["index"] for network in self.recorded.values()}
        filtered = forwarding.bridge_is_filtered()
        messages: list[bytes] = []
        for pid, attachments in pairs:
            for position, one in enumerate(attachments):
                port = rt.fresh_index()
                mac = bytes.fromhex(one.mac.replace(":", ""))
                messages.append(
                    rt.new_veth(
                        one.host_interface,
                        port,
                        index[one.bridge],
                        one.mtu,
                        self.group,
                        one.interface,
                        FIRST_INDEX + position,
                        mac,
                        pid,
                    )
                )
                # Before it has sent anything, so that nothing goes to the port it had before a restart; for good, so
                # that no peer can draw its packets by using its Ethernet address.
                messages.append(rt.bridge_neighbour(port, mac))
                # Where it is has been said, so that the bridge need not look at each packet's sender, nor remember
                # thousands that a container invents. With br_netfilter the bridge itself translates: a container's
                # own published port leads back by the port that its packet came in by.
                messages.append(rt.bridge_port(port, hairpin=filtered))
        if not messages:
            return
        connection = Connection(NETLINK_ROUTE)
        try:
            connection.execute(messages, "veth")
        except NetlinkError as error:
            raise _refused(error, "cannot connect a container to its networks") from error
        finally:
            connection.close()

    def teardown(self) -> None:
        """Remove everything of the project's networks that is in the kernel; the record keeps nothing but is
        the
        caller's to save. Nothing to remove is no error."""
        collect(self.project)
        self.recorded.clear()


def leftovers(project: str) -> bool:
    """Whether the kernel may hold a network of the project; a cheap look, for the start of every command."""
    return bool(rt.link_index(rules.bridge_pattern(project) + "00")) or _has_table(project)


def _has_table(project: str) -> bool:
    nft = nf.connect()
    try:
        return any(name == rules.table_name(project) for name, _ in nf.tables(nft))
    except OSError:
        return False
    finally:
        nft.close()


def collect(project: str) -> None:
    """Remove the project's table, bridges and veths, and restore host settings if it was the last project.

    For a project none of whose containers live: after ``stop``, and after a crash.
    """
    connection, nft = Connection(NETLINK_ROUTE), nf.connect()
    try:
        with HostLock():
            table = rules.table_name(project)
            # Made first, so that deleting it is no error when there was none. Before the links, so that the
            # grace periods of both pass at the same time; no container lives that the rules would hold.
            nf.apply(nft, [nf.table(table), nf.delete_table(table)], "nf_tables")
            if any(name == table for name, _ in nf.tables(nft, nf.NFPROTO_NETDEV)):
                nf.apply(nft, [nf.delete_table(table, nf.NFPROTO_NETDEV)], "nf_tables")
            forwarding.restore(nft)
        # The kernel answers some grace periods later, for a bridge 40 ms and more. Other projects need not wait for it.
        refused = connection.try_execute([rt.delete_group(int(project[:7], 16) | 0x10000000)])
        _unless_missing(refused, "links of the project")
    except NetlinkError as error:
        raise _refused(error, "cannot remove the project's networks") from error
    finally:
        connection.close()
        nft.close()


def _unless_missing(refused: Sequence[tuple[int, int, str]], what: str) -> None:
    for index, number, detail in refused:
        if number not in (2, 3, 19, 22):  # ENOENT, ESRCH, ENODEV; an empty group is EINVAL on some kernels
            raise NetlinkError(number, index, what, detail)


def _mac(address: bytes) -> bytes:
    """A locally administered Ethernet address made of an IPv4 address, so that neighbours' caches stay
    right."""
    return b"\x02\x63" + address


def _refused(error: OSError, what: str) -> ContainustError:
    if error.errno in (1, 13):
        return ContainustError(
            "S003",
            f"{what}: {error.strerror}",
            'networks need CAP_NET_ADMIN: run as root, or use network = "none"',
        )
    return ContainustError("R013", f"{what}: {error.strerror}", "`ctst doctor` says what the kernel lacks")
