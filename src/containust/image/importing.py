"""What :meth:`~containust.image.store.ImageStore.ensure` does when the image is not there yet."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.common.reference import parse_reference
from containust.common.types import ImageConfig
from containust.image.staging import Staging, canonical
from containust.image.store import FETCHED, SCHEMA, Image, ImageStore, image_of, missing, read_entry, reference_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from containust.common.reference import Reference
    from containust.image.store import Progress

RACY = 20_000_000  # nanoseconds within which two changes of a file can leave the same change time
REMOTE = ("oci", "https")


class Imported:
    """What a source hands back: the root's name in the store with its facts, the configuration, the host
    files read.

    ``sources`` maps each host path that the image was made from to its stamp at that time; ``signer`` is the key, if
    one was demanded, that vouches for it.
    """

    __slots__ = ("config", "facts", "root", "signer", "sources")

    def __init__(
        self, root: str, facts: dict[str, Any], config: ImageConfig, sources: dict[str, os.stat_result]
    ) -> None:
        self.root = root
        self.facts = facts
        self.config = config
        self.sources = sources
        self.signer = ""


def import_image(
    store: ImageStore,
    uri: str,
    include: Sequence[str],
    base: str,
    *,
    distroless: Sequence[str] | None = None,
    traced: Sequence[str] = (),
    live: bool = False,
    progress: Progress | None = None,
) -> Image:
    """Import ``uri`` and record it in the catalog; see :meth:`ImageStore.ensure`.

    ``traced`` are files that a run has opened. They are kept in a distroless image, and remembered with it.
    """
    reference = parse_reference(uri).absolute(base)
    if reference.scheme in REMOTE and store.offline:
        raise ContainustError(
            "I005",
            f"{uri} would have to be fetched, but --offline is set",
            f"run `ctst pull {uri}` while online",
        )
    if live:
        return live_image(uri, reference)
    key = reference_key(uri, include, base, distroless)
    path = store.entry_path(key)
    signed = uri.startswith(FETCHED) and _signature_needed(reference)
    restored = _restore(store, path, key) if not traced and not signed else None
    if restored is not None:
        return image_of(restored, uri)
    if distroless is not None and reference.scheme == "file":
        traced = _traced(path, key, traced)
    with Staging(store) as staging:
        imported = _import(staging, reference, include, base, distroless, traced, progress)
        image_id = staging.add_record(imported.root, imported.config.as_dict())
        entry = catalog_entry(store, key, uri, image_id, imported)
        staging.replace(path, canonical(entry))
    return image_of(entry, uri)


def _traced(path: str, key: list[str], traced: Sequence[str]) -> list[str]:
    """``traced`` and what an earlier import of the same reference was told."""
    entry = read_entry(path)
    earlier = entry["image"].get("distroless", {}).get("traced", ()) if entry and entry["key"] == key else ()
    return sorted({*earlier, *traced})


def _import(
    staging: Staging,
    reference: Reference,
    include: Sequence[str],
    base: str,
    distroless: Sequence[str] | None,
    traced: Sequence[str],
    progress: Progress | None,
) -> Imported:
    if reference.scheme == "host":
        from containust.image.sources.host import import_programs

        return import_programs(staging, reference.paths(), [os.path.join(base, item) for item in include])
    if reference.scheme == "file" and distroless is not None:
        from containust.image.sources.reduced import import_reduced

        return import_reduced(staging, reference, distroless, include, traced)
    if reference.scheme == "file":
        from containust.image.sources.file import import_directory

        return import_directory(staging, reference, progress)
    if reference.scheme == "tar":
        from containust.image.sources.tar import import_archive

        return import_archive(staging, reference, progress)
    if reference.scheme == "oci":
        from containust.image.sources.registry import import_remote

        return import_remote(staging, reference, progress)
    if reference.scheme == "https":
        from containust.image.sources.registry import import_https

        return import_https(staging, reference, progress)
    if reference.scheme == "preset":
        from containust.image.sources.preset import import_preset

        return import_preset(staging, reference, progress)
    from containust.image.catalog import find_by_name

    return find_by_name(staging.store, reference)


def _signature_needed(reference: Reference) -> bool:
    """Whether this fetch needs a signature. Raises I008 where there cannot be one."""
    from containust.image.oci.provenance import refused, required

    if not required():
        return False
    if reference.scheme != "oci":
        raise refused(
            f"{reference} cannot be signed, and signatures are required", "only oci:// images carry signatures"
        )
    return True


def catalog_entry(store: ImageStore, key: list[str], uri: str, image_id: str, imported: Imported) -> dict[str, Any]:
    """The catalog's record of one reference."""
    import time

    files = [f"roots/{imported.root}/meta.erofs", *imported.facts["devices"]]
    return {
        "schema": SCHEMA,
        "key": key,
        "reference": uri,
        "signer": imported.signer,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "image": {
            "id": image_id,
            "config": imported.config.as_dict(),
            "layer": imported.root,
            "directory": "",
            **imported.facts,
        },
        "sources": list(imported.sources),
        "source_stamps": [stamp(s) for s in imported.sources.values()],
        "files": files,
        "file_stamps": [stamp(os.stat(f"{store.directory}/{path}")) for path in files],
    }


def stamp(s: os.stat_result) -> list[int]:
    """What tells an unchanged file: any write or metadata change moves the change time."""
    return [s.st_ino, s.st_size, s.st_ctime_ns]


def settle(newest: int) -> None:
    """Wait until a file last changed at ``newest`` (nanoseconds) could not change again with the same
    time.
    """
    import time

    age = time.time_ns() - newest
    if 0 <= age < RACY:
        time.sleep((RACY - age) / 1e9)


def _restore(store: ImageStore, path: str, key: list[str]) -> dict[str, Any] | None:
    """The entry of a reference whose source is unchanged but whose stored files have other stamps.

    That is what a copied store looks like. The files are hashed once; when they are what the manifest says,
    the entry
    gets the new stamps, else the damaged layers are removed and the answer is None.
    """
    from containust.image.store import sources_unchanged

    entry = read_entry(path)
    if entry is None or entry["key"] != key or not sources_unchanged(entry) or store.layers_unchanged(entry):
        return None
    from containust.image.verify import remove_damaged, verify_root

    if verify_root(store, entry["image"]["layer"]):
        remove_damaged(store, entry["image"]["layer"])
        return None
    entry["file_stamps"] = [stamp(os.stat(f"{store.directory}/{file}")) for file in entry["files"]]
    with Staging(store) as staging:
        staging.replace(path, canonical(entry))
    return entry


def find_live(uri: str, base: str) -> Image | None:
    """The live image of ``uri``, None when its directory is not there."""
    reference = parse_reference(uri).absolute(base)
    return live_image(uri, reference) if os.path.isdir(reference.location) else None


def live_image(uri: str, reference: Reference) -> Image:
    """A ``file://`` directory used as it is: nothing is stored, and nothing vouches for its content."""
    directory = reference.location
    if reference.scheme != "file":
        raise ContainustError("E015", f"live is for file:// images, not for {uri}", "leave `live` away")
    if not os.path.isdir(directory):
        raise missing(f"the directory {directory} does not exist", "file:// wants a root file system's directory")
    config = ImageConfig(env=[DEFAULT_PATH], command=default_command(directory))
    return Image(f"live:{directory}", uri, config, "", 0, [], _has_targets(directory), directory)


def _has_targets(directory: str) -> bool:
    from stat import S_ISDIR, S_ISREG

    from containust.image.tree import STANDARD_DIRECTORIES, STANDARD_FILES

    try:
        return all(S_ISDIR(os.lstat(f"{directory}/{path}").st_mode) for path in STANDARD_DIRECTORIES) and all(
            S_ISREG(os.lstat(f"{directory}/{path}").st_mode) for path in STANDARD_FILES
        )
    except OSError:
        return False


def default_command(directory: str) -> list[str]:
    """What a root file system without a configuration runs: its shell, if it has one."""
    return ["/bin/sh"] if os.path.lexists(f"{directory}/bin/sh") else []


DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

__all__ = ["DEFAULT_PATH", "Imported", "import_image", "settle", "stamp"]
