"""Imports by ``https://``: a cache by content, and a lock that notices when a file changes behind its
address.

What has been fetched once is never fetched again: a pinned or locked file comes from the cache, with or
without a network, so that the same sources always mean the same stack.
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.core.filesystem.private import make_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST = 16 * 2**20
SECONDS = 30
PIN = "@sha256:"


class Remote:
    """The remote files of one project. ``project`` is the ``.containust`` directory or its parent."""

    def __init__(self, project: str, environ: Mapping[str, str], offline: bool) -> None:
        if os.path.basename(project.rstrip("/")) != ".containust":
            project = os.path.join(project, ".containust")
        self.lock = os.path.join(project, "imports.lock")
        home = environ.get("HOME") or os.path.expanduser("~")
        cache = environ.get("CONTAINUST_CACHE_DIR") or os.path.join(home, ".containust", "cache")
        self.cache = os.path.join(cache, "imports", "sha256")
        self.offline = offline

    def content(self, reference: str) -> bytes:
        """The bytes of ``https://…[@sha256:<hex>]``.

        Raises E007 for a wrong pin, E016 when the content is not what pin or lock say, E017 when it would
        have to be fetched but must not, E008 when fetching fails, S001 for a damaged lock, S003 when cache
        or lock cannot be written.
        """
        url, separator, pin = reference.rpartition(PIN)
        if not separator:
            url, pin = reference, ""
        elif len(pin) != 64 or not set(pin.lower()) <= set("0123456789abcdef"):
            raise ContainustError("E007", "a pin has 64 hexadecimal digits", "write @sha256:<64 hex>")
        locked = {} if pin else self.read_lock()
        expected = pin.lower() or locked.get(url, "")
        cached = self.cached(expected) if expected else None
        if cached is not None:
            return cached
        if self.offline:
            raise ContainustError(
                "E017",
                f"{url} is not in the cache, and --offline forbids to fetch it",
                "fetch it once without --offline",
            )
        data = fetch(url)
        from hashlib import sha256

        found = sha256(data).hexdigest()
        if expected and found != expected:
            origin = "its pin" if pin else self.lock
            help = [f"expected sha256:{expected}", f"received sha256:{found}"]
            if not pin:
                help.append("if the change is wanted, remove its line from the lock")
            raise ContainustError("E016", f"the content of {url} differs from {origin}", *help)
        write(os.path.join(self.cache, found), data)
        if not expected:
            locked[url] = found
            self.write_lock(locked)
        return data

    def cached(self, digest: str) -> bytes | None:
        """The cached file of that digest; one that is damaged counts as absent."""
        from hashlib import sha256

        try:
            with open(os.path.join(self.cache, digest), "rb") as file:
                data = file.read()
        except OSError:
            return None
        return data if sha256(data).hexdigest() == digest else None

    def read_lock(self) -> dict[str, str]:
        """Digests by URL."""
        import json

        try:
            with open(self.lock, "rb") as file:
                imports = json.loads(file.read())["imports"]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ContainustError("S003", f"cannot read {self.lock}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            imports = None
        if not isinstance(imports, dict) or not all(
            isinstance(digest, str) and digest.startswith("sha256:") for digest in imports.values()
        ):
            raise ContainustError("S001", f"{self.lock} is damaged", "restore it, or remove it to lock anew")
        return {url: digest[7:] for url, digest in imports.items()}

    def write_lock(self, locked: dict[str, str]) -> None:
        import json

        document = {"version": 1, "imports": {url: f"sha256:{locked[url]}" for url in sorted(locked)}}
        write(self.lock, json.dumps(document, indent=2).encode() + b"\n")


def write(path: str, data: bytes) -> None:
    """Replace the file at ``path`` as a whole or not at all."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        make_private(os.path.dirname(path))
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ContainustError("S003", f"cannot write {path}: {error.strerror}", "check its permissions") from None


def fetch(url: str) -> bytes:
    """The content behind ``url``, over TLS all the way; E008 when it cannot be had."""
    import http.client
    import urllib.error
    import urllib.parse
    import urllib.request

    class Encrypted(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
            if not newurl.startswith("https://"):
                raise urllib.error.URLError("it leads to an address without encryption")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    if "@" in urllib.parse.urlsplit(url).netloc:
        raise ContainustError("E008", "an address cannot carry a password", "serve the file without one")
    opener = urllib.request.build_opener(Encrypted)
    request = urllib.request.Request(url, headers={"User-Agent": "containust", "Accept": "*/*"})
    try:
        with opener.open(request, timeout=SECONDS) as response:
            data: bytes = response.read(LARGEST + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise ContainustError("E008", f"cannot fetch {url}: status {error.code}", "check the address") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        reason = getattr(reason, "strerror", None) or reason
        raise ContainustError("E008", f"cannot fetch {url}: {reason}", "check the address and the network") from None
    if len(data) > LARGEST:
        raise ContainustError("E008", f"{url} is larger than {LARGEST >> 20} MiB")
    return data
