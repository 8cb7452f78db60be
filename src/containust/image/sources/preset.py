"""``preset://``: short names for official root file systems.

Without a mirror a name stands for an official image of Docker Hub, pinned as any tag: ``images.lock`` keeps the digest
of the first use, and another one later is I002. No digests are listed here: a table that is not made anew for each
release of each publisher would hand out old systems with known holes.

``CONTAINUST_PRESET_MIRROR`` names a directory, or an https:// prefix, that is asked instead of any other place. It has
the archives and an index ``presets.json`` that pins them; the index itself may be pinned by ``@sha256:<hex>`` behind
the mirror's name, else ``images.lock`` keeps the digest of each archive. ::

    {"presets": {"alpine": {"x86_64": {"file": "alpine-minirootfs-3.21.3-x86_64.tar.gz", "digest": "sha256:…"}}}}
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError, UsageError
from containust.common.reference import PIN, Reference
from containust.image.importing import Imported
from containust.image.members import show
from containust.image.oci.documents import digest_of, document, invalid
from containust.image.staging import check_digest
from containust.image.store import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.image.staging import Staging
    from containust.image.store import Progress

VARIABLE = "CONTAINUST_PRESET_MIRROR"
INDEX = "presets.json"
OFFICIAL = {
    "almalinux": "docker.io/library/almalinux:9",
    "alpine": "docker.io/library/alpine:3.22",
    "busybox": "docker.io/library/busybox:1.37",
    "debian": "docker.io/library/debian:stable-slim",
    "fedora": "docker.io/library/fedora:42",
    "ubuntu": "docker.io/library/ubuntu:24.04",
}


def presets(*, offline: bool = False) -> list[dict[str, str | None]]:
    """What this machine can use: name, the source it stands for, and its digest where it is pinned already."""
    mirror = _mirror()
    if not mirror:
        return [{"name": name, "source": f"oci://{place}", "digest": None} for name, place in OFFICIAL.items()]
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        found = _read_index(place, offline)
    return [{"name": name, "source": f"{mirror}/{file}", "digest": f"sha256:{digest}"} for name, file, digest in found]


def import_preset(staging: Staging, reference: Reference, progress: Progress | None = None) -> Imported:
    """Import a ``preset://`` reference. Raises I001 for an unknown name, I002, I005 offline, I006."""
    from containust.image.sources.registry import check_lock, download, import_remote, write_lock
    from containust.image.sources.tar import import_file

    mirror = _mirror()
    offline = staging.store.offline
    if not mirror:
        place = OFFICIAL.get(reference.location)
        if place is None:
            raise _unknown(reference.location, list(OFFICIAL), "")
        if offline:
            raise _offline(str(reference))
        return import_remote(staging, Reference("oci", place, reference.digest), progress)
    index = _read_index(staging.path, offline)
    chosen = [(file, digest) for name, file, digest in index if name == reference.location]
    if not chosen:
        raise _unknown(reference.location, [name for name, _, _ in index], f" in {mirror}")
    ((file, digest),) = chosen
    check_digest(reference.digest, f"sha256:{digest}", f"{reference.location} of {mirror}")
    check_lock(staging.store.directory, str(reference), f"sha256:{digest}")
    path = f"{mirror}/{file}"
    if not mirror.startswith("/"):
        path = f"{staging.path}/download"
        download(f"{mirror}/{file}", path, progress)
    imported = import_file(staging, path, f"sha256:{digest}", progress)[0][0]
    imported.sources = {}
    if reference.digest is None:
        write_lock(staging, str(reference), f"sha256:{digest}")
    return imported


def _mirror() -> str:
    """The mirror without its pin, empty when there is none. Raises UsageError for what is neither path nor https."""
    mirror = os.environ.get(VARIABLE, "").partition(PIN)[0].rstrip("/")
    if mirror and not mirror.startswith(("/", "https://")):
        raise UsageError(f"{VARIABLE} is {mirror!r}", "set it to an absolute path or to an https:// address")
    return mirror


def _read_index(place: str, offline: bool) -> list[tuple[str, str, str]]:
    """(name, file, hexadecimal digest) of what the mirror has for this machine; ``place`` takes what is fetched."""
    from hashlib import sha256

    from containust.image.sources.registry import download

    mirror = _mirror()
    path = f"{mirror}/{INDEX}"
    if not mirror.startswith("/"):
        if offline:
            raise _offline(mirror)
        path = f"{place}/{INDEX}"
        download(f"{mirror}/{INDEX}", path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise missing(
            f"the mirror of presets has no readable {path}: {error.strerror}", f"correct or unset {VARIABLE}"
        ) from error
    pin = os.environ[VARIABLE].partition(PIN)[2]
    check_digest(f"sha256:{pin.lower()}" if pin else None, f"sha256:{sha256(data).hexdigest()}", f"{mirror}/{INDEX}")
    what = f"{mirror}/{INDEX}"
    entries = document(data, what).get("presets")
    if not isinstance(entries, dict):
        raise invalid(what, "has no object `presets`")
    found = []
    for name, machines in sorted(entries.items()):
        entry = machines.get(os.uname().machine) if isinstance(machines, dict) else None
        if entry is None:
            continue
        file_name = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(file_name, str) or "/" in file_name or file_name in ("", ".", ".."):
            raise invalid(what, f"names no file for {show(name.encode())}")
        found.append((name, file_name, digest_of(entry.get("digest"), what)))
    return found


def _unknown(name: str, names: list[str], where: str) -> ContainustError:
    from containust.common.suggest import nearest

    near = nearest(name, names)
    return missing(
        f"there is no preset {name}{where} for {os.uname().machine}",
        f"did you mean {near}?" if near else f"there are {', '.join(names) or 'none'}",
        "`ctst images --presets` lists them; oci:// takes any image of any registry",
    )


def _offline(what: str) -> ContainustError:
    return ContainustError(
        "I005",
        f"{what} would have to be fetched, but --offline is set",
        f"use it once online, or set {VARIABLE} to a directory",
    )
