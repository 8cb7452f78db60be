"""Trees to components: names, FROM, inheritance, typed values (language.md, sections 3 to 5).

Each written value is converted once, however many components inherit it.
"""

from __future__ import annotations

from containust.common.types import Component, Healthcheck, Ref
from containust.compose.properties import HEALTHCHECK, PROPERTIES
from containust.compose.tree import ComponentNode, Import
from containust.compose.values import INVALID, KINDS, Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from containust.common.types import Text
    from containust.compose.properties import Property
    from containust.compose.tree import Entry, File, Interpolation, Name, Problems, Source, Value

    Placed = tuple[ComponentNode, Entry]


MOST_KEYS = 1024  # of one map with what it inherits, so that a chain cannot grow quadratically


class Unit:
    """One file among those loaded: its components by name and its imports by alias."""

    __slots__ = ("aliases", "components", "file", "loaded", "open_imports", "stem", "used")

    def __init__(self, file: File, stem: str) -> None:
        self.file = file
        self.stem = stem
        self.components: dict[str, ComponentNode] = {}
        self.aliases: dict[str, tuple[Import, Unit | None]] = {}
        self.open_imports: list[tuple[Import, Unit]] = []  # those without AS
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

    __slots__ = ("hurt", "merged", "needed", "problems", "reader", "unit", "units")

    def __init__(self, unit: Unit, units: dict[int, Unit], problems: Problems, environ: Mapping[str, str]) -> None:
        self.unit = unit
        self.units = units  # by id() of the source
        self.problems = problems
        self.reader = Reader(problems, environ)
        # By id() of the node: a long chain of FROM is walked once, whoever asks.
        self.merged: dict[int, dict[str, Any]] = {}
        self.needed: dict[int, dict[str, Placed]] = {}
        self.hurt: dict[int, bool] = {}

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
                crowd = [f"{parent.text}.{name}" for name in list(imported.components)[:20]]
        if not found:
            for statement, imported in unit.open_imports:
                other = imported.components.get(parent.text)
                if other is not None:
                    found[id(other)] = (statement, other)
                    crowd.append(f"{imported.stem}.{parent.text}")
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
        names = [*unit.components, *unit.aliases]
        for _, imported in unit.open_imports:
            names += imported.components
        self.problems.add(
            "E002",
            node.source,
            parent.start,
            parent.end,
            f"no component or import is called {parent.text!r}",
            [],
            (),
            (parent.text, names, "did you mean {}?"),
        )
        return None

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
            entry.result = row.convert(self.reader, source, value)

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
            suggest = (key, PROPERTIES, "did you mean {}?")
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

    def effective(self, node: ComponentNode) -> dict[str, Any]:
        """The properties of ``node`` with what it inherits (section 5); merged maps as key to place.

        Worked out once a node, from its parent's; a node that sets nothing shares them. Not to be changed.
        """
        chain: list[ComponentNode] = []
        current: ComponentNode | None = node
        while current is not None and id(current) not in self.merged:
            chain.append(current)
            current = current.resolved_parent
        merged: dict[str, Any] = {} if current is None else self.merged[id(current)]
        for one in reversed(chain):
            own = self.check(one)
            if own:
                merged = self.inherit(one, own, merged)
            self.merged[id(one)] = merged
        return merged

    def inherit(self, node: ComponentNode, own: dict[str, Entry], parents: dict[str, Any]) -> dict[str, Any]:
        merged = dict(parents)
        for name, entry in own.items():
            row = PROPERTIES[name]
            if row.excludes and row.excludes not in own:
                merged.pop(row.excludes, None)
            if row.item and entry.value.kind == "map":
                into: dict[str, Placed] = {}
                for item in entry.value.value:
                    if item.key not in into:
                        into[item.key] = (node, item)
                inherited = parents.get(name)
                if inherited.__class__ is dict:
                    for key, placed in inherited.items():
                        into.setdefault(key, placed)
                if len(into) > MOST_KEYS:
                    message = f"{name!r} has more than {MOST_KEYS} keys with those it inherits"
                    self.reader.wrong(node.source, entry.value, message, ["put them into a file"])
                    into = {}
                merged[name] = into
            else:
                merged[name] = (node, entry)
        return merged

    def needs(self, node: ComponentNode) -> dict[str, Placed]:
        """What children of ``node`` have to set, with where it is required; worked out once a node."""
        chain: list[ComponentNode] = []
        current: ComponentNode | None = node
        while current is not None and id(current) not in self.needed:
            chain.append(current)
            current = current.resolved_parent
        needed: dict[str, Placed] = {} if current is None else self.needed[id(current)]
        for one in reversed(chain):
            own = self.check(one)
            if needed and own:
                needed = self.without(needed, own)
            wanted = own.get("required_params")
            if wanted is not None and wanted.result is not INVALID:
                needed = {**needed, **dict.fromkeys(wanted.result, (one, wanted))}
            self.needed[id(one)] = needed
        return needed

    def without(self, needed: dict[str, Placed], own: dict[str, Entry]) -> dict[str, Placed]:
        env = own.get("env")
        keys = {item.key for item in env.value.value} if env is not None and env.value.kind == "map" else set()
        return {name: placed for name, placed in needed.items() if name not in own and name not in keys}

    def missing(self, node: ComponentNode) -> None:
        """Report each parameter of its templates that ``node`` and those between do not set (E005)."""
        if node.resolved_parent is None or self.damaged(node):
            return
        missing = self.without(self.needs(node.resolved_parent), self.check(node))
        for name, (template, entry) in missing.items():
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

    def component(self, node: ComponentNode, merged: dict[str, Any]) -> Component:
        """The component ``node`` stands for; a property that was reported keeps its default."""
        properties: dict[str, Any] = {}
        for name, placed in merged.items():
            row = PROPERTIES[name]
            if placed.__class__ is dict:
                if name == "healthcheck":
                    properties[name] = self.healthcheck(node, placed)
                else:
                    properties[name] = {k: e.result for k, (_, e) in placed.items() if e.result is not INVALID}
            elif row.field and placed[1].result is not INVALID:
                properties[row.field] = placed[1].result
        if "env_file" in merged and merged["env_file"][1].result is not INVALID:
            properties["env"] = {**merged["env_file"][1].result, **properties.get("env", {})}
        return Component(node.name.text, **properties)

    def healthcheck(self, node: ComponentNode, placed: dict[str, Placed]) -> Healthcheck | None:
        found = {key: entry.result for key, (_, entry) in placed.items() if entry.result is not INVALID}
        if "command" in found:
            return Healthcheck(**found)
        if "command" not in placed and len(found) == len(placed) and not node.damaged:
            source, entry = self.place(node, "healthcheck")
            self.problems.add(
                "E005",
                source,
                entry.key_start,
                entry.key_end,
                f"the healthcheck of {node.name.text!r} has no command",
                ['add command = ["/bin/ready"]'],
            )
        return None

    def place(self, node: ComponentNode, name: str) -> tuple[Source, Entry]:
        """Where ``name`` of ``node`` is written, at itself or the nearest ancestor."""
        placed = self.effective(node)[name]
        if placed.__class__ is not dict:
            return placed[0].source, placed[1]
        current: ComponentNode | None = node
        while current is not None and name not in self.check(current):
            current = current.resolved_parent
        assert current is not None
        return current.source, self.check(current)[name]


def single(unit: Unit, alias: str) -> ComponentNode | None:
    """The component that an alias alone stands for."""
    if len(unit.components) == 1:
        return next(iter(unit.components.values()))
    return unit.components.get(alias) or unit.components.get(unit.stem)


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


def wired(name: str, target: Component, protocol: str) -> dict[str, Text]:
    """What CONNECT puts into the environment of a component that depends on ``target`` (section 6)."""
    prefix = name.upper().replace("-", "_").replace(".", "_")
    host = Ref("component", name, "host")
    env: dict[str, Text] = {f"{prefix}_HOST": (host,)}
    if target.ports:
        port = str(target.ports[0].number)
        env[f"{prefix}_PORT"] = port
        env[f"{prefix}_CONNECTION_STRING"] = (f"{protocol}://", host, f":{port}")
    else:
        env[f"{prefix}_CONNECTION_STRING"] = (f"{protocol}://", host)
    return env


PROTOCOLS = (
    ("postgres", "postgres"),
    ("mysql", "mysql"),
    ("mariadb", "mysql"),
    ("redis", "redis"),
    ("valkey", "redis"),
    ("mongo", "mongodb"),
    ("rabbitmq", "amqp"),
    ("amqp", "amqp"),
    ("nats", "nats"),
)


def protocol(image: str) -> str:
    """The scheme of a connection string, by the last part of an image reference."""
    name = image.partition("@sha256:")[0].rstrip("/").rpartition("/")[2].lower()
    for part, scheme in PROTOCOLS:
        if part in name:
            return scheme
    return "http"
