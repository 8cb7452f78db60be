"""References in strings: what they refer to is there, and started before (language.md, sections 8 and 9).

Loaded only where a file has one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.compose.checks import Checker
    from containust.compose.tree import ComponentNode, Interpolation, Source

MOST_UNORDERED = 10_000  # W014 of one file; every component can inherit references to every other


class Referring:
    """The references of a :class:`containust.compose.checks.Checker` whose components are built and connected.

    What several components inherit is looked at once, by id() of what they inherit.
    """

    def __init__(self, checker: Checker) -> None:
        self.checker = checker
        self.problems = checker.problems
        self.resolver = checker.resolver
        self.nodes = checker.nodes
        self.components = checker.components
        self.edges = checker.edges
        self.refers = checker.refers
        self.map_refers: dict[int, list[int]] = {}
        self.targeted: dict[int, dict[str, list[tuple[Source, Interpolation]]]] = {}
        self.secrets: set[str] = set()
        self.unordered = 0

    def refer(self) -> None:
        """References one by one, then for each component what it refers to: as often as either is written."""
        seen: set[tuple[int, bool]] = set()
        for name, node in self.nodes.items():
            deployed = name in self.components
            for key in self.used(name, node):
                if (key, deployed) not in seen:
                    seen.add((key, deployed))
                    for source, part in self.refers[key]:
                        if part.kind != "secret":
                            self.reference(source, part)
                        elif deployed and part.name not in self.secrets:
                            self.secrets.add(part.name)
                            self.find_secret(source, part)
                if deployed and self.unordered < MOST_UNORDERED:
                    self.order(name, key)

    def used(self, name: str, node: ComponentNode) -> list[int]:
        """The keys in ``refers`` of a component: those that take effect when it is deployed, else its own."""
        used: list[int] = []
        deployed = name in self.components
        for key, (owner, entry) in self.checker.merged[name].items():
            if entry.value.kind != "map":
                if (deployed or owner is node) and id(entry) in self.refers:
                    used.append(id(entry))
            elif deployed:
                used += self.of_map(node, key)
            elif owner is node:
                used += [id(item) for item in entry.value.value if id(item) in self.refers]
        return used

    def of_map(self, node: ComponentNode, name: str) -> list[int]:
        """The keys in ``refers`` of a map with what it inherits, which several components may inherit alike."""
        items = self.resolver.map(node, name)
        inherited = bool(items) and id(node) in self.resolver.maps
        if inherited and id(items) in self.map_refers:
            return self.map_refers[id(items)]
        found = [id(item) for _, item in items.values() if id(item) in self.refers]
        if inherited:
            self.map_refers[id(items)] = found
        return found

    def order(self, name: str, key: int) -> None:
        """W014 for each reference of ``name`` to a component that it does not wait for."""
        targets = self.targeted.get(key)
        if targets is None:
            targets = self.targeted[key] = {}
            for source, part in self.refers[key]:
                if part.name in self.components and part.kind != "secret":
                    targets.setdefault(part.name, []).append((source, part))
        for target, places in targets.items():
            if target == name or target in self.edges[name]:
                continue
            for source, part in places:
                self.unordered += 1
                if self.unordered > MOST_UNORDERED:
                    return
                self.problems.add(
                    "W014",
                    source,
                    part.start,
                    part.end,
                    f"{name!r} refers to {target!r} but does not wait for it",
                    [f"write CONNECT {name} -> {target}"],
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
                None if template else (part.name, self.components, "did you mean {}?", "components here: {}"),
            )
        elif part.attribute == "port" and not target.ports:
            node = self.nodes[part.name]
            if not self.resolver.damaged(node) and not {"port", "ports"} & self.checker.merged[part.name].keys():
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
            self.checker.secret(part.name)
        except ContainustError as error:
            self.problems.add(error.code, source, part.start, part.end, error.message, error.help)
