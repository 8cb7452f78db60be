"""``tar://``: an archive, plain or compressed, of a root file system or of an image in OCI or Docker form."""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG

from containust.common.errors import ContainustError
from containust.common.types import ImageConfig
from containust.image.decompress import compression_of, decompress
from containust.image.durable import sync_beside
from containust.image.hashing import FileDigests, StreamDigests, digests
from containust.image.importing import DEFAULT_PATH, Imported, settle
from containust.image.layers import build_tree
from containust.image.limits import Limits, exceeded
from containust.image.members import components, show
from containust.image.oci.archive import Files, Found, Region, is_archive, read_archive
from containust.image.pack import changed, unreadable
from containust.image.staging import Layer, Staging, check_digest
from containust.image.store import missing
from containust.image.tar_index import scan
from containust.image.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from containust.common.reference import Reference
    from containust.image.members import Entry
    from containust.image.store import Progress


def import_archive(staging: Staging, reference: Reference, progress: Progress | None = None) -> Imported:
    """Import a ``tar://`` reference, which must hold one image. Raises I001 to I004."""
    found = _imported_before(staging, reference)
    if found is None:
        found = import_file(staging, reference.location, reference.digest, progress, _one_image)[0][0]
    return found


def _one_image(images: list[Found], path: str) -> None:
    if len(images) > 1:
        names = ", ".join(name for found in images for name in found.names)
        raise ContainustError(
            "I004",
            f"{path} holds {len(images)} images: {show(names.encode())}",
            f"`ctst load {path}` takes them all; use one as image://NAME then",
        )


def _any_images(images: list[Found], path: str) -> None:
    """Take all that there are."""


def _imported_before(staging: Staging, reference: Reference) -> Imported | None:
    """The image of the same compressed archive under another name: reading it is enough, nothing is unpacked again."""
    from containust.image.catalog import entries
    from containust.image.store import config_of

    path = reference.location
    try:
        before = os.stat(path)
    except OSError:
        return None
    kin = [
        entry for _, entry in entries(staging.store) if entry["image"].get("archive", {}).get("size") == before.st_size
    ]
    if not kin or not S_ISREG(before.st_mode):
        return None
    settle(before.st_ctime_ns)
    digest = f"sha256:{digests(path)[0]}"
    if os.stat(path).st_ctime_ns != before.st_ctime_ns:
        raise changed(path)
    check_digest(reference.digest, digest, path)
    for entry in kin:
        image = entry["image"]
        if image["archive"]["digest"] == digest and staging.store.layers_unchanged(entry):
            facts = {key: image[key] for key in ("size", "devices", "standard_targets", "archive")}
            return Imported(image["layer"], facts, config_of(image["config"]), _sources(path, before))
    return None


def _sources(path: str, file: os.stat_result) -> dict[str, os.stat_result]:
    """What must not change for an image of the archive ``path`` to stay one: the file, and a link that leads to it."""
    found = {os.path.abspath(path): os.lstat(path)}
    if os.path.islink(path):
        found[os.path.realpath(path)] = file
    return found


def import_file(
    staging: Staging,
    path: str,
    expected: str | None = None,
    progress: Progress | None = None,
    accept: Callable[[list[Found], str], None] = _any_images,
) -> list[tuple[Imported, list[str]]]:
    """Every image in the archive file or OCI layout directory ``path``, each with the names that it has there.

    ``accept`` sees what the archive holds, and ``path``, before anything of it is imported, and may raise.
    """
    try:
        before = os.stat(path)
    except OSError as error:
        if error.errno == 2:
            raise missing(
                f"there is no archive {path}", "check the path; relative ones start at the .ctst file"
            ) from error
        raise unreadable(path, error) from error
    if S_ISDIR(before.st_mode):
        return _import_layout(staging, path, accept)
    if not S_ISREG(before.st_mode):
        raise missing(f"{path} is not a file", "tar:// wants an archive")
    settle(before.st_ctime_ns)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        before = os.fstat(fd)
        if progress:
            progress("reading", 0, before.st_size)
        images = _import_open(staging, fd, path, before.st_size, expected, accept)
        if os.fstat(fd).st_ctime_ns != before.st_ctime_ns:
            raise changed(path)
        if progress:
            progress("reading", before.st_size, before.st_size)
    finally:
        os.close(fd)
    for imported, _ in images:
        imported.sources.update(_sources(path, before))
    return images


def _import_open(
    staging: Staging,
    fd: int,
    path: str,
    size: int,
    expected: str | None,
    accept: Callable[[list[Found], str], None],
) -> list[tuple[Imported, list[str]]]:
    limits = Limits()
    plain_fd = fd
    plain_path = ""
    known: tuple[str, bytes] | None = None
    archive: dict[str, Any] = {}
    if compression_of(os.pread(fd, 16, 0)):
        from hashlib import sha256

        whole = sha256()
        region = Region(fd, 0, size, whole.update)
        plain_path = f"{staging.path}/archive.tar"
        with StreamDigests() as stream:
            decompress(region, plain_path, limits, stream.update)
        known = stream.result()
        region.finish()
        archive = {"size": size, "digest": f"sha256:{whole.hexdigest()}"}
        check_digest(expected, archive["digest"], path)
        plain_fd = os.open(plain_path, os.O_RDONLY | os.O_CLOEXEC)
    elif expected:
        known = digests(f"/proc/self/fd/{fd}")
        check_digest(expected, f"sha256:{known[0]}", path)
    try:
        entries = _index(plain_fd, limits, path)
        files = Files.of_tar(plain_fd, entries) if _may_be_archive(entries) else None
        if files is not None and is_archive(files):
            images = _import_found(staging, files, path, accept)
        else:
            images = [(_import_root(staging, entries, plain_fd, plain_path, known, limits), [])]
        if archive and len(images) == 1:
            images[0][0].facts["archive"] = archive
        return images
    finally:
        if plain_fd != fd:
            os.close(plain_fd)


def _import_root(
    staging: Staging, entries: list[Entry], fd: int, path: str, known: tuple[str, bytes] | None, limits: Limits
) -> Imported:
    """A root file system's tar, open as ``fd``, as an image of one layer; ``path`` is where it is staged already."""
    size = os.fstat(fd).st_size
    if known is not None and path and not os.path.isdir(f"{staging.store.directory}/layers/{known[0]}"):
        sync_beside(path)
    if known is None and not _stored_size(staging, size):
        # Surely new: it is copied, and hashed and written to the disk while its members are merged.
        path = f"{staging.path}/archive.tar"
        copy_file(fd, path)
        sync_beside(path)
        with FileDigests(path) as work:
            return _of_one_layer(staging, entries, Layer("", size, b"", path, work), limits)
    return _of_one_layer(staging, entries, _plain_layer(staging, fd, path, known), limits)


def _of_one_layer(staging: Staging, entries: list[Entry], layer: Layer, limits: Limits) -> Imported:
    tree = Tree(limits)
    tree.add_layer(entries, 0)
    shell = tree.find([b"bin", b"sh"])
    config = ImageConfig(env=[DEFAULT_PATH], command=["/bin/sh"] if shell is not None else [])
    root, facts = staging.add_root(tree, [layer])
    return Imported(root, facts, config, {})


def _stored_size(staging: Staging, size: int) -> bool:
    """Whether the store has a layer of this many bytes, so that it may be the one asked for."""
    directory = f"{staging.store.directory}/layers"
    return any(os.stat(f"{directory}/{name}/layer.tar").st_size == size for name in os.listdir(directory))


def _index(fd: int, limits: Limits, path: str) -> list[Entry]:
    import mmap

    if os.fstat(fd).st_size == 0:
        raise ContainustError("I004", f"{path} is empty", "download or make the archive again")
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
        entries = list(scan(data, limits))
    if not entries:
        raise ContainustError("I004", f"{path} holds no files", "download or make the archive again")
    return entries


def _may_be_archive(entries: list[Entry]) -> bool:
    names = (b"manifest.json", b"index.json")
    return any(entry.path.endswith(names) and components(entry.path)[0] in names for entry in entries)


def _plain_layer(staging: Staging, fd: int, path: str, known: tuple[str, bytes] | None) -> Layer:
    """A root file system's tar as a layer; it is copied first when it is the user's file and not stored
    yet.
    """
    size = os.fstat(fd).st_size
    digest, chunks = known or digests(path or f"/proc/self/fd/{fd}")
    if not path and not os.path.isdir(f"{staging.store.directory}/layers/{digest}"):
        path = f"{staging.path}/archive.tar"
        copy_file(fd, path)
    return Layer(digest, size, chunks, path)


def copy_file(fd: int, target: str) -> None:
    """Copy all of the open file ``fd`` to the new file ``target``, inside the kernel where it can."""
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        at = 0
        while at < size:
            try:
                done = os.copy_file_range(fd, out, size - at, at, at)
            except OSError:
                os.lseek(out, at, os.SEEK_SET)
                done = os.sendfile(out, fd, at, size - at)
            if done == 0:
                raise OSError(5, "the file became shorter while it was copied")
            at += done
    finally:
        os.close(out)


def _import_layout(
    staging: Staging, path: str, accept: Callable[[list[Found], str], None]
) -> list[tuple[Imported, list[str]]]:
    if not os.path.isfile(f"{path}/oci-layout"):
        raise missing(f"{path} is a directory without an image", f"for a root file system use file://{path}")
    files = Files.of_directory(path)
    try:
        images = _import_found(staging, files, path, accept)
    finally:
        files.close()
    for imported, _ in images:
        for name in ("index.json", "oci-layout"):
            imported.sources[f"{os.path.abspath(path)}/{name}"] = os.lstat(f"{path}/{name}")
    return images


def _import_found(
    staging: Staging, files: Files, what: str, accept: Callable[[list[Found], str], None]
) -> list[tuple[Imported, list[str]]]:
    """Store the images of an archive with their names: all of them or, when one is bad, none."""
    images = read_archive(files, what)
    accept(images, what)
    limits = Limits()
    if any(len(found.layers) > limits.layers for found in images):
        raise exceeded(f"{what} has an image of more than {limits.layers} layers", "CONTAINUST_IMAGE_MAX_LAYERS")
    staged: dict[str, Layer] = {}  # a layer may be there many times, as an empty one of steps that change nothing
    for found in images:
        for member, diff_id, blob in found.layers:
            if diff_id not in staged:
                staged[diff_id] = stage_blob(staging, Region(*member), diff_id, blob, what)
    layers = [[staged[diff_id] for _, diff_id, _ in found.layers] for found in images]
    if len(images) > 1:
        for one in layers:
            build_tree(staging.store, one)  # one at a time, as together they may be too large
    imported = []
    for found, one in zip(images, layers, strict=True):
        root, facts = staging.add_root(build_tree(staging.store, one), one)
        imported.append((Imported(root, facts, found.config, {}), found.names))
    return imported


def stage_blob(staging: Staging, region: Region, diff_id: str, blob: str | None, what: str) -> Layer:
    """Stage one layer, compressed or not, that must have ``diff_id`` and, as it is, the digest ``blob``."""
    stored = stored_layer(staging, diff_id)
    if stored is not None:
        return stored
    from hashlib import sha256

    path = f"{staging.path}/blob-{diff_id}"
    whole = sha256()
    if blob is not None:
        region._update = whole.update
    with StreamDigests() as stream:
        decompress(region, path, Limits(), stream.update)
    if blob is not None:
        region.finish()
        check_digest(f"sha256:{blob}", f"sha256:{whole.hexdigest()}", f"{what}: layer")
    return staging.stage_layer(path, f"sha256:{diff_id}", f"{what}: content of a layer", stream.result())


def stored_layer(staging: Staging, digest: str) -> Layer | None:
    """The layer with this DiffID when the store has it."""
    directory = f"{staging.store.directory}/layers/{digest}"
    try:
        size = os.path.getsize(f"{directory}/layer.tar")
        with open(f"{directory}/chunks.bin", "rb") as file:
            chunks = file.read()
    except OSError:
        return None
    return Layer(digest, size, chunks)
