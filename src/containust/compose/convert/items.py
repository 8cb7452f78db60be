"""A YAML value with its place, and its forms: list, mapping, comment, string literal."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PAIRS = ("environment", "labels", "extra_hosts", "sysctls", "annotations", "args")


class Item:
    """A YAML value: dict, list, str, int, float, bool or None, with its place.

    ``base`` is the directory that relative paths in it start from. ``tag`` is ``!reset`` or ``!override``
    or empty.
    """

    __slots__ = ("base", "file", "line", "tag", "value")

    def __init__(self, value: Any, file: str, line: int, base: str, tag: str = "") -> None:
        self.value = value
        self.file = file
        self.line = line
        self.base = base
        self.tag = tag

    def plain(self, left: list[int] | None = None) -> Any:
        """The value without places; of very much, which aliases can make of little, only the beginning."""
        left = [10_000] if left is None else left
        left[0] -= 1
        if left[0] < 0:
            return "…"
        if isinstance(self.value, dict):
            return {key: item.plain(left) for key, item in self.value.items() if left[0] >= 0}
        if isinstance(self.value, list):
            return [item.plain(left) for item in self.value if left[0] >= 0]
        return self.value

    def new(self, value: Any) -> Item:
        """Another value at the same place."""
        return Item(value, self.file, self.line, self.base)


def as_list(item: Item) -> list[Item]:
    if isinstance(item.value, list):
        return item.value
    return [] if item.value is None else [item]


def keyed(item: Item, name: str) -> Item:
    """The list form of environment, labels, networks and the like as a mapping."""
    if not isinstance(item.value, list):
        return item
    result: dict[str, Item] = {}
    for entry in item.value:
        if isinstance(entry.value, (dict, list)):
            raise wrong_form(entry, name, "list of texts")
        text = str(entry.value)
        if name == "extra_hosts" and "=" not in text:
            key, separator, value = text.partition(":")
        else:
            key, separator, value = text.partition("=") if name in PAIRS else (text, "", "")
        result[key] = entry.new(value if separator else None)
    return item.new(result)


def keyed_map(item: Item, name: str) -> dict[str, Item]:
    """The entries of a mapping or of a list that stands for one; E006 for anything else."""
    value = keyed(item, name).value
    if not isinstance(value, dict):
        raise wrong_form(item, name, "mapping or list")
    return value


def wrong_form(item: Item, name: str, wanted: str) -> ContainustError:
    """The error for a value of a kind that Compose does not take either."""
    return ContainustError("E006", f"{item.file}, line {item.line}: {name} is no {wanted}", "Compose refuses it too")


def comment(key: str, item: Item, why: str) -> str:
    """One comment line with the value as JSON, which is YAML too."""
    import json

    try:
        shown = json.dumps(item.plain(), ensure_ascii=True, default=str)
    except (ValueError, RecursionError):
        shown = "…"
    if len(shown) > 2000:
        shown = shown[:2000] + "…"
    name = "".join([c if c.isprintable() else "?" for c in key])
    return f"// {name}: {shown}  ({os.path.basename(item.file)} line {item.line}: {why})"


def escaped(text: str) -> str:
    """The inside of a string literal."""
    result = []
    for c in text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "$${"):
        if c in "\n\t\r":
            result.append({"\n": "\\n", "\t": "\\t", "\r": "\\r"}[c])
        elif c == "\0" or 0xD800 <= ord(c) < 0xE000:
            result.append("\ufffd")
        elif c < " " or c == "\x7f":
            result.append(f"\\u{{{ord(c):X}}}")
        else:
            result.append(c)
    return "".join(result)
