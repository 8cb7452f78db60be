"""The image store: what ``.containust/images`` holds, and the quick way to an image that is in it.

::

    layers/<sha256 of the tar>/     layer.tar, chunks.bin (SHA-256 of each 256 KiB); immutable
    roots/<sha256 of manifest>/     manifest.json, meta.erofs, extra.bin (expanded sparse files), tree/ (when
    extracted)
    records/<sha256>.json           an image: its root and its configuration; the image id is this file's
    digest
    catalog/<hash>.json             one reference: its image, and the stamps that say whether both are still
    as imported
    staging/                        imports under way; what a killed one left is removed by the next
    partial/<sha256>                beginnings of blobs that a registry has yet to send the rest of

:meth:`ImageStore.find` is on every start's path: it reads one small file, compares stamps, writes nothing
and imports
nothing heavy. :meth:`ImageStore.ensure` imports what is missing; its work is in
:mod:`containust.image.importing`.
"""

from __future__ import annotations

import _json

from containust.common import os
from containust.common.errors import ContainustError
from containust.common.types import Healthcheck, ImageConfig, Port, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Progress = Callable[[str, int, int], None]  # (what, bytes done, bytes in all or 0)

SCHEMA = 1
FETCHED = ("oci://", "https://", "preset://")


class Image(Record):
    """An imported image.

    ``id`` is ``sha256:<hex>`` of its record and pins content and configuration; ``reference`` the URI as
    asked;
    ``layer`` names the merged root in the store; ``devices`` the files, relative to the store, that hold its
    contents,
    in the order that the metadata count them; ``size`` the bytes of its regular files; ``standard_targets``
    says that
    everything a start mounts on is there as a plain directory or file, so that the image can be the root
    without an
    overlay; ``directory`` is the host directory of a live image, else empty.
    """

    __slots__ = ("config", "devices", "directory", "id", "layer", "reference", "size", "standard_targets")

    def __init__(
        self,
        id: str,
        reference: str,
        config: ImageConfig,
        layer: str,
        size: int,
        devices: list[str],
        standard_targets: bool,
        directory: str = "",
    ) -> None:
        self.id = id
        self.reference = reference
        self.config = config
        self.layer = layer
        self.size = size
        self.devices = devices
        self.standard_targets = standard_targets
        self.directory = directory


class ImageStore:
    """The store in ``directory``; with ``offline`` no import may use the network (I005)."""

    def __init__(self, directory: str, *, offline: bool = False) -> None:
        self.directory = os.path.abspath(directory)
        self.offline = offline

    def find(
        self,
        uri: str,
        include: Sequence[str] = (),
        base: str = ".",
        *,
        distroless: Sequence[str] | None = None,
        live: bool = False,
    ) -> Image | None:
        """The image of ``uri`` when it is imported and nothing it was made from has changed, else None."""
        if live:
            from containust.image.importing import find_live

            return find_live(uri, base)
        key = reference_key(uri, include, base, distroless)
        entry = read_entry(self.entry_path(key))
        if entry is None or entry["key"] != key:
            return None
        if not sources_unchanged(entry) or not self.layers_unchanged(entry):
            return None
        if "CONTAINUST_REQUIRE_PROVENANCE" in os.environ and uri.startswith(FETCHED):
            from containust.image.oci.provenance import vouched

            if not vouched(self.directory, entry):
                return None
        return image_of(entry, uri)

    def ensure(
        self,
        uri: str,
        include: Sequence[str] = (),
        base: str = ".",
        *,
        distroless: Sequence[str] | None = None,
        live: bool = False,
        progress: Progress | None = None,
    ) -> Image:
        """The image of ``uri``, imported first where it is missing or its source has changed.

        ``include`` belongs to host:// and distroless images, relative paths start at ``base``; ``distroless`` reduces a
        file:// image to what these words of command lines need. Raises ContainustError I001
        (there is
        no such source), I002 (it is not what its digest says), I003, I004 (it is unsafe or no archive),
        I005, I006.
        """
        image = self.find(uri, include, base, distroless=distroless, live=live)
        if image is not None:
            return image
        from containust.image.importing import import_image

        return import_image(self, uri, include, base, distroless=distroless, live=live, progress=progress)

    def recorded(
        self,
        uri: str,
        include: Sequence[str] = (),
        base: str = ".",
        *,
        distroless: Sequence[str] | None = None,
        live: bool = False,
    ) -> Image:
        """The image of ``uri`` as it was imported, whatever has become of its sources since; as :meth:`ensure` if not
        at all."""
        key = reference_key(uri, include, base, distroless)
        entry = None if live else read_entry(self.entry_path(key))
        if entry is None or entry["key"] != key:
            return self.ensure(uri, include, base, distroless=distroless, live=live)
        return image_of(entry, uri)

    def entry_path(self, key: list[str]) -> str:
        """Where the catalog keeps the reference with this key."""
        return f"{self.directory}/catalog/{_name_of(chr(0).join(key))}.json"

    def layers_unchanged(self, entry: dict[str, Any]) -> bool:
        """Whether the stored files are those that were verified when they were written, by their stamps."""
        stat = os.stat
        directory = self.directory
        try:
            for path, stamp in zip(entry["files"], entry["file_stamps"], strict=True):
                s = stat(f"{directory}/{path}")
                if [s.st_ino, s.st_size, s.st_ctime_ns] != stamp:
                    return False
        except OSError:
            return False
        return True


def reference_key(uri: str, include: Sequence[str], base: str, distroless: Sequence[str] | None = None) -> list[str]:
    """What tells one reference from another: relative locations are bound to their directory."""
    location = uri.partition("://")[2]
    relative = location.startswith(".") or any(not path.startswith("/") for path in include)
    reduced = "" if distroless is None or uri.startswith("host:") else "\n".join(("distroless", *distroless))
    return [uri, os.path.abspath(base) if relative else "", reduced, *include]


def sources_unchanged(entry: dict[str, Any]) -> bool:
    """Whether every host file that the image was made from is as it was, by inode, size and change time."""
    lstat = os.lstat
    try:
        for path, stamp in zip(entry["sources"], entry["source_stamps"], strict=True):
            s = lstat(path)
            if [s.st_ino, s.st_size, s.st_ctime_ns] != stamp:
                return False
    except OSError:
        return False
    return True


def read_entry(path: str) -> dict[str, Any] | None:
    """A catalog entry, or None when there is none, or none that this version can read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(fd, 1 << 20):
            parts.append(part)
    except OSError:
        return None
    finally:
        os.close(fd)
    try:
        entry = parse(b"".join(parts).decode())
    except ValueError:
        return None
    if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
        return None
    return entry


class _Parser:
    # What _json's scanner asks of a JSONDecoder; the json package itself imports re.
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


_scan = _json.make_scanner(_Parser())  # type: ignore[arg-type, attr-defined, unused-ignore]


def parse(text: str) -> Any:
    """The JSON value in ``text``, which must begin with it. Raises ValueError."""
    try:
        value, _ = _scan(text, 0)
    except StopIteration:
        raise ValueError("no JSON value") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    return value


def image_of(entry: dict[str, Any], reference: str) -> Image:
    """The image that a catalog entry records."""
    image = entry["image"]
    return Image(
        image["id"],
        reference,
        config_of(image["config"]),
        image["layer"],
        image["size"],
        image["devices"],
        image["standard_targets"],
        image["directory"],
    )


def config_of(config: dict[str, Any]) -> ImageConfig:
    """An :class:`ImageConfig` from its ``as_dict()``."""
    probe = config["healthcheck"]
    return ImageConfig(
        config["entrypoint"],
        config["command"],
        config["env"],
        config["workdir"],
        config["user"],
        [Port(port["number"], port["protocol"]) for port in config["exposed_ports"]],
        config["volumes"],
        config["stop_signal"],
        Healthcheck(probe["command"], probe["interval"], probe["timeout"], probe["retries"], probe["start_period"])
        if probe
        else None,
        config["labels"],
    )


def missing(what: str, *help: str) -> ContainustError:
    """The I001 error."""
    return ContainustError("I001", what, *help)


def _name_of(text: str) -> str:
    """A file name for ``text``: 128-bit FNV-1a. Entries repeat their key, so a collision costs an import,
    no more.
    """
    value = 0x6C62272E07BB014262B821756295C58D
    for byte in text.encode("utf-8", "surrogateescape"):
        value = (value ^ byte) * 0x0000000001000000000000000000013B & 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF
    return f"{value:032x}"
