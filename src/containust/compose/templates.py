"""FROM: which component a template's name stands for, and what is inherited (language.md, sections 4 and 5).

Loaded only where a file has a FROM.
"""

from __future__ import annotations

from containust.compose.properties import PROPERTIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from containust.compose.resolver import Placed, Resolver, Unit
    from containust.compose.tree import ComponentNode, Entry, Import, Name

MOST_KEYS = 1024  # of one map with what it inherits, so that a chain cannot grow quadratically
MOST_MISSING = 20  # parameters reported of one component, for the same reason
LISTED = 20  # names in one message


class Templates:
    """The relations between the components of a :class:`containust.compose.resolver.Resolver`."""

    __slots__ = ("copies", "kept", "maps", "needed", "problems", "resolver", "units")

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.units = resolver.units
        self.problems = resolver.problems

    # FROM

    def link(self, nodes: list[ComponentNode]) -> None:
        """Find the parent of every node and of their ancestors; cycles are E004 and cut."""
        done: set[int] = set()
        for node in nodes:
            chain: list[ComponentNode] = []
            on_chain: set[int] = set()
            current: ComponentNode | None = node
            while current is not None and id(current) not in done:
                if id(current) in on_chain:
                    self.from_cycle(chain[chain.index(current) :])
                    break
                chain.append(current)
                on_chain.add(id(current))
                if current.parent is not None and current.resolved_parent is None:
                    current.resolved_parent = self.parent(self.units[id(current.source)], current)
                current = current.resolved_parent
            done |= on_chain

    def from_cycle(self, chain: list[ComponentNode]) -> None:
        names = [node.name.text for node in chain]
        first = chain[0]
        assert first.parent is not None
        self.problems.add(
            "E004",
            first.source,
            first.parent.start,
            first.parent.end,
            f"FROM goes in a circle: {' -> '.join([*names, names[0]])}",
            ["let one of them stand without FROM"],
            [
                (
                    node.source,
                    node.parent.start,
                    node.parent.end,
                    f"{node.name.text} starts from {node.parent.text}",
                )
                for node in chain[1:20]
                if node.parent is not None
            ],
        )
        for node in chain:
            node.resolved_parent = None
            node.damaged = True

    def parent(self, unit: Unit, node: ComponentNode) -> ComponentNode | None:
        """The component that ``FROM`` of ``node`` names (section 4, "Names"); None once reported."""
        parent = node.parent
        assert parent is not None
        if node.member is not None:
            return self.member(unit, node, parent, node.member)
        local = unit.components.get(parent.text)
        if local is not None and local is not node:
            return local
        found: dict[int, tuple[Import, ComponentNode]] = {}
        crowd: list[str] = []
        if parent.text in unit.aliases:
            statement, imported = unit.aliases[parent.text]
            unit.used.add(id(statement))
            if imported is None:
                node.damaged = True
                return None
            chosen = single(imported, parent.text)
            if chosen is not None:
                found[id(chosen)] = (statement, chosen)
            else:
                crowd = [f"{parent.text}.{name}" for name, _ in zip(imported.components, range(LISTED), strict=False)]
        if not found:
            for statement, imported in self.open_imports(unit, parent.text):
                other = imported.components[parent.text]
                found[id(other)] = (statement, other)
                crowd.append(f"{imported.stem}.{parent.text}")
                if len(crowd) == LISTED:
                    break
        if len(found) == 1:
            statement, chosen = next(iter(found.values()))
            unit.used.add(id(statement))
            return chosen
        node.damaged = True
        if found or crowd:
            for statement, _ in found.values():
                unit.used.add(id(statement))
            self.problems.add(
                "E018",
                node.source,
                parent.start,
                parent.end,
                f"{parent.text!r} can mean several templates",
                [f"write one of {', '.join(f'FROM {name}' for name in crowd)}"],
            )
            return None
        if local is node:
            node.resolved_parent = node
            return node  # a circle of one
        if parent.text in unit.aliases:
            self.problems.add(
                "E018",
                node.source,
                parent.start,
                parent.end,
                f"the file {parent.text!r} stands for defines no component",
                ["import a file that does"],
            )
            return None
        self.problems.add(
            "E002",
            node.source,
            parent.start,
            parent.end,
            f"no component or import is called {parent.text!r}",
            [],
            (),
            (parent.text, Known(unit), "did you mean {}?"),
        )
        return None

    def open_imports(self, unit: Unit, name: str) -> Iterator[tuple[Import, Unit]]:
        """The imports without alias of ``unit`` that define ``name``; looked for in the shorter of two lists."""
        definers = self.resolver.defining(name)
        if len(definers) < len(unit.open_imports):
            return (unit.open_imports[key] for key in definers if key in unit.open_imports)
        return (one for key, one in unit.open_imports.items() if key in definers)

    def member(self, unit: Unit, node: ComponentNode, alias: Name, member: Name) -> ComponentNode | None:
        if alias.text not in unit.aliases:
            node.damaged = True
            self.problems.add(
                "E002",
                node.source,
                alias.start,
                alias.end,
                f"no import is called {alias.text!r}",
                [f'write IMPORT "….ctst" AS {alias.text} above'],
                (),
                (alias.text, unit.aliases, "did you mean {}?"),
            )
            return None
        statement, imported = unit.aliases[alias.text]
        unit.used.add(id(statement))
        chosen = imported.components.get(member.text) if imported is not None else None
        if chosen is None:
            node.damaged = True
            if imported is not None:
                self.problems.add(
                    "E002",
                    node.source,
                    member.start,
                    member.end,
                    f"{imported.file.source.path} defines no component {member.text!r}",
                    [],
                    [(node.source, statement.start, statement.end, "imported here")],
                    (member.text, imported.components, f"did you mean {alias.text}.{{}}?"),
                )
        return chosen

    # Inheritance

    def inherit(self, nodes: list[ComponentNode]) -> None:
        """Give ``resolver.maps`` the maps of ``nodes``, merged key by key, and report missing parameters.

        One walk down the tree of FROM with the maps as they are at each node, undone on the way back: its cost is
        what the files say and what comes out, however long a chain is.
        """
        wanted = {id(node) for node in nodes}
        roots, children = self.tree(nodes)
        self.maps: dict[str, dict[str, Placed]] = {"env": {}, "labels": {}, "healthcheck": {}}
        self.needed: dict[str, Placed] = {}
        self.kept: list[Any] = []
        self.copies: dict[str, list[dict[str, Placed]]] = {name: [] for name in self.maps}  # of maps as they are now
        pending: list[tuple[ComponentNode, int]] = [(root, -1) for root in roots]
        while pending:
            node, undo = pending.pop()
            if undo >= 0:
                while len(self.kept) > undo:
                    table, key, placed = self.kept.pop()
                    if placed is None:
                        del table[key]
                    else:
                        table[key] = placed
                continue
            pending.append((node, len(self.kept)))
            own = self.resolver.check(node)
            self.enter(node, own)
            if id(node) in wanted:
                self.leave_maps(node)
                if self.needed and not self.resolver.damaged(node):
                    self.missing(node)
            required = own.get("required_params")
            if required is not None and required.result.__class__ is list:
                for name in required.result:
                    self.set(self.needed, name, (node, required))
            pending += [(child, -1) for child in children.get(id(node), ())]

    def tree(self, nodes: list[ComponentNode]) -> tuple[list[ComponentNode], dict[int, list[ComponentNode]]]:
        """Ancestors without parent of ``nodes``, and by id() the children that lead to one of ``nodes``."""
        roots: list[ComponentNode] = []
        children: dict[int, list[ComponentNode]] = {}
        seen: set[int] = set()
        for node in nodes:
            while id(node) not in seen:
                seen.add(id(node))
                parent = node.resolved_parent
                if parent is None:
                    roots.append(node)
                    break
                children.setdefault(id(parent), []).append(node)
                node = parent
        return roots, children

    def set(self, table: dict[str, Placed], key: str, placed: Placed | None) -> None:
        """Change ``table`` until the node that does it is left; None takes ``key`` out."""
        self.kept.append((table, key, table.get(key)))
        if placed is None:
            del table[key]
        else:
            table[key] = placed

    def enter(self, node: ComponentNode, own: dict[str, Entry]) -> None:
        """Put what ``node`` sets into the maps, and take it off what is needed."""
        for name, entry in own.items():
            if name in self.needed:
                self.set(self.needed, name, None)
            if PROPERTIES[name].item and entry.value.kind == "map" and entry.value.value:
                table = self.maps[name]
                self.kept.append((self.copies, name, self.copies[name]))
                self.copies[name] = []
                for item in entry.value.value:
                    placed = table.get(item.key)
                    if placed is None or placed[0] is not node:  # the first of two in one map
                        self.set(table, item.key, (node, item))
                    if name == "env" and item.key in self.needed:
                        self.set(self.needed, item.key, None)

    def leave_maps(self, node: ComponentNode) -> None:
        found = {}
        for name, table in self.maps.items():
            if len(table) > MOST_KEYS:
                source, entry = self.resolver.place(node, name)
                message = f"{name!r} has more than {MOST_KEYS} keys with those it inherits"
                self.resolver.reader.wrong(source, entry.value, message, ["put them into a file"])
            elif table:
                copies = self.copies[name]
                if not copies:
                    copies.append(table.copy())
                found[name] = copies[0]
        self.resolver.maps[id(node)] = found

    def missing(self, node: ComponentNode) -> None:
        """Report each parameter of its templates that ``node`` and those between do not set (E005)."""
        for number, (name, (template, entry)) in enumerate(self.needed.items()):
            if number == MOST_MISSING:
                break
            what = f"{name} = …" if name in PROPERTIES else f"env = {{ {name} = … }}"
            self.problems.add(
                "E005",
                node.source,
                node.name.start,
                node.name.end,
                f"{node.name.text!r} does not set {name!r}, which {template.name.text!r} requires",
                [f"add {what}"],
                [(template.source, entry.key_start, entry.key_end, "required here")],
            )


class Known:
    """Every name that FROM could mean in a file: only put together for a problem that is shown."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit

    def __iter__(self) -> Iterator[str]:
        yield from self.unit.components
        yield from self.unit.aliases
        for _, imported in self.unit.open_imports.values():
            yield from imported.components


def single(unit: Unit, alias: str) -> ComponentNode | None:
    """The component that an alias alone stands for."""
    if len(unit.components) == 1:
        return next(iter(unit.components.values()))
    return unit.components.get(alias) or unit.components.get(unit.stem)
