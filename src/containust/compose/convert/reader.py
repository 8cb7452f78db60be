"""Compose files as trees that know their lines: YAML 1.2 scalars, merge keys, variables, override and
extends.

Sources: the Compose Specification, "Interpolation", "Merge", "Extends" and "Include".
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

LARGEST = 16 * 2**20
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
WORD = LETTERS | frozenset("0123456789")
# Lists of these are one after the other when files are merged; every other list is replaced.
ADDED = frozenset(
    ("ports", "expose", "env_file", "tmpfs", "cap_add", "cap_drop", "security_opt", "secrets", "configs")
) | {"devices", "dns", "dns_search", "external_links", "links", "group_add", "profiles"}
PAIRS = ("environment", "labels", "extra_hosts", "sysctls", "annotations", "args")


class Item:
    """A YAML value: dict, list, str, int, float, bool or None, with its place.

    ``base`` is the directory that relative paths in it start from. ``tag`` is ``!reset`` or ``!override``
    or empty.
    """

    __slots__ = ("base", "file", "line", "tag", "value")

    def __init__(self, value: Any, file: str, line: int, base: str, tag: str = "") -> None:
        self.value = value
        self.file = file
        self.line = line
        self.base = base
        self.tag = tag

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.plain() for item in self.value]
        return self.value

    def new(self, value: Any) -> Item:
        """Another value at the same place."""
        return Item(value, self.file, self.line, self.base)


class Variable:
    """``${name:-default}`` in a Compose string; ``wanted`` is set for ``:?``, which has no default."""

    __slots__ = ("default", "name", "wanted")

    def __init__(self, name: str, default: str, wanted: bool) -> None:
        self.name = name
        self.default = default
        self.wanted = wanted


def load_yaml(path: str, base: str) -> Item:
    """The root of the file at ``path``.

    Raises ContainustError: S004 when there is no such file, E001 when it is no YAML mapping, U001 without
    PyYAML.
    """
    try:
        import yaml
    except ImportError:
        raise ContainustError(
            "U001", "reading Compose files needs PyYAML", "pip install containust[compose]", status=2
        ) from None
    loader_class: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = type("Loader", (loader_class,), {"yaml_implicit_resolvers": {}})
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST)
    except FileNotFoundError:
        raise ContainustError("S004", f"there is no file {path}", "name the Compose file") from None
    except OSError as error:
        raise ContainustError("S003", f"cannot read {path}: {error.strerror}", "check its permissions") from None
    try:
        root = yaml.compose(data, loader)
        item = _item(root, path, base) if root is not None else Item({}, path, 1, base)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or "it is nested too deeply"
        raise ContainustError("E001", f"{path}{where}: {why}", "mend the YAML first") from None
    if not isinstance(item.value, dict):
        raise ContainustError("E001", f"{path} is no mapping", "a Compose file starts with services:")
    return item


def _item(root: Any, path: str, base: str) -> Item:
    """A YAML node graph as items; a node that aliases share becomes one item, and a circle is an error."""
    done: dict[int, Item] = {}
    open_nodes: set[int] = set()

    def convert(node: Any) -> Item:
        known = done.get(id(node))
        if known is not None:
            return known
        if id(node) in open_nodes:
            raise ContainustError("E001", f"{path}, line {node.start_mark.line + 1}: an anchor contains itself")
        open_nodes.add(id(node))
        tag = node.tag if node.tag in ("!reset", "!override") else ""
        if node.id == "scalar":
            value = _scalar(node)
        elif node.id == "sequence":
            value = [convert(child) for child in node.value]
        else:
            value = mapping(node)
        item = Item(value, path, node.start_mark.line + 1, base, tag)
        open_nodes.discard(id(node))
        done[id(node)] = item
        return item

    def mapping(node: Any) -> dict[str, Item]:
        result: dict[str, Item] = {}
        merged: list[Item] = []
        for key_node, value_node in node.value:
            if key_node.id == "scalar" and key_node.value == "<<" and not key_node.style:
                child = convert(value_node)
                merged += child.value if isinstance(child.value, list) else [child]
                continue
            key = str(key_node.value) if key_node.id == "scalar" else "?"
            if key in result:
                line = key_node.start_mark.line + 1
                raise ContainustError("E003", f"{path}, line {line}: key {key!r} is there twice")
            result[key] = convert(value_node)
        for source in merged:
            if isinstance(source.value, dict):
                for key, item in source.value.items():
                    result.setdefault(key, item)
        return result

    return convert(root)


def _scalar(node: Any) -> Any:
    """A scalar by the core schema of YAML 1.2.

    ``22:22``, ``yes`` and ``012`` are no sexagesimal, boolean, octal.
    """
    text = str(node.value)
    if node.style or node.tag == "tag:yaml.org,2002:str!":
        return text
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    digits = text[1:] if text[0] in "+-" else text
    if digits.isascii() and digits.isdigit() and len(digits) < 30:
        return int(text) if digits == "0" or digits[0] != "0" else text
    for prefix, radix in (("0x", 16), ("0o", 8)):
        if text.startswith(prefix) and len(text) < 30:
            try:
                return int(text[2:], radix)
            except ValueError:
                return text
    if digits[:1].isdigit() or digits[:1] == ".":
        try:
            return float(text) if "_" not in text and set(digits) <= set("0123456789.eE+-") else text
        except ValueError:
            return text
    return text


# Variables


def split(text: str, wrong: Callable[[str], object], lookup: Mapping[str, str]) -> list[str | Variable]:
    """A string's literal pieces and variables. ``wrong`` is told of what the language cannot express."""
    parts: list[str | Variable] = []
    literal = ""
    i = 0
    while i < len(text):
        dollar = text.find("$", i)
        if dollar < 0 or dollar == len(text) - 1:
            literal += text[i:]
            break
        literal += text[i:dollar]
        c = text[dollar + 1]
        if c == "$":
            literal += "$"
            i = dollar + 2
            continue
        if c in LETTERS:
            end = dollar + 1
            while end < len(text) and text[end] in WORD:
                end += 1
            found: list[str | Variable] = [Variable(text[dollar + 1 : end], "", False)]
        elif c == "{":
            end = _closing(text, dollar + 2)
            if end < 0:
                literal += "$"
                i = dollar + 1
                continue
            found = _braced(text[dollar + 2 : end], wrong, lookup)
            end += 1
        else:
            literal += "$"
            i = dollar + 1
            continue
        i = end
        for part in found:
            if isinstance(part, str):
                literal += part
            else:
                if literal:
                    parts.append(literal)
                    literal = ""
                parts.append(part)
    if literal or not parts:
        parts.append(literal)
    return parts


def _closing(text: str, i: int) -> int:
    depth = 1
    while i < len(text):
        if text.startswith("${", i):
            depth += 1
            i += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return i
        i += 1
    return -1


def _braced(text: str, wrong: Callable[[str], object], lookup: Mapping[str, str]) -> list[str | Variable]:
    end = 0
    while end < len(text) and text[end] in WORD:
        end += 1
    name, rest = text[:end], text[end:]
    operator = rest[:2] if rest[:2] in (":-", ":?", ":+") else rest[:1]
    word = rest[len(operator) :]
    if not name or operator not in ("", ":-", "-", ":?", "?", ":+", "+"):
        wrong(f"${{{text}}} is no variable of Compose")
        return ["${" + text + "}"]
    if operator == "":
        return [Variable(name, "", False)]
    if operator in (":?", "?"):
        return [Variable(name, "", True)]
    if operator in (":+", "+"):
        here = bool(lookup.get(name)) if operator == ":+" else name in lookup
        value = resolve(split(word, wrong, lookup), lookup) if here else ""
        wrong(f"${{{text}}} has no counterpart and was fixed as {value!r}")
        return [value]
    nested = split(word, wrong, lookup)
    default = resolve(nested, lookup)
    if any(isinstance(part, Variable) for part in nested):
        wrong(f"the variable in the default of ${{{text}}} was fixed as {default!r}")
    if "}" in default:
        value = lookup.get(name) or default
        wrong(f"${{{text}}} has a brace in its default and was fixed as {value!r}")
        return [value]
    if operator == "-" and lookup.get(name) == "":
        wrong(f"${{{text}}}: an empty value takes the default too")
    return [Variable(name, default, False)]


def resolve(parts: Iterable[str | Variable], lookup: Mapping[str, str]) -> str:
    """The text that Compose would see."""
    return "".join([part if isinstance(part, str) else lookup.get(part.name) or part.default for part in parts])


# Merging


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
    if isinstance(under.value, list) or isinstance(over.value, list):
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


def as_list(item: Item) -> list[Item]:
    if isinstance(item.value, list):
        return item.value
    return [] if item.value is None else [item]


def target(item: Item) -> str:
    """Where a volume is mounted, short or long syntax."""
    if isinstance(item.value, dict):
        found = item.value.get("target")
        return str(found.value) if found else ""
    parts = str(item.value).split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def keyed(item: Item, name: str) -> Item:
    """The list form of environment, labels, networks and the like as a mapping."""
    if not isinstance(item.value, list):
        return item
    result: dict[str, Item] = {}
    for entry in item.value:
        text = str(entry.value)
        if name == "extra_hosts" and "=" not in text:
            key, separator, value = text.partition(":")
        else:
            key, separator, value = text.partition("=") if name in PAIRS else (text, "", "")
        if isinstance(entry.value, dict):
            continue
        result[key] = entry.new(value if separator else None)
    return item.new(result)


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
        tree = load_yaml(path, base)
        services = tree.value.get("services")
        if services is not None and isinstance(services.value, dict):
            resolved = {name: self.extended(path, base, services.value, name, ()) for name in services.value}
            tree.value["services"] = services.new(resolved)
        includes = tree.value.pop("include", None)
        included: Item | None = None
        for entry in as_list(includes) if includes else []:
            one = self.included(entry, base, (*chain, key), scope)
            included = one if included is None or one is None else merge(included, one)
        return tree if included is None else merge(included, tree)

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

    def extended(
        self, path: str, base: str, services: dict[str, Item], name: str, chain: tuple[tuple[str, str], ...]
    ) -> Item:
        """A service on top of the one it extends."""
        service = services[name]
        if not isinstance(service.value, dict) or "extends" not in service.value:
            return service
        link = (os.path.realpath(path), name)
        if link in chain:
            names = " -> ".join([one for _, one in (*chain, link)])
            raise ContainustError("E004", f"{path}, line {service.line}: extends goes in a circle: {names}")
        extends = service.value["extends"]
        own = service.new({key: item for key, item in service.value.items() if key != "extends"})
        other_name, file = extends.value, None
        if isinstance(extends.value, dict):
            other_name = extends.value["service"].value if "service" in extends.value else ""
            file = extends.value.get("file")
        if file is None:
            others, other_path, other_base = services, path, base
        else:
            other_path = os.path.join(base, self.text(file))
            other_base = os.path.dirname(other_path)
            self.scopes.setdefault(other_path, self.scopes.get(path, self.top))
            tree = load_yaml(other_path, other_base)
            section = tree.value.get("services")
            others = section.value if section is not None and isinstance(section.value, dict) else {}
        if other_name not in others:
            raise ContainustError("E002", f"{path}, line {extends.line}: there is no service {other_name!r} to extend")
        other = self.extended(other_path, other_base, others, str(other_name), (*chain, link))
        return merge(other, own, ("services",))
