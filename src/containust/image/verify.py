"""Whether the stored bytes are those that were imported: every file hashed against the manifest that names
it.
"""

from __future__ import annotations

import os

from containust.image.hashing import digests

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.image.store import ImageStore


def read_manifest(store: ImageStore, root: str) -> dict[str, Any] | None:
    """The manifest of a root, None when it is missing or is not what its name says."""
    from hashlib import sha256
    from json import loads

    try:
        with open(f"{store.directory}/roots/{root}/manifest.json", "rb") as file:
            text = file.read()
    except OSError:
        return None
    if sha256(text).hexdigest() != root:
        return None
    manifest: dict[str, Any] = loads(text)
    return manifest


def verify_root(store: ImageStore, root: str) -> list[str]:
    """What is wrong with the root and its layers, one line each; empty when every byte is right."""
    manifest = read_manifest(store, root)
    if manifest is None:
        return [f"roots/{root}/manifest.json is missing or damaged"]
    wrong = []
    parts = [(f"roots/{root}/meta.erofs", manifest["metadata"]["digest"])]
    if manifest["extra"]:
        parts.append((f"roots/{root}/extra.bin", manifest["extra"]["digest"]))
    parts += [(f"layers/{layer['digest'][7:]}/layer.tar", layer["digest"]) for layer in manifest["layers"]]
    parts += [(f"layers/{layer['digest'][7:]}/chunks.bin", layer["chunks"]) for layer in manifest["layers"]]
    for path, expected in parts:
        try:
            found, _ = digests(f"{store.directory}/{path}")
        except OSError as error:
            wrong.append(f"{path}: {error.strerror}")
            continue
        if f"sha256:{found}" != expected:
            wrong.append(f"{path} has the digest sha256:{found}, not {expected}")
    return wrong


def remove_damaged(store: ImageStore, root: str) -> None:
    """Remove a damaged root and those of its layers that are damaged, so that an import writes them anew."""
    from shutil import rmtree

    manifest = read_manifest(store, root)
    for layer in manifest["layers"] if manifest else ():
        directory = f"{store.directory}/layers/{layer['digest'][7:]}"
        try:
            found, chunks = digests(f"{directory}/layer.tar")
        except OSError:
            found, chunks = "", b""
        if f"sha256:{found}" != layer["digest"] or not _same_chunks(f"{directory}/chunks.bin", chunks):
            rmtree(directory, ignore_errors=True)
    rmtree(f"{store.directory}/roots/{root}", ignore_errors=True)


def _same_chunks(path: str, chunks: bytes) -> bool:
    try:
        return os.path.getsize(path) == len(chunks) and open(path, "rb").read() == chunks
    except OSError:
        return False
