"""The language commands as the dispatcher calls them."""

from __future__ import annotations

import io
import json
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from containust.cli import main
from containust.cli.commands import check, convert, explain, fmt
from containust.common.errors import ContainustError, UsageError
from containust.sdk import language

GOOD = 'COMPONENT a {\n    image = "preset://x"\n    port = 80\n}\n\nEXPOSE 80\n'
WARNING = GOOD.replace("EXPOSE 80", 'EXPOSE "0.0.0.0":80:80')


class Context(main.Context):
    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.cwd = str(directory)
        self.offline = True
        self.printed = ""
        self.complained = ""

    def out(self, text: str) -> None:
        self.printed += text

    def err(self, text: str) -> None:
        self.complained += text


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(tmp_path)


def test_check(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "containust.ctst"
    path.write_text(GOOD)
    assert check.run([], context) == 0
    path.write_text(WARNING)
    assert check.run([], context) == 0 and "W015" in context.complained
    assert check.run(["--deny-warnings"], context) == 1
    path.write_text(GOOD.replace("port", "prot"))
    assert check.run(["containust.ctst"], context) == 1 and "error[E006]" in context.complained
    context.printed = ""
    assert check.run(["--json"], context) == 1
    assert [one["code"] for one in json.loads(context.printed)["diagnostics"]] == ["E006", "E011"]
    with pytest.raises(ContainustError):
        check.run(["none.ctst"], context)


def test_check_of_an_editor_buffer(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"COMPONENT a {}")))
    assert check.run(["-", "--stdin-path", "x.ctst", "--json"], context) == 1
    assert json.loads(context.printed)["diagnostics"][0]["code"] == "E005"


def test_fmt(context: Context, tmp_path: Path) -> None:
    path = tmp_path / "containust.ctst"
    path.write_text(GOOD.replace("    ", ""))
    path.chmod(0o640)
    assert fmt.run(["--check"], context) == 1 and fmt.run(["--diff"], context) == 1
    assert "+    port = 80" in context.printed
    assert fmt.run([], context) == 0 and path.read_text() == GOOD and path.stat().st_mode & 0o777 == 0o640
    assert fmt.run(["--check"], context) == 0
    path.write_text("COMPONENT {")
    assert fmt.run([], context) == 1 and "E001" in context.complained and path.read_text() == "COMPONENT {"


def test_explain(context: Context) -> None:
    assert explain.run(["E004"], context) == 0 and context.printed.startswith("E004: cycle")
    assert explain.run([], context) == 0 and "S006" in context.printed
    with pytest.raises(ContainustError) as caught:
        explain.run(["E404"], context)
    assert caught.value.status == 2


def test_convert(context: Context, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  a:\n    image: x\n    ports: ['8080:80']\n    dns: 1.1.1.1\n")
    assert convert.run(["-o", "containust.ctst"], context) == 0
    assert "compose.yaml:5" in context.complained
    assert 'EXPOSE "0.0.0.0":8080:80 -> a' in (tmp_path / "containust.ctst").read_text()
    assert check.run([], context) == 0


@pytest.mark.parametrize("command", [check, fmt, explain, convert])
def test_help_has_two_examples(command: Any, context: Context) -> None:
    assert command.run(["--help"], context) == 0
    assert context.printed.partition("Examples:")[2].count("\n  ctst ") == 2


@pytest.mark.parametrize(
    ("command", "words"),
    [(check, ["a", "b"]), (check, ["--jsn"]), (fmt, ["-x"]), (convert, ["a", "b"]), (convert, ["-o"])],
)
def test_wrong_use_is_u001(command: Any, words: list[str], context: Context) -> None:
    with pytest.raises(UsageError):
        command.run(words, context)


def test_graphs(tmp_path: Path) -> None:
    path = tmp_path / "a.ctst"
    path.write_text(GOOD + 'COMPONENT b {\n    image = "preset://x"\n}\nCONNECT b -> a\n')
    stack, _ = language.check_file(str(path))
    assert stack is not None
    assert '"b" -> "a"' in language.graph(stack, "dot")
    assert "c1 --> c0" in language.graph(stack, "mermaid")
    texts = [one.text for one in xml.etree.ElementTree.fromstring(language.graph(stack, "svg")).iter() if one.text]
    assert {"a", "b", "80", "127.0.0.1:80"} <= set(texts)
    with pytest.raises(ContainustError):
        language.graph(stack, "png")
