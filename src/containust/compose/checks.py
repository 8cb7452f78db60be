"""From resolved components to a stack: what takes more than one component to see (language.md, 5 to 10)."""

from __future__ import annotations

from containust.common.types import Expose, Stack
from containust.compose.resolver import open_references, protocol, wired
from containust.compose.tree import ComponentNode, Connect, ExposeNode
from containust.compose.values import INVALID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from containust.common.types import Component
    from containust.compose.resolver import Resolver, Unit
    from containust.compose.tree import Interpolation, Name, Source, Value

WILDCARDS = ("0.0.0.0", "::")
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
        self.merged: dict[str, dict[str, Any]] = {}
        self.uses: dict[str, list[tuple[Source, Interpolation]]] = {}
        self.connects: list[Connect] = []
        self.exposes: list[ExposeNode] = []
        self.templates: set[str] = set()
        self.components: dict[str, Component] = {}
        self.edges: dict[str, dict[str, Name]] = {}
        self.hurt = False  # some component's ports may be hidden by a mistake

    def stack(self) -> Stack:
        self.read()
        self.tell_templates()
        self.build()
        self.connect()
        self.refer()
        published = self.publish()
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
        for name, node in self.nodes.items():
            merged = self.resolver.effective(node)
            self.merged[name] = merged
            used = []
            for placed in merged.values():
                for owner, entry in list(placed.values()) if isinstance(placed, dict) else [placed]:
                    if entry.value.value.__class__ is not str:
                        used += [(owner.source, part) for part in open_references(entry.value)]
            if used:
                self.uses[name] = used

    def tell_templates(self) -> None:
        """Which components are not deployed (section 5)."""
        parents = {id(node.resolved_parent) for node in self.nodes.values() if node.resolved_parent}
        named = {part.name for used in self.uses.values() for _, part in used if part.kind == "component"}
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
        for name, node in self.nodes.items():
            if name in self.templates:
                continue
            merged = self.merged[name]
            self.resolver.missing(node)
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
                self.targets(merged)
            if component.live and component.image and not component.image.startswith("file://"):
                source, entry = self.resolver.place(node, "live")
                self.resolver.reader.wrong(source, entry.value, "only a file:// image can be live")
            takes = ("host://", "file://") if component.distroless else ("host://",)
            if component.include and component.image and not component.image.startswith(takes):
                source, entry = self.resolver.place(node, "include")
                help = ["mount it with volumes instead"]
                message = "only a host:// image can include host paths"
                self.resolver.reader.wrong(source, entry.value, message, help)

    def targets(self, merged: dict[str, Any]) -> None:
        """Two mounts of one component at the same place are E012."""
        seen: dict[str, tuple[Source, Value]] = {}
        for name in ("volume", "volumes", "tmpfs"):
            if name not in merged or merged[name][1].result is INVALID:
                continue
            node, entry = merged[name]
            values = [entry.value] if entry.value.kind == "string" else entry.value.value
            for value, mount in zip(values, entry.result, strict=True):
                first = seen.setdefault(mount.target, (node.source, value))
                if first[1] is not value:
                    self.problems.add(
                        "E012",
                        node.source,
                        value.start,
                        value.end,
                        f"{mount.target} is mounted twice",
                        ["give each mount its own target"],
                        [(first[0], first[1].start, first[1].end, "first mounted here")],
                    )

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
                suggest = (name.text, self.components, "did you mean {}?")
        self.problems.add("E002", self.source, name.start, name.end, message, help, related, suggest)
        return False

    def imported(self, name: str) -> str:
        """How FROM would name an imported component that ``name`` could mean; empty for none."""
        if name in self.unit.aliases:
            return name
        for alias, (_, imported) in self.unit.aliases.items():
            if imported is not None and name in imported.components:
                return f"{alias}.{name}"
        return ""

    def wire(self, name: str, targets: dict[str, Name]) -> None:
        """Environment from each dependency (own values win), and E019 for those out of reach."""
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

    # Interpolations

    def refer(self) -> None:
        seen: set[tuple[int, int]] = set()
        secrets: set[str] = set()
        for name, used in self.uses.items():
            for source, part in used:
                place = (id(source), part.start)
                if part.kind == "secret":
                    if name in self.components and part.name not in secrets:
                        secrets.add(part.name)
                        self.find_secret(source, part)
                    continue
                connected = part.name in self.edges.get(name, ()) or part.name == name or name not in self.components
                if place in seen and connected:
                    continue
                if place not in seen:
                    seen.add(place)
                    self.reference(source, part)
                if not connected and part.name in self.components:
                    self.problems.add(
                        "W014",
                        source,
                        part.start,
                        part.end,
                        f"{name!r} refers to {part.name!r} but does not wait for it",
                        [f"write CONNECT {name} -> {part.name}"],
                    )

    def reference(self, source: Source, part: Interpolation) -> None:
        target = self.components.get(part.name)
        if target is None:
            template = part.name in self.nodes
            self.problems.add(
                "E002",
                source,
                part.start,
                part.end,
                f"{part.name!r} is a template and not deployed"
                if template
                else f"no component is called {part.name!r}",
                ["refer to a component that starts FROM it"] if template else [],
                (),
                None if template else (part.name, self.components, "did you mean {}?"),
            )
        elif part.attribute == "port" and not target.ports:
            node = self.nodes[part.name]
            if not self.resolver.damaged(node) and not {"port", "ports"} & self.merged[part.name].keys():
                self.problems.add(
                    "E005",
                    source,
                    part.start,
                    part.end,
                    f"component {part.name!r} has no port",
                    [f"add port = … to {part.name}"],
                    [(node.source, node.name.start, node.name.end, "defined here")],
                )

    def find_secret(self, source: Source, part: Interpolation) -> None:
        from containust.common.errors import ContainustError

        try:
            self.secret(part.name)
        except ContainustError as error:
            self.problems.add(error.code, source, part.start, part.end, error.message, error.help)

    # EXPOSE

    def publish(self) -> list[Expose]:
        published: list[Expose] = []
        self.hurt = any(self.resolver.damaged(node) for node in self.nodes.values())
        listening: dict[tuple[int, str], list[str]] | None = None
        taken: dict[tuple[int, str, bool], dict[str, ExposeNode]] = {}
        for node in self.exposes:
            address = self.address(node)
            bad = False
            for value in (node.host_port, node.container_port):
                if value is not None and not 1 <= value.value <= 65535:
                    self.resolver.reader.wrong(self.source, value, f"{value.value} is not a port", ["1 to 65535"])
                    bad = True
            host = node.host_port.value
            container = (node.container_port or node.host_port).value
            if node.target is not None:
                target = node.target.text if self.known(node.target, "EXPOSE") else ""
            else:
                if listening is None:
                    listening = self.listening()
                target = "" if bad else self.listener(node, container, listening)
            if address is INVALID or bad:
                continue
            if address in WILDCARDS:
                at = node.address
                assert at is not None
                help = ["leave the address away for 127.0.0.1, or keep it if that is meant"]
                self.problems.add(
                    "W015",
                    self.source,
                    at.start,
                    at.end,
                    f"port {host} is open to every network of this host",
                    help,
                )
            self.collide(node, taken.setdefault((host, node.protocol, ":" in address), {}), address)
            if target:
                published.append(Expose(target, host, container, node.protocol, address))
        return published

    def address(self, node: ExposeNode) -> Any:
        """The address without brackets, validated; 127.0.0.1 when none is written."""
        if node.address is None:
            return "127.0.0.1"
        text = self.resolver.reader.text(self.source, node.address)
        if text is INVALID:
            return text
        import _socket

        bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
        family = _socket.AF_INET6 if ":" in bare else _socket.AF_INET
        try:
            return _socket.inet_ntop(family, _socket.inet_pton(family, bare))
        except (OSError, ValueError):
            help = ['an address of this host such as "127.0.0.1", "0.0.0.0" or "[::1]"']
            if bare == "localhost":
                help = ['write "127.0.0.1", which is the default']
            return self.resolver.reader.wrong(self.source, node.address, f"{text[:60]!r} is not an IP address", help)

    def listening(self) -> dict[tuple[int, str], list[str]]:
        """Names of the deployed components by port and protocol."""
        found: dict[tuple[int, str], list[str]] = {}
        for name, component in self.components.items():
            for port in component.ports:
                found.setdefault((port.number, port.protocol), []).append(name)
        return found

    def listener(self, node: ExposeNode, port: int, listening: dict[tuple[int, str], list[str]]) -> str:
        """The one component that has ``port``; empty and E011 when it is none or several."""
        names = listening.get((port, node.protocol), [])
        if len(names) == 1:
            return names[0]
        place = node.container_port or node.host_port
        if names:
            message = f"{len(names)} components have port {port}: {', '.join(names[:LISTED])}"
            message += ", …" if len(names) > LISTED else ""
            help = [f"say which one: EXPOSE … -> {names[0]}"]
        else:
            message = f"no component has port {port}/{node.protocol}"
            known = []
            for (number, kind), owners in listening.items():
                known.append(f"{owners[0]} has {number}" + ("" if kind == "tcp" else f"/{kind}"))
                if len(known) == LISTED:
                    break
            help = [f"say which one: EXPOSE … -> name, or give one port = {port}"]
            if known:
                help.append(", ".join(known))
        if names or not self.hurt:
            self.problems.add("E011", self.source, place.start, place.end, message, help)
        return ""

    def collide(self, node: ExposeNode, others: dict[str, ExposeNode], address: str) -> None:
        wildcard = address in WILDCARDS
        first = others.get(address) or others.get("0.0.0.0") or others.get("::")
        if first is None and wildcard and others:
            first = next(iter(others.values()))
        others.setdefault(address, node)
        if first is not None:
            self.problems.add(
                "E012",
                self.source,
                node.host_port.start,
                node.host_port.end,
                f"host port {node.host_port.value}/{node.protocol} is used twice",
                ["choose another host port: EXPOSE host:container"],
                [(self.source, first.start, first.end, "first used here")],
            )

    # Warnings

    def unmentioned(self) -> None:
        if len(self.components) > 1:
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
            if id(statement) not in self.unit.used:
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
