"""``${...}`` in strings (language.md, section 8): what is known when a file is checked, and what waits."""

from __future__ import annotations

from containust.common.types import Ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
    """``text`` with each Ref replaced by what ``lookup`` says; what that raises passes through.

    A secret between ``scheme://`` and the ``@`` of a URL is percent-encoded, so that none of its characters can end the
    password and begin a host.
    """
    if isinstance(text, str):
        return text
    parts = []
    for i, part in enumerate(text):
        if isinstance(part, str):
            parts.append(part)
        elif part.kind == "secret" and in_userinfo(text, i):
            parts.append(percent_encoded(lookup(part)))
        else:
            parts.append(lookup(part))
    return "".join(parts)


AUTHORITY_ENDS = frozenset("/?#@ \t\r\n\"'")
UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def in_userinfo(parts: Sequence[str | Ref], at: int) -> bool:
    """Whether ``parts[at]`` belongs to a user or password of a URL (RFC 3986, section 3.2.1)."""
    for part in parts[at + 1 :]:
        if isinstance(part, str):
            end = next((c for c in part if c in AUTHORITY_ENDS), "")
            if end == "@":
                break
            if end:
                return False
    else:
        return False
    for i in range(at - 1, -1, -1):
        part = parts[i]
        if isinstance(part, str):
            before, scheme, behind = part.rpartition("://")
            if not AUTHORITY_ENDS.isdisjoint(behind):
                return False
            if scheme:
                return before[-1:].isalnum()
    return False


def percent_encoded(value: str) -> str:
    """``value`` as a URL can hold it anywhere (RFC 3986, section 2.1)."""
    data = value.encode(errors="surrogateescape")
    return "".join([chr(byte) if byte in UNRESERVED else f"%{byte:02X}" for byte in data])


def references(text: Text) -> list[Ref]:
    """The references in ``text``."""
    return [] if isinstance(text, str) else [part for part in text if not isinstance(part, str)]
