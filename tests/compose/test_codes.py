"""Every code of the language: its bad example has it, its good one has not, and both are complete files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from containust.common.codes import CODES
from containust.compose.load import load_checked
from containust.sdk import language

LANGUAGE = [code for code, row in CODES.items() if row.bad]
NEEDS_SERVER = {"E016"}  # test_imports.py has it, with a real one


def write(directory: Path, example: str) -> str:
    first, *others = example.split("// file: ")
    (directory / "main.ctst").write_text(first)
    for other in others:
        name, _, content = other.partition("\n")
        (directory / name).write_text(content)
    return str(directory / "main.ctst")


def found(directory: Path, code: str, example: str) -> list[str]:
    environ = {"HOME": str(directory), "CONTAINUST_SECRET_CONTAINUST_EXAMPLE_PRESENT": "x"}
    stack, diagnostics = load_checked(write(directory, example), offline=True, environ=environ, strict=code == "W016")
    assert (stack is None) == any(one.severity == "error" for one in diagnostics)
    return [one.code for one in diagnostics]


def test_every_code_is_explained() -> None:
    for code, row in CODES.items():
        assert row.explanation and row.title, code
        if code[0] in "EW":
            assert row.bad and row.good, code


@pytest.mark.parametrize("code", [code for code in LANGUAGE if code not in NEEDS_SERVER])
def test_bad_example_has_the_code_and_no_other_error(code: str, tmp_path: Path) -> None:
    codes = found(tmp_path, code, CODES[code].bad)
    assert code in codes
    assert {one for one in codes if one[0] == "E"} <= {code}


@pytest.mark.parametrize("code", [code for code in LANGUAGE if code not in NEEDS_SERVER])
def test_good_example_has_nothing_wrong(code: str, tmp_path: Path) -> None:
    assert [one for one in found(tmp_path, code, CODES[code].good) if one != "W010"] == []


@pytest.mark.parametrize("code", sorted(CODES))
def test_explain_shows_title_meaning_and_examples(code: str) -> None:
    text = language.explain(code)
    assert text.startswith(f"{code}: {CODES[code].title}")
    assert ("Wrong:" in text) == bool(CODES[code].bad)
    assert all(len(line) <= 88 for line in text.partition("Wrong:")[0].splitlines())


GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("code", [code for code in LANGUAGE if code not in NEEDS_SERVER])
def test_rendering_is_as_recorded(code: str, tmp_path: Path) -> None:
    """The exact text people see. ``CONTAINUST_RECORD=1`` rewrites the files; read the difference."""
    path = write(tmp_path, CODES[code].bad)
    environ = {"HOME": "/home/someone"}
    _, diagnostics = load_checked(path, offline=True, environ=environ, strict=code == "W016")
    text = language.render(diagnostics).replace(str(tmp_path), "/project") + "\n"
    golden = GOLDEN / f"{code}.txt"
    if os.environ.get("CONTAINUST_RECORD"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text()
