"""The OCI distribution specification, as a client: manifests, blobs that resume, uploads.

Plain HTTP is spoken with loopback registries only, and only when they do not speak TLS. Redirects of blobs are
followed, without credentials once they leave the registry. Every error is I006 with what the registry said.
"""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.image.limits import DOCUMENT_MAX
from containust.image.members import show
from containust.image.oci.auth import DOCKER_HUB, challenge, find_credentials
from containust.image.oci.connection import Unreachable, connect, failed, is_loopback, speaks_tls, without_port
from containust.image.oci.documents import INDEXES, MANIFESTS, invalid
from containust.image.staging import check_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPConnection, HTTPResponse
    from typing import IO, Any

ATTEMPTS = 6  # in a row that bring less than PROGRESS bytes each
PROGRESS = 1 << 18
REDIRECTS = 5
READ = 1 << 18


def split(location: str) -> tuple[str, str, str]:
    """(registry, repository, tag) of ``[registry/]repository[:tag]``; Docker Hub and ``latest`` by
    default.
    """
    from containust.common.reference import is_registry

    first, slash, rest = location.partition("/")
    registry, name = (first, rest) if slash and is_registry(first) else (DOCKER_HUB, location)
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, "latest"
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository, tag


class Repository:
    """One repository of a registry; used by one thread at a time."""

    def __init__(self, registry: str, repository: str) -> None:
        self.registry = registry
        self.repository = repository
        self._host = "registry-1.docker.io" if registry == DOCKER_HUB else registry
        self._url = ""
        self._authorization = ""
        self._connections: dict[str, HTTPConnection] = {}

    def fork(self) -> Repository:
        """Another one for another thread, already authorized."""
        other = Repository(self.registry, self.repository)
        other._authorization = self._authorization
        other._url = self._url
        return other

    @property
    def _base(self) -> str:
        """Scheme and host of the registry; a loopback registry is asked once which of the two it speaks."""
        if not self._url:
            secure = not is_loopback(without_port(self._host)) or speaks_tls(self._host)
            self._url = f"{'https' if secure else 'http'}://{self._host}"
        return self._url

    def manifest(self, reference: str, expected: str | None = None) -> tuple[bytes, str, str]:
        """A manifest by tag or digest: its bytes, media type and digest. Raises I001, I002, I006."""
        from hashlib import sha256

        response = self._request(
            "GET",
            f"/v2/{self.repository}/manifests/{reference}",
            {"Accept": ", ".join(INDEXES + MANIFESTS)},
        )
        with response:
            if response.status == 404:
                raise ContainustError(
                    "I001",
                    f"{self.registry} has no {self.repository}{'@' if ':' in reference else ':'}{reference}",
                    "check name and tag; private repositories need a login",
                )
            self._expect(response, 200, "manifest")
            data = response.read(DOCUMENT_MAX + 1)
        if len(data) > DOCUMENT_MAX:
            raise invalid(f"the manifest of {self.repository}", "is too large")
        digest = f"sha256:{sha256(data).hexdigest()}"
        if reference.startswith("sha256:"):
            expected = expected or reference
        check_digest(expected, digest, f"the manifest of {self.registry}/{self.repository}")
        return data, (response.headers.get("Content-Type") or "").partition(";")[0].strip(), digest

    def blob(self, digest: str, size: int, out: IO[bytes], each: Callable[[int], None] | None = None) -> None:
        """Fetch a blob into ``out``, which may hold its beginning already, and go on where a connection breaks.

        Raises I002 when it is another one, I004 when it is longer, I006.
        """
        from hashlib import sha256

        whole = sha256()
        out.seek(0)
        while data := out.read(READ):
            whole.update(data)
        done = earlier = out.tell()
        if done and each:
            each(done)
        if done < size:
            done = self._rest_of_blob(digest, size, done, out, whole.update, each)
        if done != size or f"sha256:{whole.hexdigest()}" != digest:
            out.seek(0)
            out.truncate()
            if earlier:  # what an earlier download left may be to blame: once more from the beginning
                if each:
                    each(-done)
                self.blob(digest, size, out, each)
                return
        check_digest(digest, f"sha256:{whole.hexdigest()}", f"a blob of {self.registry}/{self.repository}")

    def _rest_of_blob(
        self,
        digest: str,
        size: int,
        done: int,
        out: IO[bytes],
        update: Callable[[bytes], None],
        each: Callable[[int], None] | None,
    ) -> int:
        """Fetch the bytes of a blob from ``done`` on; how many are there then."""
        import time
        from http.client import HTTPException

        attempt = 0
        while True:
            before = done
            reason = ""
            try:
                with self._open_blob(digest, done) as response:
                    while data := response.read(min(READ, size - done + 1)):
                        if done + len(data) > size:
                            raise invalid(f"blob {digest}", f"is longer than {size} bytes")
                        done += len(data)
                        update(data)
                        out.write(data)
                        if each:
                            each(len(data))
                reason = f"the connection ended after {done} of {size} bytes"
            except Unreachable as error:
                reason = error.message
            except (OSError, HTTPException) as error:
                if getattr(error, "errno", None) in (28, 122):  # ENOSPC, EDQUOT: of our own disk
                    raise
                reason = str(error) or type(error).__name__
                self.close()
            if done == size:
                return done
            attempt = 1 if done - before >= PROGRESS else attempt + 1
            if attempt >= ATTEMPTS:
                raise failed(f"blob {digest} of {self.registry}/{self.repository}", reason)
            time.sleep(min(0.1 * 2**attempt, 5))

    def _open_blob(self, digest: str, done: int) -> HTTPResponse:
        """The answer with a blob, from its byte ``done`` on."""
        headers = {"Range": f"bytes={done}-"} if done else {}
        response = self._request("GET", f"/v2/{self.repository}/blobs/{digest}", headers)
        if response.status >= 500 or response.status == 429:
            with response:
                response.read(1 << 16)
            raise OSError(f"the registry answers {response.status}")
        if response.status == 416:
            response.close()
            raise invalid(f"blob {digest}", f"has no more than {done} bytes")
        if done and response.status == 200:  # it cannot resume: skip what we have
            left = done
            while left and (data := response.read(min(left, READ))):
                left -= len(data)
        else:
            self._expect(response, 206 if done else 200, f"blob {digest}")
        return response

    def small_blob(self, descriptor: dict[str, Any]) -> bytes:
        """A blob of bounded size, verified."""
        from io import BytesIO

        if descriptor["size"] > DOCUMENT_MAX:
            raise invalid(f"blob {descriptor['digest']}", "is too large for a configuration")
        out = BytesIO()
        self.blob(descriptor["digest"], descriptor["size"], out)
        return out.getvalue()

    def has_blob(self, digest: str) -> bool:
        """Whether the registry has a blob already."""
        with self._request("HEAD", f"/v2/{self.repository}/blobs/{digest}", scope="pull,push") as response:
            return response.status == 200

    def upload(self, digest: str, size: int, body: IO[bytes]) -> None:
        """Send a blob. Raises I006."""
        path = f"/v2/{self.repository}/blobs/uploads/"
        with self._request("POST", path, {"Content-Length": "0"}, scope="pull,push") as response:
            self._expect(response, 202, "upload")
            target = response.headers.get("Location") or ""
        from urllib.parse import urljoin

        target = urljoin(self._base + path, target)
        target += ("&" if "?" in target else "?") + f"digest={digest}"
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with self._request("PUT", target, headers, body, scope="pull,push") as response:
            self._expect(response, 201, "upload")

    def put_manifest(self, reference: str, data: bytes, media_type: str) -> None:
        """Send a manifest under a tag. Raises I006."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(data))}
        path = f"/v2/{self.repository}/manifests/{reference}"
        with self._request("PUT", path, headers, data, scope="pull,push") as response:
            self._expect(response, 201, "manifest")

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: IO[bytes] | bytes | None = None,
        scope: str = "pull",
    ) -> HTTPResponse:
        """One request, its challenge answered and its redirects followed."""
        url = path if "://" in path else self._base + path
        for _ in range(2):
            response = self._follow(method, url, headers or {}, body)
            if response.status != 401:
                return response
            with response:
                response.read(1 << 16)
                wanted = response.headers.get("WWW-Authenticate") or ""
            if not self._authorize(wanted, scope):
                break
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
        raise ContainustError(
            "I006",
            f"{self.registry} refuses {self.repository}: not authorized",
            f"`docker login {self.registry}`, or set CONTAINUST_REGISTRY_USER and _PASSWORD",
        )

    def _follow(self, method: str, url: str, headers: dict[str, str], body: IO[bytes] | bytes | None) -> HTTPResponse:
        from urllib.parse import urljoin, urlsplit

        for _ in range(REDIRECTS):
            parts = urlsplit(url)
            own = f"{parts.scheme}://{parts.netloc}" == self._base
            sent = dict(headers)
            if own and self._authorization:
                sent["Authorization"] = self._authorization
            response = self._send(method, parts.scheme, parts.netloc, url, sent, body)
            if response.status not in (301, 302, 303, 307, 308) or method not in ("GET", "HEAD"):
                return response
            with response:
                response.read(1 << 16)
                url = urljoin(url, response.headers.get("Location") or "")
            if urlsplit(url).scheme != "https" and not self._may_be_plain(urlsplit(url).hostname):
                raise failed(self.registry, "it redirects to a place without TLS")
        raise failed(self.registry, "it redirects too often")

    def _send(
        self,
        method: str,
        scheme: str,
        host: str,
        url: str,
        headers: dict[str, str],
        body: IO[bytes] | bytes | None,
    ) -> HTTPResponse:
        from http.client import HTTPException
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        key = f"{scheme}://{host}"
        for fresh in (False, True):
            connection = self._connections.get(key)
            if connection is None or fresh:
                connection = self._connections[key] = connect(scheme, host)
            try:
                connection.request(method, target, body, {"User-Agent": "containust", **headers})
                return connection.getresponse()
            except (OSError, HTTPException) as error:
                connection.close()
                del self._connections[key]
                # A connection that was kept may have been closed meanwhile; a new one that fails has a
                # reason.
                if fresh or (body is not None and not isinstance(body, bytes)):
                    raise self._unreachable(method, key, error) from error
        raise AssertionError

    def _may_be_plain(self, host: str | None) -> bool:
        """Whether this registry may send us to ``host`` without TLS: only one of this machine to this machine."""
        return is_loopback(host or "") and is_loopback(without_port(self._host))

    def _authorize(self, wanted: str, scope: str) -> bool:
        """Answer a challenge; whether there is anything to try again with."""
        scheme, parameters = challenge(wanted)
        credentials = find_credentials(self.registry)
        before = self._authorization
        if scheme == "basic" and credentials is not None and not credentials.token:
            self._authorization = credentials.basic()
        elif scheme == "bearer" and credentials is not None and credentials.token:
            self._authorization = f"Bearer {credentials.token}"
        elif scheme == "bearer" and "realm" in parameters:
            self._authorization = self._token(parameters, scope, credentials.basic() if credentials else "")
        return self._authorization not in ("", before)

    def _token(self, parameters: dict[str, str], scope: str, basic: str) -> str:
        from urllib.parse import urlencode, urlsplit

        realm = parameters["realm"]
        parts = urlsplit(realm)
        if parts.scheme != "https" and not (parts.scheme == "http" and self._may_be_plain(parts.hostname)):
            raise failed(self.registry, "its token service has no TLS")
        query = urlencode(
            {
                "service": parameters.get("service", ""),
                "scope": parameters.get("scope") or f"repository:{self.repository}:{scope}",
            }
        )
        url = f"{realm}{'&' if parts.query else '?'}{query}"
        headers = {"Authorization": basic} if basic else {}
        with self._send("GET", parts.scheme, parts.netloc, url, headers, None) as response:
            data = response.read(1 << 20)
            if response.status != 200:
                return ""
        from json import loads

        try:
            value = loads(data)
            return "Bearer " + str(value.get("token") or value["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise failed(self.registry, "its token service gave no token") from None

    def _expect(self, response: HTTPResponse, status: int, what: str) -> None:
        if response.status != status:
            text = show(response.read(300)) if status else ""
            raise failed(f"{self.registry}/{self.repository}: {what}", f"it answers {response.status} {text}")

    @staticmethod
    def _unreachable(method: str, url: str, error: Exception) -> Unreachable:
        reason = str(error) or type(error).__name__
        help = "check the network and the registry, then try again"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            host = url.partition("://")[2]
            help = (
                f"put its authority's certificate into /etc/docker/certs.d/{host}/ca.crt, or name it in SSL_CERT_FILE"
            )
        return Unreachable("I006", f"{method} {url}: {reason}", help)
