"""Coverage-guided fuzzing of the language: ``python tests/compose/fuzz_language.py -runs=1000000 CORPUS``.

Needs atheris. Every input is checked as a file, and laid out when it parses. A crash is any exception but a
ContainustError, a wrong span, a layout that changes the meaning or is not stable, or more than a second.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

# Edit distance and rendering take most of the time and have few branches worth finding; they run all the same.
QUIET = ["containust.common.suggest", "containust.compose.diagnostics"]
with atheris.instrument_imports(include=["containust"], exclude=QUIET):
    from containust.common.errors import ContainustError
    from containust.compose.diagnostics import finish, render
    from containust.compose.formatter import format_source, shape
    from containust.compose.load import analyse, decode
    from containust.compose.parser import parse
    from containust.compose.tree import Problems, Source

DIRECTORY = tempfile.mkdtemp(prefix="fuzz-language-")
ENVIRON = {"HOME": DIRECTORY, "A": "1", "CONTAINUST_SECRET_S": "x"}


def one(data: bytes) -> None:
    begin = time.process_time()
    problems = Problems()
    source = decode(os.path.join(DIRECTORY, "f.ctst"), data, DIRECTORY, problems)
    analyse(source, problems, True, ENVIRON, DIRECTORY, strict=True)
    found = finish(problems)
    assert len(found) <= 100
    for diagnostic in found:
        place = diagnostic.place
        assert 1 <= place.line <= place.end_line and place.column >= 1 and place.end_column >= 1
        assert (place.line, place.column) <= (place.end_line, place.end_column), diagnostic
    render(found)
    if any(entry[0] == "E001" for entry in problems.entries):
        try:
            format_source(source)
        except ContainustError:
            pass
    else:
        laid_out(source)
    assert time.process_time() - begin < 1


def laid_out(source: Source) -> None:
    text = format_source(source)
    again = Source("again", text, DIRECTORY)
    before, after = parse(source, Problems()), parse(again, Problems())
    assert shape(before) == shape(after), text
    comments = sorted(source.text[a:b].rstrip() for a, b in before.comments)
    assert comments == sorted(text[a:b].rstrip() for a, b in after.comments), text
    assert format_source(again) == text, text


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
