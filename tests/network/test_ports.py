"""Ports are found taken before anything starts, and held while published."""

from __future__ import annotations

import socket

import pytest
from played_host import HOST, Host

from containust.common.errors import ContainustError
from containust.common.types import Expose
from containust.runtime.network import ports

ONE, TWO = "a1b2c3d4e5", "f6a7b8c9d0"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("published", ["127.0.0.1", "0.0.0.0", "[::]"])
def test_a_taken_port_is_named_with_its_owner(host: Host, protocol: str, published: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as mine:
        mine.bind(("127.0.0.1", 8080))
        if protocol == "tcp":
            mine.listen()
        with pytest.raises(ContainustError, match="pid") as caught:
            ports.check_free([Expose("web", 9090, 80), Expose("web", 8080, 80, protocol, published)], ONE)
    assert caught.value.code == "R011"
    ports.check_free([Expose("web", 8080, 80, protocol, published)], ONE)


def test_a_reservation_keeps_everybody_else_out(host: Host) -> None:
    held = ports.reserve([Expose("web", 8080, 80)], ONE)
    for address in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(ContainustError) as caught:
            ports.reserve([Expose("web", 8080, 80, "tcp", address)], TWO)
        assert caught.value.code == "R011"
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError):
            server.bind(("127.0.0.1", 8080))
    with socket.socket() as server:  # nor by sharing it
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError):
            server.bind(("127.0.0.1", 8080))
    held.close()
    ports.reserve([Expose("web", 8080, 80)], TWO).close()


def test_a_port_of_another_project_without_its_supervisor_is_taken(host: Host) -> None:
    networks = host.networks(ONE)
    networks.ensure(["bridge"])
    networks.publish([Expose("web", 8080, 80)], {"web": networks.allocate("web", ["bridge"])})
    for address in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(ContainustError, match="another project") as caught:
            ports.check_free([Expose("x", 8080, 1, "tcp", address)], TWO)
        assert caught.value.code == "R011"
    ports.check_free([Expose("x", 8080, 1, "udp")], TWO)
    ports.check_free([Expose("x", 8080, 1, "tcp", HOST)], TWO)
    ports.check_free([Expose("x", 8080, 1)], ONE)


def test_an_address_that_the_host_does_not_have(host: Host) -> None:
    with pytest.raises(ContainustError, match="does not have the address"):
        ports.check_free([Expose("web", 8080, 80, "tcp", "203.0.113.7")], ONE)
