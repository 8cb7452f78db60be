"""Pull and push against Debian's docker-registry, in the network namespace of each test."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archives import member, oci_layout, sha, tar

from harness import BOX, COMMAND, Ctst, eventually

Start = Callable[..., "Registry"]
PASSWORD = "s3cret-of-the-registry"


class Registry:
    """A running docker-registry and its log."""

    def __init__(self, ctst: Ctst, address: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.ctst, self.address, self.process, self._log = ctst, address, process, log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def skopeo(self, *words: str) -> str:
        done = subprocess.run(
            ["skopeo", "--insecure-policy", *words],
            env=self.ctst.environ,
            preexec_fn=self.ctst.enter,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def upload(self, files: dict[str, bytes], name: str, *options: str) -> None:
        """Let skopeo copy an OCI layout's files here."""
        layout = self.ctst.directory / "layout"
        for path, data in files.items():
            (layout / path).parent.mkdir(parents=True, exist_ok=True)
            (layout / path).write_bytes(data)
        self.skopeo(
            "copy", "--dest-tls-verify=false", *options, f"oci:{layout}:latest", f"docker://{self.address}/{name}"
        )


@pytest.fixture
def start(ctst: Ctst, tmp_path: Path) -> Iterator[Start]:
    """A function that starts a registry; ``http`` has further lines of its configuration."""
    running: list[subprocess.Popen[bytes]] = []

    def start_one(host: str = "127.0.0.1", port: int = 5000, http: str = "", auth: str = "") -> Registry:
        directory = tmp_path / f"registry-{len(running)}"
        directory.mkdir()
        (directory / "config.yml").write_text(
            f"version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {directory}/data}}\n"
            f"http:\n  addr: '{host}:{port}'\n{http}{auth}"
        )
        with open(directory / "log", "wb") as log:
            process = subprocess.Popen(
                ["docker-registry", "serve", directory / "config.yml"],
                preexec_fn=ctst.enter,  # noqa: PLW1509
                stdout=log,
                stderr=log,
                cwd=directory,
            )
        running.append(process)
        eventually(lambda: f"{host}:{port}" in ctst.on_host("ss", "-ltnH"))
        return Registry(ctst, f"{host}:{port}", process, directory / "log")

    yield start_one
    for process in running:
        process.kill()
        process.wait()


@contextlib.contextmanager
def proxy(ctst: Ctst, cut: int = 0, stall: int = 0, port: int = 5001) -> Iterator[str]:
    """A breaking proxy before the registry on port 5000; its address."""
    script = str(Path(__file__).with_name("cutting_proxy.py"))
    words = [sys.executable, "-I", script, str(port), "5000", str(cut), str(stall)]
    with subprocess.Popen(words, preexec_fn=ctst.enter, stdout=subprocess.PIPE) as process:  # noqa: PLW1509
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


def random_layers(count: int, size: int) -> list[bytes]:
    return [tar(member(f"file-{number}", os.urandom(size))) for number in range(count)]


def root_of(ctst: Ctst, reference: str) -> str:
    return str(json.loads(ctst.ok("images", "inspect", reference))["root"])


def test_an_image_goes_to_a_registry_and_comes_back_by_tag_and_digest(ctst: Ctst, start: Start, tmp_path: Path) -> None:
    registry = start()
    ctst.ok("run", "--rm", "--image", BOX, "--", "true")
    digest = ctst.ok("push", BOX, f"{registry.address}/team/box:1").strip()
    ctst.ok("images", "rm", BOX)
    assert json.loads(ctst.ok("images", "--json"))["images"] == []
    pulled = ctst.ok("pull", f"{registry.address}/team/box:1", "--json")
    pinned = ctst.ok("pull", f"{registry.address}/team/box@{digest}", "--json")
    assert json.loads(pulled)["images"][0]["id"] == json.loads(pinned)["images"][0]["id"]
    uri = f"oci://{registry.address}/team/box:1"
    assert ctst.ok("run", "--rm", "--image", uri, "--", "echo", "from afar") == "from afar\n"
    assert ctst("pull", f"{registry.address}/team/box:2").status == 4
    assert ctst("pull", f"{registry.address}/nobody/box:1").status == 4

    # skopeo sees the same image, and what skopeo copies is the same image to us.
    seen = json.loads(registry.skopeo("inspect", "--tls-verify=false", f"docker://{registry.address}/team/box:1"))
    assert seen["Digest"] == digest
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    registry.skopeo("copy", *plain, f"docker://{registry.address}/team/box:1", f"docker://{registry.address}/two/box:x")
    registry.skopeo("copy", *plain, f"docker://{registry.address}/team/box:1", f"oci:{tmp_path}/copied:1")
    ctst.ok("pull", f"{registry.address}/two/box:x")
    loaded = json.loads(ctst.ok("load", f"{tmp_path}/copied", "--json"))["images"][0]["id"]
    assert root_of(ctst, f"oci://{registry.address}/two/box:x") == root_of(ctst, loaded) == root_of(ctst, uri)


def test_layers_of_every_kind_and_manifest_lists(ctst: Ctst, start: Start) -> None:
    from backports import zstd

    registry = start()
    contents = random_layers(3, 20_000)
    kind = "application/vnd.oci.image.layer.v1.tar"
    packed = [contents[0], gzip.compress(contents[1]), zstd.compress(contents[2])]
    kinds = [kind, f"{kind}+gzip", f"{kind}+zstd"]
    layers = [
        {"mediaType": media, "digest": sha(data), "size": len(data)} for media, data in zip(kinds, packed, strict=True)
    ]
    files = oci_layout(contents, {"Cmd": ["/x"]}, layers=layers)
    files |= {f"blobs/sha256/{sha(data)[7:]}": data for data in packed}
    registry.upload(files, "mixed:1")
    ctst.ok("pull", f"{registry.address}/mixed:1")
    inspected = json.loads(ctst.ok("images", "inspect", f"oci://{registry.address}/mixed:1"))
    assert [layer["digest"] for layer in inspected["layers"]] == [sha(data) for data in contents]
    assert inspected["config"]["command"] == ["/x"]

    # In docker's own media types, and in a list beside an image of another machine.
    registry.upload(oci_layout(contents), "docker:1", "--format", "v2s2")
    address = f"docker://{registry.address}/docker:1"
    assert "vnd.docker" in registry.skopeo("inspect", "--raw", "--tls-verify=false", address)
    ctst.ok("pull", f"{registry.address}/docker:1")
    assert root_of(ctst, f"oci://{registry.address}/docker:1") == inspected["root"]
    other = oci_layout(random_layers(1, 100))
    machine = "amd64" if os.uname().machine == "x86_64" else "arm64"
    entries = [
        {**json.loads(some["index.json"])["manifests"][0], "platform": {"os": "linux", "architecture": name}}
        for some, name in ((other, "s390x"), (files, machine))
    ]
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    ).encode()
    outer = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": sha(index),
        "size": len(index),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }
    both = {**other, **files, f"blobs/sha256/{sha(index)[7:]}": index}
    both["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [outer]}).encode()
    registry.upload(both, "list:1", "--all")
    listed = registry.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.address}/list:1")
    assert [item["platform"]["architecture"] for item in json.loads(listed)["manifests"]] == ["s390x", machine]
    for name in ("list:1", f"list@{sha(listed.encode())}"):
        ctst.ok("pull", f"{registry.address}/{name}")
        assert root_of(ctst, f"oci://{registry.address}/{name}") == inspected["root"]


def test_logins_from_files_helpers_and_the_environment(ctst: Ctst, start: Start, tmp_path: Path) -> None:
    entry = subprocess.run(["htpasswd", "-Bbn", "anna", PASSWORD], capture_output=True, text=True, check=True).stdout
    (tmp_path / "htpasswd").write_text(entry)
    registry = start(auth=f"auth:\n  htpasswd: {{realm: test, path: {tmp_path}/htpasswd}}\n")
    name = f"{registry.address}/box:1"
    ctst.ok("run", "--rm", "--image", BOX, "--", "true")
    refused = ctst("push", BOX, name)
    assert refused.status == 1
    assert "I006" in refused.err
    assert "not authorized" in refused.err

    ctst.environ |= {"CONTAINUST_REGISTRY_USER": "anna", "CONTAINUST_REGISTRY_PASSWORD": PASSWORD}
    ctst.ok("push", BOX, name)
    ctst.environ["CONTAINUST_REGISTRY_PASSWORD"] = "wrong"
    assert "I006" in ctst("pull", name).err
    del ctst.environ["CONTAINUST_REGISTRY_USER"], ctst.environ["CONTAINUST_REGISTRY_PASSWORD"]

    helper = tmp_path / "docker-credential-test"
    helper.write_text(f'#!/bin/sh\ncat >"$0.asked"\necho \'{{"Username": "anna", "Secret": "{PASSWORD}"}}\'\n')
    helper.chmod(0o755)
    ctst.environ["PATH"] = f"{tmp_path}:{ctst.environ['PATH']}"
    login = b64encode(f"anna:{PASSWORD}".encode()).decode()
    docker = ctst.home / ".docker"
    docker.mkdir()
    for number, config in enumerate(
        (
            {"auths": {registry.address: {"auth": login}}},
            {"credHelpers": {registry.address: "test"}},
            {"credsStore": "test"},
        )
    ):
        (docker / "config.json").write_text(json.dumps(config))
        ctst.ok("pull", name)
        assert Path(f"{helper}.asked").exists() == (number > 0)
        Path(f"{helper}.asked").unlink(missing_ok=True)
    (docker / "config.json").unlink()
    for path in (ctst.home / ".containust").rglob("*"):
        if path.is_file() and path.stat().st_size < 1 << 20:
            assert PASSWORD.encode() not in path.read_bytes()
            assert login.encode() not in path.read_bytes()


def certificate(directory: Path) -> str:
    """Lines of a registry's configuration for TLS with an authority of the test's own, ``ca.crt``."""
    names = "subjectAltName=IP:127.0.0.1,IP:10.9.8.7"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run(
        [*new, "-subj", "/CN=authority", "-keyout", directory / "ca.key", "-out", directory / "ca.crt"],
        check=True,
        capture_output=True,
    )
    signed = [*new, "-subj", "/CN=registry", "-CA", str(directory / "ca.crt"), "-CAkey", str(directory / "ca.key")]
    signed += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(
        [*signed, "-addext", names, "-keyout", directory / "own.key", "-out", directory / "own.crt"],
        check=True,
        capture_output=True,
    )
    return f"  tls: {{certificate: {directory}/own.crt, key: {directory}/own.key}}\n"


def test_tls_is_verified_and_required_beyond_loopback(ctst: Ctst, start: Start, tmp_path: Path) -> None:
    ctst.on_host("ip", "address", "add", "10.9.8.7/32", "dev", "lo")
    secure = certificate(tmp_path)
    start(host="127.0.0.1", http=secure)
    start(host="10.9.8.7", http=secure)
    start(host="10.9.8.7", port=5002)
    ctst.ok("run", "--rm", "--image", BOX, "--", "true")
    for address in ("127.0.0.1:5000", "10.9.8.7:5000"):
        unknown = ctst("push", BOX, f"{address}/box:1")
        assert unknown.status == 1
        assert "CERTIFICATE_VERIFY_FAILED" in unknown.err
        assert f"certs.d/{address}" in unknown.err
        ctst.environ["SSL_CERT_FILE"] = f"{tmp_path}/ca.crt"
        ctst.ok("push", BOX, f"{address}/box:1")
        ctst.ok("pull", f"{address}/box:1")
        del ctst.environ["SSL_CERT_FILE"]
        assert "CERTIFICATE_VERIFY_FAILED" in ctst("pull", f"{address}/box:1").err
        trusted = ctst.home / f".config/containers/certs.d/{address}"
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
        ctst.ok("pull", f"{address}/box:1")
    plain = ctst("push", BOX, "10.9.8.7:5002/box:1")  # speaks no TLS, and is not this machine
    assert plain.status == 1
    assert "I006" in plain.err


def test_a_pull_survives_a_network_that_breaks(ctst: Ctst, start: Start) -> None:
    registry = start()
    contents = random_layers(2, 2_000_000)
    registry.upload(oci_layout(contents), "app:1")
    with proxy(ctst, cut=700_000) as address:
        ctst.ok("pull", f"{address}/app:1")
    inspected = json.loads(ctst.ok("images", "inspect", "oci://127.0.0.1:5001/app:1"))
    assert [layer["digest"] for layer in inspected["layers"]] == [sha(data) for data in contents]
    assert len(re.findall(r'GET /v2/app/blobs/sha256:\w+ HTTP/1.1" 206', registry.log)) >= 4


@pytest.mark.parametrize("way", ["SIGKILL", "SIGINT"])
def test_an_interrupted_pull_goes_on_where_it_ended(ctst: Ctst, start: Start, way: str) -> None:
    registry = start()
    contents = random_layers(4, 2_000_000)
    registry.upload(oci_layout(contents), "app:1")
    partial = ctst.home / ".containust/images/partial"
    with proxy(ctst, stall=1_500_000) as address:
        process = ctst.popen("pull", f"{address}/app:1")
        # All four at once, each stuck in its own connection.
        eventually(
            lambda: (
                partial.is_dir()
                and len(found := [p.stat().st_size for p in partial.iterdir()]) == 4
                and min(found) > 1_000_000
            )
        )
        process.send_signal(signal.Signals[way])
        _, complaint = process.communicate(timeout=10)
        assert process.returncode == (130 if way == "SIGINT" else -9)
        assert b"Traceback" not in complaint
        assert not list((ctst.home / ".containust/images/layers").iterdir())
    kept = {path.name: path.stat().st_size for path in partial.iterdir()}
    assert len(kept) == 4
    assert all(size > 1_000_000 for size in kept.values())
    damaged = sorted(kept)[0]
    with open(partial / damaged, "r+b") as file:
        file.write(b"garbage")
    before = len(registry.log)
    with proxy(ctst) as address:
        ctst.ok("pull", f"{address}/app:1")
    log = registry.log[before:]
    for name, size in kept.items():
        resumed = re.findall(rf'GET /v2/app/blobs/sha256:{name} HTTP/1.1" 206 (\d+)', log)
        assert [int(count) for count in resumed][:1] == [os.path.getsize(blob(registry, name)) - size]
        assert bool(re.search(rf'GET /v2/app/blobs/sha256:{name} HTTP/1.1" 200', log)) == (name == damaged)
    assert not list(partial.iterdir())
    assert ctst.ok("images", "verify").startswith("ok")


def blob(registry: Registry, name: str) -> Path:
    return next(Path(registry._log.parent).rglob(f"{name}/data"))


def test_prune_removes_the_beginnings_of_blobs(ctst: Ctst, start: Start) -> None:
    registry = start()
    registry.upload(oci_layout(random_layers(1, 2_000_000)), "app:1")
    partial = ctst.home / ".containust/images/partial"
    with proxy(ctst, stall=1_500_000) as address:
        process = ctst.popen("pull", f"{address}/app:1")
        eventually(lambda: partial.is_dir() and any(p.stat().st_size > 1_000_000 for p in partial.iterdir()))
        process.kill()
        process.communicate()
    assert json.loads(ctst.ok("images", "prune", "--json"))["freed"]["bytes"] > 1_000_000
    assert not list(partial.iterdir())


def test_mirrors_are_asked_first_and_the_registry_last(ctst: Ctst, start: Start) -> None:
    origin, mirror = start(), start(port=5002)
    files = oci_layout(random_layers(1, 20_000))
    for one in (origin, mirror):
        one.upload(files, "lib/app:1")
    origin.upload(files, "lib/only:1")
    ctst.environ["CONTAINUST_REGISTRY_MIRRORS"] = f"{origin.address}=127.0.0.1:1 {origin.address}={mirror.address}"
    before = len(origin.log)
    ctst.ok("pull", f"{origin.address}/lib/app:1")
    assert "/v2/lib/app/blobs" in mirror.log
    assert "/v2/" not in origin.log[before:]
    ctst.ok("pull", f"{origin.address}/lib/only:1")
    ctst.environ["CONTAINUST_REGISTRY_MIRRORS"] = "nonsense"
    assert ctst("pull", f"{origin.address}/lib/app:1").status == 2
    del ctst.environ["CONTAINUST_REGISTRY_MIRRORS"]
    conf = ctst.home / ".config/containers/registries.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(
        f'[[registry]]\nprefix = "docker.io/library"\nlocation = "docker.io/library"\n'
        f'[[registry.mirror]]\nlocation = "{mirror.address}/lib"\n'
    )
    ctst.ok("pull", "app:1")  # of Docker Hub, which nobody can reach here


def test_progress_is_shown_on_a_terminal(ctst: Ctst, start: Start) -> None:
    registry = start()
    registry.upload(oci_layout(random_layers(1, 2_000_000)), "app:1")
    ours, theirs = pty.openpty()
    with proxy(ctst, stall=1_500_000) as address:
        process = ctst.popen("pull", f"{address}/app:1", stderr=theirs)
        os.close(theirs)
        seen = b""
        while b"fetching" not in seen:
            seen += os.read(ours, 1000)
        process.kill()
        process.communicate()
    os.close(ours)
    assert re.search(rb"fetching .* of 1\.9MiB", seen)


def test_offline_opens_no_socket(ctst: Ctst, start: Start, tmp_path: Path) -> None:
    registry = start()
    ctst.ok("run", "--rm", "--image", BOX, "--", "true")
    ctst.ok("push", BOX, f"{registry.address}/box:1")
    ctst.ok("pull", f"{registry.address}/box:1")
    assert ctst.on_host("ip", "route").strip() == ""
    before = registry.log
    strace = ["strace", "-f", "-qq", "-e", "trace=socket,connect,sendto,sendmsg", "-o", str(tmp_path / "trace")]
    for words, status in (
        (("pull", f"{registry.address}/box:1"), 1),
        (("pull", f"{registry.address}/other:1"), 1),
        (("push", BOX, f"{registry.address}/box:2"), 1),
        (("run", "--rm", "--image", f"oci://{registry.address}/other:1", "--", "true"), 1),
        (("run", "--rm", "--image", f"oci://{registry.address}/box:1", "--network", "none", "--", "true"), 0),
    ):
        ctst.environ["CONTAINUST_OFFLINE"] = "1"

        done = subprocess.run(
            [*strace, *COMMAND, *words],
            cwd=ctst.directory,
            env=ctst.environ,
            preexec_fn=ctst.enter,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done
        assert ("I005" in done.stderr) == bool(status)
        trace = (tmp_path / "trace").read_text()
        if status:
            assert "AF_INET" not in trace
        # What runs a container brings its loopback up through a socket that goes nowhere.
        assert not [line for line in trace.splitlines() if "AF_INET" in line and "SOCK_DGRAM" not in line]
    del ctst.environ["CONTAINUST_OFFLINE"]
    assert registry.log == before
