"""What a wrong token could have meant, and where to go on after it. Loaded with the first syntax error of a file.

A boundary is the start of a statement or of a property, so that one run reports every mistake and none twice.
"""

from __future__ import annotations

from containust.common.suggest import nearest
from containust.compose.mistakes import first_on_line, line_ends, shown, skip_brackets
from containust.compose.parser import CLOSING, OPENING, VALUES
from containust.compose.tree import END, IDENT, INT, KEYWORDS, STATEMENTS, STRING, UNREADABLE, Entry, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.compose.parser import Parser
    from containust.compose.tree import ComponentNode, Name, Statement, Token


def no_statement(parser: Parser, token: Token) -> Statement | None:
    """``token`` starts no statement. One that is evidently meant is read as if it were written."""
    parser.at += 1
    if token[0] == UNREADABLE:
        return None
    meant = ""
    help = ["a file consists of IMPORT, COMPONENT, CONNECT and EXPOSE statements"]
    if token[0] == IDENT:
        meant = nearest(token[3].upper(), sorted(STATEMENTS)) or ""
        if token[3].upper() in STATEMENTS:
            meant = token[3].upper()
            help = [f"keywords are upper case: {meant}"]
        elif meant:
            help.insert(0, f"did you mean {meant}?")
    elif token[0] in ("HEALTHCHECK", "RESTART", "NETWORK"):
        help = [f"write it as a property of a component: {token[3].lower()} = …"]
    elif token[0] == "SECRET":
        help = ['a secret is used in a string: "${secret.name}"']
    elif token[0] == "}":
        help = ["this brace closes nothing"]
    parser.problems.add("E001", parser.source, token[1], token[2], f"unexpected {shown(token)}", help)
    if not meant or not first_on_line(parser.source.text, token[1]):
        return None
    parser.at -= 1
    read = {"COMPONENT": parser.component, "CONNECT": parser.connect, "EXPOSE": parser.expose, "IMPORT": parser.import_}
    return read[meant]()


def no_name(parser: Parser, token: Token, what: str) -> None:
    """Something else stands where a name belongs, that of ``what``."""
    help = []
    if token[0] in KEYWORDS:
        help = [f"{token[0]} is a keyword; keywords cannot be names"]
    elif token[0] == STRING:
        help = ["names are written without quotes"]
    parser.expected(what, help)


def reserved_name(parser: Parser, name: Name) -> None:
    """A component is called what interpolations begin with."""
    parser.problems.add(
        "E001",
        parser.source,
        name.start,
        name.end,
        f"{name.text!r} cannot name a component",
        [f"${{{name.text}.…}} in strings means something else"],
    )


def component_unclosed(parser: Parser, node: ComponentNode, token: Token, brace: Token) -> None:
    """Report that the component opened at ``brace`` ends before ``token``."""
    parser.problems.add(
        "E001",
        parser.source,
        token[1],
        token[2],
        f"component {node.name.text!r} is not closed",
        ["close it with }"],
        [(parser.source, brace[1], brace[2], "opened here")],
    )


def no_colon(parser: Parser, address: Token) -> None:
    """No port comes behind the ``address`` of an EXPOSE."""
    help = ['write EXPOSE "address":host:container']
    if isinstance(address[3], str) and address[3][:1].isdigit():
        help.append(f"ports are written without quotes: EXPOSE {address[3][:60]}")
    parser.error("expected : after the address", help)


def no_port(parser: Parser, token: Token) -> None:
    """Something else stands where a port belongs."""
    help = ["write EXPOSE host:container, for example 8080:80"]
    if token[0] == IDENT:
        following = parser.tokens[parser.at + 1][0]
        if following == ":":
            help = ['an address is quoted: EXPOSE "127.0.0.1":8080:80']
        else:
            help = [f"write EXPOSE host:container -> {token[3][:60]}, for example 8080:80"]
    parser.error(f"expected a port, found {shown(token)}", help)


def after_statement(parser: Parser, token: Token) -> bool:
    """``token`` follows a whole statement; whether it is one of its own on a new line."""
    if token[0] == IDENT and first_on_line(parser.source.text, token[1]):
        return True
    help = ["the next statement starts with IMPORT, COMPONENT, CONNECT or EXPOSE"]
    if token[0] == "}":
        help = ["this brace closes nothing"]
    parser.error(f"unexpected {shown(token)} after the statement", help)
    return False


def header_error(parser: Parser, node: ComponentNode, token: Token) -> None:
    """Something else stands where the brace of a component belongs: go on at the brace, if one comes."""
    node.damaged = True
    help = ["a component is written COMPONENT name { … }"]
    if token[0] == IDENT and token[3] == "from":
        help = ["keywords are upper case: FROM"]
    parser.error(f"expected {{ after {node.name.text}, found {shown(token)}", help)
    while token[0] != "{":
        if token[0] == END or (token[0] in STATEMENTS and parser.tokens[parser.at + 1][0] != "="):
            return
        if token[0] == "}" or token[0] == "=":
            break
        parser.at += 1
        token = parser.tokens[parser.at]
    if token[0] != "{":
        parser.to_statement()


def property_error(parser: Parser, node: ComponentNode, token: Token) -> None:
    """Something that is not ``name = value``: say what, and go on where the next property may start."""
    kind = token[0]
    after = parser.tokens[parser.at + 1]
    node.damaged = True
    if kind == IDENT and after[0] in (":", "{", "["):
        parser.error("expected = after the property's name", [f"write {token[3]} = …"], after)
        parser.at += 2 if after[0] == ":" else 1
        value = parser.value(0)
        if value is not None:
            node.entries.append(Entry(token[3], token[1], token[2], Value("error", value.start, value.end, None)))
            return
    elif kind == IDENT:
        help = [f"write {token[3]} = …"]
        parser.at += 1
        parser.error(f"expected = after {token[3]!r}, found {shown(after)}", help, after)
        if first_on_line(parser.source.text, after[1]):
            return
    elif kind == STRING and after[0] in ("=", ":"):
        parser.error("the names of properties are written without quotes", [], token)
        parser.at += 2
        if parser.value(0) is not None:
            return
    elif kind in KEYWORDS and after[0] == "=":
        help = [f"property names are lower case: {kind.lower()}"] if kind.isupper() else []
        parser.error(f"{kind} is a keyword, no property", help, token)
        parser.at += 2
        if parser.value(0) is not None:
            return
    elif kind in KEYWORDS:
        parser.error(
            f"unexpected {shown(token)}",
            [f"write it as a property: {kind.lower()} = …"] if kind.isupper() else [],
        )
    elif kind == ",":
        parser.error("unexpected ','", ["properties are not separated by commas"])
        parser.at += 1
        return
    else:
        parser.error(f"expected a property or }}, found {shown(token)}", ["a property is written name = value"])
    to_property(parser)


def no_value(parser: Parser, token: Token) -> Value | None:
    """No value starts with ``token``: a broken one, or None with nothing consumed."""
    if token[0] == UNREADABLE:
        parser.at += 1
        if token[3][0] == "(" and parser.tokens[parser.at][0] == END:
            parser.end_reported = True  # brackets of a kind that does not exist, and never closed
        return Value("error", token[1], token[2], None)
    if token[0] == IDENT and parser.tokens[parser.at + 1][0] != "=":
        parser.at += 1
        help = [f"true and false are lower case: {token[3].lower()}"]
        if token[3].lower() not in ("true", "false"):
            help = [f'texts are quoted: "{token[3][:40]}"']
        parser.error(f"expected a value, found {shown(token)}", help, token)
        # The rest of an unquoted text belongs to the same mistake.
        while parser.tokens[parser.at][0] in (IDENT, INT, ".", ":", "/", "->", "=") and not first_on_line(
            parser.source.text, parser.tokens[parser.at][1]
        ):
            parser.at += 1
        return Value("error", token[1], parser.tokens[parser.at - 1][2], None)
    ends = token[0] in CLOSING or (token[0] != END and parser.tokens[parser.at + 1][0] == "=")
    if ends and first_on_line(parser.source.text, token[1]):
        line_ends(parser, "expected a value")
        return None
    parser.error(
        f"expected a value, found {shown(token)}",
        ["a value is a string, a number, true, false, a list or a map"],
    )
    return None


def no_equals(parser: Parser, token: Token) -> bool:
    """A key of a map is followed by ``token`` instead of =; whether its value may come now."""
    parser.error(f"expected = after the key, found {shown(token)}", ["write { KEY = value }"], token)
    if token[0] == ":":
        parser.at += 1
    elif token[0] not in VALUES:
        if token[0] in (".", "/", "->"):
            parser.at += 1
        return False
    return True


def unclosed(parser: Parser, token: Token, opening: Token) -> None:
    """Report that the list or map opened at ``opening`` ends before ``token``."""
    name = "list" if opening[0] == "[" else "map"
    parser.problems.add(
        "E001",
        parser.source,
        token[1],
        token[2],
        f"the {name} is not closed before {shown(token)}",
        [f"close it with {']' if opening[0] == '[' else '}'}"],
        [(parser.source, opening[1], opening[2], "opened here")],
    )
    if token[0] == "]":
        parser.at += 1


def to_property(parser: Parser) -> None:
    """Skip to where the next property or statement starts, or the component ends; at least one token."""
    tokens = parser.tokens
    depth = 0
    first = True
    while True:
        kind = tokens[parser.at][0]
        if kind == END or (kind in STATEMENTS and tokens[parser.at + 1][0] != "="):
            return
        if kind in CLOSING:
            if depth == 0 and kind == "}":
                return
            depth = max(depth - 1, 0)
        elif kind in OPENING:
            depth += 1
        elif depth == 0 and kind == IDENT:
            after = tokens[parser.at + 1][0]
            if after == "=" and first:
                return
            if after in ("=", ":", "{", "[") and first_on_line(parser.source.text, tokens[parser.at][1]):
                return
        first = False
        parser.at += 1


def to_key(parser: Parser) -> None:
    """Skip to where the next entry of a map may start, or the map end; at least one token."""
    while True:
        if parser.tokens[parser.at][0] in OPENING:
            skip_brackets(parser)
        else:
            parser.at += 1
        kind, start = parser.tokens[parser.at][:2]
        if kind == ",":
            parser.at += 1
            return
        if kind == END or kind in CLOSING or parser.tokens[parser.at + 1][0] == "=":
            return
        if first_on_line(parser.source.text, start):
            return
