"""Secrets: where they come from, what makes them unusable, and that nothing here ever shows one."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pytest

from containust.common.errors import ContainustError
from containust.compose.load import load_checked
from containust.compose.secrets import find_secret, variable_name
from containust.sdk import language

CANARY = "canary-5d1c7e"


def put(directory: Path, name: str, content: bytes = CANARY.encode() + b"\n", mode: int = 0o600) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_variable_then_own_directory_then_project(tmp_path: Path) -> None:
    own = tmp_path / "own"
    environ = {variable_name("db.pass-word"): "one", "CONTAINUST_SECRETS_DIR": str(own)}
    assert variable_name("db.pass-word") == "CONTAINUST_SECRET_DB_PASS_WORD"
    put(tmp_path / ".containust" / "secrets", "db.pass-word", b"three\r\n")
    put(own, "db.pass-word", b"two\n\n")
    assert find_secret("db.pass-word", str(tmp_path), environ) == "one"
    del environ["CONTAINUST_SECRET_DB_PASS_WORD"]
    assert find_secret("db.pass-word", str(tmp_path), environ) == "two\n"
    assert find_secret("db.pass-word", str(tmp_path), {}) == "three"
    assert find_secret("db.pass-word", str(tmp_path / ".containust"), {}) == "three"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_open_files_are_s005(tmp_path: Path, mode: int) -> None:
    put(tmp_path / ".containust" / "secrets", "s", mode=mode)
    with pytest.raises(ContainustError) as caught:
        find_secret("s", str(tmp_path), {})
    assert caught.value.code == "S005" and CANARY not in str(caught.value) + "".join(caught.value.help)


def test_files_of_others_are_s005(tmp_path: Path) -> None:
    os.chown(put(tmp_path / ".containust" / "secrets", "s"), 12345, 12345)
    with pytest.raises(ContainustError) as caught:
        find_secret("s", str(tmp_path), {})
    assert caught.value.code == "S005"


def test_no_file_and_odd_files(tmp_path: Path) -> None:
    directory = tmp_path / ".containust" / "secrets"
    put(directory, "binary", CANARY.encode() + b"\xff")
    put(directory, "zero", CANARY.encode() + b"\0")
    os.mkfifo(directory / "pipe", 0o600)
    for name, code in (("none", "E020"), ("binary", "E020"), ("zero", "E020"), ("pipe", "S005")):
        with pytest.raises(ContainustError) as caught:
            find_secret(name, str(tmp_path), {})
        shown = "".join(traceback.format_exception(caught.value)) + "".join(caught.value.help)
        assert caught.value.code == code and CANARY not in shown


def test_nothing_that_checking_gives_holds_the_value(tmp_path: Path) -> None:
    path = tmp_path / "main.ctst"
    path.write_text(
        'COMPONENT a {\n image = "preset://x"\n env = { T = "x${secret.s}y" }\n'
        'command = ["${secret.s}"]\n prot = 1\n}\n'
    )
    put(tmp_path / ".containust" / "secrets", "s")
    environ = {"CONTAINUST_SECRET_S": CANARY}
    _, found = load_checked(str(path), environ=environ)
    text = language.render(found) + repr([one.as_dict() for one in found])
    path.write_text(path.read_text().replace("prot = 1", ""))
    stack, found = load_checked(str(path), environ=environ)
    assert stack is not None and found == []
    text += repr(stack) + repr(stack.as_dict()) + language.graph(stack, "svg") + repr(pickle.dumps(repr(stack)))
    written = [one for one in tmp_path.rglob("*") if one.is_file() and "secrets" not in one.parts]
    text += "".join(one.read_text() for one in written)
    assert CANARY not in text
