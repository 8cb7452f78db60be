"""Layers as tar files, merged into one tree."""

from __future__ import annotations

import os

from containust.image.limits import Limits, exceeded
from containust.image.staging import Layer
from containust.image.tar_index import scan
from containust.image.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from containust.image.members import Entry
    from containust.image.store import ImageStore


def build_tree(store: ImageStore, layers: Sequence[Layer]) -> Tree:
    """The merged tree of layers, lowest first. Raises I003 and I004."""
    limits = Limits()
    if len(layers) > limits.layers:
        raise exceeded(f"the image has more than {limits.layers} layers", "CONTAINUST_IMAGE_MAX_LAYERS")
    tree = Tree(limits)
    for device, layer in enumerate(layers):
        tree.add_layer(entries_of(layer.file(store), limits), device)
    return tree


def entries_of(path: str, limits: Limits) -> list[Entry]:
    """Every member of the tar file ``path``."""
    import mmap

    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return []
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            return list(scan(data, limits))
