"""Components as they are recorded: only what differs from the defaults, references unresolved, never a secret."""

from __future__ import annotations

import sys

from containust.common.types import (
    COMPONENT_DEFAULTS,
    Component,
    Expose,
    Healthcheck,
    Port,
    Ref,
    Restart,
    Tmpfs,
    Volume,
    plain,
)
from containust.core import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.common.types import Record, Text


def encode(component: Component) -> dict[str, Any]:
    """``component`` as JSON-ready values, without the properties that have their default."""
    return {
        key: plain(getattr(component, key))
        for key, default in COMPONENT_DEFAULTS.items()
        if getattr(component, key) != default
    }


def decode(name: str, values: dict[str, Any]) -> Component:
    """The component that :func:`encode` wrote."""
    properties = dict(values)
    for key, record in (("ports", Port), ("volumes", Volume), ("tmpfs", Tmpfs)):
        if key in properties:
            properties[key] = [_record(record, item) for item in properties[key]]
    if "restart" in properties:
        properties["restart"] = _record(Restart, properties["restart"])
    if properties.get("healthcheck"):
        check = dict(properties["healthcheck"])
        check["command"] = [_text(item) for item in check["command"]]
        properties["healthcheck"] = Healthcheck(**check)
    for key in ("command", "entrypoint"):
        if properties.get(key) is not None:
            properties[key] = [_text(item) for item in properties[key]]
    for key in ("env", "labels"):
        if key in properties:
            properties[key] = {name: _text(value) for name, value in properties[key].items()}
    return Component(name, **properties)


def decode_expose(values: dict[str, Any]) -> Expose:
    """The published port that a state record holds."""
    return Expose(**values)


def digest(component: Component, image_id: str, exposes: list[Expose]) -> str:
    """SHA-256 over everything that makes a container what it is; a change of it means recreation."""
    text = jsontext.dumps([encode(component), image_id, plain(exposes)])
    return sha256(text.encode())


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 from the interpreter's own module: ``hashlib`` and OpenSSL cost 3 ms to import."""
    try:
        if sys.version_info >= (3, 12):  # asking for one that is not there looks through every directory of modules
            from _sha2 import sha256 as algorithm
        else:
            from _sha256 import sha256 as algorithm
    except ImportError:
        from hashlib import sha256 as algorithm
    result: str = algorithm(data).hexdigest()
    return result


def _record(kind: type[Record], values: dict[str, Any]) -> Record:
    return kind(**values)


def _text(value: Any) -> Text:
    if isinstance(value, str):
        return value
    return tuple(part if isinstance(part, str) else Ref(**part) for part in value)
