"""Pull and push against a registry in a network namespace of the test's own."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import socket
import struct
import sys
import traceback
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from archives import member, oci_layout, sha, tar
from fake_registry import Registry

from conftest import listing
from containust.common.errors import ContainustError
from containust.core import syscalls
from containust.image import mounting
from containust.image.store import ImageStore
from containust.sdk.images import Images

Test = Callable[..., None]


def isolated(test: Test) -> Test:
    """Run the test in a child with its own network namespace, in which only loopback is up."""

    @functools.wraps(test)
    def run(*arguments: object, **named: object) -> None:
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                syscalls.unshare(syscalls.CLONE_NEWNET)
                with socket.socket() as probe:
                    fcntl.ioctl(probe, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
                for name in (
                    "CONTAINUST_REGISTRY_TOKEN",
                    "CONTAINUST_REGISTRY_USER",
                    "CONTAINUST_REGISTRY_PASSWORD",
                ):
                    os.environ.pop(name, None)
                os.environ["DOCKER_CONFIG"] = "/nonexistent"
                test(*arguments, **named)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    return run


def layers(count: int = 3, size: int = 50_000) -> list[bytes]:
    return [tar(member(f"file-{number}", os.urandom(size))) for number in range(count)]


def code(action: Callable[[], object]) -> str:
    try:
        action()
    except ContainustError as error:
        assert error.help
        return error.code
    return ""


@isolated
def test_pull_by_tag_and_by_digest(store: ImageStore) -> None:
    registry = Registry()
    contents = layers()
    digest = registry.add(oci_layout(contents, {"Cmd": ["/x"]}), "1.0")
    image = store.ensure(f"oci://{registry.address}/team/app:1.0")
    assert image.config.command == ["/x"]
    assert len(image.devices) == 3
    fd = mounting.open_root(store, image)
    assert {"file-0", "file-1", "file-2"} <= set(listing(f"/proc/self/fd/{fd}"))
    requests = len(registry.log)
    assert store.find(f"oci://{registry.address}/team/app:1.0") == image
    pinned = store.ensure(f"oci://{registry.address}/team/app@{digest}")
    assert pinned.id == image.id
    assert not any("blobs" in path and sha(contents[0])[7:] in path for _, path, _ in registry.log[requests:])
    assert code(lambda: store.ensure(f"oci://{registry.address}/team/app:2.0")) == "I001"
    assert code(lambda: store.ensure(f"oci://{registry.address}/team/app@sha256:{'0' * 64}")) == "I001"


@isolated
def test_an_index_gives_the_image_of_this_machine(store: ImageStore) -> None:
    registry = Registry()
    right, wrong = oci_layout(layers(1)), oci_layout(layers(1))
    machine = "amd64" if os.uname().machine == "x86_64" else "arm64"
    manifests = []
    for files, architecture in ((wrong, "s390x"), (right, machine)):
        registry.add(files, "x")
        entry = json.loads(files["index.json"])["manifests"][0]
        manifests.append({**entry, "platform": {"os": "linux", "architecture": architecture}})
    index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    kind = "application/vnd.oci.image.index.v1+json"
    registry.manifests["multi"] = registry.manifests[sha(index)] = (kind, index)
    image = store.ensure(f"oci://{registry.address}/app:multi")
    registry.add(right, "right")
    assert store.ensure(f"oci://{registry.address}/app:right").id == image.id
    registry.manifests["liar"] = ("application/vnd.oci.image.manifest.v1+json", index)
    assert code(lambda: store.ensure(f"oci://{registry.address}/app:liar")) == "I004"


@isolated
def test_an_interrupted_download_resumes(store: ImageStore) -> None:
    registry = Registry()
    registry.add(oci_layout(layers(2, 400_000)))
    registry.cut = 150_000
    image = store.ensure(f"oci://{registry.address}/app")
    assert len(image.devices) == 2
    registry.no_range = True
    registry.cut = 0
    registry.add(oci_layout(layers(1)), "plain")
    store.ensure(f"oci://{registry.address}/app:plain")


@isolated
def test_a_download_that_never_ends_well_is_an_error(store: ImageStore) -> None:
    import containust.image.oci.registry as module

    module.ATTEMPTS = 2
    registry = Registry()
    registry.add(oci_layout(layers(1, 400_000)))
    registry.cut = 10_000
    assert code(lambda: store.ensure(f"oci://{registry.address}/app")) == "I006"
    assert os.listdir(f"{store.directory}/layers") == []
    assert code(lambda: store.ensure("oci://127.0.0.1:1/app")) == "I006"


@isolated
def test_forged_content_is_refused(store: ImageStore) -> None:
    registry = Registry()
    contents = layers(1)
    registry.add(oci_layout(contents))
    digest = sha(contents[0])
    for forged in (b"x" * len(contents[0]), contents[0] + b"more"):
        registry.forged = {digest: forged}
        assert code(lambda: store.ensure(f"oci://{registry.address}/app")) in ("I002", "I004")
    assert os.listdir(f"{store.directory}/layers") == []
    registry.forged = {}
    other = registry.add(oci_layout(layers(1)), "other")
    registry.manifests[other] = registry.manifests["latest"]
    assert code(lambda: store.ensure(f"oci://{registry.address}/app@{other}")) == "I002"


@isolated
def test_a_tag_that_moves_is_noticed_by_the_lock(store: ImageStore, tmp_path: Path) -> None:
    registry = Registry()
    registry.add(oci_layout(layers(1)))
    uri = f"oci://{registry.address}/app:latest"
    first = store.ensure(uri)
    moved = registry.add(oci_layout(layers(1)))
    again = ImageStore(str(tmp_path / "other"))
    assert store.ensure(uri) == first  # what is imported stays
    assert json.loads((tmp_path / "images.lock").read_text())["images"][uri] != moved
    assert code(lambda: again.ensure(uri)) == "I002"
    os.mkdir(tmp_path / "p")
    images = Images.current(str(tmp_path), state_file=str(tmp_path / "state.json"))
    images.store = again
    assert images.pull(uri).id != first.id
    assert json.loads((tmp_path / "images.lock").read_text())["images"][uri] == moved
    (tmp_path / "images.lock").write_text("{")
    assert code(lambda: ImageStore(str(tmp_path / "third")).ensure(uri)) == "I002"


@isolated
def test_logins_and_where_they_may_go(store: ImageStore, tmp_path: Path) -> None:
    registry, elsewhere = Registry(), Registry()
    files = oci_layout(layers(1))
    registry.add(files)
    elsewhere.add(files)
    uri = f"oci://{registry.address}/app"
    for auth in ("basic", "bearer"):
        registry.auth = auth
        registry.redirect = elsewhere.address
        fresh = ImageStore(str(tmp_path / auth / "images"))
        assert code(partial(fresh.ensure, uri)) == "I006"
        os.makedirs(tmp_path / "docker", exist_ok=True)
        os.environ["DOCKER_CONFIG"] = str(tmp_path / "docker")
        login = {"auths": {registry.address: {"auth": b64encode(b"user:secret").decode()}}}
        (tmp_path / "docker/config.json").write_text(json.dumps(login))
        fresh.ensure(uri)
        (tmp_path / "docker/config.json").unlink()
        os.environ.update(CONTAINUST_REGISTRY_USER="user", CONTAINUST_REGISTRY_PASSWORD="secret")
        ImageStore(str(tmp_path / auth / "again")).ensure(uri)
        del os.environ["CONTAINUST_REGISTRY_USER"]
    assert elsewhere.log
    assert all(given == "" for _, _, given in elsewhere.log)
    for path in Path(tmp_path).rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20:
            assert b"secret" not in path.read_bytes()


@isolated
def test_a_credential_helper_is_asked(store: ImageStore, tmp_path: Path) -> None:
    registry = Registry()
    registry.auth = "basic"
    registry.add(oci_layout(layers(1)))
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread server; echo "$server" > "$0.asked"\necho \'{"Username": "user", "Secret": "secret"}\'\n'
    )
    helper.chmod(0o755)
    os.environ["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    os.environ["DOCKER_CONFIG"] = str(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {registry.address: "test"}}))
    store.ensure(f"oci://{registry.address}/app")
    assert (tmp_path / "docker-credential-test.asked").read_text().strip() == registry.address


@isolated
def test_what_is_pushed_can_be_pulled(tmp_path: Path) -> None:
    registry = Registry()
    registry.auth = "bearer"
    os.environ.update(CONTAINUST_REGISTRY_USER="user", CONTAINUST_REGISTRY_PASSWORD="secret")
    images = Images.current(str(tmp_path), state_file=str(tmp_path / "one/state.json"))
    mine = images.ensure("host:///bin/sh")
    digest = images.push("host:///bin/sh", f"{registry.address}/shell:1")
    before = len(registry.blobs)
    assert images.push("host:///bin/sh", f"{registry.address}/shell:1") == digest
    assert len(registry.blobs) == before
    other = ImageStore(str(tmp_path / "two/images"))
    pulled = other.ensure(f"oci://{registry.address}/shell@{digest}")
    assert (pulled.id, pulled.layer) == (mine.id, mine.layer)


@isolated
def test_offline_opens_no_socket(tmp_path: Path) -> None:
    import unittest.mock

    store = ImageStore(str(tmp_path / "images"), offline=True)
    with unittest.mock.patch("socket.socket.connect", side_effect=AssertionError("a socket was opened")):
        assert code(lambda: store.ensure("oci://127.0.0.1:5000/app")) == "I005"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("alpine", ("docker.io", "library/alpine", "latest")),
        ("alpine:3.21", ("docker.io", "library/alpine", "3.21")),
        ("team/app", ("docker.io", "team/app", "latest")),
        ("localhost:5000/app", ("localhost:5000", "app", "latest")),
        ("localhost/a/b:c", ("localhost", "a/b", "c")),
        ("ghcr.io/x/y:1", ("ghcr.io", "x/y", "1")),
    ],
)
def test_locations_are_split(location: str, expected: tuple[str, str, str]) -> None:
    from containust.image.oci.registry import split

    assert split(location) == expected
