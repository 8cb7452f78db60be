"""Variables in Compose strings (Compose Specification, "Interpolation")."""

from __future__ import annotations

from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

DEEPEST = 32  # defaults of defaults
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
WORD = LETTERS | frozenset("0123456789")


class Variable:
    """``${name:-default}`` in a Compose string; ``wanted`` is set for ``:?``, which has no default."""

    __slots__ = ("default", "name", "wanted")

    def __init__(self, name: str, default: str, wanted: bool) -> None:
        self.name = name
        self.default = default
        self.wanted = wanted


def split(text: str, wrong: Callable[[str], object], lookup: Mapping[str, str], depth: int = 0) -> list[str | Variable]:
    """A string's literal pieces and variables. ``wrong`` is told of what the language cannot express."""
    if depth > DEEPEST:
        raise ContainustError(
            "E006", f"variables are nested more than {DEEPEST} deep", "write fewer defaults of defaults"
        )
    parts: list[str | Variable] = []
    closing = _closing(text) if "${" in text else {}
    literal: list[str] = []
    i = 0
    while i < len(text):
        dollar = text.find("$", i)
        if dollar < 0 or dollar == len(text) - 1:
            literal.append(text[i:])
            break
        literal.append(text[i:dollar])
        c = text[dollar + 1]
        if c == "$":
            literal.append("$")
            i = dollar + 2
            continue
        if c in LETTERS:
            end = dollar + 1
            while end < len(text) and text[end] in WORD:
                end += 1
            found: list[str | Variable] = [Variable(text[dollar + 1 : end], "", False)]
        elif c == "{":
            end = closing.get(dollar, -1)
            if end < 0:
                literal.append("$")
                i = dollar + 1
                continue
            found = _braced(text[dollar + 2 : end], wrong, lookup, depth)
            end += 1
        else:
            literal.append("$")
            i = dollar + 1
            continue
        i = end
        for part in found:
            if isinstance(part, str):
                literal.append(part)
            else:
                if literal:
                    parts.append("".join(literal))
                    literal = []
                parts.append(part)
    if literal or not parts:
        parts.append("".join(literal))
    return parts


def _closing(text: str) -> dict[int, int]:
    """Where each ``${`` that is closed ends: offset of its ``$`` to that of its ``}``."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for i, c in enumerate(text):
        if c == "{" and text[i - 1 : i] == "$":
            opened.append(i - 1)
        elif c == "}" and opened:
            found[opened.pop()] = i
    return found


def _braced(text: str, wrong: Callable[[str], object], lookup: Mapping[str, str], depth: int) -> list[str | Variable]:
    end = 0
    while end < len(text) and text[end] in WORD:
        end += 1
    name, rest = text[:end], text[end:]
    operator = rest[:2] if rest[:2] in (":-", ":?", ":+") else rest[:1]
    word = rest[len(operator) :]
    if not name or operator not in ("", ":-", "-", ":?", "?", ":+", "+"):
        wrong(f"${{{text}}} is no variable of Compose")
        return ["${" + text + "}"]
    if operator == "":
        return [Variable(name, "", False)]
    if operator in (":?", "?"):
        return [Variable(name, "", True)]
    if operator in (":+", "+"):
        here = bool(lookup.get(name)) if operator == ":+" else name in lookup
        value = resolve(split(word, wrong, lookup, depth + 1), lookup) if here else ""
        wrong(f"${{{text}}} has no counterpart and was fixed as {value!r}")
        return [value]
    nested = split(word, wrong, lookup, depth + 1)
    default = resolve(nested, lookup)
    if any(isinstance(part, Variable) for part in nested):
        wrong(f"the variable in the default of ${{{text}}} was fixed as {default!r}")
    if "}" in default:
        value = lookup.get(name) or default
        wrong(f"${{{text}}} has a brace in its default and was fixed as {value!r}")
        return [value]
    if operator == "-" and lookup.get(name) == "":
        wrong(f"${{{text}}}: an empty value takes the default too")
    return [Variable(name, default, False)]


def resolve(parts: Iterable[str | Variable], lookup: Mapping[str, str]) -> str:
    """The text that Compose would see."""
    return "".join([part if isinstance(part, str) else lookup.get(part.name) or part.default for part in parts])
