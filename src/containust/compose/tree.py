"""What the parser makes of one file: nodes that know their place, and the list that problems are put on.

Positions are offsets in characters into :attr:`Source.text`; lines and columns are worked out only for a
problem that is shown. Values keep what was written; nothing here is resolved.
"""

from __future__ import annotations

import gc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

MOST_PROBLEMS = 100  # shown of one run
MOST_KEPT = 2000

# One token: kind, start, end, value. The kind of a keyword or a sign is its own text.
IDENT = "identifier"
STRING = "string"
INT = "integer"
END = "end of file"
UNREADABLE = "unreadable"  # reported by the lexer; whatever the parser would say of it follows from that
STATEMENTS = frozenset(("IMPORT", "COMPONENT", "CONNECT", "EXPOSE"))
KEYWORDS = STATEMENTS | {"AS", "FROM", "HEALTHCHECK", "RESTART", "NETWORK", "SECRET", "true", "false"}
NAMESPACES = frozenset(("secret", "env"))  # of interpolations; no component can have these names

if TYPE_CHECKING:
    Token = tuple[str, int, int, Any]
    Suggest = tuple[str, Iterable[str], str] | tuple[str, Iterable[str], str, str]
    Parts = tuple["str | Interpolation", ...]


class Source:
    """The text of one file. ``path`` is shown to people, ``directory`` what relative paths in it start from.

    ``directory`` is None for a remote file. ``imported_at`` is the (source, start, end) of the IMPORT that
    brought it, None for the entry file.
    """

    __slots__ = ("_lines", "directory", "imported_at", "path", "text")

    def __init__(
        self,
        path: str,
        text: str,
        directory: str | None,
        imported_at: tuple[Source, int, int] | None = None,
    ) -> None:
        self.path = path
        self.text = text
        self.directory = directory
        self.imported_at = imported_at
        self._lines: list[int] | None = None

    def lines(self) -> list[int]:
        """Offset of the start of each line."""
        if self._lines is None:
            lines = [0]
            at = self.text.find("\n")
            while at >= 0:
                lines.append(at + 1)
                at = self.text.find("\n", at + 1)
            self._lines = lines
        return self._lines


class Problems:
    """What was found wrong, in the order of finding. Each entry is the arguments of :meth:`add`.

    They become :class:`containust.compose.diagnostics.Diagnostic` objects only when there is one to show. Of very many
    only those are kept that can be among the first: errors before warnings, by file, by place.
    """

    __slots__ = ("_last", "_ranks", "entries", "errors")

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []
        self.errors = 0
        self._ranks: dict[int, int] = {}
        self._last: tuple[bool, int, int] | None = None  # nothing behind this place will be shown

    def rank(self, source: Source) -> int:
        """The number of a file: files are shown in the order in which this was asked of them first."""
        return self._ranks.setdefault(id(source), len(self._ranks))

    def place(self, code: str, source: Source, start: int) -> tuple[bool, int, int]:
        """What problems are sorted by when not all can be shown."""
        return code[0] == "W", self._ranks.setdefault(id(source), len(self._ranks)), start

    def add(
        self,
        code: str,
        source: Source,
        start: int,
        end: int,
        message: str,
        help: Iterable[str] = (),
        related: Iterable[tuple[Source, int, int, str]] = (),
        suggest: Suggest | None = None,
    ) -> None:
        """Record one problem.

        ``related`` are places with what to say there. ``suggest`` is a word, the names it could have meant
        and a help line with ``{}`` for the nearest, perhaps one with ``{}`` for a few of them where none is near:
        all of that is looked for only if the problem is among those shown.
        """
        if code[0] != "W":
            self.errors += 1
        if self._last is None:
            if len(self.entries) == MOST_KEPT:
                self._forget()
        elif self.place(code, source, start) > self._last:
            return
        elif len(self.entries) == MOST_KEPT:
            self._forget()
        self.entries.append((code, source, start, end, message, help, related, suggest))

    def _forget(self) -> None:
        """Keep twice as many as are shown, each once."""
        self.entries.sort(key=lambda entry: self.place(*entry[:3]))
        kept: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for entry in self.entries:
            kept.setdefault(told(entry), entry)
            if len(kept) == 2 * MOST_PROBLEMS:
                self._last = self.place(*entry[:3])
                break
        self.entries = list(kept.values())


def told(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    """What makes two problems the same: of syntax errors at one place the first will do."""
    code, source, start, _, message = entry[:5]
    return code, id(source), start, message if code != "E001" else ""


class Uncollected:
    """Without garbage collection: a tree is all new objects and no garbage; it would be walked again and again."""

    def __enter__(self) -> None:
        self.collecting = gc.isenabled()
        gc.disable()

    def __exit__(self, *raised: object) -> None:
        if self.collecting:
            gc.enable()


class Interpolation:
    """``${...}`` in a string. ``kind`` is ``"env"``, ``"secret"`` or ``"component"``.

    ``attribute`` is host, port or connection_string of a component; ``default`` what follows ``:-``.
    """

    __slots__ = ("attribute", "default", "end", "kind", "name", "start")

    def __init__(
        self, start: int, end: int, kind: str, name: str, attribute: str = "", default: str | None = None
    ) -> None:
        self.start = start
        self.end = end
        self.kind = kind
        self.name = name
        self.attribute = attribute
        self.default = default


class Name:
    """An identifier at its place."""

    __slots__ = ("end", "start", "text")

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text = text
        self.start = start
        self.end = end


class Value:
    """A literal. ``kind`` says what ``value`` is.

    string: str, or a tuple of str and Interpolation · int: int · bool: bool · list: list of Value ·
    map: list of Entry · error: None, already reported.
    """

    __slots__ = ("end", "kind", "start", "value")

    def __init__(self, kind: str, start: int, end: int, value: Any) -> None:
        self.kind = kind
        self.start = start
        self.end = end
        self.value = value


class Entry:
    """``key = value`` of a component or a map. ``result`` is where the resolver keeps the converted value."""

    __slots__ = ("key", "key_end", "key_start", "result", "value")

    def __init__(self, key: str, key_start: int, key_end: int, value: Value) -> None:
        self.key = key
        self.key_start = key_start
        self.key_end = key_end
        self.value = value
        self.result: Any = None


class Import:
    """``IMPORT path [AS alias]``; ``broken`` when its own syntax was wrong."""

    __slots__ = ("alias", "end", "path", "start")

    def __init__(self, start: int, end: int, path: Value, alias: Name | None) -> None:
        self.start = start
        self.end = end
        self.path = path
        self.alias = alias


class ComponentNode:
    """``COMPONENT name [FROM parent[.member]] { entries }``.

    ``damaged`` is set when a syntax error may have swallowed properties, so that nothing is reported missing.
    ``properties`` is filled by the resolver: the entries by name, first of each.
    """

    __slots__ = (
        "damaged",
        "end",
        "entries",
        "member",
        "name",
        "parent",
        "properties",
        "resolved_parent",
        "source",
        "start",
    )

    def __init__(self, start: int, source: Source, name: Name) -> None:
        self.start = start
        self.end = start
        self.source = source
        self.name = name
        self.parent: Name | None = None
        self.member: Name | None = None
        self.entries: list[Entry] = []
        self.damaged = False
        self.properties: dict[str, Entry] | None = None
        self.resolved_parent: ComponentNode | None = None


class Connect:
    """``CONNECT name -> target, target``."""

    __slots__ = ("end", "name", "start", "targets")

    def __init__(self, start: int, end: int, name: Name, targets: list[Name]) -> None:
        self.start = start
        self.end = end
        self.name = name
        self.targets = targets


class ExposeNode:
    """``EXPOSE [address:]host_port[:container_port][/protocol] [-> target]``; ports are tokens' Values."""

    __slots__ = ("address", "container_port", "end", "host_port", "protocol", "start", "target")

    def __init__(
        self,
        start: int,
        end: int,
        address: Value | None,
        host_port: Value,
        container_port: Value | None,
        protocol: str,
        target: Name | None,
    ) -> None:
        self.start = start
        self.end = end
        self.address = address
        self.host_port = host_port
        self.container_port = container_port
        self.protocol = protocol
        self.target = target


if TYPE_CHECKING:
    Statement = Import | ComponentNode | Connect | ExposeNode


class File:
    """One parsed file: its statements in order, and where its comments are."""

    __slots__ = ("comments", "source", "statements")

    def __init__(self, source: Source, statements: list[Statement], comments: list[tuple[int, int]]) -> None:
        self.source = source
        self.statements = statements
        self.comments = comments
