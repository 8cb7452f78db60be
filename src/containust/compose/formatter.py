"""The canonical layout of a file: ``ctst fmt``. What a file means is the parser's knowledge alone.

Order and spelling stay the author's. A list or map that was written on one line stays there while it fits;
single empty lines stay where they separate; every comment stays next to what it was written at.
"""

from __future__ import annotations

from containust.compose.parser import parse
from containust.compose.tree import (
    ComponentNode,
    Connect,
    Entry,
    ExposeNode,
    Import,
    Problems,
    Source,
    Uncollected,
    Value,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from containust.compose.tree import File, Statement

WIDTH = 100
INDENT = "    "


def format_source(source: Source) -> str:
    """The text of ``source`` in canonical layout, ending with one newline; empty for an empty file.

    Raises :class:`containust.compose.diagnostics.CheckFailed` when the file has syntax errors.
    """
    with Uncollected():
        return _formatted(source)


def _formatted(source: Source) -> str:
    problems = Problems()
    file = parse(source, problems)
    if any(entry[0] == "E001" for entry in problems.entries):
        from containust.compose.diagnostics import CheckFailed, finish

        problems.entries = [entry for entry in problems.entries if entry[0] == "E001"]
        raise CheckFailed(finish(problems))
    return Layout(file).text()


class Layout:
    """The lines written so far and the comments still to be placed."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.source_text = file.source.text
        self.comments = file.comments
        self.next = 0
        self.lines: list[str] = []
        self.opened = True  # nothing was written since the file or a bracket began: no empty line here

    def text(self) -> str:
        previous: Statement | None = None
        for statement in self.file.statements:
            same = previous.__class__ is statement.__class__ and not isinstance(statement, ComponentNode)
            if previous is not None and not same:
                self.gap()
            self.item(statement, "", self.statement)
            previous = statement
        self.leading(len(self.source_text) + 1, "")
        return "\n".join(self.lines) + "\n" if self.lines else ""

    # Lines and comments

    def line(self, text: str) -> None:
        self.lines.append(text)
        self.opened = False

    def gap(self) -> None:
        """One empty line, unless there is one or nothing stands above it."""
        if not self.opened and self.lines[-1]:
            self.lines.append("")

    def leading(self, before: int, indent: str) -> None:
        """Write the comments that stand in front of offset ``before``, each on its own line."""
        while self.next < len(self.comments) and self.comments[self.next][0] < before:
            start, end = self.comments[self.next]
            if self.separated(start):
                self.gap()
            self.line(indent + self.source_text[start:end].rstrip())
            self.next += 1

    def trailing(self, end: int) -> None:
        """Append to the last line the comment that follows offset ``end`` on the same line."""
        if self.next < len(self.comments):
            start, stop = self.comments[self.next]
            text = self.source_text
            while end < start and text[end] in " \t\r,":
                end += 1
            if end == start:
                self.lines[-1] += " " * 2 + text[start:stop].rstrip()
                self.next += 1

    def separated(self, at: int) -> bool:
        """Whether the source has an empty line in front of offset ``at``."""
        text = self.source_text
        newlines = 0
        at -= 1
        while at >= 0 and text[at] in " \t\r\n":
            newlines += text[at] == "\n"
            at -= 1
        return newlines > 1

    def item(self, item: Any, indent: str, write: Callable[[Any, str], None]) -> None:
        """One statement or entry with the comments around it."""
        start = item.key_start if isinstance(item, Entry) else item.start
        self.leading(start, indent)
        if self.separated(start):
            self.gap()
        write(item, indent)

    # Statements

    def statement(self, statement: Statement, indent: str) -> None:
        if isinstance(statement, ComponentNode):
            self.component(statement)
            return
        self.leading(statement.end, indent)
        if isinstance(statement, Import):
            alias = f" AS {statement.alias.text}" if statement.alias else ""
            self.line(f"IMPORT {self.written(statement.path)}{alias}")
        elif isinstance(statement, Connect):
            targets = ", ".join([target.text for target in statement.targets])
            self.line(f"CONNECT {statement.name.text} -> {targets}")
        else:
            self.line(expose(statement, self.written))
        self.trailing(statement.end)

    def component(self, node: ComponentNode) -> None:
        parent = f" FROM {node.parent.text}" if node.parent else ""
        member = f".{node.member.text}" if node.member else ""
        name = node.member or node.parent or node.name
        brace = name.end
        while self.source_text[brace] != "{":
            brace = self.skip(brace)
        self.leading(brace, "")
        head = f"COMPONENT {node.name.text}{parent}{member} {{"
        self.container(head, brace, node.end, "", node.entries, self.entry)
        self.trailing(node.end)

    def skip(self, at: int) -> int:
        """The offset behind the comment or character at ``at``."""
        if self.source_text.startswith("//", at):
            end = self.source_text.find("\n", at)
            return len(self.source_text) if end < 0 else end
        return at + 1

    def entry(self, entry: Entry, indent: str) -> None:
        self.leading(entry.value.start, indent)
        key = self.source_text[entry.key_start : entry.key_end]
        self.value(f"{indent}{key} = ", entry.value, indent, "")
        self.trailing(entry.value.end)

    # Values

    def written(self, value: Value) -> str:
        """A value on one line."""
        if value.kind == "string":
            return self.source_text[value.start : value.end]
        if value.kind == "list":
            return f"[{', '.join([self.written(item) for item in value.value])}]"
        if value.kind == "map":
            if not value.value:
                return "{}"
            text = self.source_text
            pairs = [f"{text[one.key_start : one.key_end]} = {self.written(one.value)}" for one in value.value]
            return f"{{ {', '.join(pairs)} }}"
        return ("true" if value.value else "false") if value.kind == "bool" else str(value.value)

    def value(self, head: str, value: Value, indent: str, end: str) -> None:
        """``head``, the value and ``end``, over several lines when it was or has to be."""
        if value.kind in ("list", "map") and (value.value or self.holds_comment(value)):
            one_line = None
            if "\n" not in self.source_text[value.start : value.end]:
                one_line = self.written(value)
            if one_line is None or len(head) + len(one_line) > WIDTH:
                opening = "[" if value.kind == "list" else "{"
                write = self.element if value.kind == "list" else self.entry
                self.container(f"{head}{opening}", value.start, value.end, indent, value.value, write, end)
                return
        self.line(f"{head}{self.written(value)}{end}")

    def element(self, value: Value, indent: str) -> None:
        self.value(indent, value, indent, ",")
        self.trailing(value.end)

    def holds_comment(self, value: Value) -> bool:
        return self.next < len(self.comments) and value.start < self.comments[self.next][0] < value.end

    def container(
        self,
        head: str,
        start: int,
        end: int,
        indent: str,
        items: Sequence[Any],
        write: Callable[[Any, str], None],
        behind: str = "",
    ) -> None:
        """``head`` with its bracket, each item on a line of its own, and the closing bracket."""
        closing = self.source_text[end - 1]
        comment = self.next < len(self.comments) and start < self.comments[self.next][0] < end
        if not items and not comment:
            self.line(f"{head}{closing}{behind}")
            return
        self.line(head)
        self.trailing(start + 1)
        self.opened = True
        for item in items:
            self.item(item, indent + INDENT, write)
        self.leading(end, indent + INDENT)
        while not self.lines[-1]:
            self.lines.pop()
        self.line(f"{indent}{closing}{behind}")


def expose(statement: ExposeNode, written: Callable[[Value], str]) -> str:
    address = f"{written(statement.address)}:" if statement.address else ""
    container = f":{statement.container_port.value}" if statement.container_port else ""
    protocol = "/udp" if statement.protocol == "udp" else ""
    target = f" -> {statement.target.text}" if statement.target else ""
    return f"EXPOSE {address}{statement.host_port.value}{container}{protocol}{target}"


def shape(file: File) -> list[Any]:
    """What ``file`` says, without where: equal for two files exactly when they mean the same."""
    result: list[Any] = []
    for statement in file.statements:
        if isinstance(statement, Import):
            result.append(("IMPORT", _value(statement.path), statement.alias and statement.alias.text))
        elif isinstance(statement, ComponentNode):
            parent = statement.parent and statement.parent.text
            member = statement.member and statement.member.text
            result.append(("COMPONENT", statement.name.text, parent, member, _entries(statement.entries)))
        elif isinstance(statement, Connect):
            result.append(("CONNECT", statement.name.text, [target.text for target in statement.targets]))
        else:
            ports = (statement.host_port.value, statement.container_port and statement.container_port.value)
            address = statement.address and _value(statement.address)
            target = statement.target and statement.target.text
            result.append(("EXPOSE", address, ports, statement.protocol, target))
    return result


def _entries(entries: list[Entry]) -> list[Any]:
    return [(entry.key, _value(entry.value)) for entry in entries]


def _value(value: Value) -> Any:
    if value.kind == "list":
        return [_value(item) for item in value.value]
    if value.kind == "map":
        return ("map", _entries(value.value))
    if value.kind == "string" and not isinstance(value.value, str):
        return [
            part if isinstance(part, str) else (part.kind, part.name, part.attribute, part.default)
            for part in value.value
        ]
    return (value.kind, value.value)
