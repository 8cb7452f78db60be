"""What references of a component stand for now: names, ports and secrets (language.md, "Interpolation")."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.compose.interpolation import percent_encoded
from containust.runtime import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.common.types import Component, Ref
    from containust.runtime.state import State


def look_up(component: Component, ref: Ref, state: State, masks: list[bytes], secret: Callable[[str], str]) -> str:
    """The value of ``ref`` in ``component``; a secret's goes into ``masks`` too. Raises ContainustError E002."""
    if ref.kind == "secret":
        value = secret(ref.name)
        masks += forms(value)
        return value
    target = state.by_name(ref.name)
    if target is None:
        raise ContainustError("E002", f"{component.name}: {ref.name} is not deployed")
    other = spec.decode(target.name, target.spec)
    port = str(other.ports[0].number) if other.ports else ""
    host = reach(component, other, state)
    if ref.attribute == "host":
        return host
    if ref.attribute == "port":
        return port
    from containust.compose.graph import protocol

    return f"{protocol(other.image)}://{host}" + (f":{port}" if port else "")


def forms(secret: str) -> list[bytes]:
    """How a secret's value can stand in what a container writes: as it is, and as URLs have it."""
    return [os.fsencode(form) for form in dict.fromkeys((secret, percent_encoded(secret))) if form]


def reach(component: Component, other: Component, state: State) -> str:
    """A name or address of ``other`` that works from ``component``."""
    from_host = "host" in component.networks
    if "host" in other.networks:
        if from_host:
            return "127.0.0.1"
        own = state.by_name(component.name)
        return str(own.attachments[0]["gateway"]) if own and own.attachments else "127.0.0.1"
    target = state.by_name(other.name)
    if from_host and target and target.attachments:
        return str(target.attachments[0]["address"])
    return other.name
