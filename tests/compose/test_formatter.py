"""``fmt`` keeps every comment, changes no meaning, and leaves alone what it wrote itself."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from containust.common.errors import ContainustError
from containust.compose.diagnostics import finish, render
from containust.compose.formatter import format_source, shape
from containust.compose.load import analyse
from containust.compose.parser import parse
from containust.compose.tree import KEYWORDS, Problems, Source
from containust.sdk.language import format_text

EXAMPLES = 20_000 if os.environ.get("CONTAINUST_FULL") else 80
SETTINGS = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

letters = "abcXYZ019_"
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,5}(-[a-z0-9_]{1,3})?", fullmatch=True).filter(
    lambda name: name not in KEYWORDS and name not in ("secret", "env")
)
gaps = st.sampled_from([" ", "  ", "\n", "\n\n\n", "\t", " // note\n", "\n// own line\n", "\r\n", "\n\n// x\n// y\n\n"])
maybe = st.sampled_from(["", " ", " ", "\n", " // c\n"])
pieces = st.sampled_from(
    [
        "a",
        " ",
        "é😀",
        "\\n",
        '\\"',
        "\\u{41}",
        "$${",
        "${env.A:-d}",
        "${db.host}",
        "${secret.s}",
        "//",
        "#",
        "$",
    ]
)
strings = st.lists(pieces, max_size=4).map(lambda parts: f'"{"".join(parts)}"'.replace("$$${", "$ $${"))
scalars = st.one_of(strings, st.integers(0, 2**63 - 1).map(str), st.sampled_from(["true", "false"]))


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda items, gap, comma: "[" + gap + f",{gap}".join(items) + ("," if comma and items else "") + gap + "]",
        st.lists(values, max_size=3),
        maybe,
        st.booleans(),
    )


def maps(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    keys = st.one_of(
        names, strings.filter(lambda s: "${" not in s.replace("$${", "")), st.sampled_from(sorted(KEYWORDS))
    )
    entry = st.builds(
        lambda key, gap, value, end: f"{key}{gap}={gap}{value}{end}",
        keys,
        maybe,
        values,
        st.sampled_from([",", "\n", ", // c\n"]),
    )
    return st.builds(lambda entries, gap: "{" + gap + "".join(entries) + gap + "}", st.lists(entry, max_size=3), maybe)


values = st.recursive(scalars, lambda inner: st.one_of(lists(inner), maps(inner)), max_leaves=6)
properties = st.builds(lambda name, a, b, value, gap: f"{name}{a}={b}{value}{gap}", names, maybe, maybe, values, gaps)
components = st.builds(
    lambda name, parent, gap, entries: f"COMPONENT{gap}{name}{parent}{gap}{{{gap}{''.join(entries)}}}",
    names,
    st.one_of(
        st.just(""),
        names.map(lambda n: f" FROM {n}"),
        st.tuples(names, names).map(lambda n: f" FROM {n[0]} . {n[1]}"),
    ),
    gaps,
    st.lists(properties, max_size=4),
)
connects = st.builds(
    lambda a, gap, b: f"CONNECT {a}{gap}->{gap}{f',{gap}'.join(b)}",
    names,
    gaps,
    st.lists(names, min_size=1, max_size=3),
)
exposes = st.builds(
    lambda address, host, rest, target: f"EXPOSE {address}{host}{rest}{target}",
    st.sampled_from(["", '"127.0.0.1":', '"[::]" : ']),
    st.integers(0, 99999),
    st.sampled_from(["", ":80", " : 80/udp", "/tcp"]),
    st.one_of(st.just(""), names.map(lambda n: f" -> {n}")),
)
imports = st.builds(
    lambda path, alias: f"IMPORT {path}{alias}",
    strings,
    st.one_of(st.just(""), names.map(lambda n: f" AS {n}")),
)
statements = st.one_of(components, connects, exposes, imports)
files = st.lists(st.tuples(statements, gaps), max_size=5).map(lambda all: "".join(s + g for s, g in all))


def comments(source: Source) -> list[str]:
    return sorted(source.text[a:b].rstrip() for a, b in parse(source, Problems()).comments)


@SETTINGS
@given(files)
def test_layout_keeps_meaning_and_comments_and_is_stable(text: str) -> None:
    source = Source("a", text, "/")
    problems = Problems()
    tree = parse(source, problems)
    assert not [entry for entry in problems.entries if entry[0] == "E001"], problems.entries
    after = Source("b", format_source(source), "/")
    assert shape(parse(after, Problems())) == shape(tree)
    assert comments(after) == comments(source)
    assert format_source(after) == after.text
    assert not any(line != line.rstrip() for line in after.text.splitlines())


@SETTINGS
@given(files, st.data())
def test_broken_files_are_reported_and_never_crash(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(cut, len(text)))
    noise = data.draw(st.sampled_from(["", "{", "[", '"', "}", "=", "->", "COMPONENT", "\0", "/*", "'", "${", "é"]))
    source = Source("/nowhere/a.ctst", text[:cut] + noise + text[end:], "/nowhere")
    problems = Problems()
    analyse(source, problems, True, {}, "/nowhere", strict=True)
    found = finish(problems)
    render(found)
    assert all(one.place.line >= 1 and one.place.column >= 1 for one in found)
    try:
        format_source(source)
    except ContainustError as error:
        assert error.code == "E001"


EVERYTHING = """\
// Everything at once.
IMPORT "lib.ctst" AS lib
COMPONENT web FROM lib.base {
    image = "oci://docker.io/library/nginx:1.27" // trailing
    ports = [80, "53/udp"]
    env = { A = "${env.A:-x}", "b c" = true, FROM = 1 }
    command = ["a", "$${b}", "${secret.s}", ["x"], { y = [1] }]
}
CONNECT web -> db, cache
EXPOSE "[::1]":8080:80/tcp -> web
"""


@pytest.mark.parametrize("end", ["", "=", "\n", "}", '"', "\\", "${", "->", " x =", "[", "{ a", "//", "'", "\udcff"])
def test_a_file_may_end_anywhere(end: str) -> None:
    for length in range(len(EVERYTHING)):
        source = Source("t", EVERYTHING[:length] + end, "/nowhere")
        problems = Problems()
        analyse(source, problems, True, {}, None, strict=True)
        render(finish(problems))
        with contextlib.suppress(ContainustError):
            text = format_source(source)
            assert format_source(Source("t", text, None)) == text


def test_canonical_layout() -> None:
    before = """\
// head
IMPORT "x.ctst"   AS   x // imp
CONNECT a->b,c // dep


// about a
COMPONENT a FROM x . y { image="oci://x" // img
 env={A="1",B=2}

   // own
   command=["a" , // first
   "b"] }
COMPONENT b {}
EXPOSE 80 : 90 / tcp -> a
// end"""
    assert (
        format_text(before)
        == """\
// head
IMPORT "x.ctst" AS x  // imp

CONNECT a -> b, c  // dep

// about a
COMPONENT a FROM x.y {
    image = "oci://x"  // img
    env = { A = "1", B = 2 }

    // own
    command = [
        "a",  // first
        "b",
    ]
}

COMPONENT b {}

EXPOSE 80:90 -> a
// end
"""
    )


def test_a_file_with_syntax_errors_is_left_alone() -> None:
    with pytest.raises(ContainustError) as caught:
        format_text("COMPONENT a {")
    assert caught.value.code == "E001"


def test_an_empty_file_stays_empty() -> None:
    assert format_text("") == "" and format_text("\n\n") == ""
