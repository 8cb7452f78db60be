"""A small registry of the tests' own, with the faults and challenges that a test asks for."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit


class Registry:
    """Blobs and manifests in memory, served on loopback. ``log`` has every request line with its
    Authorization.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.log: list[tuple[str, str, str]] = []
        self.auth = ""  # "basic" or "bearer"
        self.cut = 0  # every answer with a blob ends after so many bytes
        self.no_range = False
        self.redirect = ""  # another registry's address for blobs
        self.forged: dict[str, bytes] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def handle_one(self) -> None:
                given = self.headers.get("Authorization") or ""
                outer.log.append((self.command, self.path, given))
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                parts = urlsplit(self.path)
                if parts.path == "/token":
                    ok = given == "Basic " + b64encode(b"user:secret").decode()
                    self.answer(200 if ok else 401, b'{"token": "granted"}' if ok else b"")
                    return
                if outer.auth == "basic" and given != "Basic " + b64encode(b"user:secret").decode():
                    self.answer(401, WWW_Authenticate='Basic realm="test"')
                    return
                if outer.auth == "bearer" and given != "Bearer granted":
                    where = f'Bearer realm="http://{outer.address}/token",service="test",scope="repository:x:pull"'
                    self.answer(401, WWW_Authenticate=where)
                    return
                outer.serve(self, parts.path, parse_qs(parts.query), body)

            do_GET = do_HEAD = do_POST = do_PUT = handle_one

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def serve(self, request: object, path: str, query: dict[str, list[str]], body: bytes) -> None:
        answer = request.answer  # type: ignore[attr-defined]
        command = request.command  # type: ignore[attr-defined]
        if path == "/v2/":
            answer(200)
            return
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(.+?)/?", path)
        if found is None:
            answer(404)
            return
        kind, name = found[2], found[3]
        if kind == "manifests":
            if command == "PUT":
                digest = "sha256:" + hashlib.sha256(body).hexdigest()
                media = request.headers["Content-Type"]  # type: ignore[attr-defined]
                self.manifests[name] = self.manifests[digest] = (media, body)
                answer(201)
            elif name in self.manifests:
                answer(200, self.manifests[name][1], Content_Type=self.manifests[name][0])
            else:
                answer(404)
        elif name == "uploads" and command == "POST":
            answer(202, Location=f"/v2/{found[1]}/blobs/uploads/1?state=x")
        elif command == "PUT":
            digest = query["digest"][0]
            good = digest == "sha256:" + hashlib.sha256(body).hexdigest()
            if good:
                self.blobs[digest] = body
            answer(201 if good else 400)
        elif self.redirect:
            answer(307, Location=f"http://{self.redirect}/v2/other/blobs/{name}")
        elif name in self.blobs:
            self._blob(request, self.forged.get(name, self.blobs[name]))
        else:
            answer(404)

    def _blob(self, request: object, data: bytes) -> None:
        handler = request
        wanted = handler.headers.get("Range")  # type: ignore[attr-defined]
        start = int(wanted[6:].rstrip("-")) if wanted and not self.no_range else 0
        part = data[start:]
        handler.send_response(206 if start else 200)  # type: ignore[attr-defined]
        handler.send_header("Content-Length", str(len(part)))  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]
        if handler.command == "HEAD":  # type: ignore[attr-defined]
            return
        sent = part[: self.cut] if self.cut else part
        handler.wfile.write(sent)  # type: ignore[attr-defined]
        if len(sent) < len(part):
            handler.wfile.flush()  # type: ignore[attr-defined]
            handler.close_connection = True  # type: ignore[attr-defined]

    def add(self, files: dict[str, bytes], tag: str = "latest") -> str:
        """Serve the image of an OCI layout's files under ``tag``; its manifest's digest."""
        import json

        for name, data in files.items():
            if name.startswith("blobs/"):
                self.blobs["sha256:" + name.rpartition("/")[2]] = data
        entry = json.loads(files["index.json"])["manifests"][0]
        data = self.blobs[entry["digest"]]
        self.manifests[tag] = self.manifests[entry["digest"]] = (entry["mediaType"], data)
        return str(entry["digest"])
