"""Runs the tests that are marked ``guest`` or ``unified`` in a machine of their own, beside the others.

The guest is started once, by the process that hands out the tests, as soon as it is known that one of
``test_guest.py`` will run; those come last, wait for the guest's end, and say what it found.
"""

from __future__ import annotations

import ast
import fcntl
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
MARKS = {"guest", "unified"}

_started: list[subprocess.Popen[bytes]] = []


@cache
def marked() -> list[str]:
    """``FILE::FUNCTION`` of each test that runs in the guest, found without importing anything."""
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()
        if path.parent == HERE or not any(f"mark.{mark}" in text for mark in MARKS):
            continue
        tree = ast.parse(text)
        for_all = [
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        ]
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            if any(map(_named, [*for_all, *node.decorator_list])):
                found.append(f"{path.relative_to(TESTS.parent)}::{node.name}")
    return found


def _named(mark: ast.expr) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr in MARKS for node in ast.walk(mark))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs another hierarchy than the host has, and let those that wait for the guest come last."""
    lacking = "hybrid" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "unified"
    here = [item for item in items if not item.get_closest_marker(lacking)]
    if len(here) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(here)])
    items[:] = sorted(here, key=lambda item: item.path.parent == HERE)


def pytest_collection_finish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        _start(session.config, [item.nodeid for item in session.items])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    _start(node.config, ids)


def _start(config: pytest.Config, ids: list[str]) -> None:
    if _started or config.option.collectonly or not any("guest/test_guest.py" in each for each in ids):
        return
    share = directory(config)
    share.mkdir()
    with open(share / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # is let go by the end of the process that has it now
        files = sorted({each.partition("::")[0] for each in marked()})
        with open(share / "said", "wb") as said:
            command = [sys.executable, str(HERE / "machine.py"), str(share), *files]
            _started.append(subprocess.Popen(command, pass_fds=[lock.fileno()], stdout=said, stderr=said))


def pytest_unconfigure() -> None:
    for process in _started:
        process.terminate()  # an interrupted run waits for nothing
        process.wait()


def directory(config: pytest.Config) -> Path:
    """What this run shares with its guest."""
    base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return (base.parent if hasattr(config, "workerinput") else base) / "guest"


class Case:
    """The outcome of one test in the guest: ``kind`` is passed, skipped, failure or error."""

    def __init__(self, element: ElementTree.Element) -> None:
        self.file = element.attrib["classname"].replace(".", "/") + ".py"
        self.name = element.attrib["name"]
        inner = next((each for each in element if each.tag in ("skipped", "failure", "error")), None)
        self.kind = "passed" if inner is None else inner.tag
        self.text = "" if inner is None else (inner.text or inner.get("message", ""))


@cache
def outcome(share: Path) -> list[Case]:
    """What the guest found; waits for its end. Skips or fails the calling test where there was none."""
    with open(share / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
    if (share / "missing").exists():
        pytest.skip(f"no guest: {(share / 'missing').read_text()}")
    if not (share / "junit.xml").exists():
        if (share / "told").exists():
            pytest.fail("the guest came to no end, see the first of its tests", pytrace=False)
        (share / "told").touch()
        ends = [f"--- {name}\n{_end(share / name)}" for name in ("said", "console", "out")]
        pytest.fail("the guest came to no end:\n" + "\n".join(ends), pytrace=False)
    return [Case(element) for element in ElementTree.parse(share / "junit.xml").iter("testcase")]


def _end(path: Path) -> str:
    return path.read_text(errors="replace")[-4000:] if path.exists() else "nothing"


if os.environ.get("CONTAINUST_IN_GUEST"):
    assert Path("/sys/fs/cgroup/cgroup.controllers").exists(), "this is no machine with the unified hierarchy"
