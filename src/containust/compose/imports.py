"""IMPORT (language.md, section 4): finding, reading and linking other files.

Loaded only where one is used.
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.compose.lexer import is_name
from containust.compose.load import decode
from containust.compose.parser import parse
from containust.compose.resolver import Unit, collect, open_references
from containust.compose.tree import KEYWORDS, Import, Source
from containust.compose.values import INVALID, Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from containust.compose.remote import Remote
    from containust.compose.tree import Problems

LARGEST = 16 * 2**20
LONGEST_CIRCLE = 20  # files named of one


class Importer:
    """Loads everything that one entry file imports, each file once, however often it is named."""

    def __init__(
        self,
        entry: Unit,
        path: str,
        problems: Problems,
        environ: Mapping[str, str],
        offline: bool,
        project: str,
    ) -> None:
        self.entry = entry
        self.entry_key = os.path.realpath(path)
        self.directory = os.path.dirname(path)
        self.problems = problems
        self.environ = environ
        self.offline = offline
        self.project = project
        self.reader = Reader(problems, environ)
        self.by_key: dict[str, Unit | None] = {self.entry_key: entry}
        self.remote: Remote | None = None
        self.beside: dict[str, dict[str, None]] = {}  # the .ctst files of a directory

    def load(self) -> dict[int, Unit]:
        """Every unit by the id() of its source; depth first and without recursion."""
        path = [self.entry_key]
        chain: dict[str, int] = {self.entry_key: 0}  # where in the path a file is
        pending: list[tuple[Unit, Iterator[Import]]] = [(self.entry, imports_of(self.entry))]
        while pending:
            unit, statements = pending[-1]
            statement = next(statements, None)
            if statement is None:
                pending.pop()
                del chain[path.pop()]
                continue
            key = self.locate(unit, statement)
            if key is None:
                self.bind(unit, statement, None, "")
            elif key in chain:
                self.circle(unit, statement, path, chain[key])
                self.bind(unit, statement, None, key)
            elif key in self.by_key:
                self.bind(unit, statement, self.by_key[key], key)
            else:
                imported = self.read(unit, statement, key)
                self.by_key[key] = imported
                self.bind(unit, statement, imported, key)
                if imported is not None:
                    chain[key] = len(path)
                    path.append(key)
                    pending.append((imported, imports_of(imported)))
        return {id(unit.file.source): unit for unit in self.by_key.values() if unit is not None}

    def locate(self, unit: Unit, statement: Import) -> Any:
        """The real path or the URL (with its pin) that the import names; None once reported."""
        source = unit.file.source
        text = self.reader.text(source, statement.path)
        if text is INVALID:
            if self.reader.waits:
                from containust.compose.references import refused

                refused(self.reader, source, open_references(statement.path))
            return None
        scheme, separator, _ = text.partition("://")
        if separator and is_name(scheme.replace("+", "")):
            if scheme == "https":
                return text
            help = ["https:// and paths are possible"]
            if scheme == "http":
                help = [f"write https{text[4:]}; without encryption anybody on the way could change the file"]
            return self.failed(source, statement, f"{scheme}:// cannot be imported", help)
        if not text or "\0" in text:
            return self.failed(source, statement, "the path is empty", ['write IMPORT "file.ctst"'])
        if source.directory is None:
            from urllib.parse import urljoin

            joined = urljoin(source.path.partition("@sha256:")[0], text)
            if joined.startswith("https://"):
                return joined
            return self.failed(source, statement, f"a remote file cannot import {text!r}", [])
        tried = []
        for directory in (source.directory, self.directory):
            path = os.path.normpath(os.path.join(directory, text))
            if path not in tried:
                if os.path.isfile(path):
                    return os.path.realpath(path)
                tried.append(path)
        help = [f"there is no {path}" for path in tried]
        suggest = None
        for path in tried:
            directory, name = os.path.split(path)
            if f"{name}.ctst" in self.names(directory):
                help.insert(0, f"did you mean {os.path.join(directory, name)}.ctst?")
                break
        else:
            directory, name = os.path.split(tried[0])
            suggest = (name, self.names(directory), f"did you mean {os.path.join(directory, '')}{{}}?")
        return self.failed(source, statement, f"cannot import {text!r}: no such file", help, suggest=suggest)

    def names(self, directory: str) -> dict[str, None]:
        """Files in ``directory`` that could be meant, looked up once."""
        if directory not in self.beside:
            try:
                found = [entry for entry in os.listdir(directory) if entry.endswith(".ctst")]
            except (OSError, ValueError):
                found = []
            self.beside[directory] = dict.fromkeys(sorted(found))
        return self.beside[directory]

    def failed(
        self,
        source: Source,
        statement: Import,
        message: str,
        help: list[str],
        code: str = "E008",
        suggest: tuple[str, Iterable[str], str] | None = None,
    ) -> Any:
        self.problems.add(code, source, statement.path.start, statement.path.end, message, help, (), suggest)

    def circle(self, unit: Unit, statement: Import, path: list[str], first: int) -> None:
        shown = path[first : first + LONGEST_CIRCLE]
        names = [os.path.relpath(one, self.directory) if one.startswith("/") else one for one in [*shown, path[first]]]
        if len(path) - first > LONGEST_CIRCLE:
            names.insert(-1, "…")
        self.failed(
            unit.file.source,
            statement,
            f"imports go in a circle: {' -> '.join(names)}",
            ["move what both need into a file of its own"],
        )

    def bind(self, unit: Unit, statement: Import, imported: Unit | None, key: str) -> None:
        """Make the file known in ``unit`` under its alias or stem."""
        alias = statement.alias
        text = statement.path.value if isinstance(statement.path.value, str) else key
        name = alias.text if alias is not None else stem(text)
        if imported is not None:
            unit.loaded.append(statement)
            if alias is None:
                unit.open_imports.setdefault(id(imported), (statement, imported))
        if not is_name(name) or name in KEYWORDS:
            return  # a stem that is no identifier cannot be written after FROM
        if name in unit.aliases:
            if imported is None:
                return  # reported
            first = unit.aliases[name][0]
            start, end = (alias.start, alias.end) if alias else (statement.path.start, statement.path.end)
            self.problems.add(
                "E003",
                unit.file.source,
                start,
                end,
                f"alias {name!r} is defined twice",
                [f"give one of them another: IMPORT … AS other_{name}"[:100]],
                [(unit.file.source, first.start, first.end, "first defined here")],
            )
            return
        unit.aliases[name] = (statement, imported)

    def read(self, unit: Unit, statement: Import, key: str) -> Unit | None:
        source = unit.file.source
        at = (source, statement.start, statement.end)
        try:
            if key.startswith("https://"):
                data, directory, shown = self.fetch(key), None, key
            else:
                with open(key, "rb") as file:
                    data = file.read(LARGEST + 1)
                directory, shown = os.path.dirname(key), self.shown(key)
        except OSError as error:
            self.failed(source, statement, f"cannot read {key}: {error.strerror}", ["check its permissions"])
            return None
        except ContainustError as error:
            self.failed(source, statement, error.message, error.help, error.code)
            return None
        if len(data) > LARGEST:
            self.failed(source, statement, f"{key} is larger than {LARGEST >> 20} MiB", [])
            return None
        imported = Unit(parse(decode(shown, data, directory, self.problems, at), self.problems), stem(key))
        collect(imported, self.problems)
        return imported

    def shown(self, key: str) -> str:
        """The path as a person would write it from where the entry file was named."""
        entry = self.entry.file.source.path
        if os.path.isabs(entry):
            return key
        return os.path.relpath(key)

    def fetch(self, url: str) -> bytes:
        if self.remote is None:
            from containust.compose.remote import Remote

            self.remote = Remote(self.project, self.environ, self.offline)
        return self.remote.content(url)


def imports_of(unit: Unit) -> Iterator[Import]:
    return iter([statement for statement in unit.file.statements if isinstance(statement, Import)])


def stem(path: str) -> str:
    """The file's name without directory, pin, query and extension."""
    name = path.partition("@sha256:")[0]
    if "://" in name:
        name = name.partition("?")[0].partition("#")[0]
    return name.rstrip("/").rpartition("/")[2].removesuffix(".ctst")
