"""JSON documents as every ``--json`` prints them."""

from __future__ import annotations

from containust.common.types import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def to_json(value: Any) -> str:
    """``value`` as an indented JSON document with a newline at its end; records become objects."""
    import json

    return json.dumps(plain(value), indent=2) + "\n"
