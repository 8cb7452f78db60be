"""JSON without the ``json`` package, whose import costs more than parsing a project's state ever does.

The same C scanner and encoder that ``json`` uses, driven directly; where an interpreter lacks them, ``json`` itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    import _json
except ImportError:  # an interpreter without the accelerator
    _json = None  # type: ignore[assignment, unused-ignore]


class _Context:
    """What the C scanner asks of a decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(name: str) -> float:
        return float(name.replace("Infinity", "inf"))


def loads(text: str) -> Any:
    """The value of a JSON text. Raises ValueError when it is not one."""
    if _json is None:
        import json

        return json.loads(text)
    scan = _json.make_scanner(_Context)  # type: ignore[arg-type, unused-ignore]
    text = text.strip(" \t\n\r")
    try:
        value, end = scan(text, 0)
    except StopIteration as stop:
        raise ValueError(f"not JSON at character {stop.value}") from None
    except (
        ImportError,
        SystemError,
        RecursionError,
    ):  # the scanner's own error needs json, or nesting too deep
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError(f"data after the JSON text at character {end}")
    return value


def dumps(value: Any, indent: bool = False) -> str:
    """``value`` as JSON; ASCII only, keys in their order. ``indent`` gives two spaces a level."""
    if _json is None or indent:
        import json

        return json.dumps(value, indent=2 if indent else None)
    encode = _json.make_encoder(None, _reject, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return "".join(encode(value, 0))


def _reject(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON")
