"""/etc/resolv.conf of containers on hosts with a stub, with other servers, and with none, as the command makes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from containust.core import syscalls as sc
from harness import BOX, Ctst

STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example\n"
BEHIND = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch corp.example\n"


def play(ctst: Ctst, run: Path, resolv: Path) -> None:
    """Make the calling process one of a host with these files; ``run`` is its /run."""
    ctst.enter()
    sc.unshare(sc.CLONE_NEWNS)
    for words in (["--make-rprivate", "/"], ["--rbind", str(run), "/run"], ["--bind", str(resolv), "/etc/resolv.conf"]):
        subprocess.run(["mount", *words], check=True)


@pytest.mark.parametrize(
    ("host", "behind", "network", "expected"),
    [
        ("nameserver 192.0.2.1\n", None, "bridge", ["nameserver 192.0.2.1"]),
        (STUB, BEHIND, "bridge", ["search corp.example", "nameserver 192.0.2.53", "nameserver 2001:db8::53"]),
        (STUB, None, "bridge", ["# the host has no name server that a container can reach", "search corp.example"]),
        ("nameserver 127.0.0.1\nnameserver 192.0.2.2\n", None, "bridge", ["nameserver 192.0.2.2"]),
        ("nameserver fe80::1%eth0\n", None, "bridge", ["# the host has no name server that a container can reach"]),
        ("", None, "bridge", ["# the host has no name server that a container can reach"]),
        (STUB, BEHIND, "host", STUB.splitlines()),
    ],
)
def test_what_a_container_asks(
    ctst: Ctst, tmp_path: Path, host: str, behind: str | None, network: str, expected: list[str]
) -> None:
    resolv, run = tmp_path / "resolv.conf", tmp_path / "run"
    resolv.write_text(host)
    (run / "containust").mkdir(parents=True)
    os.makedirs("/run/containust", mode=0o700, exist_ok=True)
    if behind is not None:
        (run / "systemd/resolve").mkdir(parents=True)
        (run / "systemd/resolve/resolv.conf").write_text(behind)
    subprocess.run(["mount", "--bind", "/run/containust", str(run / "containust")], check=True)
    try:
        # Without a server a name fails at once.
        script = "cat /etc/resolv.conf; grep -q ^name /etc/resolv.conf || busybox nslookup -timeout=1 away.example >&2"
        words = ("run", "--rm", "--network", network, "--image", BOX, "--", "sh", "-c", script)
        done = ctst(*words, preexec_fn=lambda: play(ctst, run, resolv))
    finally:
        subprocess.run(["umount", str(run / "containust")], check=True)
    assert done.out.splitlines() == expected, done
    assert (done.status == 0) == any(line.startswith("nameserver") for line in expected)
