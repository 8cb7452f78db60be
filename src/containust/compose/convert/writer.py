"""A merged Compose project as the text of a ``.ctst`` file."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.compose.convert import Conversion
from containust.compose.convert.items import Item, as_list, comment, escaped, wrong_form
from containust.compose.convert.reader import Project
from containust.compose.convert.service import Service
from containust.compose.convert.variables import Variable, resolve, split
from containust.compose.formatter import format_source
from containust.compose.lexer import is_name
from containust.compose.load import LARGEST
from containust.compose.parser import parse
from containust.compose.resolver import Resolver, Unit
from containust.compose.tree import KEYWORDS, NAMESPACES, ComponentNode, Problems, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SILENT = ("version",)  # Compose ignores it itself
NETWORK_DEFAULT = "default"


class Writer:
    """Collects warnings and lines; one :class:`containust.compose.convert.service.Service` a service."""

    def __init__(
        self, paths: list[str], environ: Mapping[str, str], profiles: list[str], directory: str | None = None
    ) -> None:
        self.warnings: dict[str, None] = {}  # in order, each once
        self.first = os.path.dirname(os.path.abspath(paths[0]))
        self.project = Project(paths, environ, self.warn)
        # Where relative paths of the result start from.
        self.directory = self.project.directory if directory is None else os.path.abspath(directory)
        self.environ = environ
        self.profiles = set(profiles) | set(filter(None, environ.get("COMPOSE_PROFILES", "").split(",")))
        self.names: dict[str, str] = {}
        self.chosen: dict[str, int] = {}  # names given, with the last number behind each
        self.judged: dict[tuple[str, str], str] = {}
        self.root: dict[str, Item] = self.project.root.value

    def warn(self, item: Item, why: str) -> None:
        line = f"{os.path.relpath(item.file, self.first)}:{item.line}: {why}"
        self.warnings[line] = None

    # Strings

    def parts(self, item: Item) -> list[str | Variable]:
        if isinstance(item.value, (dict, list)):
            raise wrong_form(item, "this value", "text or number")
        return split(as_text(item.value), lambda why: self.warn(item, why), self.lookup(item))

    def lookup(self, item: Item) -> dict[str, str]:
        """The variables that the file of ``item`` sees."""
        return self.project.scope(item).lookup

    def plain(self, item: Item | None) -> str:
        """The text that Compose would see, every variable filled in."""
        return "" if item is None else resolve(self.parts(item), self.lookup(item))

    def fixed(self, item: Item) -> str:
        """The same where the language needs to know; a variable in it is a warning."""
        parts = self.parts(item)
        text = resolve(parts, self.lookup(item))
        if any(isinstance(part, Variable) for part in parts):
            self.warn(item, f"the variables of {item.value!r} were fixed: {text!r}")
        return text

    def quoted(self, item: Item) -> str:
        """A string literal that keeps the variables."""
        return self.literal(self.parts(item), item)

    def literal(self, parts: list[str | Variable], item: Item) -> str:
        """A string literal of ``parts``, whose variables ``item`` has."""
        defaults = self.project.scope(item).defaults
        body = ""
        for i, part in enumerate(parts):
            if isinstance(part, str):
                text = escaped(part)
                if text.endswith("$") and i + 1 < len(parts):
                    text = text[:-1] + "\\u{24}"
                body += text
            else:
                default = defaults.get(part.name) or part.default
                behind = "" if part.wanted and not default else f":-{escaped_default(default)}"
                body += f"${{env.{part.name}{behind}}}"
        return f'"{body}"'

    def judge(self, key: str, literal: str) -> str:
        """Why the language does not take ``key = literal``; empty when it does.

        A variable that is not set is no reason: Compose would ask for it too.
        """
        if (key, literal) not in self.judged:
            self.judged[key, literal] = self._judgement(key, literal)
        return self.judged[key, literal]

    def _judgement(self, key: str, literal: str) -> str:
        problems = Problems()
        source = Source(
            os.path.join(self.directory, "converted"), f"COMPONENT c {{ {key} = {literal} }}", self.directory
        )
        file = parse(source, problems)
        unit = Unit(file, "")
        resolver = Resolver(unit, {id(source): unit}, problems, self.environ)
        for node in file.statements:
            if isinstance(node, ComponentNode):
                resolver.check(node)
        return next((str(entry[4]) for entry in problems.entries if entry[0] != "E014"), "")

    # The file

    def conversion(self) -> Conversion:
        services = self.root.get("services")
        if services is None or not isinstance(services.value, dict) or not services.value:
            what = "has no services"
            if services is not None and services.value and not isinstance(services.value, dict):
                what = f"line {services.line}: services is no mapping"
            raise ContainustError("E006", f"{self.project.root.file} {what}", "name a Compose file")
        for name in services.value:
            self.names[name] = self.component_name(name, services.value[name])
        lines = [f"// Converted from {', '.join(os.path.basename(one) for one in self.sources())}."]
        lines += self.top()
        converted = []
        size = 0
        for name, item in services.value.items():
            if not isinstance(item.value, dict):
                raise ContainustError("E006", f"{item.file}, line {item.line}: service {name!r} is no mapping")
            converted.append(Service(self, name, item))
            size += sum(map(len, converted[-1].lines))
            if size > LARGEST:
                what = f"{item.file}, line {item.line}: the result is larger than {LARGEST >> 20} MiB"
                raise ContainustError("E006", what, "aliases repeat much; write less behind *")
        self.services = {service.name: service for service in converted}
        for service in converted:
            lines += ["", *service.component()]
        lines.append("")
        for service in converted:
            lines += service.connections()
        self.cycle({service.component_name: service.targets for service in converted})
        lines.append("")
        taken: dict[tuple[int, str, bool], set[str]] = {}
        for service in converted:
            lines += service.exposed(taken)
        text = format_source(Source("converted", "\n".join(lines) + "\n", None))
        return Conversion(text, list(self.warnings))

    @staticmethod
    def cycle(targets: dict[str, list[str]]) -> None:
        from containust.compose.graph import cycles

        for names in cycles(targets, 1):
            path = " -> ".join([*names, names[0]])
            raise ContainustError("E004", f"services depend on each other: {path}", "remove one of these depends_on")

    def sources(self) -> list[str]:
        return self.project.paths

    def component_name(self, name: str, item: Item) -> str:
        """A name of the language for a service; another one only where it has to be."""
        chosen = "".join([c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in str(name)]).strip("-")
        while "--" in chosen:
            chosen = chosen.replace("--", "-")
        if not chosen or not chosen[0].isalpha():
            chosen = f"service-{chosen}".strip("-")
        if chosen in KEYWORDS or chosen in NAMESPACES or not is_name(chosen):
            chosen = f"{chosen}-service"
        base = chosen
        while chosen in self.chosen:
            self.chosen[base] += 1
            chosen = f"{base}-{self.chosen[base]}"
        self.chosen[chosen] = 1
        if chosen != name:
            self.warn(item, f"service {name!r} is called {chosen!r} here, as its name is none of the language")
        return chosen

    def top(self) -> list[str]:
        """Comments for what stands beside the services."""
        lines: list[str] = []
        for key, item in self.root.items():
            if key == "services":
                continue
            if key in SILENT or key.startswith("x-"):
                lines.append(comment(key, item, "Compose ignores it"))
            elif key in ("volumes", "networks", "secrets", "configs") and not isinstance(item.value, dict):
                if item.value is not None:
                    raise wrong_form(item, key, "mapping")
            elif key in ("volumes", "networks"):
                for name, one in item.value.items() if isinstance(item.value, dict) else ():
                    if one.value:
                        lines += self.lost(f"{key}.{name}", one)
            elif key in ("secrets", "configs"):
                for name, one in item.value.items() if isinstance(item.value, dict) else ():
                    if not (isinstance(one.value, dict) and set(one.value) == {"file"}):
                        lines += self.lost(f"{key}.{name}", one)
            else:
                lines += self.lost(key, item)
        return lines

    def lost(self, key: str, item: Item, why: str = "no counterpart") -> list[str]:
        """The comment for something without counterpart; the warning is given too."""
        self.warn(item, f"{key}: {why}")
        return [comment(key, item, why)]

    def mounted(self, name: str, kind: str) -> Item | None:
        """The ``file`` of a top-level secret or config."""
        section = self.root.get(kind)
        found = section.value.get(name) if section is not None and isinstance(section.value, dict) else None
        return found.value.get("file") if found is not None and isinstance(found.value, dict) else None

    def active(self, item: Item) -> bool:
        """Whether a service is deployed: it has no profile, or an active one."""
        profiles = item.value.get("profiles")
        names = {self.plain(one) for one in as_list(profiles)} if profiles is not None else set()
        return not names or bool(names & self.profiles) or "*" in self.profiles


def as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(value).removesuffix(".0") if "e" not in str(value) else str(value)
    return str(value)


def escaped_default(text: str) -> str:
    """The default of an interpolation, where nothing but escapes is special."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
