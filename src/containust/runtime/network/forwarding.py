"""Forwarding between the containers' bridges and the rest of the host, and giving it back.

The kernel forwards a packet only if the interface it *came in on* may forward. For our bridges that is our
own matter;
answers from outside come in on the host's interfaces, so these must forward too while a network that leads
out exists.
Where the host has it switched off, it is switched on for those interfaces only, and what was changed is
written
down in the kernel itself: in sets of a table named ``containust``, which also drops what comes in on
those interfaces for anywhere but a container. So nothing is forwarded that was not before, the record cannot
get lost
and is gone with the settings after a reboot. The last project to leave restores the settings.

IPv6 has forwarding for single interfaces since Linux 6.17 (``force_forwarding``); before, only for all at
once.
"""

from __future__ import annotations

from containust.common import os
from containust.core import nftables as nf
from containust.runtime.network.rules import BRIDGE_PREFIX, TABLE_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containust.core.netlink import Connection
    from containust.core.rtnetlink import Link, Route

TABLE = "containust"
_ALL6 = "/proc/sys/net/ipv6/conf/all/forwarding"
_ALL6_COMMENT = "net.ipv6.conf.all.forwarding=0"
_BRIDGE_FILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"
_SETTINGS = {
    "forwarding4": "/proc/sys/net/ipv4/conf/%s/forwarding",
    "forwarding6": "/proc/sys/net/ipv6/conf/%s/force_forwarding",
}


def uplinks(links: Iterable[Link], routes: Iterable[Route]) -> list[Link]:
    """The host's interfaces that packets may leave by or come in on: up, routed to, neither loopback nor
    ours."""
    routed = {route.index for route in routes if route.table != 255}
    return [
        link
        for link in links
        if link.up and link.index in routed and link.name != "lo" and not link.name.startswith(("ctb", "ctv"))
    ]


def enable(nft: Connection, interfaces: Sequence[Link], bridges: Sequence[str], *, ipv6: bool) -> None:
    """Let packets through between ``interfaces`` and our bridges. The caller holds the host lock.

    The record is written before the setting, so that a crash in between leaves a record without a change,
    never a
    change without a record.
    """
    four = [link.name for link in interfaces if not link.forwarding]
    six: list[str] = []
    all6 = False
    if ipv6 and _read(_ALL6) == "0":
        per_interface = os.path.exists(_SETTINGS["forwarding6"] % "lo")
        if per_interface:
            six = [link.name for link in interfaces if _read(_SETTINGS["forwarding6"] % link.name) == "0"]
            for bridge in bridges:
                _write(_SETTINGS["forwarding6"] % bridge, "1")
        else:
            all6 = bool(interfaces)
    if not four and not six and not all6:
        return
    record(nft, four, six, all6=all6)
    for name in four:
        _write(_SETTINGS["forwarding4"] % name, "1")
    for name in six:
        _write(_SETTINGS["forwarding6"] % name, "1")
    if all6:
        # Forwarding makes the kernel stop listening to routers, unless told to go on (accept_ra 2).
        for link in interfaces:
            path = f"/proc/sys/net/ipv6/conf/{link.name}/accept_ra"
            if _read(path) == "1":
                _write(path, "2")
        _write(_ALL6, "1")


def record(nft: Connection, four: Sequence[str], six: Sequence[str], *, all6: bool) -> None:
    """Add to what is written down as changed, and to what the guard of it drops."""
    known = changed(nft)
    four = sorted({*four, *known["forwarding4"]})
    six = sorted({*six, *known["forwarding6"]})
    comment = _ALL6_COMMENT if all6 or known["all6"] else ""
    replaced = [nf.table(TABLE), nf.delete_table(TABLE)] if any(known.values()) else []
    messages = [*replaced, nf.table(TABLE, comment)]
    messages.append(nf.base_chain(TABLE, "forward", "filter", nf.NF_INET_FORWARD, 0))
    # To and from a container: first, as each packet of each connection comes by.
    for interface in (nf.META_OIFNAME, nf.META_IIFNAME):
        ours = nf.meta(interface) + nf.compare(BRIDGE_PREFIX.encode())
        messages.append(nf.rule(TABLE, "forward", ours, nf.verdict(nf.ACCEPT)))
    for number, (name, members, family) in enumerate(
        (("forwarding4", four, nf.NFPROTO_IPV4), ("forwarding6", six, nf.NFPROTO_IPV6)), 1
    ):
        messages.append(nf.interface_set(TABLE, name, number))
        messages += nf.set_elements(TABLE, name, number, [(one.encode().ljust(16, b"\0"), b"") for one in members])
        everywhere = family == nf.NFPROTO_IPV6 and comment
        if not members and not everywhere:
            continue  # nothing of the family was switched on
        came_in = b"" if everywhere else nf.meta(nf.META_IIFNAME) + nf.member(name, number)
        messages.append(
            nf.rule(
                TABLE,
                "forward",
                nf.meta(nf.META_NFPROTO) + nf.compare(bytes((family,))),
                came_in,
                nf.counter(),
                nf.verdict(nf.DROP),
            )
        )
    nf.apply(nft, messages, "nf_tables: guard of the host's forwarding")


def changed(nft: Connection) -> dict[str, list[str]]:
    """What is switched on for our sake: interface names by setting, and ``all6`` non-empty for all of IPv6.

    ``ctst doctor`` lists it.
    """
    found: dict[str, list[str]] = {"forwarding4": [], "forwarding6": [], "all6": []}
    for name, comment in nf.tables(nft):
        if name == TABLE:
            if comment == _ALL6_COMMENT:
                found["all6"].append("all")
            for setting in _SETTINGS:
                found[setting] = sorted(key.rstrip(b"\0").decode() for key, _ in nf.elements(nft, TABLE, setting))
    return found


def restore(nft: Connection) -> None:
    """Give the host its settings back if no project's table is left. The caller holds the host lock."""
    names = [name for name, _ in nf.tables(nft)]
    if TABLE not in names or any(name.startswith(TABLE_PREFIX) for name in names):
        return
    known = changed(nft)
    for setting, path in _SETTINGS.items():
        for name in known[setting]:
            _write(path % name, "0")
    if known["all6"]:
        _write(_ALL6, "0")
    nf.apply(nft, [nf.delete_table(TABLE)], "nf_tables: remove the guard")


def bridge_is_filtered() -> bool:
    """Whether br_netfilter hands bridged packets of this namespace to the IP hooks."""
    return _read(_BRIDGE_FILTER) == "1"


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 64).decode().strip()
    finally:
        os.close(descriptor)


def _write(path: str, value: str) -> None:
    """Write a setting; an interface that has gone meanwhile, or goes now, has none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, value.encode())
    except FileNotFoundError:
        return
    finally:
        os.close(descriptor)
