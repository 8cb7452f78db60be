"""``containust.common.os`` is what ``os`` is, where it answers itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import containust

PACKAGES = Path(containust.__file__).parent.parent
NAMES = ["", "/", "//", "a", "/a", "a/", "a/b", "/a//b/", "//a", "../x", "a/../b", "./a", "~", "a\udc80"]
PAIRS = [("a", "b"), ("a/", "b"), ("", "b"), ("/a", "/b"), ("a", ""), ("/", "b")]


def lean(expression: str, **environ: str) -> object:
    """The value of an expression in a process that has not imported ``os``."""
    script = f"""
import sys
sys.path.append({str(PACKAGES)!r})
from containust.common import os
value = {expression}
assert "os" not in sys.modules or {"os" in environ!r}, "it asked os"
print(ascii(value))
"""
    environ = {**os.environ, **environ}
    done = subprocess.run(
        [sys.executable, "-IS", "-c", script], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return eval(done.stdout)


def test_names_of_paths_are_those_of_os() -> None:
    assert lean(f"[os.path.dirname(name) for name in {NAMES!r}]") == [os.path.dirname(name) for name in NAMES]
    assert lean(f"[os.path.join(*pair) for pair in {PAIRS!r}]") == [os.path.join(*pair) for pair in PAIRS]
    assert lean(f"[os.path.abspath(name) for name in {NAMES!r}]") == [os.path.abspath(name) for name in NAMES]
    assert lean(f"[os.fsencode(name) for name in {NAMES!r}]") == [os.fsencode(name) for name in NAMES]
    assert lean(r"[os.fsdecode(name) for name in (b'a', b'\x80', 'a')]") == ["a", "\udc80", "a"]


def test_files_are_those_of_os(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "down").symlink_to(".")
    (tmp_path / "broken").symlink_to("nowhere")
    paths = [str(tmp_path / name) for name in ("", "file", "link", "down/down/link", "nowhere", "file/x", "broken")]
    assert lean(f"[os.path.exists(path) for path in {paths!r}]") == [os.path.exists(path) for path in paths]
    assert lean(f"[os.path.isdir(path) for path in {paths!r}]") == [os.path.isdir(path) for path in paths]
    present = paths[:4]
    assert lean(f"[os.path.realpath(path) for path in {present!r}]") == [os.path.realpath(path) for path in present]


def test_directories_are_made_as_by_os(tmp_path: Path) -> None:
    lean(f"os.makedirs({str(tmp_path / 'a/b/c/')!r}, 0o700)")
    assert (tmp_path / "a/b/c").stat().st_mode & 0o777 == 0o700
    lean(f"os.makedirs({str(tmp_path / 'a/b/c')!r}, exist_ok=True)")
    (tmp_path / "file").touch()
    with pytest.raises(AssertionError, match="FileExistsError"):
        lean(f"os.makedirs({str(tmp_path / 'a/b/c')!r})")
    with pytest.raises(AssertionError, match="FileExistsError"):
        lean(f"os.makedirs({str(tmp_path / 'file')!r}, exist_ok=True)")


def test_the_environment_and_the_home_directory_are_read() -> None:
    assert lean("os.environ['SPECIAL'], os.path.expanduser('~')", SPECIAL="a b", HOME="/some/where/") == (
        "a b",
        "/some/where",
    )


def test_what_is_rare_comes_from_os() -> None:
    assert lean("(os.path.basename('/a/b'), os.sep)", os="") == ("b", "/")


def test_a_program_that_has_os_gets_that() -> None:
    script = f"""
import os, sys
sys.path.append({str(PACKAGES)!r})
from containust.common import os as ours
from containust.runtime import project
assert ours is os and project.os is os
"""
    subprocess.run([sys.executable, "-IS", "-c", script], check=True, timeout=30)
