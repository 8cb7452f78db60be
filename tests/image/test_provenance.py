"""Signatures in cosign's form, made by openssl: Debian's skopeo and podman know that form, but have it switched off."""

from __future__ import annotations

import json
import os
import random
import subprocess
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import oci_layout, sha
from fake_registry import Registry
from test_registry import Test, code, layers
from test_registry import isolated as apart

from containust.common.errors import ContainustError
from containust.image.oci import p256
from containust.image.store import ImageStore

KIND = "application/vnd.oci.image"


def isolated(test: Test) -> Test:
    """In a network namespace of its own."""
    made: Test = apart(test)
    return made


def new_key(path: Path, curve: str = "P-256") -> Path:
    """A private key at ``path`` and its public one at ``path`` with ``.pub``."""
    generate = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-out", str(path)]
    subprocess.run(generate, check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", path, "-pubout", "-out", f"{path}.pub"], check=True)
    return path


def sign(key: Path, data: bytes) -> bytes:
    done = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=data, capture_output=True, check=True)
    return done.stdout


def attach(registry: Registry, digest: str, key: Path, named: str = "", payload: bytes | None = None) -> None:
    """Lay a signature of ``digest`` beside it that says it is of ``named``."""
    critical = {
        "identity": {"docker-reference": f"{registry.address}/app"},
        "image": {"docker-manifest-digest": named or digest},
        "type": "cosign container image signature",
    }
    payload = payload or json.dumps({"critical": critical, "optional": None}).encode()
    config = b"{}"
    layer = {
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "digest": sha(payload),
        "size": len(payload),
        "annotations": {"dev.cosignproject.cosign/signature": b64encode(sign(key, payload)).decode()},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{KIND}.manifest.v1+json",
        "config": {"mediaType": f"{KIND}.config.v1+json", "digest": sha(config), "size": len(config)},
        "layers": [layer],
    }
    registry.blobs |= {sha(payload): payload, sha(config): config}
    text = json.dumps(manifest).encode()
    for name in (f"{digest.replace(':', '-')}.sig", sha(text)):
        registry.manifests[name] = (f"{KIND}.manifest.v1+json", text)


def trusting(tmp_path: Path, *keys: Path) -> None:
    """Demand signatures of these keys."""
    trust = tmp_path / "trust"
    trust.mkdir(exist_ok=True)
    for old in trust.iterdir():
        old.unlink()
    for key in keys:
        (trust / f"{key.name}.pub").write_bytes(Path(f"{key}.pub").read_bytes())
    os.environ["CONTAINUST_TRUST"] = str(trust)
    os.environ["CONTAINUST_REQUIRE_PROVENANCE"] = "1"


@isolated
def test_only_what_a_trusted_key_signed_is_fetched(store: ImageStore, tmp_path: Path) -> None:
    registry = Registry()
    contents = layers(1)
    digest = registry.add(oci_layout(contents))
    uri = f"oci://{registry.address}/app:latest"
    mine, other = new_key(tmp_path / "mine"), new_key(tmp_path / "other")

    def refused() -> None:
        registry.log.clear()
        assert code(lambda: store.ensure(uri)) == "I008"
        assert not any(sha(contents[0])[7:] in path for _, path, _ in registry.log)

    trusting(tmp_path)
    refused()  # no key at all
    trusting(tmp_path, mine)
    refused()  # no signature
    attach(registry, digest, other)
    refused()  # by another key
    attach(registry, digest, mine, named="sha256:" + "0" * 64)
    refused()  # of another image
    attach(registry, digest, mine, payload=b"[" * 100_000)
    assert code(lambda: store.ensure(uri)) == "I004"
    attach(registry, digest, mine)
    image = store.ensure(uri)
    assert store.find(uri) == image
    requests = len(registry.log)
    assert store.ensure(uri) == image
    assert len(registry.log) == requests  # once verified, nothing is asked again

    trusting(tmp_path, other)  # the key is trusted no longer
    assert store.find(uri) is None
    refused()
    del os.environ["CONTAINUST_REQUIRE_PROVENANCE"]
    assert store.find(uri) == image


@isolated
def test_an_unsigned_image_that_is_here_already_is_not_used(store: ImageStore, tmp_path: Path) -> None:
    registry = Registry()
    registry.add(oci_layout(layers(1)))
    uri = f"oci://{registry.address}/app:latest"
    store.ensure(uri)
    trusting(tmp_path, new_key(tmp_path / "mine"))
    assert store.find(uri) is None
    assert code(lambda: store.ensure(uri)) == "I008"
    assert code(lambda: store.ensure("https://example.org/a.tar@sha256:" + "0" * 64)) == "I008"
    assert code(lambda: store.ensure("preset://alpine")) == "I008"
    store.ensure("host:///bin/sh")  # is of this machine: nothing is fetched
    os.environ["CONTAINUST_REQUIRE_PROVENANCE"] = "yes"
    assert code(lambda: store.ensure(uri)) == "U001"


@isolated
def test_a_signed_index_vouches_for_its_images(store: ImageStore, tmp_path: Path) -> None:
    registry = Registry()
    files = oci_layout(layers(1))
    registry.add(files)
    machine = "amd64" if os.uname().machine == "x86_64" else "arm64"
    entry = json.loads(files["index.json"])["manifests"][0]
    entry["platform"] = {"os": "linux", "architecture": machine}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    registry.manifests["multi"] = registry.manifests[sha(index)] = (f"{KIND}.index.v1+json", index)
    key = new_key(tmp_path / "mine")
    trusting(tmp_path, key)
    assert code(lambda: store.ensure(f"oci://{registry.address}/app:multi")) == "I008"
    attach(registry, sha(index), key)
    store.ensure(f"oci://{registry.address}/app:multi")


def test_ecdsa_agrees_with_openssl(tmp_path: Path) -> None:
    from hashlib import sha256

    generator = random.Random(3)
    key = new_key(tmp_path / "mine")
    point = p256.public_key(Path(f"{key}.pub").read_bytes())
    for _ in range(5):
        data = generator.randbytes(100)
        signature = sign(key, data)
        hashed = int.from_bytes(sha256(data).digest(), "big")
        assert p256.verify(point, hashed, signature)
        assert not p256.verify(point, hashed ^ 1, signature)
        for at in range(0, len(signature), 7):
            damaged = signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]
            assert not p256.verify(point, hashed, damaged)
            assert not p256.verify(point, hashed, signature[:at])
        assert not p256.verify(point, hashed, signature + b"\0")
    for number in (0, p256.N):
        body = b"\x02\x01\0" if not number else b"\x02\x21\0" + number.to_bytes(32, "big")
        assert not p256.verify(point, 1, bytes([0x30, 2 * len(body)]) + body + body)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: new_key(path, "P-384"),
        lambda path: Path(f"{path}.pub").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        lambda path: Path(f"{path}.pub").write_text("nonsense"),
    ],
)
def test_keys_of_other_kinds_are_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "key")
    with pytest.raises(ValueError, match="it "):
        p256.public_key((tmp_path / "key.pub").read_bytes())


def test_the_option_reaches_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from containust.cli.main import main

    state = ["--state-file", str(tmp_path / "state.json")]
    try:
        for words in (["--require-provenance", "pull", "127.0.0.1:1/app"], ["pull", "--require-provenance", "x"]):
            assert main([*state, "--offline", *words]) == 1
            assert os.environ.pop("CONTAINUST_REQUIRE_PROVENANCE") == "1"
    finally:
        os.environ.pop("CONTAINUST_REQUIRE_PROVENANCE", None)
    assert "I005" in capsys.readouterr().err
    with pytest.raises(ContainustError):
        ImageStore(str(tmp_path / "images")).ensure("image://none")
