"""What every part of a converted service does: take a key, write a property, tell what is lost."""

from __future__ import annotations

import os

from containust.compose.convert.items import Item, escaped, wrong_form

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.compose.convert.writer import Writer


class Part:
    """One service's keys and the lines written so far.

    The methods that write also warn of what they could not say.
    """

    def __init__(self, writer: Writer, name: str, item: Item) -> None:
        self.writer = writer
        self.name = name
        self.item = item
        self.keys: dict[str, Item] = item.value
        self.component_name = writer.names[name]
        self.active = writer.active(item)
        self.handled: set[str] = set()
        self.lines: list[str] = []

    def add(self, key: str, value: str) -> None:
        self.lines.append(f"    {key} = {value}")

    def put(self, key: str, value: str, item: Item, name: str = "") -> None:
        """Add a property made of ``item``, which Compose calls ``name``, if the language takes it; else it is lost."""
        why = self.writer.judge(key, value)
        if why:
            self.lost(name or key, item, why)
        else:
            self.add(key, value)

    def lost(self, key: str, item: Item, why: str = "no counterpart") -> None:
        self.lines += ["    " + line for line in self.writer.lost(f"{self.name}.{key}", item, why)]

    def take(self, key: str) -> Item | None:
        """The value of ``key``, from then on handled; None when it is absent or null."""
        item = self.keys.get(key)
        self.handled.add(key)
        return item if item is not None and item.value is not None else None

    def children(self, item: Item, known: tuple[str, ...], name: str) -> dict[str, Item]:
        """A mapping's entries, with those not in ``known`` lost."""
        if not isinstance(item.value, dict):
            if item.value is not None:
                raise wrong_form(item, f"{self.name}.{name}", "mapping")
            return {}
        for key, child in item.value.items():
            if key not in known and not key.startswith("x-"):
                self.lost(f"{name}.{key}", child)
        return item.value

    def relative(self, path: str, item: Item) -> str:
        """A host path as the file that is written will see it, as a string's inside."""
        if path == "~" or path.startswith("~/"):
            path = self.writer.lookup(item).get("HOME", "/root") + path[1:]
        if not os.path.isabs(path):
            path = os.path.relpath(os.path.join(item.base, path), self.writer.directory)
            if not path.startswith("../") and path != "..":
                path = "./" if path == "." else f"./{path}"
        return escaped(path)
