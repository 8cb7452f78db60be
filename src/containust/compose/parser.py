"""Tokens to the tree of one file (language.md, section 2), going on after an error at the next boundary.

A boundary is the start of a statement or of a property, so that one run reports every mistake and none twice.
"""

from __future__ import annotations

from containust.compose.lexer import tokenize
from containust.compose.tree import (
    END,
    IDENT,
    INT,
    KEYWORDS,
    NAMESPACES,
    STATEMENTS,
    STRING,
    UNREADABLE,
    ComponentNode,
    Connect,
    Entry,
    ExposeNode,
    File,
    Import,
    Name,
    Value,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.compose.tree import Problems, Source, Statement, Token

DEEPEST = 32  # nesting of lists and maps; no property takes more than two
OPENING = frozenset("{[")
CLOSING = frozenset("}]")
VALUES = frozenset((STRING, INT, "true", "false", "[", "{"))


def parse(source: Source, problems: Problems) -> File:
    """The tree of ``source``. Mistakes are reported as E001 and left out of the tree."""
    tokens, comments = tokenize(source, problems)
    return Parser(source, tokens, problems).file(comments)


class Parser:
    """A position in the tokens of one file."""

    __slots__ = ("at", "end_reported", "problems", "source", "tokens")

    def __init__(self, source: Source, tokens: list[Token], problems: Problems) -> None:
        self.source = source
        self.tokens = tokens
        self.problems = problems
        self.at = 0
        self.end_reported = False  # whatever else is unclosed at the end follows from the first

    # Statements

    def file(self, comments: list[tuple[int, int]]) -> File:
        statements: list[Statement] = []
        while True:
            token = self.tokens[self.at]
            kind = token[0]
            statement: Statement | None
            if kind == "COMPONENT":
                statement = self.component()
            elif kind == "CONNECT":
                statement = self.connect()
            elif kind == "EXPOSE":
                statement = self.expose()
            elif kind == "IMPORT":
                statement = self.import_()
            elif kind == END:
                return File(self.source, statements, comments)
            else:
                from containust.compose.recovery import no_statement

                statement = no_statement(self, token)
            if statement is not None:
                statements.append(statement)
                if self.tokens[self.at][0] in STATEMENTS or self.tokens[self.at][0] == END:
                    continue
                from containust.compose.recovery import after_statement

                if after_statement(self, self.tokens[self.at]):
                    continue
            self.to_statement()

    def import_(self) -> Import | None:
        start = self.tokens[self.at][1]
        self.at += 1
        token = self.tokens[self.at]
        if token[0] != STRING:
            self.expected("the path of a file", ['write IMPORT "file.ctst"'])
            self.to_statement()
            return None
        self.at += 1
        path = Value("string", token[1], token[2], token[3])
        alias = None
        if self.tokens[self.at][0] == "AS":
            self.at += 1
            alias = self.name("an alias")
            if alias is None:
                self.to_statement()
                return None
        elif self.tokens[self.at][0] == IDENT and self.tokens[self.at][3] in ("as", "As"):
            self.error("unexpected 'as'", ["keywords are upper case: AS"])
            self.to_statement()
            return None
        return Import(start, self.tokens[self.at - 1][2], path, alias)

    def component(self) -> ComponentNode | None:
        start = self.tokens[self.at][1]
        self.at += 1
        name = self.name("the component's name")
        if name is None:
            self.to_statement()
            return None
        if name.text in NAMESPACES:
            from containust.compose.recovery import reserved_name

            reserved_name(self, name)
        node = ComponentNode(start, self.source, name)
        if self.tokens[self.at][0] == "FROM":
            self.at += 1
            node.parent = self.name("the template's name")
            if node.parent is not None and self.tokens[self.at][0] == ".":
                self.at += 1
                node.member = self.name("the component's name in that file")
                if node.member is None:
                    node.parent = None
            node.damaged = node.parent is None
        token = self.tokens[self.at]
        if token[0] != "{":
            from containust.compose.recovery import header_error

            header_error(self, node, token)
            token = self.tokens[self.at]
            if token[0] != "{":
                node.end = self.tokens[self.at - 1][2]
                return node
        self.at += 1
        self.body(node, token)
        node.end = self.tokens[self.at - 1][2]
        return node

    def body(self, node: ComponentNode, brace: Token) -> None:
        """The properties up to the closing brace."""
        tokens = self.tokens
        while True:
            token = tokens[self.at]
            kind = token[0]
            if kind == IDENT and tokens[self.at + 1][0] == "=":
                self.at += 2
                value = self.value(0)
                if value is None:
                    node.damaged = True
                    value = Value("error", token[1], token[2], None)
                    node.entries.append(Entry(token[3], token[1], token[2], value))
                    from containust.compose.recovery import to_property

                    to_property(self)
                    continue
                if value.kind == "error":
                    node.damaged = True
                node.entries.append(Entry(token[3], token[1], token[2], value))
            elif kind == "}":
                self.at += 1
                return
            elif kind == END or (kind in STATEMENTS and tokens[self.at + 1][0] != "="):
                node.damaged = True
                if kind != END or not self.end_reported:
                    self.end_reported = self.end_reported or kind == END
                    from containust.compose.recovery import component_unclosed

                    component_unclosed(self, node, token, brace)
                return
            else:
                from containust.compose.recovery import property_error

                property_error(self, node, token)

    def connect(self) -> Connect | None:
        start = self.tokens[self.at][1]
        self.at += 1
        name = self.name("the component that depends")
        if name is None:
            self.to_statement()
            return None
        if self.tokens[self.at][0] != "->":
            self.expected(f"-> after {name.text!r}", ["write CONNECT a -> b, where a depends on b"])
            self.to_statement()
            return None
        self.at += 1
        targets: list[Name] = []
        while True:
            target = self.name("the component it depends on")
            if target is None:
                self.to_statement()
                break
            targets.append(target)
            if self.tokens[self.at][0] != ",":
                break
            self.at += 1
        return Connect(start, self.tokens[self.at - 1][2], name, targets) if targets else None

    def expose(self) -> ExposeNode | None:
        start = self.tokens[self.at][1]
        self.at += 1
        address = None
        token = self.tokens[self.at]
        if token[0] == STRING:
            self.at += 1
            address = Value("string", token[1], token[2], token[3])
            if self.tokens[self.at][0] != ":":
                from containust.compose.recovery import no_colon

                no_colon(self, token)
                self.to_statement()
                return None
            self.at += 1
        host_port = self.port()
        if host_port is None:
            self.to_statement()
            return None
        container_port = None
        if self.tokens[self.at][0] == ":":
            self.at += 1
            container_port = self.port()
            if container_port is None:
                self.to_statement()
                return None
        protocol = "tcp"
        if self.tokens[self.at][0] == "/":
            self.at += 1
            token = self.tokens[self.at]
            if token[0] != IDENT or token[3] not in ("tcp", "udp"):
                self.expected("tcp or udp", ["only these can be published"])
                self.to_statement()
                return None
            protocol = token[3]
            self.at += 1
        target = None
        if self.tokens[self.at][0] == "->":
            self.at += 1
            target = self.name("a component")
            if target is None:
                self.to_statement()
                return None
        return ExposeNode(start, self.tokens[self.at - 1][2], address, host_port, container_port, protocol, target)

    def port(self) -> Value | None:
        token = self.tokens[self.at]
        if token[0] != INT:
            from containust.compose.recovery import no_port

            no_port(self, token)
            return None
        self.at += 1
        if token[3] < 0:
            return None  # reported
        return Value("int", token[1], token[2], token[3])

    def name(self, what: str) -> Name | None:
        token = self.tokens[self.at]
        if token[0] == IDENT:
            self.at += 1
            return Name(token[3], token[1], token[2])
        from containust.compose.recovery import no_name

        no_name(self, token, what)
        return None

    # Values

    def value(self, depth: int) -> Value | None:
        """The value here. None, with nothing consumed, when there is none; kind error for a broken one."""
        token = self.tokens[self.at]
        kind = token[0]
        if kind == STRING:
            self.at += 1
            return Value("string", token[1], token[2], token[3])
        if kind == INT:
            self.at += 1
            return Value("int" if token[3] >= 0 else "error", token[1], token[2], token[3])
        if kind == "true" or kind == "false":
            self.at += 1
            return Value("bool", token[1], token[2], kind == "true")
        if kind in OPENING:
            if depth == DEEPEST:
                self.error("lists and maps are nested too deeply", [f"at most {DEEPEST} levels"])
                from containust.compose.mistakes import skip_brackets

                skip_brackets(self)
                return Value("error", token[1], token[2], None)
            return self.sequence(depth + 1) if kind == "[" else self.mapping(depth + 1)
        from containust.compose.recovery import no_value

        return no_value(self, token)

    def sequence(self, depth: int) -> Value:
        opening = self.tokens[self.at]
        self.at += 1
        items: list[Value] = []
        kind = "list"
        while True:
            token = self.tokens[self.at]
            if token[0] == "]":
                self.at += 1
                break
            if self.unclosed(token, opening):
                kind = "error"
                break
            if token[0] in VALUES or token[0] in (IDENT, UNREADABLE):
                item = self.value(depth)
                if item is not None:
                    items.append(item)
            else:
                self.expected("a value or ]", [])
                kind = "error"
                self.at += 1
                continue
            token = self.tokens[self.at]
            if token[0] == ",":
                self.at += 1
            elif token[0] in VALUES:
                self.error("expected , between the entries of a list", ["write [a, b]"])
                kind = "error"
        return Value(kind, opening[1], self.tokens[self.at - 1][2], items)

    def mapping(self, depth: int) -> Value:
        opening = self.tokens[self.at]
        self.at += 1
        entries: list[Entry] = []
        kind = "map"
        while True:
            token = self.tokens[self.at]
            if token[0] == "}":
                self.at += 1
                break
            after = self.tokens[self.at + 1] if token[0] != END else token
            if token[0] == IDENT or token[0] == STRING or (token[0] in KEYWORDS and after[0] == "="):
                key = token[3]
                if not isinstance(key, str):
                    self.error("a key cannot hold an interpolation", ["$${ is a literal ${"])
                    key = ""
                    kind = "error"
                self.at += 1
                if after[0] == "=":
                    self.at += 1
                else:
                    from containust.compose.recovery import no_equals

                    kind = "error"
                    if not no_equals(self, after):
                        continue
                value = self.value(depth)
                if value is None:
                    kind = "error"
                    continue
                entries.append(Entry(key, token[1], token[2], value))
                if self.tokens[self.at][0] == ",":
                    self.at += 1
            elif self.unclosed(token, opening):
                kind = "error"
                break
            else:
                self.expected("a key or }", ["write { KEY = value }"])
                kind = "error"
                from containust.compose.recovery import to_key

                to_key(self)
        return Value(kind, opening[1], self.tokens[self.at - 1][2], entries)

    def unclosed(self, token: Token, opening: Token) -> bool:
        """Whether the list or map opened at ``opening`` evidently ends before ``token``, unclosed."""
        kind = token[0]
        after = self.tokens[self.at + 1][0] if kind != END else END
        if kind == END:
            if self.end_reported:
                return True
            self.end_reported = True
        elif kind == "]":  # only asked for a map
            pass
        elif not (
            (opening[0] == "[" and kind == "}")
            or (opening[0] == "[" and kind == IDENT and after == "=")
            or (kind in STATEMENTS and after != "=")
        ):
            return False
        from containust.compose.recovery import unclosed

        unclosed(self, token, opening)
        return True

    # Going on after a mistake

    def error(self, message: str, help: list[str], token: Token | None = None) -> None:
        """Report a mistake at ``token``, the one here unless another is given."""
        from containust.compose.mistakes import report

        report(self, message, help, token or self.tokens[self.at])

    def expected(self, what: str, help: list[str]) -> None:
        """Report that something else is here than ``what``."""
        from containust.compose.mistakes import shown

        self.error(f"expected {what}, found {shown(self.tokens[self.at])}", help)

    def to_statement(self) -> None:
        """Skip to where the next statement starts."""
        from containust.compose.mistakes import to_statement

        to_statement(self)
