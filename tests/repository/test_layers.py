"""What the documents say of the code, held against the code."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "src" / "containust"
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def test_the_layers_of_the_architecture_hold() -> None:
    command = os.path.join(os.path.dirname(sys.executable), "lint-imports")
    if not os.access(command, os.X_OK):
        pytest.skip("import-linter is not installed")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_the_test_command_of_the_readme_and_nothing_else() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert lines == ["#!/bin/sh", "exec ./dev test"]
    assert "./dev test" in (ROOT / "README.md").read_text()
    assert "./dev demo" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_names_functions_and_files_that_exist(document: Path) -> None:
    """`package/module.py` and `package/module.py:name` in backquotes are modules of ours and what they define."""
    text = document.read_text()
    for path, name in re.findall(r"`((?:[a-z0-9_]+/)+[a-z0-9_]+\.py)(?::([A-Za-z_.]+))?`", text):
        file = next((one for one in (PACKAGE / path, ROOT / path) if one.exists()), None)
        assert file is not None, f"{document.name} names {path}"
        if name:
            assert name in defined(file), f"{document.name} names {path}:{name}"
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def defined(file: Path) -> set[str]:
    """Functions, classes and ``Class.method`` of a module."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("package", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_a_package_says_what_it_is_for(package: str) -> None:
    assert ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text()))
