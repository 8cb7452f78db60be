"""References in properties whose type has to be known before a container exists (language.md, section 8).

``env``, ``command``, ``entrypoint``, ``healthcheck`` and ``labels`` keep their references until a container starts.
All other strings are filled in once the ports, networks and images of all components are known, which a reference
is made of. Loaded only where a file has such a string.
"""

from __future__ import annotations

from containust.compose.values import INVALID, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.compose.properties import Property
    from containust.compose.resolver import Placed, Resolver
    from containust.compose.tree import ComponentNode, Interpolation, Source, Value
    from containust.compose.values import Reader

EARLY = ("image", "port", "ports", "network", "required_params")  # what references and checks are made of


def known_text(reader: Reader, source: Source, value: Value) -> Any:
    """A string with its references filled in; INVALID when that cannot be, or not yet (``reader.waits``)."""
    pieces: list[str] = []
    bad = False
    for part in value.value:
        if isinstance(part, str):
            pieces.append(part)
        elif part.kind == "env":
            found = reader.environ.get(part.name)
            pieces.append(found or part.default or "")
        elif part.kind == "secret":
            bad = True
            help = [
                "env, command, entrypoint, healthcheck and labels can hold secrets",
                "everything else is recorded, and shown by plan and inspect",
            ]
            reader.problems.add("E006", source, part.start, part.end, "a secret would be readable here", help)
        elif reader.known is None:
            reader.waits = bad = True
        else:
            text = reader.known(source, part)
            bad = bad or text is None
            pieces.append(text or "")
    return INVALID if bad else "".join(pieces)


def wait(reader: Reader, source: Source, row: Property, value: Value, result: Any) -> Any:
    """The result for a property that refers to a component: WAITING, or INVALID for those that cannot."""
    reader.waits = False
    if row.name not in EARLY:
        return WAITING
    from containust.compose.resolver import open_references

    refused(reader, source, open_references(value))
    return INVALID


def refused(reader: Reader, source: Source, parts: list[Interpolation]) -> None:
    """Report references to components where components are not known yet."""
    reader.waits = False
    for part in parts:
        if part.kind == "secret":
            continue  # reported
        reader.problems.add(
            "E006",
            source,
            part.start,
            part.end,
            "this is read before components are known, so it cannot refer to one",
            ["image, port, network, EXPOSE and IMPORT can use ${env.NAME} only"],
        )


def settle(resolver: Resolver, node: ComponentNode, row: Property, placed: Placed) -> Any:
    """The value of a property that waited, for ``node``; worked out once for all that inherit it."""
    owner, entry = placed
    mine = networks(resolver, node)
    key = (id(entry), "host" in mine)
    if key not in resolver.settled:
        reader = resolver.reader
        reader.known = lambda source, part: meaning(resolver, mine, source, part)
        resolver.settled[key] = row.convert(reader, owner.source, entry.value)
        reader.known = None
    return resolver.settled[key]


def meaning(resolver: Resolver, mine: list[str], source: Source, part: Interpolation) -> str | None:
    """What ``part`` stands for in a component in the networks ``mine``; None once reported, here or as E002 or E005."""
    target = resolver.unit.components.get(part.name)
    if target is None:
        return None
    merged = resolver.effective(target)
    ports = [p for name in ("port", "ports") if name in merged for p in listed(merged[name][1].result)]
    if part.attribute == "port":
        return str(ports[0].number) if ports else None
    theirs = networks(resolver, target)
    host = part.name
    if "host" in mine and "host" in theirs:
        host = "127.0.0.1"
    elif "host" in mine or "host" in theirs:
        resolver.problems.add(
            "E006",
            source,
            part.start,
            part.end,
            f"the address of {part.name!r} is not known before it runs, as one of both is in the host's network",
            ["env, command, entrypoint, healthcheck and labels can wait for it"],
        )
        return None
    if part.attribute == "host":
        return host
    from containust.compose.graph import protocol

    image = merged["image"][1].result if "image" in merged else ""
    port = f":{ports[0].number}" if ports else ""
    return f"{protocol(image if isinstance(image, str) else '')}://{host}{port}"


def networks(resolver: Resolver, node: ComponentNode) -> list[str]:
    """The networks that a component is in."""
    merged = resolver.effective(node)
    return (listed(merged["network"][1].result) if "network" in merged else []) or ["bridge"]


def listed(result: Any) -> list[Any]:
    return result if isinstance(result, list) else []
