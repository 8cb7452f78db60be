"""``tar://``: an archive, plain or compressed, of a root file system or of an image in OCI or Docker form."""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG

from containust.common.errors import ContainustError
from containust.common.types import ImageConfig
from containust.image.decompress import compression_of, decompress
from containust.image.hashing import Follower, digests
from containust.image.importing import DEFAULT_PATH, Imported, settle
from containust.image.layers import build_tree
from containust.image.limits import Limits, exceeded
from containust.image.members import components, show
from containust.image.oci.archive import Files, Found, Region, is_archive, read_archive
from containust.image.pack import changed, unreadable
from containust.image.staging import Layer, Staging, check_digest
from containust.image.store import missing
from containust.image.tar_index import scan, text_of
from containust.image.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.common.reference import Reference
    from containust.image.members import Entry
    from containust.image.store import Progress

MEMBERS = 500  # more than an archive of images has; one that does have more is copied in vain, once
COPY = 8 << 20  # bytes copied at once


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
    """The image of the same archive under another name: reading it is enough, nothing is unpacked or indexed again."""
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
    if not compression_of(os.pread(fd, 16, 0)):
        return _import_plain(staging, fd, path, expected, accept, limits)
    from hashlib import sha256

    whole = sha256()
    region = Region(fd, 0, size, whole.update)
    staged = f"{staging.path}/archive.tar"
    with Follower(staged, _begins_images) as follower:
        decompress(region, staged, limits, follower.grown)
        follower.finished()
        region.finish()
        digest = f"sha256:{whole.hexdigest()}"
        check_digest(expected, digest, path)
        with open(staged, "rb") as plain:
            layer = Layer("", os.path.getsize(staged), b"", staged, follower)
            entries = _index(plain.fileno(), limits, path)
            files = _archive_files(plain.fileno(), entries)
            if files is not None:
                images = _import_found(staging, files, path, accept)
            else:
                images = [(_of_one_layer(staging, entries, layer, limits), [])]
    if len(images) == 1:
        images[0][0].facts["archive"] = {"size": size, "digest": digest}
    return images


def _import_plain(
    staging: Staging,
    fd: int,
    path: str,
    expected: str | None,
    accept: Callable[[list[Found], str], None],
    limits: Limits,
) -> list[tuple[Imported, list[str]]]:
    """The images in the open tar ``fd``, or the one whose root file system it is.

    A root file system is copied, and that begins before all its members are known: from then on others hash it and
    write it to the disk. The few members of an archive of images are known at once.
    """
    from itertools import islice
    from mmap import PROT_READ, mmap

    size = os.fstat(fd).st_size
    known = None
    if expected:
        known = digests(f"/proc/self/fd/{fd}")
        check_digest(expected, f"sha256:{known[0]}", path)
    if size == 0:
        raise _without(path)
    with mmap(fd, 0, prot=PROT_READ) as data:
        members = scan(data, limits)
        entries = list(islice(members, MEMBERS))
        if not entries:
            raise _without(path)
        stored = None
        if len(entries) == MEMBERS or _archive_files(fd, entries) is None:
            stored = _stored(staging, fd, known)
            if stored is None:
                staged = f"{staging.path}/archive.tar"
                with Follower(staged) as follower:
                    copy_file(fd, staged, follower.grown)
                    follower.finished()
                    entries += members
                    if _archive_files(fd, entries) is None:
                        if expected:
                            check_digest(expected, f"sha256:{follower.result()[0]}", path)
                        layer = Layer("", size, b"", staged, follower)
                        imported = _of_one_layer(staging, entries, layer, limits)
                        imported.facts["archive"] = {"size": size, "digest": f"sha256:{layer.digest}"}
                        return [(imported, [])]
                os.unlink(staged)
        entries += members
    files = _archive_files(fd, entries)
    if files is None:
        assert stored is not None
        return [(_of_one_layer(staging, entries, stored, limits), [])]
    return _import_found(staging, files, path, accept)


def _stored(staging: Staging, fd: int, known: tuple[str, bytes] | None) -> Layer | None:
    """The layer that the open tar ``fd`` is in the store; its digests may be ``known``."""
    size = os.fstat(fd).st_size
    directory = f"{staging.store.directory}/layers"
    if known is None:
        if all(os.stat(f"{directory}/{name}/layer.tar").st_size != size for name in os.listdir(directory)):
            return None
        known = digests(f"/proc/self/fd/{fd}")
    return Layer(known[0], size, known[1]) if os.path.isdir(f"{directory}/{known[0]}") else None


def _of_one_layer(staging: Staging, entries: list[Entry], layer: Layer, limits: Limits) -> Imported:
    tree = Tree(limits)
    tree.add_layer(entries, 0)
    shell = tree.find([b"bin", b"sh"])
    config = ImageConfig(env=[DEFAULT_PATH], command=["/bin/sh"] if shell is not None else [])
    root, facts = staging.add_root(tree, [layer])
    return Imported(root, facts, config, {})


def _index(fd: int, limits: Limits, path: str) -> list[Entry]:
    import mmap

    if os.fstat(fd).st_size == 0:
        raise _without(path)
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as data:
        entries = list(scan(data, limits))
    if not entries:
        raise _without(path)
    return entries


def _without(path: str) -> ContainustError:
    return ContainustError("I004", f"{path} holds no files", "download or make the archive again")


def _begins_images(fd: int) -> bool:
    """Whether the first member of the open tar ``fd`` has a name that one of an archive of images would have."""
    first = text_of(os.pread(fd, 100, 0)).removeprefix(b"./").partition(b"/")[0]
    return first in (b"blobs", b"index.json", b"manifest.json", b"oci-layout", b"repositories", b"config.json") or (
        len(first.partition(b".")[0].strip(b"0123456789abcdef")) == 0 and len(first) >= 64
    )


def _archive_files(fd: int, entries: list[Entry]) -> Files | None:
    """The members of the open tar ``fd`` where it is an archive of images, by name."""
    names = (b"manifest.json", b"index.json")
    if not any(entry.path.endswith(names) and components(entry.path)[0] in names for entry in entries):
        return None
    files = Files.of_tar(fd, entries)
    return files if is_archive(files) else None


def copy_file(fd: int, target: str, grown: Callable[[int], None]) -> None:
    """Copy all of the open file ``fd`` to the new file ``target``, inside the kernel where it can.

    ``grown`` is told how many bytes there are every now and then.
    """
    out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        at = 0
        while at < size:
            try:
                done = os.copy_file_range(fd, out, min(COPY, size - at), at, at)
            except OSError:
                os.lseek(out, at, os.SEEK_SET)
                done = os.sendfile(out, fd, at, min(COPY, size - at))
            if done == 0:
                raise OSError(5, "the file became shorter while it was copied")
            at += done
            grown(at)
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
    with Follower(path) as follower:
        decompress(region, path, Limits(), follower.grown)
    if blob is not None:
        region.finish()
        check_digest(f"sha256:{blob}", f"sha256:{whole.hexdigest()}", f"{what}: layer")
    return staging.stage_layer(path, f"sha256:{diff_id}", f"{what}: content of a layer", follower)


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
