"""Bounds that an archive may not pass, so that a hostile one stops early (I003) and names the entry.

Each has an environment variable, read when an import begins; a value that is no positive integer is a usage
error.
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError, UsageError

DEFAULTS = {
    "CONTAINUST_IMAGE_MAX_ENTRIES": 1_000_000,  # members of one layer; files and directories of the merged tree
    "CONTAINUST_IMAGE_MAX_METADATA": 256 << 20,  # bytes of names, links, extended attributes and sparse maps
    "CONTAINUST_IMAGE_MAX_SIZE": 1 << 40,  # bytes of content, holes of sparse files included
    "CONTAINUST_IMAGE_MAX_RATIO": 1000,  # decompressed bytes for a compressed one, beyond the first 256 MiB
    "CONTAINUST_IMAGE_MAX_PATH": 4095,  # bytes of a member's path or link target, and of where it ends up in the tree
    "CONTAINUST_IMAGE_MAX_LAYERS": 1000,
}
RATIO_FLOOR = 256 << 20
HEADER_MAX = 4 << 20  # bytes of one pax or long-name header
DOCUMENT_MAX = 16 << 20  # bytes of a manifest or an image configuration


class Limits:
    """The bounds in force; attributes in the units of :data:`DEFAULTS`."""

    __slots__ = ("entries", "layers", "metadata", "path", "ratio", "size")

    def __init__(self) -> None:
        self.entries = _limit("CONTAINUST_IMAGE_MAX_ENTRIES")
        self.metadata = _limit("CONTAINUST_IMAGE_MAX_METADATA")
        self.size = _limit("CONTAINUST_IMAGE_MAX_SIZE")
        self.ratio = _limit("CONTAINUST_IMAGE_MAX_RATIO")
        self.path = _limit("CONTAINUST_IMAGE_MAX_PATH")
        self.layers = _limit("CONTAINUST_IMAGE_MAX_LAYERS")


def _limit(variable: str) -> int:
    text = os.environ.get(variable)
    if text is None:
        return DEFAULTS[variable]
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(
            f"{variable} is {text!r}, not a positive integer", f"unset it, or set it to {DEFAULTS[variable]}"
        )
    return int(text)


def exceeded(what: str, variable: str) -> ContainustError:
    """The I003 error of a bound that was passed; ``variable`` is the one that raises it."""
    return ContainustError("I003", what, f"if you trust the archive, raise {variable} and import again")
