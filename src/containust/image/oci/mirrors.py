"""Where a repository may be fetched from besides its own registry.

``CONTAINUST_REGISTRY_MIRRORS`` has words of the form ``REGISTRY=MIRROR[/PREFIX]``; after those come the mirrors of
``registries.conf`` as podman and skopeo read it (containers-registries.conf(5): ``[[registry]]`` with ``prefix`` or
``location`` and its ``[[registry.mirror]]``) and, for Docker Hub, ``registry-mirrors`` of docker's ``daemon.json``.
A mirror is only a nearer copy: what a digest pins must be what it names, and without TLS only loopback is asked.
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError, UsageError
from containust.image.oci.auth import DOCKER_HUB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REGISTRIES = ("~/.config/containers/registries.conf", "/etc/containers/registries.conf")
DAEMON = "/etc/docker/daemon.json"
VARIABLE = "CONTAINUST_REGISTRY_MIRRORS"


def places(registry: str, repository: str) -> list[tuple[str, str]]:
    """(registry, repository) pairs to ask in turn; the repository's own registry is the last."""
    found = [*_of_environment(registry, repository), *_of_file(registry, repository)]
    if registry == DOCKER_HUB:
        found += [(mirror, repository) for mirror in _of_daemon()]
    own = (registry, repository)
    return [*dict.fromkeys(place for place in found if place != own), own]


def _of_environment(registry: str, repository: str) -> list[tuple[str, str]]:
    found = []
    for word in os.environ.get(VARIABLE, "").split():
        of, equals, mirror = word.partition("=")
        host, _, prefix = mirror.partition("/")
        if not equals or not of or not host or "://" in word:
            raise UsageError(f"{VARIABLE} has {word!r}", "write REGISTRY=MIRROR, as in docker.io=mirror.example:5000")
        if of == registry:
            found.append((host, f"{prefix.rstrip('/')}/{repository}" if prefix else repository))
    return found


def _of_file(registry: str, repository: str) -> list[tuple[str, str]]:
    """By the entry with the longest prefix of ``registry/repository``."""
    name = f"{registry}/{repository}"
    best: dict[str, Any] = {}
    length = 0
    for entry in _registries():
        prefix = str(entry.get("prefix") or entry.get("location") or "")
        if len(prefix) > length and (name == prefix or name.startswith(f"{prefix}/")):
            best, length = entry, len(prefix)
    found = []
    for mirror in best.get("mirror", ()):
        host, _, prefix = (str(mirror.get("location", "")) + name[length:]).partition("/")
        if host and prefix:
            found.append((host, prefix))
    return found


def _registries() -> list[dict[str, Any]]:
    import tomllib

    for path in REGISTRIES:
        try:
            with open(os.path.expanduser(path), "rb") as file:
                entries = tomllib.load(file).get("registry", [])
        except OSError:
            continue
        except ValueError as error:
            raise ContainustError("I006", f"{os.path.expanduser(path)}: {error}", "mend or remove it") from None
        return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return []


def _of_daemon() -> list[str]:
    from json import loads

    try:
        with open(DAEMON, "rb") as file:
            listed = loads(file.read(1 << 20)).get("registry-mirrors")
    except (OSError, ValueError, AttributeError):
        return []  # docker's own business
    return [str(url).partition("://")[2].rstrip("/") for url in listed or () if "://" in str(url)]
