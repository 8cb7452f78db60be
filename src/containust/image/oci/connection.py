"""Connections to registries: whom to trust, by which proxy, and whether a loopback registry speaks TLS.

Certificates are checked against those of the system (``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name others, openssl's own
variables) and, for a registry alone, against ``*.crt`` in the directories that docker and podman read:
``/etc/docker/certs.d/HOST[:PORT]/``, ``/etc/containers/certs.d/…``, ``~/.config/containers/certs.d/…``. A ``*.cert``
with its ``*.key`` there is shown to the registry. There is no way to switch verification off.
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from http.client import HTTPConnection
    from ssl import SSLContext

TIMEOUT = 30.0
PROBE_TIMEOUT = 5.0
CERTIFICATES = ("/etc/docker/certs.d", "/etc/containers/certs.d", "~/.config/containers/certs.d")


class Unreachable(ContainustError):
    """The I006 of a connection that could not be made or broke, which trying again may mend."""


def failed(what: str, reason: str) -> ContainustError:
    """The I006 error."""
    return ContainustError("I006", f"{what}: {reason}", "check the network and the registry, then try again")


def is_loopback(host: str) -> bool:
    """Whether ``host`` (without its port) is this machine."""
    return host in ("localhost", "[::1]", "::1") or host.startswith("127.")


def without_port(host: str) -> str:
    """The host of ``host[:port]``."""
    return host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host


def connect(scheme: str, host: str) -> HTTPConnection:
    """A connection to ``host[:port]``, not open yet. Raises I006 for unusable certificates."""
    from http.client import HTTPConnection, HTTPSConnection

    if scheme != "https":
        return HTTPConnection(host, timeout=TIMEOUT)
    login, _, proxy = _proxy(host).rpartition("@")
    if not proxy:
        return HTTPSConnection(host, timeout=TIMEOUT, context=context(host))
    connection = HTTPSConnection(proxy, timeout=TIMEOUT, context=context(host))
    name = without_port(host)
    headers = {}
    if login:
        from base64 import b64encode
        from urllib.parse import unquote

        headers["Proxy-Authorization"] = "Basic " + b64encode(unquote(login).encode()).decode()
    connection.set_tunnel(name, int(host[len(name) + 1 :] or 443), headers)
    return connection


def speaks_tls(host: str) -> bool:
    """Whether the registry at the loopback address ``host[:port]`` answers a TLS handshake.

    False when it speaks plain HTTP. A certificate that does not hold is no reason to do without: it counts as TLS,
    and the connection that follows fails by it. Raises :class:`Unreachable` when nothing listens.
    """
    import socket
    import ssl

    name = without_port(host)
    port = int(host[len(name) + 1 :] or 443)
    try:
        raw = socket.create_connection((name.strip("[]"), port), PROBE_TIMEOUT)
    except OSError as error:
        if port == 443 and host == name:
            return False  # no port given: port 80 may do
        raise Unreachable("I006", f"{host}: {error.strerror or error}", "is the registry running?") from error
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE  # nothing is sent over this one
    try:
        with raw, unchecked.wrap_socket(raw, server_hostname=name.strip("[]")):
            return True
    except OSError:
        return False


def context(host: str) -> SSLContext:
    """What to trust, and what to show, when talking to ``host[:port]``."""
    import ssl

    made = ssl.create_default_context()
    for base in CERTIFICATES:
        directory = f"{os.path.expanduser(base)}/{host}"
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            path = f"{directory}/{name}"
            try:
                if name.endswith(".crt"):
                    made.load_verify_locations(path)
                elif name.endswith(".cert"):
                    made.load_cert_chain(path, f"{path.removesuffix('.cert')}.key")
            except OSError as error:
                raise ContainustError(
                    "I006", f"{path} cannot be used as a certificate: {error}", "mend or remove it"
                ) from error
    return made


def _proxy(host: str) -> str:
    """``[user:password@]host:port`` of the proxy of HTTPS_PROXY; empty for none, and where NO_PROXY has ``host``."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies_environment, proxy_bypass

    url = getproxies_environment().get("https", "")
    if not url or is_loopback(without_port(host)) or proxy_bypass(host):
        return ""
    return urlsplit(url if "://" in url else f"http://{url}").netloc
