"""docs/SECURITY.md: every attack that is tried is listed, and every test it names exists."""

from __future__ import annotations

import re
from pathlib import Path

from containust.runtime.attacks.inside import main as inside
from containust.runtime.attacks.inside.frame import ATTACKS

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs/SECURITY.md").read_text()
ROW = re.compile(r"^\| ([A-Z]\d+) \|.*\| (.*) \|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+|\*)(?:\[(\w+)\])?`")
# How many lines of each kind there are (those of V come with the virtual machine).
KINDS = {"A": 14, "F": 13, "N": 12, "P": 11, "C": 6, "W": 8, "S": 9, "L": 4}


def test_every_named_test_exists() -> None:
    named = NAMED.findall(TEXT)
    assert len(named) > 80 and len(inside.MODULES) == 3
    names = {name for _, name, _, _ in ATTACKS}
    for path, function, parameter in named:
        text = (ROOT / path).read_text()
        assert function == "*" or f"def {function}(" in text, f"{path}::{function}"
        assert not parameter or parameter in names, parameter


def test_every_line_has_a_test_or_says_why_not() -> None:
    rows = dict(ROW.findall(TEXT))
    for kind, count in KINDS.items():
        for number in range(1, count + 1):
            assert f"{kind}{number}" in rows, f"{kind}{number}"
    for line, tests in rows.items():
        assert NAMED.search(tests) or "not a boundary" in tests or tests.startswith("there is no"), line


def test_every_attack_of_doctor_is_in_its_line() -> None:
    rows = dict(ROW.findall(TEXT))
    for line, name, _, _ in ATTACKS:
        assert f"test_withstood[{name}]" in rows[line], f"{line} {name}"
