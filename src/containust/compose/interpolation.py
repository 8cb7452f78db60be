"""``${...}`` in strings (language.md, section 8): what is known when a file is checked, and what waits."""

from __future__ import annotations

from containust.common.types import Ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from containust.common.types import Text
    from containust.compose.tree import Interpolation


def resolve(
    value: str | tuple[str | Interpolation, ...],
    environ: Mapping[str, str],
    unset: Callable[[Interpolation], object],
) -> Text:
    """``value`` with ``${env.X}`` replaced and every other interpolation made a Ref.

    ``unset`` is called with each variable that has neither a value nor a default. As in a shell, a default
    stands in for an empty value too.
    """
    if isinstance(value, str):
        return value
    parts: list[str | Ref] = []
    for part in value:
        if isinstance(part, str):
            text = part
        elif part.kind != "env":
            parts.append(Ref(part.kind, part.name, part.attribute))
            continue
        else:
            found = environ.get(part.name)
            if found is None and part.default is None:
                unset(part)
            text = (found or part.default or "") if part.default is not None else (found or "")
        if parts and isinstance(parts[-1], str):
            parts[-1] += text
        elif text:
            parts.append(text)
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    return tuple(parts)


def render(text: Text, lookup: Callable[[Ref], str]) -> str:
    """``text`` with each Ref replaced by what ``lookup`` says; what that raises passes through."""
    if isinstance(text, str):
        return text
    return "".join([part if isinstance(part, str) else lookup(part) for part in text])


def references(text: Text) -> list[Ref]:
    """The references in ``text``."""
    return [] if isinstance(text, str) else [part for part in text if not isinstance(part, str)]
