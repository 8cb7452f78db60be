"""Trees to components: names, properties, typed values (language.md, sections 3 to 5).

Each written value is converted once, however many components inherit it.
"""

from __future__ import annotations

from containust.common.types import Component, Healthcheck
from containust.compose.properties import HEALTHCHECK, PROPERTIES
from containust.compose.tree import ComponentNode, Import
from containust.compose.values import INVALID, KINDS, WAITING, Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from containust.compose.properties import Property
    from containust.compose.tree import Entry, File, Interpolation, Problems, Source, Value

    Placed = tuple[ComponentNode, Entry]


class Unit:
    """One file among those loaded: its components by name and its imports by alias."""

    __slots__ = ("aliases", "components", "file", "loaded", "open_imports", "stem", "used")

    def __init__(self, file: File, stem: str) -> None:
        self.file = file
        self.stem = stem
        self.components: dict[str, ComponentNode] = {}
        self.aliases: dict[str, tuple[Import, Unit | None]] = {}
        self.open_imports: dict[int, tuple[Import, Unit]] = {}  # those without AS, by id() of the unit
        self.loaded: list[Import] = []  # those whose file could be read
        self.used: set[int] = set()  # id() of each Import that a FROM uses


def collect(unit: Unit, problems: Problems) -> None:
    """Fill the components of ``unit`` by name; the second of a name is E003."""
    for statement in unit.file.statements:
        if statement.__class__ is ComponentNode:
            name = statement.name
            first = unit.components.setdefault(name.text, statement)
            if first is not statement:
                source = unit.file.source
                problems.add(
                    "E003",
                    source,
                    name.start,
                    name.end,
                    f"component {name.text!r} is defined twice",
                    ["rename one of them"],
                    [(source, first.name.start, first.name.end, "first defined here")],
                )


class Resolver:
    """Resolves the components of one file, reaching into imported ones as FROM asks for."""

    __slots__ = (
        "definers",
        "hurt",
        "made",
        "maps",
        "merged",
        "problems",
        "reader",
        "settled",
        "topped",
        "unit",
        "units",
    )

    def __init__(self, unit: Unit, units: dict[int, Unit], problems: Problems, environ: Mapping[str, str]) -> None:
        self.unit = unit
        self.units = units  # by id() of the source
        self.problems = problems
        self.reader = Reader(problems, environ)
        # By id() of the node: a long chain of FROM is walked once, whoever asks.
        self.merged: dict[int, dict[str, Placed]] = {}
        self.maps: dict[int, dict[str, dict[str, Placed]]] = {}  # of those that inherit
        self.hurt: dict[int, bool] = {}
        self.settled: dict[tuple[int, bool], Any] = {}  # values that had to wait, see references.settle
        # Environments and labels that several inherit alike: by id() of the map they are made of, and those on top of
        # files with what they were made of, whose id() has to last.
        self.made: dict[int, dict[str, Any]] = {}
        self.topped: dict[tuple[int, int], tuple[dict[str, Any], dict[str, Any]]] = {}
        self.definers: dict[str, dict[int, Unit]] | None = None

    def defining(self, name: str) -> dict[int, Unit]:
        """The imported files that define a component ``name``, by id() of the unit."""
        if self.definers is None:
            self.definers = {}
            for unit in self.units.values():
                if unit is not self.unit:
                    for component in unit.components:
                        self.definers.setdefault(component, {})[id(unit)] = unit
        return self.definers.get(name, {})

    # Properties

    def check(self, node: ComponentNode) -> dict[str, Entry]:
        """The properties of ``node`` by name, each converted; done once a node."""
        if node.properties is not None:
            return node.properties
        found: dict[str, Entry] = {}
        node.properties = found
        source = node.source
        for entry in node.entries:
            row = PROPERTIES.get(entry.key)
            if row is None:
                self.unknown(source, node, entry)
                continue
            first = found.setdefault(entry.key, entry)
            if first is not entry:
                self.twice(source, first, entry, "property")
                continue
            self.convert(source, row, entry)
            other = row.excludes and found.get(row.excludes)
            if other:
                self.problems.add(
                    "E015",
                    source,
                    entry.key_start,
                    entry.key_end,
                    f"{row.name!r} and {row.excludes!r} exclude each other",
                    [f"keep {max(row.name, row.excludes, key=len)!r} alone"],
                    [(source, other.key_start, other.key_end, "the other one is here")],
                )
        return found

    def convert(self, source: Source, row: Property, entry: Entry) -> None:
        value = entry.value
        kind = value.kind
        if kind == "error":
            entry.result = INVALID
        elif kind not in row.kinds:
            entry.result = self.wrong_kind(source, row, value)
        elif row.item:
            entry.result = value
            self.items(source, row, value)
        else:
            reader = self.reader
            result = row.convert(reader, source, value)
            if reader.waits:
                result = reader.wait(source, row, value, result)
            entry.result = result

    def items(self, source: Source, row: Property, value: Value) -> None:
        """The entries of a map that merges key by key."""
        seen: dict[str, Entry] = {}
        for item in value.value:
            first = seen.setdefault(item.key, item)
            if first is not item:
                self.twice(source, first, item, "key")
                item.result = INVALID
            elif row.name == "healthcheck":
                inner = HEALTHCHECK.get(item.key)
                if inner is None:
                    item.result = INVALID
                    self.problems.add(
                        "E006",
                        source,
                        item.key_start,
                        item.key_end,
                        f"healthcheck has no key {item.key[:60]!r}",
                        [f"its keys are {', '.join(HEALTHCHECK)}"],
                        (),
                        (item.key, HEALTHCHECK, "did you mean {}?"),
                    )
                else:
                    self.convert(source, inner, item)
            elif item.value.kind not in row.item:
                if item.value.kind != "error":
                    self.reader.wrong(
                        source,
                        item.value,
                        f"expected a string, found {KINDS[item.value.kind]}",
                        ["numbers, true and false are fine too"],
                    )
                item.result = INVALID
            elif not item.key or (row.name == "env" and ("=" in item.key or "\0" in item.key)):
                self.problems.add(
                    "E006",
                    source,
                    item.key_start,
                    item.key_end,
                    f"{item.key[:60]!r} cannot name a variable",
                    ["a name is not empty and has no ="],
                )
                item.result = INVALID
            else:
                item.result = row.convert(self.reader, source, item.value)

    def wrong_kind(self, source: Source, row: Property, value: Value) -> Any:
        help = [f"{row.name} takes {row.form}"]
        if row.excludes and value.kind in PROPERTIES[row.excludes].kinds:
            help.append(f"for {KINDS[value.kind]} write {row.excludes} = …")
        elif value.kind == "int" and row.name in ("cpus", "user"):
            help.insert(0, f'quote it: "{value.value}"')
        elif value.kind == "string" and row.kinds == ("list",) and row.name in ("command", "entrypoint"):
            help.append('for the image\'s shell write ["/bin/sh", "-c", "…"]')
        return self.reader.wrong(source, value, f"{row.name!r} cannot be {KINDS[value.kind]}", help)

    def twice(self, source: Source, first: Entry, entry: Entry, what: str) -> None:
        self.problems.add(
            "E003",
            source,
            entry.key_start,
            entry.key_end,
            f"{what} {entry.key[:60]!r} is set twice",
            ["remove one of them"],
            [(source, first.key_start, first.key_end, "first set here")],
        )

    def unknown(self, source: Source, node: ComponentNode, entry: Entry) -> None:
        from containust.compose.properties import OTHERWISE, STATEMENT_HELP

        key = entry.key
        suggest = None
        if key.lower() in STATEMENT_HELP:
            help = [STATEMENT_HELP[key.lower()].replace("this", node.name.text)]
        elif key.lower() in OTHERWISE:
            help = [f"did you mean {OTHERWISE[key.lower()]}?"]
        else:
            help = []
            suggest = (key, {**OTHERWISE, **dict.fromkeys(PROPERTIES)}, "did you mean {}?")
        self.problems.add(
            "E006",
            source,
            entry.key_start,
            entry.key_end,
            f"a component has no property {key[:60]!r}",
            help,
            (),
            suggest,
        )

    def effective(self, node: ComponentNode) -> dict[str, Placed]:
        """Where each property of ``node`` is set, at itself or the nearest ancestor (section 5).

        Worked out once a node, from its parent's; a node that sets nothing shares them. Not to be changed.
        """
        chain: list[ComponentNode] = []
        current: ComponentNode | None = node
        while current is not None and id(current) not in self.merged:
            chain.append(current)
            current = current.resolved_parent
        merged: dict[str, Placed] = {} if current is None else self.merged[id(current)]
        for one in reversed(chain):
            own = self.check(one)
            if own:
                merged = merged.copy()
                for name, entry in own.items():
                    other = PROPERTIES[name].excludes
                    if other and other not in own:
                        merged.pop(other, None)
                    merged[name] = (one, entry)
            self.merged[id(one)] = merged
        return merged

    def inherit(self, nodes: list[ComponentNode]) -> None:
        """Merge the maps of ``nodes`` with those they inherit, and report parameters they miss."""
        heirs = [node for node in nodes if node.resolved_parent is not None]
        if heirs:
            from containust.compose.templates import Templates

            Templates(self).inherit(heirs)

    def map(self, node: ComponentNode, name: str) -> dict[str, Placed]:
        """The entries of a map property by key, own and inherited; :meth:`inherit` comes before."""
        found = self.maps.get(id(node))
        if found is not None:
            return found.get(name, {})
        entry = self.check(node).get(name)
        if entry is None or entry.value.kind != "map":
            return {}
        placed: dict[str, Placed] = {}
        for item in entry.value.value:
            placed.setdefault(item.key, (node, item))
        return placed

    def damaged(self, node: ComponentNode) -> bool:
        """Whether ``node`` or an ancestor has mistakes that may hide properties; worked out once a node."""
        chain: list[ComponentNode] = []
        current: ComponentNode | None = node
        while current is not None and id(current) not in self.hurt:
            chain.append(current)
            current = current.resolved_parent
        hurt = current is not None and self.hurt[id(current)]
        for one in reversed(chain):
            hurt = hurt or one.damaged
            self.hurt[id(one)] = hurt
        return hurt

    def component(self, node: ComponentNode, merged: dict[str, Placed]) -> Component:
        """The component ``node`` stands for; a property that was reported keeps its default."""
        properties: dict[str, Any] = {}
        for name, placed in merged.items():
            result = self.value(node, PROPERTIES[name], placed)
            if result is INVALID:
                continue
            if name == "healthcheck":
                properties[name] = self.healthcheck(node, placed)
            elif PROPERTIES[name].item:
                properties[name] = self.texts(node, name)
            elif PROPERTIES[name].field:
                properties[PROPERTIES[name].field] = result
        if "env_file" in merged:
            variables = self.value(node, PROPERTIES["env_file"], merged["env_file"])
            if variables is not INVALID:
                properties["env"] = self.with_file(variables, properties.get("env"))
        return Component(node.name.text, **properties)

    def texts(self, node: ComponentNode, name: str) -> dict[str, Any]:
        """The values of a map; those that several components inherit alike are one object, not to be changed."""
        found = self.map(node, name)
        inherited = bool(found) and id(node) in self.maps
        if inherited and id(found) in self.made:
            return self.made[id(found)]
        made = {key: entry.result for key, (_, entry) in found.items() if entry.result is not INVALID}
        if inherited:
            self.made[id(found)] = made
        return made

    def with_file(self, variables: dict[str, str], own: dict[str, Any] | None) -> dict[str, Any]:
        """An environment on top of the variables of files; one object for all that inherit both."""
        if not own:
            return variables
        key = (id(variables), id(own))
        if key not in self.topped:
            self.topped[key] = ({**variables, **own}, own)
        return self.topped[key][0]

    def value(self, node: ComponentNode, row: Property, placed: Placed) -> Any:
        """The typed value that ``placed`` has for ``node``; INVALID once reported."""
        result = placed[1].result
        if result is not WAITING:
            return result
        from containust.compose.references import settle

        return settle(self, node, row, placed)

    def healthcheck(self, node: ComponentNode, place: Placed) -> Healthcheck | None:
        placed = self.map(node, "healthcheck")
        results = {key: self.value(node, HEALTHCHECK[key], one) for key, one in placed.items() if key in HEALTHCHECK}
        found = {key: result for key, result in results.items() if result is not INVALID}
        if "command" in found:
            return Healthcheck(**found)
        if "command" not in placed and len(found) == len(placed) and not node.damaged:
            entry = place[1]
            self.problems.add(
                "E005",
                place[0].source,
                entry.key_start,
                entry.key_end,
                f"the healthcheck of {node.name.text!r} has no command",
                ['add command = ["/bin/ready"]'],
            )
        return None

    def place(self, node: ComponentNode, name: str) -> tuple[Source, Entry]:
        """Where ``name`` of ``node`` is written, at itself or the nearest ancestor."""
        placed = self.effective(node)[name]
        return placed[0].source, placed[1]


def open_references(value: Value) -> list[Interpolation]:
    """The references to components and secrets written in a value, at any depth."""
    if value.kind == "string":
        return (
            []
            if value.value.__class__ is str
            else [p for p in value.value if not isinstance(p, str) and p.kind != "env"]
        )
    found: list[Interpolation] = []
    if value.kind == "list":
        for item in value.value:
            found += open_references(item)
    elif value.kind == "map":
        for entry in value.value:
            found += open_references(entry.value)
    return found
