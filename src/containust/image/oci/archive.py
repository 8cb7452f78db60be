"""Images inside files: OCI layouts (image-layout.md) and ``docker save`` archives, as a tar or as a
directory.
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.common.reference import parse_reference
from containust.image.limits import DOCUMENT_MAX
from containust.image.members import S_IFLNK, S_IFMT, S_IFREG, components, show
from containust.image.oci.documents import (
    choose_platform,
    descriptors,
    diff_ids,
    digest_of,
    document,
    image_config,
    invalid,
    kind_of,
    parsed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TypeGuard

    from containust.common.types import ImageConfig
    from containust.image.members import Entry

NESTING_MAX = 4
REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


class Region:
    """A part of an open file as a readable file; ``update`` (of a hash) sees every byte once it is read."""

    def __init__(self, fd: int, offset: int, size: int, update: Any = None) -> None:
        self._fd = fd
        self._offset = offset
        self._size = size
        self._at = 0
        self._update = update
        self._hashed = 0

    def read(self, count: int = -1) -> bytes:
        """Up to ``count`` bytes from here on; empty at the end."""
        left = self._size - self._at
        count = left if count < 0 else min(count, left)
        data = os.pread(self._fd, count, self._offset + self._at) if count else b""
        self._at += len(data)
        if self._update is not None and self._at > self._hashed:
            self._update(data[len(data) - (self._at - self._hashed) :])
            self._hashed = self._at
        return data

    def seek(self, position: int) -> None:
        """Go to ``position``."""
        self._at = position

    def finish(self) -> None:
        """Read what is left, so that the hash has seen all."""
        while self.read(1 << 20):
            pass


class Files:
    """The members of an archive or a directory by name: (open file, offset, size)."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[int, int, int]] = {}
        self._links: dict[str, str] = {}
        self._directory = -1

    @classmethod
    def of_tar(cls, fd: int, entries: Iterable[Entry]) -> Files:
        """Of a tar that is open as ``fd``; a later member replaces an earlier one of its name."""
        files = cls()
        for entry in entries:
            name = "/".join(os.fsdecode(part) for part in components(entry.path))
            if entry.hardlink or entry.mode & S_IFMT == S_IFLNK:
                target = os.fsdecode(entry.target)
                if not entry.hardlink:
                    target = os.path.join(os.path.dirname(name), target)
                files._links[name] = os.path.normpath(target)
            elif entry.mode & S_IFMT == S_IFREG and entry.segments is None:
                files._members[name] = (fd, entry.offset, entry.size)
        return files

    @classmethod
    def of_directory(cls, path: str) -> Files:
        """Of an OCI layout's directory. Close it with :meth:`close`."""
        files = cls()
        files._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return files

    def find(self, name: str) -> tuple[int, int, int] | None:
        """Where the member ``name`` lies, through up to eight links."""
        for _ in range(8):
            if name in self._members:
                return self._members[name]
            if name not in self._links:
                break
            name = self._links[name]
        if self._directory >= 0:
            from stat import S_ISREG

            from containust.core.syscalls import RESOLVE_BENEATH, openat2

            try:
                fd = openat2(self._directory, name, os.O_RDONLY | os.O_NONBLOCK, RESOLVE_BENEATH)
            except OSError:
                return None
            s = os.fstat(fd)
            self._members[name] = (fd, 0, s.st_size if S_ISREG(s.st_mode) else 0)
            return self._members[name]
        return None

    def read(self, name: str, what: str) -> bytes:
        """A small member's content. Raises I004 when it is missing or large."""
        member = self.find(name)
        if member is None:
            raise invalid(what, f"lacks {name!r}")
        if member[2] > DOCUMENT_MAX:
            raise invalid(what, f"has a {name!r} of more than {DOCUMENT_MAX >> 20} MiB")
        return Region(*member).read()

    def blob(self, descriptor: dict[str, Any], what: str) -> bytes:
        """A small blob, verified. Raises I002 when it is not what its digest says."""
        from hashlib import sha256

        from containust.image.staging import check_digest

        hexadecimal = digest_of(descriptor.get("digest"), what)
        data = self.read(f"blobs/sha256/{hexadecimal}", what)
        check_digest(f"sha256:{hexadecimal}", f"sha256:{sha256(data).hexdigest()}", f"{what}: blob")
        return data

    def close(self) -> None:
        """Close what :meth:`of_directory` opened."""
        if self._directory >= 0:
            for fd, _, _ in self._members.values():
                os.close(fd)
            os.close(self._directory)


class Found:
    """One image of an archive: its configuration, its layers lowest first, and the names that it has there.

    A layer is (where it lies, its DiffID, the digest of the bytes as they are or None), digests in
    hexadecimal.
    """

    __slots__ = ("config", "layers", "names")

    def __init__(
        self,
        config: ImageConfig,
        layers: list[tuple[tuple[int, int, int], str, str | None]],
        names: list[str],
    ) -> None:
        self.config = config
        self.layers = layers
        self.names = names


def is_archive(files: Files) -> bool:
    """Whether this is an image archive rather than a root file system."""
    if files.find("oci-layout") and files.find("index.json"):
        return True
    member = files.find("manifest.json")
    if member is None or member[2] > DOCUMENT_MAX:
        return False
    head = Region(*member).read().lstrip()
    return head.startswith(b"[") and b'"Layers"' in head


def read_archive(files: Files, what: str) -> list[Found]:
    """All images of the archive. Raises I001, I002, I004."""
    if files.find("oci-layout") and files.find("index.json"):
        return _read_layout(files, what)
    return _read_docker(files, what)


def _read_layout(files: Files, what: str) -> list[Found]:
    layout = document(files.read("oci-layout", what), f"{what}: oci-layout")
    if not str(layout.get("imageLayoutVersion", "")).startswith("1."):
        raise invalid(what, "is an OCI layout of an unknown version")
    index = document(files.read("index.json", what), f"{what}: index.json")
    kind_of({"manifests": [], **index}, what)
    found = []
    for item in descriptors(index.get("manifests"), what):
        annotations = item.get("annotations")
        if not isinstance(annotations, dict):
            annotations = {}
        if annotations.get("vnd.docker.reference.type") == "attestation-manifest":
            continue
        name = annotations.get(CONTAINERD_NAME) or annotations.get(REF_NAME)
        image = _read_manifest(files, item, what)
        image.names = [name] if _is_name(name) else []  # a layout may call its images what it likes
        found.append(image)
    if not found:
        raise invalid(what, "holds no image")
    return found


def _read_manifest(files: Files, descriptor: dict[str, Any], what: str) -> Found:
    for _ in range(NESTING_MAX):
        manifest = document(files.blob(descriptor, what), f"{what}: manifest")
        if kind_of(manifest, what, str(descriptor.get("mediaType", ""))) == "manifest":
            break
        descriptor = choose_platform(manifest, what)
    else:
        raise invalid(what, "has indexes nested too deeply")
    (config_descriptor,) = descriptors([manifest.get("config")], what)
    config = document(files.blob(config_descriptor, what), f"{what}: configuration")
    blobs = descriptors(manifest.get("layers"), what)
    ids = diff_ids(config, what)
    if len(ids) != len(blobs):
        raise invalid(what, f"has {len(blobs)} layers and {len(ids)} DiffIDs")
    layers: list[tuple[tuple[int, int, int], str, str | None]] = []
    for blob, diff_id in zip(blobs, ids, strict=True):
        digest = digest_of(blob["digest"], what)
        member = files.find(f"blobs/sha256/{digest}")
        if member is None:
            raise invalid(what, f"lacks the layer sha256:{digest}")
        layers.append((member, diff_id, digest))
    return Found(image_config(config, what), layers, [])


def _read_docker(files: Files, what: str) -> list[Found]:
    manifest = parsed(files.read("manifest.json", what), f"{what}: manifest.json")
    if not isinstance(manifest, list) or not manifest or not all(isinstance(item, dict) for item in manifest):
        raise invalid(what, "has a manifest.json that lists no image")
    found = []
    for item in manifest:
        names = item.get("RepoTags") or []
        paths = item.get("Layers")
        if not isinstance(item.get("Config"), str) or not isinstance(paths, list) or not isinstance(names, list):
            raise invalid(what, "has a manifest.json without Config and Layers")
        config = document(files.read(item["Config"], what), f"{what}: configuration")
        ids = diff_ids(config, what)
        if len(ids) != len(paths):
            raise invalid(what, f"has {len(paths)} layers and {len(ids)} DiffIDs")
        layers: list[tuple[tuple[int, int, int], str, str | None]] = []
        for path, diff_id in zip(paths, ids, strict=True):
            member = files.find(os.path.normpath(str(path)))
            if member is None:
                raise invalid(what, f"lacks the layer {str(path)[:200]!r}")
            layers.append((member, diff_id, None))
        if not all(_is_name(name) for name in names):
            raise invalid(what, f"has names that no image can have: {show(repr(names).encode())}")
        found.append(Found(image_config(config, what), layers, names))
    return found


def _is_name(name: Any) -> TypeGuard[str]:
    """Whether an image can be called so: what `image://NAME` takes, without a pin."""
    try:
        return isinstance(name, str) and parse_reference(f"image://{name}").digest is None
    except ContainustError:
        return False
