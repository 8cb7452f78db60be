"""Problems as objects and as text (language.md, section 10). Imported only when there is something to say."""

from __future__ import annotations

from bisect import bisect_right

from containust.common.errors import ContainustError
from containust.common.suggest import nearest
from containust.common.types import Record
from containust.compose.tree import MOST_PROBLEMS, told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from containust.compose.tree import Problems, Source, Suggest

LONGEST_LINE = 160  # characters of a source line that are shown
NEAREST_IMPORTS = 10  # places of IMPORT shown for one problem
LISTED = 10  # names shown where none is near
COMPARISONS = 40_000  # names compared for "did you mean" in one run, so that a run stays linear


class Place(Record):
    """Where something is: lines and columns count characters from 1, ``end_column`` is behind the last.

    ``text`` is what is shown of the line, from the character at index ``cut`` on.
    """

    __slots__ = ("column", "cut", "end_column", "end_line", "file", "line", "message", "text")

    def __init__(self, source: Source, start: int, end: int, message: str = "") -> None:
        lines = source.lines()
        size = len(source.text)
        self.file = source.path
        self.line = bisect_right(lines, min(start, size))
        self.column = start - lines[self.line - 1] + 1
        self.end_line = bisect_right(lines, min(end, size))
        self.end_column = end - lines[self.end_line - 1] + 1
        self.message = message
        begin = lines[self.line - 1]
        finish = lines[self.line] - 1 if self.line < len(lines) else size
        self.cut = 0
        if finish - begin > LONGEST_LINE:
            self.cut = max(0, self.column - 41)
            finish = min(finish, begin + self.cut + LONGEST_LINE)
        self.text = source.text[begin + self.cut : finish].rstrip("\r")


class Diagnostic(Record):
    """One error or warning. ``related`` are other places with what to say about them."""

    __slots__ = ("code", "help", "message", "place", "related", "severity")

    def __init__(
        self, code: str, message: str, place: Place, help: list[str], related: list[Place], severity: str = ""
    ) -> None:
        self.code = code
        self.severity = severity or ("warning" if code.startswith("W") else "error")
        self.message = message
        self.place = place
        self.help = help
        self.related = related

    def as_dict(self) -> dict[str, object]:
        """The stable JSON form of ``ctst check --json``."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            **position(self.place),
            "help": self.help,
            "related": [{"message": place.message, **position(place)} for place in self.related],
        }

    def render(self, color: bool = False) -> str:
        """As people read it: header, place, source line with carets, notes, help."""
        bold, blue, cyan, off = ("\x1b[1m", "\x1b[34;1m", "\x1b[36m", "\x1b[0m") if color else ("", "", "", "")
        tone = ("\x1b[31;1m" if self.severity == "error" else "\x1b[33;1m") if color else ""
        lines = [f"{tone}{self.severity}[{self.code}]{off}{bold}: {self.message}{off}"]
        gutter = len(str(max([self.place.line, *[place.line for place in self.related]])))
        lines += shown(self.place, gutter, "-->", "^", tone, blue, off)
        for place in self.related:
            lines += shown(place, gutter, ":::", "-", blue, blue, off)
        lines += [f"{' ' * gutter} {blue}={off} {cyan}help:{off} {line}" for line in self.help]
        return "\n".join(lines)


def position(place: Place) -> dict[str, object]:
    return {
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "end_line": place.end_line,
        "end_column": place.end_column,
    }


def shown(place: Place, gutter: int, arrow: str, mark: str, tone: str, blue: str, off: str) -> list[str]:
    """One place: where, its line, and marks under the span."""
    pad = " " * gutter
    begin = place.column - 1 - place.cut
    end = begin + place.end_column - place.column if place.end_line == place.line else len(place.text)
    text = "".join([c if c.isprintable() else " " if c == "\t" else "·" for c in place.text])
    if place.cut:
        text = "…" + text[1:]
    first, width = cells(text[:begin]), max(1, cells(text[begin:end]))
    note = f" {place.message}" if place.message else ""
    return [
        f"{pad}{blue}{arrow}{off} {place.file}:{place.line}:{place.column}",
        f"{pad} {blue}|{off}",
        f"{blue}{place.line:>{gutter}} |{off} {text}".rstrip(),
        f"{pad} {blue}|{off} {' ' * first}{tone}{mark * width}{note}{off}",
    ]


def cells(text: str) -> int:
    """How many columns of a terminal ``text`` takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


class CheckFailed(ContainustError):
    """A file with errors. ``diagnostics`` has all of them, sorted by place, with the warnings."""

    def __init__(self, diagnostics: list[Diagnostic]) -> None:
        errors = [one for one in diagnostics if one.severity == "error"]
        first = errors[0]
        where = f"{first.place.file}:{first.place.line}:{first.place.column}"
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(first.code, f"{where}: {first.message}{more}", *first.help)
        self.diagnostics = diagnostics

    def rendered(self, color: bool = False) -> str:
        """All of them, as every command shows them that reads a file."""
        return render(self.diagnostics, color)


def render(diagnostics: Iterable[Diagnostic], color: bool = False) -> str:
    """All of them as text, an empty line between two."""
    return "\n\n".join(one.render(color) for one in diagnostics)


def finish(problems: Problems) -> list[Diagnostic]:
    """The first :data:`MOST_PROBLEMS`, errors before warnings when not all fit, sorted by place, each once.

    Those of the entry file come first, then the other files in the order in which they were found wrong.
    """
    entries: dict[tuple[object, ...], Any] = {}
    for item in problems.entries:
        entries.setdefault(told(item), item)
    chosen = sorted(entries.values(), key=lambda item: problems.place(*item[:3]))[:MOST_PROBLEMS]
    budget = [COMPARISONS]
    result = []
    for item in sorted(chosen, key=lambda item: (problems.rank(item[1]), item[2], item[3], item[0])):
        code, source, start, end, message, help, related, suggest = item
        lines = list(help)
        if suggest is not None:
            near = suggestion(suggest, budget)
            if near:
                lines.insert(0, near)
        places = [Place(*place) for place in related]
        at: Source | None = source
        for _ in range(NEAREST_IMPORTS):
            if at is None or at.imported_at is None:
                break
            places.append(Place(*at.imported_at, "imported here"))
            at = at.imported_at[0]
        result.append(Diagnostic(code, message, Place(source, start, end), lines, places))
    return result


def suggestion(suggest: Suggest, budget: list[int]) -> str:
    word, names, form, *otherwise = suggest
    candidates = []
    for name in names:
        if budget[0] <= 0:
            break
        budget[0] -= 1
        if abs(len(name) - len(word)) <= 3:
            candidates.append(name)
    near = nearest(word, candidates)
    if near and isinstance(names, dict) and isinstance(names.get(near), str):
        near = names[near]  # what is written for it here
    if near:
        return form.replace("{}", near)
    few = [name for name, _ in zip(names, range(LISTED + 1), strict=False)] if otherwise else []
    return otherwise[0].replace("{}", ", ".join(few)) if 0 < len(few) <= LISTED else ""
