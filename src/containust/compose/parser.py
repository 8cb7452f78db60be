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
                self.no_statement(token)
                statement = None
                self.at += 1
            if statement is not None:
                statements.append(statement)
                if self.tokens[self.at][0] in STATEMENTS or self.tokens[self.at][0] == END:
                    continue
                self.error(
                    f"unexpected {shown(self.tokens[self.at])} after the statement",
                    ["the next statement starts with IMPORT, COMPONENT, CONNECT or EXPOSE"],
                )
            self.to_statement()

    def no_statement(self, token: Token) -> None:
        if token[0] == UNREADABLE:
            return
        suggest = None
        help = ["a file consists of IMPORT, COMPONENT, CONNECT and EXPOSE statements"]
        if token[0] == IDENT:
            suggest = (token[3].upper(), tuple(STATEMENTS), "did you mean {}?")
            if token[3].upper() in STATEMENTS:
                help = [f"keywords are upper case: {token[3].upper()}"]
        elif token[0] in ("HEALTHCHECK", "RESTART", "NETWORK"):
            help = [f"write it as a property of a component: {token[3].lower()} = …"]
        elif token[0] == "SECRET":
            help = ['a secret is used in a string: "${secret.name}"']
        elif token[0] == "}":
            help = ["this brace closes nothing"]
        self.problems.add("E001", self.source, token[1], token[2], f"unexpected {shown(token)}", help, (), suggest)

    def import_(self) -> Import | None:
        start = self.tokens[self.at][1]
        self.at += 1
        token = self.tokens[self.at]
        if token[0] != STRING:
            self.error(f"expected the path of a file, found {shown(token)}", ['write IMPORT "file.ctst"'])
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
            self.problems.add(
                "E001",
                self.source,
                name.start,
                name.end,
                f"{name.text!r} cannot name a component",
                [f"${{{name.text}.…}} in strings means something else"],
            )
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
            node.damaged = True
            help = ["a component is written COMPONENT name { … }"]
            if token[0] == IDENT and token[3] == "from":
                help = ["keywords are upper case: FROM"]
            self.error(f"expected {{ after {name.text}, found {shown(token)}", help)
            while token[0] != "{":
                if token[0] == END or (token[0] in STATEMENTS and self.tokens[self.at + 1][0] != "="):
                    node.end = self.tokens[self.at - 1][2]
                    return node
                if token[0] == "}" or token[0] == "=":
                    break
                self.at += 1
                token = self.tokens[self.at]
            if token[0] != "{":
                self.to_statement()
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
                    self.to_property()
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
                    self.problems.add(
                        "E001",
                        self.source,
                        token[1],
                        token[2],
                        f"component {node.name.text!r} is not closed",
                        ["close it with }"],
                        [(self.source, brace[1], brace[2], "opened here")],
                    )
                return
            else:
                self.property_error(node, token)

    def property_error(self, node: ComponentNode, token: Token) -> None:
        """Something that is not ``name = value``: say what, and go on where the next property may start."""
        kind = token[0]
        after = self.tokens[self.at + 1]
        node.damaged = True
        if kind == IDENT and after[0] in (":", "{", "["):
            self.error("expected = after the property's name", [f"write {token[3]} = …"], after)
            self.at += 2 if after[0] == ":" else 1
            value = self.value(0)
            if value is not None:
                node.entries.append(Entry(token[3], token[1], token[2], Value("error", value.start, value.end, None)))
                return
        elif kind == IDENT:
            help = [f"write {token[3]} = …"]
            self.at += 1
            self.error(f"expected = after {token[3]!r}, found {shown(after)}", help, after)
            if first_on_line(self.source.text, after[1]):
                return
        elif kind == STRING and after[0] in ("=", ":"):
            self.error("the names of properties are written without quotes", [], token)
            self.at += 2
            if self.value(0) is not None:
                return
        elif kind in KEYWORDS and after[0] == "=":
            help = [f"property names are lower case: {kind.lower()}"] if kind.isupper() else []
            self.error(f"{kind} is a keyword, no property", help, token)
            self.at += 2
            if self.value(0) is not None:
                return
        elif kind in KEYWORDS:
            self.error(
                f"unexpected {shown(token)}",
                [f"write it as a property: {kind.lower()} = …"] if kind.isupper() else [],
            )
        elif kind == ",":
            self.error("unexpected ','", ["properties are not separated by commas"])
            self.at += 1
            return
        else:
            self.error(f"expected a property or }}, found {shown(token)}", ["a property is written name = value"])
        self.to_property()

    def connect(self) -> Connect | None:
        start = self.tokens[self.at][1]
        self.at += 1
        name = self.name("the component that depends")
        if name is None:
            self.to_statement()
            return None
        if self.tokens[self.at][0] != "->":
            self.error(
                f"expected -> after {name.text!r}, found {shown(self.tokens[self.at])}",
                ["write CONNECT a -> b, where a depends on b"],
            )
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
                help = ['write EXPOSE "address":host:container']
                if isinstance(token[3], str) and token[3][:1].isdigit():
                    help.append(f"ports are written without quotes: EXPOSE {token[3][:60]}")
                self.error("expected : after the address", help)
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
                self.error(f"expected tcp or udp, found {shown(token)}", [])
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
            self.error(f"expected a port, found {shown(token)}", ["write EXPOSE host:container, for example 8080:80"])
            return None
        self.at += 1
        return Value("int", token[1], token[2], token[3])

    def name(self, what: str) -> Name | None:
        token = self.tokens[self.at]
        if token[0] == IDENT:
            self.at += 1
            return Name(token[3], token[1], token[2])
        help = []
        if token[0] in KEYWORDS:
            help = [f"{token[0]} is a keyword; keywords cannot be names"]
        elif token[0] == STRING:
            help = ["names are written without quotes"]
        self.error(f"expected {what}, found {shown(token)}", help)
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
            return Value("int", token[1], token[2], token[3])
        if kind == "true" or kind == "false":
            self.at += 1
            return Value("bool", token[1], token[2], kind == "true")
        if kind in OPENING:
            if depth == DEEPEST:
                self.error("lists and maps are nested too deeply", [f"at most {DEEPEST} levels"])
                self.skip_brackets()
                return Value("error", token[1], token[2], None)
            return self.sequence(depth + 1) if kind == "[" else self.mapping(depth + 1)
        if kind == UNREADABLE:
            self.at += 1
            if token[3][0] == "(" and self.tokens[self.at][0] == END:
                self.end_reported = True  # brackets of a kind that does not exist, and never closed
            return Value("error", token[1], token[2], None)
        if kind == IDENT and self.tokens[self.at + 1][0] != "=":
            self.at += 1
            help = [f"true and false are lower case: {token[3].lower()}"]
            if token[3].lower() not in ("true", "false"):
                help = [f'texts are quoted: "{token[3][:40]}"']
            self.error(f"expected a value, found {shown(token)}", help, token)
            # The rest of an unquoted text belongs to the same mistake.
            while self.tokens[self.at][0] in (IDENT, INT, ".", ":", "/", "->", "=") and not first_on_line(
                self.source.text, self.tokens[self.at][1]
            ):
                self.at += 1
            return Value("error", token[1], self.tokens[self.at - 1][2], None)
        self.error(
            f"expected a value, found {shown(token)}",
            ["a value is a string, a number, true, false, a list or a map"],
        )
        return None

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
                self.error(f"expected a value or ], found {shown(token)}", [])
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
                if after[0] != "=":
                    self.error(f"expected = after the key, found {shown(after)}", ["write { KEY = value }"], after)
                    kind = "error"
                    if after[0] == ":":
                        self.at += 1
                    elif after[0] not in VALUES:
                        if after[0] in (".", "/", "->"):
                            self.at += 1
                        continue
                else:
                    self.at += 1
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
                self.error(f"expected a key or }}, found {shown(token)}", ["write { KEY = value }"])
                kind = "error"
                self.to_key()
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
        name = "list" if opening[0] == "[" else "map"
        self.problems.add(
            "E001",
            self.source,
            token[1],
            token[2],
            f"the {name} is not closed before {shown(token)}",
            [f"close it with {']' if opening[0] == '[' else '}'}"],
            [(self.source, opening[1], opening[2], "opened here")],
        )
        if kind == "]":
            self.at += 1
        return True

    # Going on after a mistake

    def error(self, message: str, help: list[str], token: Token | None = None) -> None:
        token = token or self.tokens[self.at]
        if token[0] == UNREADABLE:
            return
        if token[0] == END:
            if self.end_reported:
                return
            self.end_reported = True
        self.problems.add("E001", self.source, token[1], token[2], message, help)

    def to_statement(self) -> None:
        """Skip to where the next statement starts."""
        tokens = self.tokens
        while tokens[self.at][0] != END:
            if tokens[self.at][0] in STATEMENTS and tokens[self.at + 1][0] != "=":
                return
            self.at += 1

    def to_property(self) -> None:
        """Skip to where the next property or statement starts, or the component ends; at least one token."""
        tokens = self.tokens
        depth = 0
        first = True
        while True:
            kind = tokens[self.at][0]
            if kind == END or (kind in STATEMENTS and tokens[self.at + 1][0] != "="):
                return
            if kind in CLOSING:
                if depth == 0 and kind == "}":
                    return
                depth = max(depth - 1, 0)
            elif kind in OPENING:
                depth += 1
            elif depth == 0 and kind == IDENT and tokens[self.at + 1][0] == "=":
                begins = first or first_on_line(self.source.text, tokens[self.at][1])
                if begins:
                    return
            first = False
            self.at += 1

    def to_key(self) -> None:
        """Skip to where the next entry of a map may start, or the map end; at least one token."""
        while True:
            if self.tokens[self.at][0] in OPENING:
                self.skip_brackets()
            else:
                self.at += 1
            kind, start = self.tokens[self.at][:2]
            if kind == ",":
                self.at += 1
                return
            if kind == END or kind in CLOSING or self.tokens[self.at + 1][0] == "=":
                return
            if first_on_line(self.source.text, start):
                return

    def skip_brackets(self) -> None:
        """Skip the bracket here with all that it encloses."""
        tokens = self.tokens
        depth = 0
        while True:
            kind = tokens[self.at][0]
            if kind == END:
                self.end_reported = True
                return
            if kind in OPENING:
                depth += 1
            elif kind in CLOSING:
                depth -= 1
            self.at += 1
            if depth == 0:
                return


def first_on_line(text: str, at: int) -> bool:
    """Whether only white space stands between the start of the line and ``at``."""
    at -= 1
    while at >= 0 and text[at] in " \t\r":
        at -= 1
    return at < 0 or text[at] == "\n"


def shown(token: Token) -> str:
    """A token as a message names it."""
    if token[0] == STRING:
        return "a string"
    if token[0] == END:
        return "the end of the file"
    if token[0] == INT:
        return f"the number {token[3]}"
    text = str(token[3])
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
