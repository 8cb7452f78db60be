"""Compose files as one project: override, extends and include.

Sources: the Compose Specification, "Merge", "Extends" and "Include".
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.compose.convert.items import PAIRS, Item, as_list, keyed, wrong_form
from containust.compose.convert.source import load_yaml
from containust.compose.convert.variables import resolve, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Lists of these are one after the other when files are merged; every other list is replaced.
ADDED = frozenset(
    ("ports", "expose", "env_file", "tmpfs", "cap_add", "cap_drop", "security_opt", "secrets", "configs")
) | {"devices", "dns", "dns_search", "external_links", "links", "group_add", "profiles"}


def merge(under: Item, over: Item, path: tuple[str, ...] = ()) -> Item:
    """``over`` on ``under``, by the merge rules of Compose. ``path`` is where in a service they are."""
    if over.tag:
        return over
    name = path[-1] if path else ""
    if over.value is None:
        return over if path[-2:-1] == ("environment",) else under
    if name in PAIRS or name in ("depends_on", "networks"):
        under, over = keyed(under, name), keyed(over, name)
    if isinstance(under.value, dict) and isinstance(over.value, dict):
        if name == "depends_on" or len(path) < 6:
            result = dict(under.value)
            for key, item in over.value.items():
                result[key] = merge(result[key], item, (*path, key)) if key in result else item
            return over.new(result)
        return over
    if name in ADDED or isinstance(under.value, list) or isinstance(over.value, list):
        first, second = as_list(under), as_list(over)
        if name == "volumes":
            targets = {target(item) for item in second}
            return over.new([item for item in first if target(item) not in targets] + second)
        if name in ADDED:
            seen = [item.plain() for item in first]
            return over.new(first + [item for item in second if item.plain() not in seen])
    return over


def without_reset(item: Item, done: dict[int, Item]) -> Item:
    """``item`` without what ``!reset`` takes away; ``done`` has by id() what aliases share."""
    known = done.get(id(item))
    if known is not None:
        return known
    result = item
    if isinstance(item.value, dict):
        kept = {key: without_reset(one, done) for key, one in item.value.items() if one.tag != "!reset"}
        result = item.new(kept)
    elif isinstance(item.value, list):
        result = item.new([without_reset(one, done) for one in item.value if one.tag != "!reset"])
    done[id(item)] = result
    return result


def target(item: Item) -> str:
    """Where a volume is mounted, short or long syntax."""
    if isinstance(item.value, dict):
        found = item.value.get("target")
        return str(found.value) if found else ""
    parts = str(item.value).split(":")
    return parts[1] if len(parts) > 1 else parts[0]


class Scope:
    """What variables mean in one file: ``defaults`` come from env files, ``lookup`` has the environment over them."""

    __slots__ = ("defaults", "lookup")

    def __init__(self, files: Iterable[str], outer: Mapping[str, str]) -> None:
        from containust.compose.dotenv import read_dotenv

        self.defaults: dict[str, str] = {}
        for path in files:
            for message in read_dotenv(path, self.defaults)[:1]:
                raise ContainustError("E006", message, "mend the file")
        self.lookup = {**self.defaults, **outer}


def beside(directory: str) -> list[str]:
    """The ``.env`` file of a directory, if it has one."""
    path = os.path.join(directory, ".env")
    return [path] if os.path.exists(path) else []


class Project:
    """The services and other sections of some Compose files, merged."""

    def __init__(self, paths: list[str], environ: Mapping[str, str], wrong: Callable[[Item, str], object]) -> None:
        self.wrong = wrong
        self.paths = paths
        self.directory = os.path.dirname(os.path.abspath(paths[0]))
        self.top = Scope(beside(self.directory), environ)
        self.scopes: dict[str, Scope] = {}  # by the path of the file
        self.files: dict[tuple[str, str], Item] = {}
        self.services: dict[tuple[str, str, str], Item] = {}  # with what they extend
        merged: Item | None = None
        for path in paths:
            tree = self.load(path, self.directory, (), self.top)
            merged = tree if merged is None else merge(merged, tree)
        assert merged is not None
        self.root = without_reset(merged, {})

    def scope(self, item: Item) -> Scope:
        """What variables in ``item`` mean."""
        return self.scopes.get(item.file, self.top)

    def load(self, path: str, base: str, chain: tuple[str, ...], scope: Scope) -> Item:
        """One file with what it includes and extends."""
        key = os.path.realpath(path)
        if key in chain:
            raise ContainustError("E008", f"includes go in a circle: {' -> '.join([*chain, key])}")
        self.scopes[path] = scope
        tree = self.read(path, base)
        services = tree.value.get("services")
        if services is not None and isinstance(services.value, dict):
            resolved = {name: self.extended(path, base, services.value, name) for name in services.value}
            tree.value["services"] = services.new(resolved)
        includes = tree.value.pop("include", None)
        included: Item | None = None
        for entry in as_list(includes) if includes else []:
            one = self.included(entry, base, (*chain, key), scope)
            included = one if included is None or one is None else merge(included, one)
        return tree if included is None else merge(included, tree)

    def read(self, path: str, base: str) -> Item:
        """One file, read once, its documents merged."""
        if (path, base) not in self.files:
            first, *others = load_yaml(path, base)
            for one in others:
                first = merge(first, one)
            self.files[path, base] = first
        found = self.files[path, base]
        return found.new(dict(found.value))

    def included(self, entry: Item, base: str, chain: tuple[str, ...], scope: Scope) -> Item | None:
        """One entry of ``include``: its files, the later over the earlier, with variables of their own."""
        options = entry.value if isinstance(entry.value, dict) else {"path": entry}
        for name in options:
            if name not in ("path", "project_directory", "env_file"):
                self.wrong(options[name], f"include.{name}: no counterpart")
        paths = [os.path.join(base, self.text(one)) for one in as_list(options["path"])] if "path" in options else []
        if not paths:
            raise ContainustError("E006", f"{entry.file}, line {entry.line}: include without a path")
        directory = os.path.dirname(paths[0])
        if "project_directory" in options:
            directory = os.path.join(base, self.text(options["project_directory"]))
        files = beside(directory)
        if "env_file" in options:
            files = [os.path.join(base, self.text(one)) for one in as_list(options["env_file"])]
        inner = Scope(files, scope.lookup)
        inner.defaults = {**inner.defaults, **scope.defaults}
        merged: Item | None = None
        for path in paths:
            tree = self.load(path, directory, chain, inner)
            merged = tree if merged is None else merge(merged, tree)
        return merged

    def text(self, item: Item) -> str:
        lookup = self.scope(item).lookup
        return resolve(split(str(item.value), lambda why: self.wrong(item, why), lookup), lookup)

    def extended(self, path: str, base: str, services: dict[str, Item], name: str) -> Item:
        """A service on top of the one it extends, however long the chain is; each is worked out once."""
        chain: dict[tuple[str, str, str], Item] = {}
        while True:
            key = (os.path.realpath(path), base, name)
            if key in self.services:
                result = self.services[key]
                break
            service = services[name]
            if key in chain:
                names = " -> ".join([*[one for _, _, one in chain], name])
                raise ContainustError("E004", f"{path}, line {service.line}: extends goes in a circle: {names}")
            if not isinstance(service.value, dict) or "extends" not in service.value:
                result = self.services[key] = service
                break
            chain[key] = service
            path, base, services, name = self.extends(path, base, services, service.value["extends"])
        for key, service in reversed(chain.items()):
            own = service.new({key: item for key, item in service.value.items() if key != "extends"})
            result = self.services[key] = merge(result, own, ("services",))
        return result

    def extends(
        self, path: str, base: str, services: dict[str, Item], extends: Item
    ) -> tuple[str, str, dict[str, Item], str]:
        """Where the service that ``extends`` names is: its file, the base of paths, the services there, its name."""
        other_name, file = extends.value, None
        if isinstance(extends.value, dict):
            other_name = extends.value["service"].value if "service" in extends.value else ""
            file = extends.value.get("file")
        if file is not None:
            other_path = os.path.join(base, self.text(file))
            self.scopes.setdefault(other_path, self.scopes.get(path, self.top))
            path, base = other_path, os.path.dirname(other_path)
            section = self.read(path, base).value.get("services")
            services = section.value if section is not None and isinstance(section.value, dict) else {}
        if not isinstance(other_name, str):
            raise wrong_form(extends, "extends", "name of a service")
        if other_name not in services:
            raise ContainustError(
                "E002", f"{extends.file}, line {extends.line}: there is no service {other_name!r} to extend"
            )
        return path, base, services, other_name
