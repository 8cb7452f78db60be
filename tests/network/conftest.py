"""The host that network tests run on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from outside import Outside
from played_host import HOST, HOST6, OUTSIDE, OUTSIDE6, Host, sh

from containust.core import syscalls as sc
from harness import Ctst


@pytest.fixture
def host() -> Iterator[Host]:
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    sc.unshare(sc.CLONE_NEWNET)
    made = Host()
    try:
        sh("ip link set lo up")
        sh(f"ip link add up0 type veth peer name eth0 netns {made.outside.pid}")
        sh(f"ip addr add {HOST}/24 dev up0; ip addr add {HOST6}/64 dev up0 nodad; ip link set up0 up")
        made.outside.call(sh, f"ip addr add {OUTSIDE}/24 dev eth0; ip addr add {OUTSIDE6}/64 dev eth0 nodad")
        made.outside.call(sh, "ip link set eth0 up; ip link set lo up")
        sh(f"ip route add default via {OUTSIDE}; ip -6 route add default via {OUTSIDE6}")
        yield made
    finally:
        made.close()
        sc.setns(before, sc.CLONE_NEWNET)
        os.close(before)


@pytest.fixture
def outside(ctst: Ctst) -> Iterator[Outside]:
    """The host of ``ctst`` gets an uplink, at whose other end is this test host."""
    one = Outside(ctst)
    yield one
    one.close()
