"""The text of /etc/hosts, /etc/hostname and /etc/resolv.conf of a container."""

from __future__ import annotations

from containust.common import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from containust.runtime.network.attachment import Attachment

# systemd-resolved's stub (127.0.0.53) is the host's loopback; the servers behind it are listed here.
RESOLVED = "/run/systemd/resolve/resolv.conf"
_LIMIT = 64 * 1024


def hosts_file(
    hostname: str,
    names: Sequence[str],
    own: Sequence[Attachment],
    peers: Mapping[str, Sequence[Attachment]],
) -> str:
    """``/etc/hosts``: loopback, the container's own ``names`` and ``hostname``, and each peer by its names.

    A peer resolves to its addresses on shared networks only; one that shares none is not mentioned. In
    ``peers`` a key
    may hold several names separated by spaces. Addresses of the first shared network come first.
    """
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
    ]
    me = " ".join(dict.fromkeys((hostname, *names)))
    if own:
        for one in own:
            lines += [f"{address}\t{me}" for address in (one.address, one.address6) if address]
    else:
        lines.append(f"127.0.0.1\t{me}")
    mine = [one.network for one in own]
    for peer, attachments in peers.items():
        shared = [one for one in attachments if one.network in mine]
        if len(shared) > 1:
            shared.sort(key=lambda one: mine.index(one.network))
        for one in shared:
            lines += [f"{address}\t{peer}" for address in (one.address, one.address6) if address]
    return "\n".join(lines) + "\n"


def hostname_file(hostname: str) -> str:
    """``/etc/hostname``."""
    return hostname + "\n"


def resolv_conf(
    network: str = "own", *, offline: bool = False, path: str = "/etc/resolv.conf", resolved: str = RESOLVED
) -> str:
    """``/etc/resolv.conf`` for a container, from the host's: as it is for one whose ``network`` is ``"host"``.

    Loopback name servers are the host's own and cannot be reached from a container; if these are all there
    are,
    systemd-resolved's list of real servers is used. Without any server left, or offline, the file names none
    and says
    why: names of peers come from /etc/hosts, others fail at once. Search domains and options are kept.
    """
    if offline:
        return "# offline: no name server\noptions attempts:1 timeout:1\n"
    if network == "host":
        return _read(path)
    servers, others = _parse(_read(path))
    usable = [s for s in servers if not _is_loopback(s)]
    if not usable:
        resolved_servers, resolved_others = _parse(_read(resolved))
        usable = [s for s in resolved_servers if not _is_loopback(s)]
        others = resolved_others if usable else others
    lines = [*others, *(f"nameserver {server}" for server in usable)]
    if not usable:
        lines.insert(0, "# the host has no name server that a container can reach")
    return "\n".join(lines) + "\n"


def _parse(text: str) -> tuple[list[str], list[str]]:
    """Name servers, and the lines that a container keeps."""
    servers, others = [], []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            servers.append(words[1])
        elif words and words[0] in ("search", "domain", "options"):
            kept = [w for w in words if w not in ("edns0", "trust-ad")]
            if len(kept) > 1:
                others.append(" ".join(kept))
    return servers, others


def _is_loopback(server: str) -> bool:
    # A scoped link-local address (fe80::1%eth0) names an interface that the container does not have.
    return server.startswith("127.") or server in ("::1", "0.0.0.0", "::") or "%" in server


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _LIMIT).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def names_line(names: Iterable[str]) -> str:
    """Several names of one peer as a key for :func:`hosts_file`."""
    return " ".join(dict.fromkeys(names))
