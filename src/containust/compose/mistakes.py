"""Reporting a mistake once, and getting past it. Loaded with the first syntax error of a file."""

from __future__ import annotations

from containust.compose.parser import CLOSING, OPENING
from containust.compose.tree import END, IDENT, INT, STATEMENTS, STRING, UNREADABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.compose.parser import Parser
    from containust.compose.tree import Token


def report(parser: Parser, message: str, help: list[str], token: Token) -> None:
    """Report a mistake at ``token``, unless it is reported already."""
    if token[0] == UNREADABLE:
        return
    if token[0] == END:
        if parser.end_reported:
            return
        parser.end_reported = True
    if token[0] in STATEMENTS and parser.at and first_on_line(parser.source.text, token[1]):
        line_ends(parser, message.partition(", found ")[0])  # what is wrong is the line before
        return
    parser.problems.add("E001", parser.source, token[1], token[2], message, help)


def line_ends(parser: Parser, message: str) -> None:
    """Report what is missing behind the token before this one."""
    end = parser.tokens[parser.at - 1][2]
    parser.problems.add("E001", parser.source, end, end, f"{message}, found the end of the line")


def to_statement(parser: Parser) -> None:
    """Skip to where the next statement starts."""
    tokens = parser.tokens
    while tokens[parser.at][0] != END:
        kind, start, _, text = tokens[parser.at]
        if tokens[parser.at + 1][0] != "=":
            if kind in STATEMENTS:
                return
            if kind == IDENT and text.upper() in STATEMENTS and first_on_line(parser.source.text, start):
                return  # in the wrong case, and read all the same
        parser.at += 1


def skip_brackets(parser: Parser) -> None:
    """Skip the bracket here with all that it encloses."""
    tokens = parser.tokens
    depth = 0
    while True:
        kind = tokens[parser.at][0]
        if kind == END:
            parser.end_reported = True
            return
        if kind in OPENING:
            depth += 1
        elif kind in CLOSING:
            depth -= 1
        parser.at += 1
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
