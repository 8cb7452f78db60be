"""Remote imports against a real TLS server in this process: cache, pin, lock, offline, redirects."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from containust.common.codes import CODES
from containust.compose.diagnostics import Diagnostic, render
from containust.compose.load import load_checked

BASE = 'COMPONENT base {\n    image = "preset://busybox"\n}\n'


class Server:
    """What the server answers, by path; a str is a redirect."""

    def __init__(self, directory: Path) -> None:
        certificate = directory / "cert.pem"
        key = directory / "key.pem"
        subprocess.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
            f"-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {key} -out {certificate}".split(),
            check=True,
            capture_output=True,
        )
        self.certificate = str(certificate)
        self.files: dict[str, bytes | str] = {}
        self.requests: list[str] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.requests.append(self.path)
                content = owner.files.get(self.path)
                if isinstance(content, str):
                    self.send_response(302)
                    self.send_header("Location", content)
                    self.end_headers()
                elif content is None:
                    self.send_error(404)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,))
        self.thread.start()
        self.url = f"https://localhost:{self.http.server_port}"

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("tls"))
    yield server
    server.close()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("SSL_CERT_FILE", running.certificate)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running.files = {"/base.ctst": BASE.encode()}
    running.requests.clear()
    return running


class Checker:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lock = directory / ".containust" / "imports.lock"

    def __call__(self, url: str, offline: bool = False) -> list[Diagnostic]:
        path = self.directory / "main.ctst"
        path.write_text(f'IMPORT "{url}" AS base\nCOMPONENT web FROM base {{}}\n')
        environ = {"HOME": str(self.directory), "CONTAINUST_CACHE_DIR": str(self.directory / "cache")}
        return load_checked(str(path), offline=offline, environ=environ)[1]


@pytest.fixture
def check(tmp_path: Path) -> Checker:
    return Checker(tmp_path)


def codes(found: list[Diagnostic]) -> list[str]:
    return [one.code for one in found]


def test_first_use_is_locked_and_later_use_needs_no_network(server: Server, check: Checker) -> None:
    url = f"{server.url}/base.ctst"
    assert check(url) == []
    digest = hashlib.sha256(BASE.encode()).hexdigest()
    assert json.loads(check.lock.read_text()) == {"version": 1, "imports": {url: f"sha256:{digest}"}}
    assert check(url, offline=True) == [] and server.requests == ["/base.ctst"]


def test_a_changed_file_is_e016_for_who_has_the_lock_but_not_the_cache(server: Server, check: Checker) -> None:
    url = f"{server.url}/base.ctst"
    check(url)
    for cached in (check.directory / "cache" / "imports" / "sha256").iterdir():
        cached.unlink()
    server.files["/base.ctst"] = BASE.replace("busybox", "alpine").encode()
    found = check(url)
    assert codes(found) == ["E016"] and "imports.lock" in found[0].message


def test_pins(server: Server, check: Checker) -> None:
    url = f"{server.url}/base.ctst"
    digest = hashlib.sha256(BASE.encode()).hexdigest()
    assert check(f"{url}@sha256:{digest}") == [] and not check.lock.exists()
    assert check(f"{url}@sha256:{digest}", offline=True) == []
    assert codes(check(f"{url}@sha256:{'0' * 64}")) == ["E016"]
    assert codes(check(f"{url}@sha256:123")) == ["E007"]


def test_explained_examples_of_a_changed_file(server: Server, check: Checker) -> None:
    """What test_codes.py does for every code that needs no server, for E016."""

    def found(example: str) -> list[Diagnostic]:
        path = check.directory / "main.ctst"
        path.write_text(example.replace("https://HOST", server.url))
        return load_checked(str(path), environ={"CONTAINUST_CACHE_DIR": str(check.directory / "cache")})[1]

    assert found(CODES["E016"].good) == []
    text = render(found(CODES["E016"].bad)) + "\n"
    text = text.replace(server.url, "https://HOST").replace(str(check.directory), "/project")
    text = re.sub(r"(?m)^( +\| +\^{14})\^+$", r"\1…", text)  # as long as the port's digits make it
    golden = Path(__file__).parent / "golden" / "E016.txt"
    if os.environ.get("CONTAINUST_RECORD"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_damaged_cache_is_fetched_again(server: Server, check: Checker) -> None:
    url = f"{server.url}/base.ctst"
    check(url)
    for cached in (check.directory / "cache" / "imports" / "sha256").iterdir():
        cached.write_bytes(b"other")
    assert codes(check(url, offline=True)) == ["E017"]
    assert check(url) == []


def test_offline_without_cache_opens_no_connection(server: Server, check: Checker) -> None:
    assert codes(check(f"{server.url}/base.ctst", offline=True)) == ["E017"]
    assert server.requests == []


def test_failures_are_e008(server: Server, check: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/plain"] = "http://localhost:1/base.ctst"
    server.files["/moved"] = "/base.ctst"
    assert check(f"{server.url}/moved") == []
    assert codes(check(f"{server.url}/plain")) == ["E008"]
    assert codes(check(f"{server.url}/missing.ctst")) == ["E008"]
    monkeypatch.delenv("SSL_CERT_FILE")
    assert codes(check(f"{server.url}/other.ctst")) == ["E008"]  # nobody vouches for the certificate


def test_remote_files_import_next_to_themselves_and_nothing_local(server: Server, check: Checker) -> None:
    (check.directory / "secret.ctst").write_text(BASE)
    server.files["/a.ctst"] = b'IMPORT "base.ctst" AS inner\nCOMPONENT a FROM inner {}\n'
    assert check(f"{server.url}/a.ctst") == []
    server.files["/b.ctst"] = f'IMPORT "{check.directory}/secret.ctst" AS inner\nCOMPONENT a FROM inner {{}}\n'.encode()
    assert codes(check(f"{server.url}/b.ctst")) == ["E008"]
    server.files["/c.ctst"] = b'COMPONENT a {\n image = "file://./x"\n}\n'
    assert codes(check(f"{server.url}/c.ctst")) == ["E006"]


def test_a_damaged_lock_is_s001(server: Server, check: Checker) -> None:
    check.lock.parent.mkdir()
    check.lock.write_text("{")
    assert codes(check(f"{server.url}/base.ctst")) == ["S001"]
