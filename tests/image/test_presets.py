"""``preset://``: official images by a registry that plays Docker Hub's mirror, and a mirror with a pinned index."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import DIRECTORY, SYMLINK, member, tar
from test_docker_registry import certificate, start

from harness import BOX, Ctst, eventually

__all__ = ["start"]

SERVER = """
import functools, http.server, ssl, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def mirror(directory: Path, text: bytes = b"1", said: dict[str, str] | None = None) -> str:
    """A mirror with a busybox for this machine in ``directory``; the digest of its index."""
    directory.mkdir(exist_ok=True)
    box = Path("/bin/busybox").read_bytes()
    archive = tar(
        member("bin/", kind=DIRECTORY, mode=0o755),
        member("bin/busybox", box, mode=0o755),
        member("bin/sh", kind=SYMLINK, target="busybox"),
        member("version", text),
    )
    (directory / "box.tar").write_bytes(archive)
    entry = {"file": "box.tar", "digest": f"sha256:{hashlib.sha256(archive).hexdigest()}", **(said or {})}
    index = json.dumps({"presets": {"busybox": {os.uname().machine: entry}, "other": {"s390": entry}}}).encode()
    (directory / "presets.json").write_bytes(index)
    return hashlib.sha256(index).hexdigest()


def test_a_preset_is_an_official_image_that_is_pinned_at_its_first_use(
    ctst: Ctst, start: Callable[..., object]
) -> None:
    listed = json.loads(ctst.ok("images", "--presets", "--json"))["presets"]
    source = {row["name"]: row["source"] for row in listed}["busybox"]
    assert source.startswith("oci://docker.io/library/busybox:")
    assert {row["digest"] for row in listed} == {None}
    assert "preset://alpine" in ctst.ok("images", "--presets")
    start()
    ctst.ok("run", "--rm", "--image", BOX, "--", "true")
    place = source.removeprefix("oci://docker.io/")
    ctst.ok("push", BOX, f"127.0.0.1:5000/{place}")
    refused = ctst("--offline", "run", "--rm", "--image", "preset://busybox", "--", "true")
    assert "I005" in refused.err and refused.status == 1, refused
    ctst.environ["CONTAINUST_REGISTRY_MIRRORS"] = "docker.io=127.0.0.1:5000"
    assert ctst.ok("run", "--rm", "--image", "preset://busybox", "--", "/bin/busybox", "echo", "ran") == "ran\n"
    (lock,) = ctst.home.rglob("images.lock")
    assert source in json.loads(lock.read_text())["images"]
    ctst.ok("--offline", "run", "--rm", "--image", "preset://busybox", "--", "/bin/busybox", "true")
    # The tag moves: nobody gets another system unasked.
    ctst.ok("images", "rm", "preset://busybox")
    ctst.ok("run", "--rm", "--image", "host:///bin/true", "--", "/bin/true")
    ctst.ok("push", "host:///bin/true", f"127.0.0.1:5000/{place}")
    moved = ctst("run", "--rm", "--image", "preset://busybox", "--", "true")
    assert "I002" in moved.err and source in moved.err, moved
    unknown = ctst("run", "--rm", "--image", "preset://busibox", "--", "true")
    assert unknown.status == 4 and "did you mean busybox?" in unknown.err, unknown


def test_a_directory_is_a_mirror_without_any_network(ctst: Ctst, tmp_path: Path) -> None:
    pin = mirror(tmp_path / "mirror")
    ctst.environ["CONTAINUST_PRESET_MIRROR"] = f"{tmp_path}/mirror"
    words = ("--offline", "run", "--rm", "--image", "preset://busybox", "--", "/bin/busybox", "cat", "/version")
    assert ctst.ok(*words) == "1"
    (row,) = json.loads(ctst.ok("images", "--presets", "--json"))["presets"]
    assert row["name"] == "busybox" and row["source"] == f"{tmp_path}/mirror/box.tar"
    assert row["digest"] in ctst.ok("images", "--presets")
    assert ctst(*words[:4], "preset://other", "--", "true").status == 4  # not for this machine
    assert ctst(*words[:4], "preset://alpine", "--", "true").status == 4  # no other place is asked

    ctst.ok("images", "rm", "preset://busybox")
    mirror(tmp_path / "mirror", b"2")
    changed = ctst(*words)
    assert "I002" in changed.err and "images.lock" in changed.err, changed
    (lock,) = ctst.home.rglob("images.lock")
    lock.unlink()
    ctst.environ["CONTAINUST_PRESET_MIRROR"] = f"{tmp_path}/mirror@sha256:{pin}"
    assert "presets.json has the digest" in ctst(*words).err
    ctst.environ["CONTAINUST_PRESET_MIRROR"] = f"{tmp_path}/mirror@sha256:{mirror(tmp_path / 'mirror', b'2')}"
    assert ctst.ok(*words) == "2"


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"digest": "sha256:" + "0" * 64}, "I002"),
        ({"digest": "md5:0"}, "I004"),
        ({"file": "../secret.tar"}, "I004"),
        ({"file": "absent.tar"}, "I001"),
    ],
)
def test_a_mirror_that_lies_gives_nothing(ctst: Ctst, tmp_path: Path, entry: dict[str, str], code: str) -> None:
    mirror(tmp_path / "mirror", said=entry)
    ctst.environ["CONTAINUST_PRESET_MIRROR"] = f"{tmp_path}/mirror"
    done = ctst("run", "--rm", "--image", "preset://busybox", "--", "true")
    assert f"error[{code}]" in done.err, done
    assert json.loads(ctst.ok("images", "--json"))["images"] == []


def test_a_mirror_is_asked_over_tls(ctst: Ctst, tmp_path: Path) -> None:
    pin = mirror(tmp_path / "mirror")
    certificate(tmp_path)
    ctst.environ["CONTAINUST_PRESET_MIRROR"] = "http://127.0.0.1:8443"
    plain = ctst("images", "--presets")
    assert plain.status == 2, plain
    ctst.environ["CONTAINUST_PRESET_MIRROR"] = f"https://127.0.0.1:8443@sha256:{pin}"
    words = [sys.executable, "-I", "-c", SERVER, f"{tmp_path}/mirror", f"{tmp_path}/own.crt", f"{tmp_path}/own.key"]
    with subprocess.Popen(words, preexec_fn=ctst.enter, stderr=subprocess.DEVNULL) as server:  # noqa: PLW1509
        try:
            eventually(lambda: "8443" in ctst.on_host("ss", "-ltnH"))
            assert "I006" in ctst("images", "--presets").err  # nobody vouches for its certificate
            ctst.environ["SSL_CERT_FILE"] = f"{tmp_path}/ca.crt"
            assert "https://127.0.0.1:8443/box.tar" in ctst.ok("images", "--presets")
            run = ("run", "--rm", "--image", "preset://busybox", "--", "/bin/busybox", "cat", "/version")
            assert "I005" in ctst("--offline", *run).err
            assert ctst.ok(*run) == "1"
        finally:
            server.kill()
    assert ctst.ok("--offline", *run) == "1"
