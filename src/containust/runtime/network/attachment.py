"""One container's place on one network."""

from __future__ import annotations

from containust.common.types import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Attachment(Record):
    """An interface of a container: what state.json keeps of it and what is needed to make it.

    ``interface`` is its name inside, ``host_interface`` the other end's name on the host, a port of
    ``bridge``.
    Addresses are text without a prefix length; the IPv6 ones are None where the host has no IPv6.
    """

    __slots__ = (
        "address",
        "address6",
        "bridge",
        "gateway",
        "gateway6",
        "host_interface",
        "interface",
        "mac",
        "mtu",
        "network",
        "prefix",
        "prefix6",
    )

    def __init__(
        self,
        network: str,
        interface: str,
        host_interface: str,
        bridge: str,
        mac: str,
        mtu: int,
        address: str,
        prefix: int,
        gateway: str,
        address6: str | None = None,
        prefix6: int | None = None,
        gateway6: str | None = None,
    ) -> None:
        self.network = network
        self.interface = interface
        self.host_interface = host_interface
        self.bridge = bridge
        self.mac = mac
        self.mtu = mtu
        self.address = address
        self.prefix = prefix
        self.gateway = gateway
        self.address6 = address6
        self.prefix6 = prefix6
        self.gateway6 = gateway6

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Attachment:
        """The attachment that :meth:`as_dict` gave."""
        return cls(**{name: values.get(name) for name in cls.__slots__})  # type: ignore[arg-type]
