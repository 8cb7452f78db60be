"""The highlighting files say of each token what the lexer says, and know every keyword and property."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from containust.compose.lexer import tokenize
from containust.compose.properties import PROPERTIES, ROWS
from containust.compose.tree import IDENT, INT, KEYWORDS, STATEMENTS, STRING, Problems, Source

ROOT = Path(__file__).parents[2]
GRAMMAR = ROOT / "editors/vscode/syntaxes/ctst.tmLanguage.json"
VIM = ROOT / "editors/vim"

SAMPLE = """\
// Everything at once.
IMPORT "lib/base.ctst" AS lib // behind
COMPONENT web-1 FROM lib.base {
    PROPERTIES
    other-key = { FROM = 1, true = "x", "b c" = false, env = "y", my-env = 2, SECRET = "z" }
    command = ["a // b", "\\"q\\\\", "$${b}", "${env.A:-x\\"y}", "${secret.s}", "#", "x -> 8080", ""]
}
CONNECT web-1 -> db, cache
EXPOSE "[::1]":8080:80/tcp -> web-1
EXPOSE 53/udp
""".replace("PROPERTIES", "\n    ".join(f"{row.name} = true" for row in ROWS))


def expected() -> list[tuple[int, str]]:
    """Offset and class of each token that has a colour."""
    problems = Problems()
    tokens, comments = tokenize(Source("sample", SAMPLE, None), problems)
    assert problems.entries == []
    found = [(start, "comment") for start, _ in comments]
    component = 0
    for i, (kind, start, _, value) in enumerate(tokens):
        before, behind = tokens[i - 1][0], tokens[i + 1][0] if i + 1 < len(tokens) else ""
        component += {"{": 1, "}": -1}.get(kind, 0)
        if behind == "=" and kind != STRING:
            found.append((start, "property" if kind == IDENT and value in PROPERTIES else "key"))
        elif kind in ("true", "false"):
            found.append((start, "boolean"))
        elif kind in KEYWORDS:
            found.append((start, "keyword"))
        elif kind == STRING:
            found.append((start, "string"))
        elif kind == INT:
            found.append((start, "number"))
        elif kind == "->":
            found.append((start, "arrow"))
        elif kind == IDENT and before == "/":
            found.append((start - 1, "protocol"))
    return sorted(found)


TEXTMATE = {
    "comment": "comment.line",
    "property": "support.type",
    "key": "variable.other.key",
    "boolean": "constant.language.boolean",
    "keyword": "keyword.control",
    "string": "string.quoted",
    "number": "constant.numeric",
    "arrow": "keyword.operator.arrow",
    "protocol": "constant.language.protocol",
}


def test_the_textmate_grammar_agrees_with_the_lexer() -> None:
    scopes = painted(json.loads(GRAMMAR.read_text()), SAMPLE)
    for start, kind in expected():
        assert scopes[start].startswith(TEXTMATE[kind]), (SAMPLE[start : start + 20], kind, scopes[start])
    for at, scope in {'\\"q': "constant.character.escape", "$${b": "constant.character.escape"}.items():
        assert scopes[SAMPLE.index(at)].startswith(scope)
    assert scopes[SAMPLE.index("env.A")].startswith("variable.language")
    assert scopes[SAMPLE.index("y}")].startswith("string.unquoted.default")
    assert painted(json.loads(GRAMMAR.read_text()), "SECRET x\n")[0].startswith("invalid")


def painted(grammar: dict[str, Any], text: str) -> list[str]:
    """The innermost scope of each character, as TextMate's rules give it: the earliest match, then the first rule."""

    def rules(patterns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        flat: list[dict[str, Any]] = []
        for one in patterns:
            if "include" in one:
                target = grammar["repository"][one["include"][1:]]
                flat += [target] if "match" in target or "begin" in target else rules(target["patterns"])
            else:
                flat.append(one)
        return flat

    scopes = [""] * len(text)
    stack: list[dict[str, Any]] = []
    start = 0
    for line in text.splitlines(keepends=True):
        at = 0
        while at <= len(line.rstrip("\n")):
            inside = stack[-1] if stack else grammar
            choices = [
                (re.compile(r.get("match") or r["begin"]).search(line, at), r) for r in rules(inside["patterns"])
            ]
            if stack:
                choices.insert(0, (re.compile(inside["end"], re.MULTILINE).search(line, at), {"ends": True}))
            hits = [(hit.start(), i, hit, rule) for i, (hit, rule) in enumerate(choices) if hit]
            first, _, hit, rule = min(hits, default=(len(line), 0, None, {}))
            if stack:
                scopes[start + at : start + first] = [inside["name"]] * (first - at)
            if hit is None:
                break
            name = stack[-1]["name"] if "ends" in rule else rule.get("name", "")
            scopes[start + first : start + hit.end()] = [name] * (hit.end() - first)
            for group, capture in rule.get("captures", {}).items():
                a, b = hit.span(int(group))
                scopes[start + a : start + b] = [capture["name"]] * (b - a)
            if "ends" in rule:
                stack.pop()
            elif "begin" in rule:
                stack.append(rule)
            at = max(hit.end(), at + (hit.end() == hit.start()))
        start += len(line)
    return scopes


def vim(directory: Path, script: str) -> Any:
    """What ``script`` puts into the variable ``result``, with the sample open and our files in force."""
    (directory / "sample.ctst").write_text(SAMPLE)
    (directory / "script.vim").write_text(f"{script}\ncall writefile([json_encode(result)], 'result.json')\nqall!\n")
    command = ["vim.basic", "-Nu", "NONE", "-i", "NONE", "-n", "-es", "--cmd", f"set runtimepath^={VIM}"]
    commands = ["filetype plugin on", "syntax on", "edit sample.ctst", "source script.vim"]
    environ = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    subprocess.run(
        [*command, *[word for one in commands for word in ("-c", one)]],
        cwd=directory,
        env=environ,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    return json.loads((directory / "result.json").read_text())


def test_the_vim_file_agrees_with_the_lexer(tmp_path: Path) -> None:
    names = vim(
        tmp_path,
        "let result = []\n"
        "for number in range(1, line('$'))\n"
        "  let names = []\n"
        "  for column in range(1, strlen(getline(number)))\n"
        "    call add(names, synIDattr(synID(number, column, 1), 'name'))\n"
        "  endfor\n"
        "  call add(result, names)\n"
        "endfor",
    )
    starts = Source("sample", SAMPLE, None).lines()
    for start, kind in expected():
        line = SAMPLE.count("\n", 0, start)
        name = names[line][start - starts[line]]
        assert name == f"ctst{kind.capitalize()}", (SAMPLE[start : start + 20], kind, name)
    at = SAMPLE.index("${env.A")
    line = SAMPLE.count("\n", 0, at)
    assert names[line][at - starts[line] + len('${env.A:-x\\"y')] == "ctstInterpolation"


def test_make_in_vim_fills_the_quickfix_list(tmp_path: Path) -> None:
    (tmp_path / "bad.ctst").write_text('COMPONENT a {\n    image = "preset://x"\n    prot = 80\n}\nCONNECT a -> b\n')
    found = vim(
        tmp_path,
        "edit bad.ctst\nsilent make\n"
        "let result = map(getqflist(), {_, q -> [bufname(q.bufnr), q.lnum, q.col, q.type, q.text]})",
    )
    assert [one[:4] for one in found if one[1]] == [["bad.ctst", 3, 5, "e"], ["bad.ctst", 5, 14, "e"]]
    assert "'prot'" in found[0][4]


def alternatives(text: str) -> list[set[str]]:
    """The words of each group of alternatives in a file's patterns."""
    groups = re.findall(
        r"\(((?:[a-zA-Z_]+\|)+[a-zA-Z_]+)\)", text.replace("\\|", "|").replace("\\(", "(").replace("\\)", ")")
    )
    return [set(group.split("|")) for group in groups]


@pytest.mark.parametrize("path", [GRAMMAR, VIM / "syntax/ctst.vim"])
def test_words_are_those_of_the_language_and_no_others(path: Path) -> None:
    groups = alternatives(path.read_text())
    assert set(PROPERTIES) in groups
    statements = STATEMENTS | {"AS", "FROM"}
    assert statements in groups and KEYWORDS - statements - {"true", "false"} in groups


def test_every_property_and_statement_is_documented() -> None:
    text = (ROOT / "docs/language.md").read_text()
    for word in [row.name for row in ROWS] + ["IMPORT", "COMPONENT", "FROM", "CONNECT", "EXPOSE", "AS"]:
        assert word in text, word


def test_vscode_files_are_json() -> None:
    for path in (ROOT / "editors" / "vscode").rglob("*.json"):
        json.loads(path.read_text())
