"""What the store holds, by name: list, inspect, tag, remove, prune, verify."""

from __future__ import annotations

import fcntl
import os

from containust.common.errors import ContainustError
from containust.image.importing import Imported, catalog_entry
from containust.image.members import show
from containust.image.staging import Staging, canonical
from containust.image.store import config_of, missing, read_entry, reference_key
from containust.image.verify import read_manifest, verify_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from containust.common.reference import Reference
    from containust.image.store import ImageStore

PARTS = {"key", "reference", "created", "image", "sources", "source_stamps", "files", "file_stamps"}
PREFIX_MIN = 4  # digits of an id that may stand for it


def entries(store: ImageStore) -> list[tuple[str, dict[str, Any]]]:
    """(file, entry) of every reference in the catalog, oldest first."""
    found = []
    try:
        names = os.listdir(f"{store.directory}/catalog")
    except OSError:
        return []
    for name in names:
        path = f"{store.directory}/catalog/{name}"
        entry = read_entry(path)
        if entry is not None and entry.keys() >= PARTS:  # one that is damaged leads to no image: an import mends it
            found.append((path, entry))
    return sorted(found, key=lambda item: (item[1]["created"], item[1]["reference"]))


def matching(store: ImageStore, name: str) -> list[tuple[str, dict[str, Any]]]:
    """The entries that ``name`` means: a reference, a name given by load or pull, an id or a prefix of one.

    A reference may have several images: reduced ones, and those with an ``include``; the last one is the newest.
    Raises I001 when there is none, or when a prefix fits several images.
    """
    everything = entries(store)
    exact = [
        item
        for item in everything
        if item[1]["reference"] in (name, f"image://{name}", f"oci://{name}", f"image://{_qualified(name)}")
    ]
    if exact:
        return exact
    digits = name.removeprefix("sha256:").lower()
    if len(digits) >= PREFIX_MIN and all(c in "0123456789abcdef" for c in digits):
        found = [item for item in everything if item[1]["image"]["id"][7:].startswith(digits)]
        ids = {item[1]["image"]["id"] for item in found}
        if len(ids) > 1:
            raise missing(f"{name} is the beginning of {len(ids)} image ids", "give more digits of it")
        if found:
            return found
    from containust.common.suggest import nearest

    near = nearest(name, [item[1]["reference"] for item in everything])
    raise missing(
        f"there is no image {show(os.fsencode(name))} here",
        f"did you mean {near}?" if near else "`ctst images` lists them",
    )


def _qualified(name: str) -> str:
    """A name as Docker shortens it, in full and with its tag."""
    if ":" not in name.rpartition("/")[2]:
        name += ":latest"
    return name


def find_by_name(store: ImageStore, reference: Reference) -> Imported:
    """The image of an ``image://`` reference. Raises I001, I002 when it is not what the pin says."""
    _, entry = matching(store, reference.location)[-1]
    image = entry["image"]
    if reference.digest not in (None, image["id"]):
        raise ContainustError(
            "I002",
            f"{reference.location} is {image['id']}, not {reference.digest}",
            "`ctst images` lists ids; correct the pin, or load the right image",
        )
    wrong = verify_root(store, image["layer"]) if not store.layers_unchanged(entry) else []
    if wrong:
        raise ContainustError("I002", f"the store is damaged: {wrong[0]}", "load or pull the image again")
    facts = {key: image[key] for key in ("size", "devices", "standard_targets")}
    return Imported(image["layer"], facts, config_of(image["config"]), {})


def tag(staging: Staging, name: str, imported: Imported) -> dict[str, Any]:
    """Give an imported image the name ``image://NAME``; its catalog entry. The name may move from another
    image.
    """
    store = staging.store
    uri = f"image://{name}"
    key = reference_key(uri, (), ".")
    image_id = staging.add_record(imported.root, imported.config.as_dict())
    entry = catalog_entry(store, key, uri, image_id, Imported(imported.root, imported.facts, imported.config, {}))
    staging.replace(store.entry_path(key), canonical(entry))
    return entry


def inspect(store: ImageStore, name: str) -> dict[str, Any]:
    """Everything known of one image. Raises I001."""
    newest = matching(store, name)[-1][1]
    image = newest["image"]
    found = [entry for _, entry in entries(store) if entry["image"]["id"] == image["id"]]
    manifest = read_manifest(store, image["layer"]) or {}
    return {
        "id": image["id"],
        "references": list(dict.fromkeys(entry["reference"] for entry in found)),
        "created": newest["created"],
        "size": image["size"],
        "root": f"sha256:{image['layer']}",
        "layers": manifest.get("layers", []),
        "metadata": manifest.get("metadata"),
        "archive": image.get("archive"),
        "distroless": image.get("distroless"),
        "standard_targets": image["standard_targets"],
        "config": image["config"],
    }


def listing(store: ImageStore) -> list[dict[str, Any]]:
    """One row a reference: reference, id, size (bytes of its files), layers, created, stored (bytes of its layers),
    distroless (whether it is a directory reduced to what its programs need).
    """
    rows = []
    for _, entry in entries(store):
        image = entry["image"]
        stored = 0
        for path in image["devices"]:
            try:
                stored += os.stat(f"{store.directory}/{path}").st_size
            except OSError:
                continue
        rows.append(
            {
                "reference": entry["reference"],
                "id": image["id"],
                "size": image["size"],
                "stored": stored,
                "layers": sum(path.startswith("layers/") for path in image["devices"]),
                "created": entry["created"],
                "distroless": "before" in image.get("distroless", {}),
            }
        )
    return rows


def remove(store: ImageStore, names: list[str], in_use: Collection[str] = ()) -> list[str]:
    """Forget references, and delete what then nothing refers to; the references removed.

    Raises I001 for an unknown name and I007 for an image whose id is ``in_use``, before anything is removed.
    """
    chosen: dict[str, dict[str, Any]] = {}
    everything = entries(store)
    for name in names:
        chosen.update(matching(store, name))
    for entry in chosen.values():
        image_id = entry["image"]["id"]
        others = [e for path, e in everything if path not in chosen and e["image"]["id"] == image_id]
        if image_id in in_use and not others:
            raise ContainustError(
                "I007",
                f"a container uses {entry['reference']}",
                "remove the container first: `ctst ps -a`, `ctst rm`",
            )
    for path in chosen:
        os.unlink(path)
    prune(store, in_use)
    return [entry["reference"] for entry in chosen.values()]


def prune(store: ImageStore, in_use: Collection[str] = (), *, stale: bool = False) -> dict[str, int]:
    """Delete records, roots and layers that no reference and no container leads to; how many bytes and items.

    With ``stale`` also references whose host files are gone or changed, unless their image is ``in_use``.
    """
    from shutil import rmtree

    from containust.image.oci.partial import remove_partial
    from containust.image.store import parse, sources_unchanged

    removed = {"records": 0, "roots": 0, "layers": 0, "bytes": 0}
    try:
        lock = os.open(f"{store.directory}/staging", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return removed
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # no import is under way whose layers nothing refers to yet
        records: set[str] = {image_id[7:] for image_id in in_use}
        for path, entry in entries(store):
            if stale and not sources_unchanged(entry) and entry["image"]["id"] not in in_use:
                os.unlink(path)
                continue
            records.add(entry["image"]["id"][7:])
        roots: set[str] = set()
        for name in os.listdir(f"{store.directory}/records"):
            path = f"{store.directory}/records/{name}"
            if name.removesuffix(".json") not in records:
                os.unlink(path)
                removed["records"] += 1
                continue
            with open(path) as file:
                roots.add(parse(file.read())["root"][7:])
        layers: set[str] = set()
        for name in os.listdir(f"{store.directory}/roots"):
            path = f"{store.directory}/roots/{name}"
            if name not in roots:
                removed["bytes"] += _size(path)
                rmtree(path, ignore_errors=True)
                removed["roots"] += 1
                continue
            manifest = read_manifest(store, name)
            layers.update(layer["digest"][7:] for layer in (manifest or {}).get("layers", ()))
        for name in os.listdir(f"{store.directory}/layers"):
            if name not in layers:
                path = f"{store.directory}/layers/{name}"
                removed["bytes"] += _size(path)
                rmtree(path, ignore_errors=True)
                removed["layers"] += 1
        removed["bytes"] += remove_partial(store.directory)
    finally:
        os.close(lock)
    return removed


def verify(store: ImageStore) -> list[dict[str, Any]]:
    """Every reference (``reference``, ``id``) with what is wrong with its stored bytes (``errors``)."""
    done: dict[str, list[str]] = {}
    rows = []
    for _, entry in entries(store):
        root, image_id = entry["image"]["layer"], entry["image"]["id"]
        if root not in done:
            done[root] = verify_root(store, root)
        errors = done[root] + _verify_record(store, image_id, root)
        rows.append({"reference": entry["reference"], "id": image_id, "errors": errors})
    return rows


def _verify_record(store: ImageStore, image_id: str, root: str) -> list[str]:
    from hashlib import sha256

    from containust.image.store import parse

    path = f"records/{image_id[7:]}.json"
    try:
        with open(f"{store.directory}/{path}", "rb") as file:
            text = file.read()
    except OSError as error:
        return [f"{path}: {error.strerror}"]
    if sha256(text).hexdigest() != image_id[7:] or parse(text.decode())["root"] != f"sha256:{root}":
        return [f"{path} is damaged"]
    return []


def _size(directory: str) -> int:
    total = 0
    for path, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
            except OSError:
                continue
    return total
