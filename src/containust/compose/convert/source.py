"""YAML files as items that know their lines: scalars of YAML 1.2, anchors and merge keys."""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.compose.convert.items import Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST = 16 * 2**20


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
