"""The highlighting files know every keyword and property, and the documentation every property."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from containust.compose.properties import ROWS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "name", ["editors/vscode/syntaxes/ctst.tmLanguage.json", "editors/vim/syntax/ctst.vim", "docs/language.md"]
)
def test_every_property_and_statement_is_known(name: str) -> None:
    text = (ROOT / name).read_text()
    for word in [row.name for row in ROWS] + ["IMPORT", "COMPONENT", "FROM", "CONNECT", "EXPOSE", "AS"]:
        assert word in text, word


def test_vscode_files_are_json() -> None:
    for path in (ROOT / "editors" / "vscode").rglob("*.json"):
        json.loads(path.read_text())
