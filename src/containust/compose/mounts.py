"""Two mounts of one component at the same place. Loaded only where a component has a volume or a tmpfs."""

from __future__ import annotations

from containust.compose.properties import PROPERTIES
from containust.compose.values import INVALID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.compose.resolver import Placed, Resolver
    from containust.compose.tree import ComponentNode, Entry, Source, Value


class Mounts:
    """The mounts of all components; a list that several inherit is looked at once, by its id()."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.checked: set[tuple[int, ...]] = set()
        self.tables: dict[int, dict[str, tuple[Source, Value]]] = {}

    def check(self, node: ComponentNode, merged: dict[str, Placed]) -> None:
        """Two mounts of one component at the same place are E012."""
        lists = []
        for name in ("volume", "volumes", "tmpfs"):
            mounts = self.resolver.value(node, PROPERTIES[name], merged[name]) if name in merged else INVALID
            if mounts is not INVALID:
                lists.append((mounts, *merged[name]))
        pair = tuple([id(mounts) for mounts, _, _ in lists])
        if pair in self.checked:
            return
        self.checked.add(pair)
        tables = [self.table(*one) for one in lists]
        if len(tables) == 2:
            small, large = sorted(tables, key=len)
            for target, place in small.items():
                if target in large:
                    self.twice(target, *sorted((place, large[target]), key=lambda one: one[1].start))

    def table(self, mounts: list[Any], owner: ComponentNode, entry: Entry) -> dict[str, tuple[Source, Value]]:
        """Where each target of one list of mounts is written."""
        known = self.tables.get(id(mounts))
        if known is not None:
            return known
        table: dict[str, tuple[Source, Value]] = {}
        self.tables[id(mounts)] = table
        values = [entry.value] if entry.value.kind == "string" else entry.value.value
        for value, mount in zip(values, mounts, strict=True):
            first = table.setdefault(mount.target, (owner.source, value))
            if first[1] is not value:
                self.twice(mount.target, first, (owner.source, value))
        return table

    def twice(self, target: str, first: tuple[Source, Value], second: tuple[Source, Value]) -> None:
        self.resolver.problems.add(
            "E012",
            second[0],
            second[1].start,
            second[1].end,
            f"{target} is mounted twice",
            ["give each mount its own target"],
            [(first[0], first[1].start, first[1].end, "first mounted here")],
        )
