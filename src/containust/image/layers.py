"""Layers as tar files: into the store, and merged into one tree."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.image.limits import Limits, exceeded
from containust.image.staging import Layer, Staging, digests
from containust.image.tar_index import scan
from containust.image.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from containust.image.store import ImageStore
    from containust.image.tree import Entry


def add_tar(staging: Staging, path: str, *, expected: str | None = None) -> Layer:
    """Put the tar file ``path`` of the staging directory into the store.

    ``expected`` is a digest ``sha256:<hex>`` that it must have: I002 otherwise.
    """
    digest, chunks = digests(path)
    check_digest(expected, f"sha256:{digest}", "the packed directory")
    return staging.add_layer(path, digest, chunks)


def check_digest(expected: str | None, found: str, what: str) -> None:
    """Raise I002 when ``expected`` is given and is not ``found``."""
    if expected is not None and expected != found:
        raise ContainustError(
            "I002",
            f"{what} has the digest {found}, not {expected}",
            "someone changed it, or the pin is of another version; nothing of it was used",
        )


def build_tree(store: ImageStore, layers: Sequence[Layer]) -> Tree:
    """The merged tree of layers that are in the store, lowest first. Raises I003 and I004."""
    limits = Limits()
    if len(layers) > limits.layers:
        raise exceeded(f"the image has more than {limits.layers} layers", "CONTAINUST_IMAGE_MAX_LAYERS")
    tree = Tree()
    for device, layer in enumerate(layers):
        tree.add_layer(entries_of(f"{store.directory}/{layer.path}", limits), device)
    return tree


def entries_of(path: str, limits: Limits) -> list[Entry]:
    """Every member of the tar file ``path``."""
    import mmap

    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return []
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            return list(scan(data, limits))
