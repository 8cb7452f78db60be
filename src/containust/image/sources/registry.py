"""``oci://`` and ``https://``: images from elsewhere, verified while they arrive."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.image.importing import Imported
from containust.image.layers import build_tree
from containust.image.oci.archive import NESTING_MAX, Region
from containust.image.oci.documents import (
    choose_platform,
    descriptors,
    diff_ids,
    digest_of,
    document,
    image_config,
    invalid,
    kind_of,
)
from containust.image.oci.mirrors import places
from containust.image.oci.partial import Partial
from containust.image.oci.provenance import check, required
from containust.image.oci.registry import Repository, split
from containust.image.sources.tar import import_file, stage_blob, stored_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.common.reference import Reference
    from containust.image.staging import Layer, Staging
    from containust.image.store import Progress

PARALLEL = 4


def import_remote(staging: Staging, reference: Reference, progress: Progress | None = None) -> Imported:
    """Import an ``oci://`` reference. Raises I001, I002 (pin or lock do not hold), I003, I004, I006."""
    registry, name, tag = split(reference.location)
    *mirrors, own = places(registry, name)
    for mirror in mirrors:
        try:
            return _import_from(staging, reference, *mirror, tag, progress)
        except ContainustError as error:
            if error.code not in ("I001", "I006"):  # it lacks the image or is not there: the next one may do
                raise
    return _import_from(staging, reference, *own, tag, progress)


def _import_from(
    staging: Staging, reference: Reference, registry: str, name: str, tag: str, progress: Progress | None
) -> Imported:
    repository = Repository(registry, name)
    try:
        what = f"{registry}/{name}"
        data, media_type, digest = repository.manifest(reference.digest or tag, reference.digest)
        if reference.digest is None:
            check_lock(staging.store.directory, str(reference), digest)
        digests = [digest]
        for _ in range(NESTING_MAX):
            manifest = document(data, f"the manifest of {what}")
            if kind_of(manifest, f"the manifest of {what}", media_type) == "manifest":
                break
            chosen = choose_platform(manifest, what)
            data, media_type, found = repository.manifest(chosen["digest"])
            digests.append(found)
        else:
            raise invalid(what, "has indexes nested too deeply")
        signer = check(repository, digests, staging.store.directory) if required() else ""
        (config_descriptor,) = descriptors([manifest.get("config")], what)
        config = document(repository.small_blob(config_descriptor), f"the configuration of {what}")
        blobs = descriptors(manifest.get("layers"), what)
        ids = diff_ids(config, what)
        if len(ids) != len(blobs):
            raise invalid(what, f"has {len(blobs)} layers and {len(ids)} DiffIDs")
        layers = _fetch_layers(staging, repository, blobs, ids, progress)
        root, facts = staging.add_root(build_tree(staging.store, layers), layers)
        if reference.digest is None:
            write_lock(staging, str(reference), digest)
        imported = Imported(root, facts, image_config(config, what), {})
        imported.signer = signer
        return imported
    finally:
        repository.close()


def _fetch_layers(
    staging: Staging,
    repository: Repository,
    blobs: list[dict[str, Any]],
    ids: list[str],
    progress: Progress | None,
) -> list[Layer]:
    """Fetch what the store does not have, several at once, and unpack each while others arrive."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    total = sum(blob["size"] for blob in blobs)
    done = [0]

    def arrived(count: int) -> None:
        if stopped.is_set():
            raise _Stopped
        done[0] += count
        if progress:
            progress("fetching", done[0], total)

    def fetch(blob: dict[str, Any], diff_id: str) -> Layer:
        stored = stored_layer(staging, diff_id)
        if stored is not None:
            arrived(blob["size"])
            return stored
        own = repository.fork()
        try:
            with Partial(staging, digest_of(blob["digest"], "a layer")) as out:
                own.blob(blob["digest"], blob["size"], out, arrived)
                out.flush()
                return stage_blob(staging, Region(out.fileno(), 0, blob["size"]), diff_id, None, repository.repository)
        finally:
            own.close()

    stopped = Event()
    wanted = dict(zip(ids, blobs, strict=True))
    pool = ThreadPoolExecutor(PARALLEL)
    futures = {diff_id: pool.submit(fetch, blob, diff_id) for diff_id, blob in wanted.items()}
    try:
        layers = [futures[diff_id].result() for diff_id in ids]
    except BaseException as error:
        stopped.set()
        # Who presses Ctrl+C does not wait for a slow registry; what arrived so far is kept for the next time.
        pool.shutdown(wait=not isinstance(error, KeyboardInterrupt), cancel_futures=True)
        raise
    pool.shutdown()
    return layers


class _Stopped(Exception):
    """Another layer failed, or the user has had enough."""


def lock_path(directory: str) -> str:
    """The file that records which manifest an unpinned reference meant at its first use."""
    return f"{os.path.dirname(directory)}/images.lock"


def read_lock(directory: str) -> dict[str, str]:
    """Reference to digest. Raises I002 for a damaged file: nothing may pass for unlocked."""
    from json import loads

    try:
        with open(lock_path(directory), "rb") as file:
            value = loads(file.read())["images"]
        return {str(key): str(digest) for key, digest in value.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ContainustError(
            "I002", f"{lock_path(directory)} is damaged", "restore it, or remove it to lock images anew"
        ) from None


def check_lock(directory: str, uri: str, digest: str) -> None:
    """Raise I002 when the lock says that ``uri`` was another manifest."""
    locked = read_lock(directory).get(uri)
    if locked not in (None, digest):
        raise ContainustError(
            "I002",
            f"{uri} is now {digest}, but it is locked to {locked}",
            f"`ctst pull {uri}` accepts the new one, {uri.partition('@')[0]}@{locked} stays with the old one"
            if uri.startswith("oci:")
            else f"if that is right, remove its line from {lock_path(directory)}",
        )


def write_lock(staging: Staging, uri: str, digest: str | None) -> None:
    """Record a reference's digest, or forget it with None."""
    import fcntl
    from json import dumps

    path = lock_path(staging.store.directory)
    guard = os.open(f"{staging.store.directory}/catalog", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        images = read_lock(staging.store.directory)
        if images.get(uri) == digest:
            return
        images.pop(uri, None)
        if digest is not None:
            images[uri] = digest
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "w") as file:
            file.write(dumps({"images": dict(sorted(images.items()))}, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    finally:
        os.close(guard)


def import_https(staging: Staging, reference: Reference, progress: Progress | None = None) -> Imported:
    """Import an archive from a web server; its pin is checked before anything is read of it."""
    path = f"{staging.path}/download"
    download(f"https://{reference.location}", path, progress)
    imported = import_file(staging, path, reference.digest, progress)[0][0]
    imported.sources = {}
    return imported


def download(url: str, path: str, progress: Progress | None = None) -> None:
    """Fetch ``url`` into the new file ``path``. Raises I006."""
    from http.client import HTTPException
    from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

    opener = build_opener(ProxyHandler(), HTTPSHandler())
    try:
        with (
            opener.open(Request(url, headers={"User-Agent": "containust"}), timeout=30) as response,
            open(path, "xb") as out,
        ):
            if not response.geturl().startswith("https://"):
                raise ContainustError("I006", f"{url} redirects to a place without TLS", "use another address")
            total = int(response.headers.get("Content-Length") or 0)
            done = 0
            while data := response.read(1 << 18):
                out.write(data)
                done += len(data)
                if progress:
                    progress("fetching", done, total)
    except (OSError, HTTPException) as error:
        raise ContainustError("I006", f"{url}: {error}", "check address and network, then try again") from error
