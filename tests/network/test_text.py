"""The files of a container, the arithmetic of subnets, and what a start imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from containust.common.errors import ContainustError
from containust.runtime.network import addresses, hosts
from containust.runtime.network.attachment import Attachment


def attachment(network: str, address: str, address6: str | None = None) -> Attachment:
    return Attachment(network, "eth0", "ctv0", "ctb0", "02:63:00:00:00:00", 1500, address, 24, "10.0.0.1", address6)


def test_hosts_names_peers_on_shared_networks_only() -> None:
    text = hosts.hosts_file(
        "web",
        ["web"],
        [attachment("front", "10.0.0.2", "fd00::2"), attachment("back", "10.0.1.2")],
        {
            "db": [attachment("back", "10.0.1.3")],
            "api": [attachment("back", "10.0.1.4"), attachment("front", "10.0.0.4", "fd00::4")],
            "hidden": [attachment("other", "10.0.2.5")],
        },
    )
    lines = [tuple(line.split("\t")) for line in text.splitlines()]
    assert ("10.0.0.2", "web") in lines and ("fd00::2", "web") in lines and ("10.0.1.2", "web") in lines
    assert [a for a, name in lines if name == "api"] == ["10.0.0.4", "fd00::4", "10.0.1.4"]
    assert ("10.0.1.3", "db") in lines
    assert "hidden" not in text


def test_hosts_without_a_network_names_itself_on_loopback() -> None:
    assert "127.0.0.1\tjob" in hosts.hosts_file("job", [], [], {})


def test_resolv_conf(tmp_path: Path) -> None:
    own, stub = tmp_path / "resolv.conf", tmp_path / "resolved.conf"

    def text() -> str:
        return hosts.resolv_conf(path=str(own), resolved=str(stub))

    assert "nameserver" not in text(), "no resolver at all"
    own.write_text("nameserver 127.0.0.53\noptions edns0 trust-ad ndots:2\nsearch a.example\n")
    assert "nameserver" not in text()
    stub.write_text("nameserver 192.0.2.53\nnameserver fe80::1%eth0\nsearch b.example\n")
    assert text() == "search b.example\nnameserver 192.0.2.53\n"
    own.write_text("# c\nnameserver 127.0.0.1\nnameserver 198.51.100.5\noptions edns0 ndots:2\n")
    assert text() == "options ndots:2\nnameserver 198.51.100.5\n"
    own.write_bytes(b"\xff\xfe nameserver\0")
    text()
    own.unlink()
    own.mkdir()
    text()
    assert "nameserver" not in hosts.resolv_conf(offline=True)


@pytest.mark.parametrize("value", ["x", "10.0.0.0", "10.0.0.1/8", "fd00::/8", "10.0.0.0/24:16", "10.0.0.0/8:31", ","])
def test_a_pool_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CONTAINUST_NETWORK_POOL", value)
    if value == "10.0.0.0":  # one address is a prefix of its own, and too small
        value = "10.0.0.0/32"
    with pytest.raises(ContainustError) as caught:
        addresses.pools()
    assert caught.value.code == "R013"


def test_overlap() -> None:
    wide, narrow = addresses.parse("10.0.0.0/8"), addresses.parse("10.201.4.0/23")
    assert wide.overlaps(narrow) and narrow.overlaps(wide)
    assert not narrow.overlaps(addresses.parse("10.201.6.0/23"))
    assert not narrow.overlaps(addresses.parse("fd00::/8"))
    assert narrow.hosts == 510 and narrow.text(1) == "10.201.4.1"


def test_a_start_imports_nothing_heavy() -> None:
    heavy = "re enum typing dataclasses pathlib subprocess logging socket json argparse asyncio threading hashlib"
    heavy += " tempfile shutil signal contextlib collections functools inspect urllib uuid secrets ctypes ipaddress"
    code = (
        "import sys; before = set(sys.modules)\n"
        f"sys.path.insert(0, {str(Path(addresses.__file__).parents[3])!r})\n"
        "import containust.runtime.network.stack, containust.runtime.network.inside\n"
        "import containust.runtime.network.hosts, containust.runtime.network.ports\n"
        f"print(*(set({heavy!r}.split()) & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
