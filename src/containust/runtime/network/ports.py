"""Host ports: found taken before anything starts, and held while they are published.

A published port is translated before a socket would see it, so the kernel would let anybody bind it
meanwhile, and
another project publish it again. Therefore each one is bound, never listened on, by the supervisor for as
long as it is
published: the second project and the local server both get the EADDRINUSE that they expect.
"""

from __future__ import annotations

import _socket
import errno

from containust.common.errors import ContainustError
from containust.runtime.network.addresses import AF_INET, AF_INET6, pack_address
from containust.runtime.network.rules import MAPS, PROTOCOLS, TABLE_PREFIX, host_addresses, table_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from containust.common.types import Expose

IPPROTO_IPV6 = 41
IPV6_V6ONLY = 26


class Reservation:
    """The sockets that hold ports. Close it, or end the process, to give them back."""

    __slots__ = ("sockets",)

    def __init__(self) -> None:
        self.sockets: list[_socket.socket] = []

    def close(self) -> None:
        """Give the ports back."""
        for one in self.sockets:
            one.close()
        self.sockets.clear()


def reserve(exposes: Sequence[Expose], project: str, *, ipv6: bool | None = None) -> Reservation:
    """Take every exposed port of a stack, or none: R011 names the first that is taken, and by whom if that
    can be told.

    ``project`` is the own project, whose table is no conflict. ``ipv6`` says whether ``::1`` goes with
    ``127.0.0.1``; None looks whether the host has it.
    """
    if ipv6 is None:
        ipv6 = _has_ipv6()
    reservation = Reservation()
    try:
        for expose in exposes:
            for address in host_addresses(expose.address, ipv6):
                reservation.sockets.append(_bind(expose, address))
        _check_tables(exposes, project, ipv6=ipv6)
    except BaseException:
        reservation.close()
        raise
    return reservation


def check_free(exposes: Sequence[Expose], project: str) -> None:
    """R011 if a port is taken; nothing is held afterwards."""
    reserve(exposes, project).close()


def _bind(expose: Expose, address: str) -> _socket.socket:
    family = AF_INET6 if ":" in address else AF_INET
    kind = _socket.SOCK_STREAM if expose.protocol == "tcp" else _socket.SOCK_DGRAM
    one = _socket.socket(family, kind | _socket.SOCK_CLOEXEC)
    try:
        if family == AF_INET6:
            one.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        elif expose.protocol == "tcp":
            # Connections of an earlier run in TIME_WAIT are no conflict; a listener or another holder still
            # is one.
            one.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            one.bind((address, expose.host_port))
            one.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 0)
            return one
        one.bind((address, expose.host_port))
    except OSError as error:
        one.close()
        raise _refused(expose, address, error) from error
    return one


def _refused(expose: Expose, address: str, error: OSError) -> ContainustError:
    where = f"{_host_port(address, expose.host_port)}/{expose.protocol}"
    if error.errno == errno.EADDRNOTAVAIL:
        return ContainustError(
            "R013",
            f"EXPOSE {where} of {expose.component}: this host does not have the address {address}",
            "use 127.0.0.1, 0.0.0.0 or an address that `ip address` lists",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ContainustError(
            "S003",
            f"EXPOSE {where} of {expose.component}: no permission for ports below 1024",
            f"publish a higher host port, such as EXPOSE {expose.host_port + 8000}:{expose.container_port}",
        )
    from containust.runtime.network.owners import port_owner

    owner = port_owner(address, expose.host_port, expose.protocol)
    return _taken(expose, address, owner)


def _taken(expose: Expose, address: str, owner: str) -> ContainustError:
    where = f"{_host_port(address, expose.host_port)}/{expose.protocol}"
    return ContainustError(
        "R011",
        f"port {where} of {expose.component} is taken" + (f" by {owner}" if owner else ""),
        f"stop it, or publish another host port: EXPOSE {expose.host_port + 1}:{expose.container_port}",
    )


def _check_tables(exposes: Sequence[Expose], project: str, *, ipv6: bool) -> None:
    """Ports of other projects whose supervisor, and with it the reservation, is gone but whose containers
    live."""
    if not exposes:
        return
    from containust.core import nftables as nf

    nft = nf.connect()
    try:
        others = [name for name, _ in nf.tables(nft) if name.startswith(TABLE_PREFIX) and name != table_name(project)]
        for table in others:
            taken = {name: {key for key, _ in nf.elements(nft, table, name)} for name in MAPS}
            for expose in exposes:
                for address in host_addresses(expose.address, ipv6):
                    if _in_maps(expose, address, taken):
                        raise _taken(expose, address, f"another project ({table[len(TABLE_PREFIX) :]})")
    except OSError:
        return  # no nf_tables, then no other project's ports
    finally:
        nft.close()


def _in_maps(expose: Expose, address: str, taken: dict[str, set[bytes]]) -> bool:
    packed = pack_address(address)
    family = "6" if len(packed) == 16 else "4"
    service = PROTOCOLS[expose.protocol].to_bytes(1, "big") + bytes(3)
    service += expose.host_port.to_bytes(2, "big") + bytes(2)
    if service in taken["open" + family] or packed + service in taken["published" + family]:
        return True
    return not any(packed) and any(key.endswith(service) for key in taken["published" + family])


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _has_ipv6() -> bool:
    try:
        one = _socket.socket(AF_INET6, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    except OSError:
        return False
    try:
        one.bind(("::1", 0))
    except OSError:
        return False
    finally:
        one.close()
    return True
