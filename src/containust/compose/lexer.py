"""Text to tokens (language.md, section 1), by hand and in one pass.

No regular expressions: importing ``re`` costs more than reading a typical file does.
"""

from __future__ import annotations

from containust.compose.tree import END, IDENT, INT, KEYWORDS, STRING, UNREADABLE, Interpolation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.compose.tree import Problems, Source, Token

LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
DIGITS = frozenset("0123456789")
WORD = LETTERS | DIGITS | {"_"}
SIGNS = frozenset("{}[],=.:")
SPACE = frozenset(" \t\r\n")
HEX = frozenset("0123456789abcdefABCDEF")
ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t", "r": "\r"}
ATTRIBUTES = ("host", "port", "connection_string")
LARGEST = 2**63 - 1
BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def tokenize(source: Source, problems: Problems) -> tuple[list[Token], list[tuple[int, int]]]:
    """The tokens of ``source``, the last of kind END, and the places of its comments.

    What cannot be read is reported as E001 and passed over.
    """
    text = source.text
    size = len(text)
    if not text.isascii():
        _hidden(source, text, problems)
    text += "\0"  # the end is a character too, so no index needs checking
    tokens: list[Token] = []
    comments: list[tuple[int, int]] = []
    add = tokens.append
    i = 0
    while True:
        c = text[i]
        if c in SPACE:
            i += 1
            continue
        start = i
        if c in LETTERS:
            i += 1
            while True:
                while text[i] in WORD:
                    i += 1
                if text[i] == "-" and text[i + 1] in WORD:
                    i += 1
                else:
                    break
            word = text[start:i]
            add((word if word in KEYWORDS else IDENT, start, i, word))
        elif c in SIGNS:
            i += 1
            add((c, start, i, c))
        elif c == '"':
            end = text.find('"', i + 1)
            raw = text[i + 1 : end] if end > 0 else "\n"
            if "\\" in raw or "$" in raw or "\n" in raw or "\r" in raw or "\0" in raw:
                i, value = _string(source, text, size, start, problems)
                add((STRING, start, i, value))
            else:
                i = end + 1
                add((STRING, start, i, raw))
        elif c == "/" and text[i + 1] == "/":
            i = text.find("\n", i)
            if i < 0:
                i = size
            comments.append((start, i))
        elif c in DIGITS:
            i, token = _number(source, text, start, problems)
            add(token)
        elif c == "-" and text[i + 1] == ">":
            i += 2
            add(("->", start, i, "->"))
        elif c == "/" and text[i + 1] != "*":
            i += 1
            add(("/", start, i, "/"))
        elif c == "\0" and i == size:
            add((END, size, size, ""))
            return tokens, comments
        else:
            i = _unreadable(source, text, size, start, problems, tokens, comments)


def _hidden(source: Source, text: str, problems: Problems) -> None:
    """E001 for characters that make a file look other than it is read, in comments and strings too."""
    for character in BIDIRECTIONAL:
        at = text.find(character)
        while at >= 0:
            what = f"the invisible character U+{ord(character):04X} changes the order in which text is shown"
            help = [f"remove it; in a string it can be written \\u{{{ord(character):X}}}"]
            problems.add("E001", source, at, at + 1, what, help)
            at = text.find(character, at + 1)


def _number(source: Source, text: str, start: int, problems: Problems) -> tuple[int, Token]:
    """An integer of up to 63 bits; a float and a number with letters behind it are told apart from it."""
    i = start
    while text[i] in DIGITS:
        i += 1
    digits = text[start:i]
    if text[i] == "." and text[i + 1] in DIGITS:
        while text[i] in WORD or (text[i] == "." and text[i + 1] in WORD):
            i += 1
        written = text[start:i]
        what = "numbers have no fraction" if written.count(".") == 1 else "this is neither a number nor a string"
        problems.add("E001", source, start, i, what, [f'quote it: "{_shortened(written)}"'])
        return i, (STRING, start, i, written)
    if text[i] in WORD:
        while text[i] in WORD:
            i += 1
        written = text[start:i]
        problems.add(
            "E001",
            source,
            start,
            i,
            "a number cannot be followed by letters",
            [f'quote it: "{_shortened(written)}"'],
        )
        return i, (STRING, start, i, written)
    significant = digits.lstrip("0") or "0"
    if len(significant) > 19 or int(significant) > LARGEST:
        problems.add("E001", source, start, i, "the number is too large", [f"the largest is {LARGEST}"])
        return i, (INT, start, i, -1)
    return i, (INT, start, i, int(significant))


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"


def _unreadable(
    source: Source,
    text: str,
    size: int,
    start: int,
    problems: Problems,
    tokens: list[Token],
    comments: list[tuple[int, int]],
) -> int:
    """Report the character at ``start`` that begins no token; return where to go on."""
    c = text[start]
    if c == "#":
        line_end = text.find("\n", start)
        if line_end < 0:
            line_end = size
        problems.add("E001", source, start, start + 1, "# does not start a comment", ["comments start with //"])
        comments.append((start, line_end))
        return line_end
    if c == "/":  # /*
        close = text.find("*/", start + 2)
        problems.add(
            "E001",
            source,
            start,
            start + 2,
            "there are no /* */ comments",
            ["comments start with // and end with the line"],
        )
        return close + 2 if close >= 0 else size
    if c == "'":
        # What is looked through is passed over, or ends at the next quote: no text is looked through again and again.
        close = text.find("'", start + 1)
        if close > 0 and text.find("\n", start, close) < 0:
            problems.add(
                "E001",
                source,
                start,
                close + 1,
                "strings are written with double quotes",
                [f'write "{_shortened(text[start + 1 : close])}"'],
            )
            # Without U+0000, as in a string: nothing behind the lexer expects one.
            tokens.append((STRING, start, close + 1, text[start + 1 : close].replace("\0", "")))
            return close + 1
    if c == "-" and text[start + 1] in " \t":
        i = start + 1
        while text[i] in " \t":
            i += 1
        if text[i] == ">":
            tokens.append((UNREADABLE, start, i + 1, text[start : i + 1]))
            problems.add("E001", source, start, i + 1, "unexpected spaces in an arrow", ["an arrow is written ->"])
            return i + 1
    if c == "-" and text[start + 1] in DIGITS:
        problems.add("E001", source, start, start + 1, "numbers have no sign", ["every number is 0 or more"])
        return start + 1
    if c == ">":
        begin = start
        if tokens and tokens[-1][0] == "=" and tokens[-1][2] == start:
            begin = tokens.pop()[1]
        seen = text[begin : start + 1]
        tokens.append((UNREADABLE, begin, start + 1, seen))
        problems.add("E001", source, begin, start + 1, f"unexpected {seen!r}", ["an arrow is written ->"])
        return start + 1
    i = start + 1
    while i < size and not (
        text[i] in WORD or text[i] in SIGNS or text[i] in SPACE or text[i] in "\"'/#" or text[i : i + 2] == "->"
    ):
        i += 1
    seen = text[start:i]
    shown = repr(_shortened(seen)) if seen.isprintable() else ""
    if not c.isascii() or not shown:
        shown = f"{shown} U+{ord(c):04X}".lstrip()
    tokens.append((UNREADABLE, start, i, seen))
    help = []
    if c == ";":
        help.append("statements and properties end with the line")
    elif c == "_":
        help.append("a name starts with a letter")
    elif c.isalpha():
        help.append("names have the letters A to Z and a to z; this one may only look like one of them")
    elif c in "“”„‟«»":
        help.append('strings are written with straight double quotes: "…"')
    elif c == "`":
        help.append('strings are written with double quotes: "…"')
    problems.add("E001", source, start, i, f"unexpected {'characters' if i - start > 1 else 'character'} {shown}", help)
    return i


def _string(
    source: Source, text: str, size: int, start: int, problems: Problems
) -> tuple[int, str | tuple[str | Interpolation, ...]]:
    """A string with escapes, interpolations or mistakes in it: the offset behind it and its value."""
    parts: list[str | Interpolation] = []
    literal: list[str] = []
    i = start + 1
    while True:
        c = text[i]
        if c == '"':
            i += 1
            break
        if c == "\\":
            i, decoded = _escape(source, text, i, problems)
            literal.append(decoded)
        elif c == "$" and text[i + 1] == "$" and text[i + 2] == "{":
            literal.append("${")
            i += 3
        elif c == "$" and text[i + 1] == "{":
            i, interpolation = _interpolation(source, text, i, problems)
            if interpolation is not None:
                if literal:
                    parts.append("".join(literal))
                    literal = []
                parts.append(interpolation)
        elif c in "\n\r" or (c == "\0" and i == size):
            problems.add(
                "E001",
                source,
                start,
                i,
                "the string is not closed on its line",
                ['end it with ", and write \\n for a line break in it'],
            )
            break
        elif c == "\0":
            problems.add("E001", source, i, i + 1, "U+0000 cannot be part of a string", [])
            i += 1
        else:
            begin = i
            while text[i] not in '"\\$\n\r\0':
                i += 1
            if i == begin:  # a lone $
                i += 1
            literal.append(text[begin:i])
    if not parts:
        return i, "".join(literal)
    if literal:
        parts.append("".join(literal))
    return i, tuple(parts)


def _escape(source: Source, text: str, at: int, problems: Problems) -> tuple[int, str]:
    """The escape sequence at ``at``: the offset behind it and the character it stands for."""
    c = text[at + 1]
    if c in ESCAPES:
        return at + 2, ESCAPES[c]
    if c == "u" and text[at + 2] == "{":
        i = at + 3
        while text[i] in HEX:
            i += 1
        digits = text[at + 3 : i].lstrip("0")
        if text[i] == "}" and i > at + 3:
            i += 1
            number = int(digits or "0", 16) if len(digits) <= 6 else 0x110000
            if 0 < number < 0xD800 or 0xDFFF < number < 0x110000:
                return i, chr(number)
            problems.add(
                "E001",
                source,
                at,
                i,
                "no such character",
                ["\\u{…} takes the hexadecimal number of a Unicode character other than U+0000"],
            )
            return i, ""
        problems.add("E001", source, at, i, "unfinished escape", ["write \\u{E9} for é, \\u{1F600} for 😀"])
        return i, ""
    end = at + 1 if c in '\n\r\0"' else at + 2
    problems.add(
        "E001",
        source,
        at,
        end,
        f"unknown escape {text[at:end]}" if text[at:end].isprintable() else "unknown escape",
        ['the escapes are \\" \\\\ \\n \\t \\r \\u{HEX}; a backslash itself is \\\\'],
    )
    return end, ""


def _interpolation(source: Source, text: str, at: int, problems: Problems) -> tuple[int, Interpolation | None]:
    """``${...}`` at ``at``: the offset behind it, and what it refers to or None if it is wrong."""
    i = at + 2
    while text[i] not in '}"\n\r\0':
        if text[i] == "$" and text[i + 1] == "{":
            problems.add("E001", source, i, i + 2, "interpolations do not nest", ["$${ stands for a literal ${"])
            break
        if text[i] == "\\" and text[i + 1] not in "\n\r\0":
            i += 1
        i += 1
    if text[i] == "$":
        while text[i] not in '}"\n\r\0':
            i += 2 if text[i] == "\\" and text[i + 1] not in "\n\r\0" else 1
        while text[i] == "}":
            i += 1
        return i, None
    if text[i] != "}":
        problems.add(
            "E001",
            source,
            at,
            i,
            "the interpolation is not closed",
            ["end it with }, or write $${ for a literal ${"],
        )
        return i, None
    end = i + 1
    expression = text[at + 2 : i]
    namespace, dot, name = expression.partition(".")
    before, dash, _ = expression.partition(":-")
    if namespace == "env" and dot:
        name, dash, _ = name.partition(":-")
        if not is_variable(name):
            _wrong(source, at, end, expression, problems)
            return end, None
        default = _default(source, text, at + 8 + len(name), i, problems) if dash else None
        return end, Interpolation(at, end, "env", name, "", default)
    if namespace == "secret" and dot and is_secret(name):
        return end, Interpolation(at, end, "secret", name)
    if namespace == "secret":
        help = ["${secret.name}: a letter, then letters, digits and _ . -"]
        problems.add("E001", source, at, end, "this names no secret", help)
        return end, None
    if not dot or not is_name(namespace) or (dash and "." not in before):
        _wrong(source, at, end, expression, problems)
        return end, None
    if name not in ATTRIBUTES:
        problems.add(
            "E006",
            source,
            at + 3 + len(namespace),
            i,
            f"a component has no attribute {name!r}",
            [f"${{{namespace}.host}}, ${{{namespace}.port}} and ${{{namespace}.connection_string}} exist"],
            (),
            (name, ATTRIBUTES, "did you mean {}?"),
        )
        return end, None
    return end, Interpolation(at, end, "component", namespace, name)


def _default(source: Source, text: str, i: int, end: int, problems: Problems) -> str:
    """The text between ``:-`` and ``}`` with its escapes decoded."""
    if text.find("\\", i, end) < 0:
        return text[i:end]
    decoded = []
    while i < end:
        if text[i] == "\\":
            i, character = _escape(source, text, i, problems)
            decoded.append(character)
        else:
            decoded.append(text[i])
            i += 1
    return "".join(decoded)


def _wrong(source: Source, start: int, end: int, expression: str, problems: Problems) -> None:
    variable = expression.partition(":")[0].partition("-")[0]
    help = ["${component.host}, ${secret.name}, ${env.NAME} and ${env.NAME:-default} exist; $${ is a literal ${"]
    if is_variable(variable):
        default = expression.partition("-")[2]
        written = f"{variable}:-{default}" if "-" in expression else variable
        help.insert(0, f"for a variable of the host write ${{env.{_shortened(written)}}}")
    elif expression.startswith("env."):
        help.insert(0, "a variable's name has letters, digits and _; a default follows :-")
    elif expression.strip() != expression:
        help.insert(0, "leave the spaces away")
    problems.add("E001", source, start, end, "this interpolation refers to nothing", help)


def is_name(text: str) -> bool:
    """Whether ``text`` is an identifier of the language."""
    return (
        text[:1] in LETTERS
        and bool(text)
        and text[-1] != "-"
        and "--" not in text
        and all(c in WORD or c == "-" for c in text)
    )


def is_variable(text: str) -> bool:
    """Whether ``text`` can name an environment variable in an interpolation."""
    return bool(text) and text[0] not in DIGITS and all(c in WORD for c in text)


def is_secret(text: str) -> bool:
    """Whether ``text`` can name a secret: letters, digits and ``_ . -``, a letter first."""
    return bool(text) and text[0] in LETTERS and all(c in WORD or c in ".-" for c in text)
