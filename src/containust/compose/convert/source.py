"""YAML files as items that know their lines: scalars of YAML 1.2, anchors and merge keys."""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.compose.convert.items import Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST = 16 * 2**20


def load_yaml(path: str, base: str) -> list[Item]:
    """The documents of the file at ``path``; later ones override earlier ones.

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
    text = _read(path)
    try:
        documents = [_item(root, path, base) for root in yaml.compose_all(text, loader) if root is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _wrong_yaml(error, text, path) from None
    for item in documents:
        if not isinstance(item.value, dict):
            where = f", line {item.line}" if len(documents) > 1 else ""
            raise ContainustError("E001", f"{path}{where} is no mapping", "a Compose file starts with services:")
    return documents or [Item({}, path, 1, base)]


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ContainustError("S004", f"there is no file {path}", "name the Compose file") from None
    except IsADirectoryError:
        raise ContainustError("S004", f"{path} is a directory", "name the Compose file in it") from None
    except OSError as error:
        raise ContainustError("S003", f"cannot read {path}: {error.strerror}", "check its permissions") from None
    if len(data) > LARGEST:
        raise ContainustError("E001", f"{path} is larger than {LARGEST >> 20} MiB", "name a Compose file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ContainustError("E001", f"{path}, line {line}: this is not UTF-8", "save the file as UTF-8") from None


def _wrong_yaml(error: Exception, text: str, path: str) -> ContainustError:
    mark = getattr(error, "problem_mark", None)
    position = getattr(error, "position", None)
    where = f", line {mark.line + 1}" if mark else ""
    if mark is None and isinstance(position, int):
        where = f", line {text.count(chr(10), 0, position) + 1}"
    why = getattr(error, "problem", None) or getattr(error, "reason", None) or "it is nested too deeply"
    help = "mend the YAML first"
    lines = text.splitlines()
    if mark and mark.line < len(lines) and lines[mark.line][: mark.column + 1].endswith("\t"):
        help = "YAML indents with spaces, not with tabs"
    elif "undefined alias" in str(why):
        help = "an anchor is written &name, above where *name uses it"
    return ContainustError("E001", f"{path}{where}: {why}", help)


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
            if key_node.id != "scalar":
                line = key_node.start_mark.line + 1
                raise ContainustError("E006", f"{path}, line {line}: a key is no text", "Compose refuses it too")
            key = str(key_node.value)
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
