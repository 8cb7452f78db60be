"""From resolved components to a stack: what takes more than one component to see (language.md, 5 to 10)."""

from __future__ import annotations

from containust.common.types import Stack
from containust.compose.resolver import open_references
from containust.compose.tree import ComponentNode, Connect, ExposeNode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from containust.common.types import Component, Expose
    from containust.compose.mounts import Mounts
    from containust.compose.resolver import Placed, Resolver, Unit
    from containust.compose.tree import Entry, Interpolation, Name, Source

LISTED = 10  # names in one message
PINNABLE = ("tar://", "oci://", "image://", "preset://")


class Checker:
    """One pass over the entry file; the methods run in the order in which they are written."""

    def __init__(self, resolver: Resolver, path: str, secret: Callable[[str], None]) -> None:
        self.resolver = resolver
        self.problems = resolver.problems
        self.unit: Unit = resolver.unit
        self.source: Source = self.unit.file.source
        self.nodes = self.unit.components
        self.path = path
        self.secret = secret  # raises ContainustError when a secret of that name is not usable
        self.merged: dict[str, dict[str, Placed]] = {}
        self.refers: dict[int, list[tuple[Source, Interpolation]]] = {}
        self.connects: list[Connect] = []
        self.exposes: list[ExposeNode] = []
        self.templates: set[str] = set()
        self.components: dict[str, Component] = {}
        self.edges: dict[str, dict[str, Name]] = {}
        self.mounts: Mounts | None = None
        self.alias_of: dict[int, str] | None = None  # aliases by id() of the unit

    def stack(self) -> Stack:
        self.read()
        self.tell_templates()
        self.build()
        self.connect()
        if self.refers:
            from containust.compose.referring import Referring

            Referring(self).refer()
        published: list[Expose] = []
        if self.exposes:
            from containust.compose.publishing import Publisher

            published = Publisher(self).publish()
        self.unmentioned()
        deployed = self.components
        return Stack(self.path, deployed, published, [name for name in self.nodes if name not in deployed])

    def read(self) -> None:
        for statement in self.unit.file.statements:
            if isinstance(statement, ComponentNode):
                if self.nodes[statement.name.text] is not statement:
                    self.resolver.check(statement)  # a second of the name: at least its own mistakes
            elif isinstance(statement, Connect):
                self.connects.append(statement)
            elif isinstance(statement, ExposeNode):
                self.exposes.append(statement)
        refers: dict[int, list[tuple[Source, Interpolation]]] = {}  # by id() of the entry
        seen: set[int] = set()
        for name, node in self.nodes.items():
            self.merged[name] = self.resolver.effective(node)
            one: ComponentNode | None = node
            while one is not None and id(one) not in seen:
                seen.add(id(one))
                for entry in self.resolver.check(one).values():
                    if entry.value.value.__class__ is not str:
                        self.note(one.source, entry, refers)
                one = one.resolved_parent
        self.refers = refers

    @staticmethod
    def note(source: Source, entry: Entry, refers: dict[int, list[tuple[Source, Interpolation]]]) -> None:
        """Keep the references of a property; those of a map by its entries, which are inherited one by one."""
        for part in entry.value.value if entry.value.kind == "map" else (entry,):
            if part.value.value.__class__ is not str:
                found = open_references(part.value)
                if found:
                    refers[id(part)] = [(source, reference) for reference in found]

    def tell_templates(self) -> None:
        """Which components are not deployed (section 5)."""
        parents = {id(node.resolved_parent) for node in self.nodes.values() if node.resolved_parent}
        named = {part.name for used in self.refers.values() for _, part in used if part.kind == "component"}
        for connect in self.connects:
            named.add(connect.name.text)
            named.update(target.text for target in connect.targets)
        named.update(expose.target.text for expose in self.exposes if expose.target)
        for name, node in self.nodes.items():
            own = self.resolver.check(node).get("template")
            if own is not None and own.value.kind == "bool":
                if own.value.value:
                    self.templates.add(name)
            elif id(node) in parents and name not in named:
                self.templates.add(name)

    def build(self) -> None:
        self.resolver.inherit([node for name, node in self.nodes.items() if name not in self.templates])
        for name, node in self.nodes.items():
            if name in self.templates:
                continue
            merged = self.merged[name]
            component = self.resolver.component(node, merged)
            self.components[name] = component
            if "image" not in merged and not self.resolver.damaged(node):
                help = ['add image = "oci://docker.io/library/alpine:3.21", or FROM a template that has one']
                if node.resolved_parent is None and len(self.nodes) > 1:
                    help.append("a component that is only meant for FROM says template = true")
                self.problems.add(
                    "E005",
                    self.source,
                    node.name.start,
                    node.name.end,
                    f"component {name!r} has no image",
                    help,
                )
            if component.volumes or component.tmpfs:
                if self.mounts is None:
                    from containust.compose.mounts import Mounts

                    self.mounts = Mounts(self.resolver)
                self.mounts.check(node, merged)
            if component.live and component.image and not component.image.startswith("file://"):
                source, entry = self.resolver.place(node, "live")
                self.resolver.reader.wrong(source, entry.value, "only a file:// image can be live")
            takes = ("host://", "file://") if component.distroless else ("host://",)
            if component.include and component.image and not component.image.startswith(takes):
                source, entry = self.resolver.place(node, "include")
                help = ["mount it with volumes instead"]
                message = "only a host:// image can include host paths"
                self.resolver.reader.wrong(source, entry.value, message, help)

    # CONNECT

    def connect(self) -> None:
        edges: dict[str, dict[str, Name]] = {name: {} for name in self.components}
        self.edges = edges
        for statement in self.connects:
            known = self.known(statement.name, "CONNECT")
            for target in statement.targets:
                if not self.known(target, "CONNECT") or not known:
                    continue
                own = edges[statement.name.text]
                first = own.setdefault(target.text, target)
                if first is not target:
                    self.problems.add(
                        "W013",
                        self.source,
                        target.start,
                        target.end,
                        f"{statement.name.text} -> {target.text} is connected already",
                        ["remove it"],
                        [(self.source, first.start, first.end, "first connected here")],
                    )
        if not self.connects:
            return
        from containust.compose.graph import cycles

        for name, targets in edges.items():
            self.components[name].depends_on = list(targets)
            self.wire(name, targets)
        for cycle in cycles({name: component.depends_on for name, component in self.components.items()}):
            self.cycle(cycle)

    def known(self, name: Name, statement: str) -> bool:
        """Whether ``name`` is a deployed component; else E002."""
        if name.text in self.components:
            return True
        help: list[str] = []
        related = []
        suggest = None
        message = f"no component is called {name.text!r}"
        if name.text in self.nodes:
            message = f"{name.text!r} is a template and not deployed"
            node = self.nodes[name.text]
            related = [(self.source, node.name.start, node.name.end, "defined here")]
            help = [f"{statement} a component that starts FROM it, or write template = false"]
        else:
            origin = self.imported(name.text)
            if origin:
                message = f"{name.text!r} is imported: a template, and not deployed"
                help = [f"write COMPONENT {name.text} FROM {origin} {{ }}"]
            else:
                suggest = (name.text, self.components, "did you mean {}?", "components here: {}")
        self.problems.add("E002", self.source, name.start, name.end, message, help, related, suggest)
        return False

    def imported(self, name: str) -> str:
        """How FROM would name an imported component that ``name`` could mean; empty for none."""
        if name in self.unit.aliases:
            return name
        if self.alias_of is None:
            self.alias_of = {id(imported): alias for alias, (_, imported) in self.unit.aliases.items() if imported}
        for unit in self.resolver.defining(name):
            if unit in self.alias_of:
                return f"{self.alias_of[unit]}.{name}"
        return ""

    def wire(self, name: str, targets: dict[str, Name]) -> None:
        """Environment from each dependency (own values win), and E019 for those out of reach."""
        from containust.compose.graph import protocol, wired

        component = self.components[name]
        env: dict[str, Any] = {}
        for target, place in targets.items():
            other = self.components[target]
            env.update(wired(target, other, protocol(other.image)))
            mine, theirs = component.networks, other.networks
            if mine == theirs != ["none"] or "host" in mine or "host" in theirs:
                continue
            if "none" in mine or "none" in theirs or not set(mine) & set(theirs):
                self.problems.add(
                    "E019",
                    self.source,
                    place.start,
                    place.end,
                    f"{name!r} and {target!r} share no network",
                    [
                        f"{name} is in {', '.join(mine[:LISTED])}, {target} in {', '.join(theirs[:LISTED])}",
                        'put both into one, for example network = ["bridge", "backend"]',
                    ],
                )
        if env:
            env.update(component.env)
            component.env = env

    def cycle(self, names: list[str]) -> None:
        places = [(a, b, self.edges[a][b]) for a, b in zip(names, [*names[1:], names[0]], strict=True)]
        places.sort(key=lambda edge: edge[2].start)
        _, _, last = places[-1]
        self.problems.add(
            "E004",
            self.source,
            last.start,
            last.end,
            f"components depend on each other: {' -> '.join([*names, names[0]])}",
            ["remove one of these connections"],
            [(self.source, place.start, place.end, f"{a} depends on {b}") for a, b, place in places[:-1][:LISTED]],
        )

    # Warnings

    def listening(self) -> dict[tuple[int, str], list[str]]:
        """Names of the deployed components by port and protocol."""
        found: dict[tuple[int, str], list[str]] = {}
        for name, component in self.components.items():
            for port in component.ports:
                found.setdefault((port.number, port.protocol), []).append(name)
        return found

    def unmentioned(self) -> None:
        # What was not read could have mentioned them.
        torn = any(entry[0] == "E001" and entry[1] is self.source for entry in self.problems.entries)
        if len(self.components) > 1 and not torn:
            named = {id(node.resolved_parent) for node in self.nodes.values() if node.resolved_parent}
            mentioned = {name for connect in self.connects for name in self.names_of(connect)}
            mentioned.update(self.exposed())
            for name, node in self.nodes.items():
                if name not in mentioned and id(node) not in named:
                    self.problems.add(
                        "W010",
                        self.source,
                        node.name.start,
                        node.name.end,
                        f"no CONNECT, EXPOSE or FROM mentions {name!r}",
                        ["connect it, or remove it"],
                    )
        for statement in self.unit.loaded:
            if id(statement) not in self.unit.used and not torn:
                self.problems.add(
                    "W009",
                    self.source,
                    statement.start,
                    statement.end,
                    "no FROM uses this import",
                    ["remove it"],
                )
        for unit in self.resolver.units.values():
            if unit is not self.unit:
                self.without_effect(unit)

    def names_of(self, connect: Connect) -> Iterator[str]:
        yield connect.name.text
        for target in connect.targets:
            yield target.text

    def exposed(self) -> Iterator[str]:
        listening = self.listening()
        for node in self.exposes:
            if node.target is not None:
                yield node.target.text
            else:
                names = listening.get(((node.container_port or node.host_port).value, node.protocol), [])
                yield from names[:1] if len(names) == 1 else ()

    def without_effect(self, unit: Unit) -> None:
        for statement in unit.file.statements:
            if isinstance(statement, (Connect, ExposeNode)):
                keyword = "CONNECT" if isinstance(statement, Connect) else "EXPOSE"
                self.problems.add(
                    "W013",
                    unit.file.source,
                    statement.start,
                    statement.end,
                    f"{keyword} has no effect in an imported file",
                    ["move it to the file that imports this one"],
                )


def unpinned(checker: Checker) -> None:
    """W016 for every deployed image that could be pinned and is not."""
    for name, node in checker.nodes.items():
        component = checker.components.get(name)
        if component and component.image.startswith(PINNABLE) and "@sha256:" not in component.image:
            source, entry = checker.resolver.place(node, "image")
            checker.problems.add(
                "W016",
                source,
                entry.value.start,
                entry.value.end,
                "the image is not pinned by its digest",
                ["append @sha256: and the digest; `ctst build` prints it"],
            )
