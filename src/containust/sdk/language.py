"""The language as a library: check, format, explain, draw and convert, without a container in sight."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from containust.common.types import Stack
    from containust.compose.convert import Conversion
    from containust.compose.diagnostics import Diagnostic


def check_file(
    path: str,
    *,
    offline: bool = False,
    environ: Mapping[str, str] | None = None,
    strict: bool = False,
    text: str | None = None,
) -> tuple[Stack | None, list[Diagnostic]]:
    """The stack of a file, None when it has errors, and every diagnostic sorted by place.

    ``text`` is checked in place of the file's content when given, as editors do with what is not saved yet.
    Raises ContainustError S004 when there is no such file.
    """
    from containust.compose.load import load_checked

    return load_checked(path, offline=offline, environ=environ, strict=strict, text=text)


def render(diagnostics: Sequence[Diagnostic], color: bool = False) -> str:
    """Diagnostics as ``ctst check`` shows them."""
    from containust.compose.diagnostics import render as render_all

    return render_all(diagnostics, color)


def format_text(text: str | bytes, path: str = "<text>") -> str:
    """``text`` in canonical layout. Raises CheckFailed, a ContainustError, when it has syntax errors."""
    from containust.compose.diagnostics import CheckFailed, finish
    from containust.compose.formatter import format_source
    from containust.compose.load import decode
    from containust.compose.tree import Problems

    problems = Problems()
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    source = decode(path, data, None, problems)
    if problems.errors:
        raise CheckFailed(finish(problems))
    return format_source(source)


def explain(code: str) -> str:
    """What an error code means, what to do, and for codes of the language a bad and a good file."""
    from containust.common.codes import CODES
    from containust.common.errors import UsageError

    row = CODES.get(code.upper())
    if row is None:
        from containust.common.suggest import nearest

        near = nearest(code.upper(), CODES)
        raise UsageError(
            f"there is no code {code!r}",
            *([f"did you mean {near}?"] if near else []),
            "`ctst explain` lists all",
        )
    import textwrap

    lines = [f"{code.upper()}: {row.title}", "", *textwrap.wrap(row.explanation, 88)]
    for title, example in (("Wrong:", row.bad), ("Right:", row.good)):
        if example:
            lines += ["", title, "", *[f"    {line}".rstrip() for line in example.splitlines()]]
    return "\n".join(lines)


def codes() -> dict[str, str]:
    """Every code with its title."""
    from containust.common.codes import CODES

    return {code: row.title for code, row in CODES.items()}


def graph(stack: Stack, form: str) -> str:
    """The CONNECT graph as ``dot``, ``mermaid`` or ``svg`` text."""
    from containust.common.errors import UsageError
    from containust.compose.drawing import FORMATS, draw

    if form not in FORMATS:
        raise UsageError(f"there is no graph format {form!r}", f"one of {', '.join(FORMATS)}")
    return draw(stack, form)


def convert_compose(
    paths: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    profiles: Sequence[str] = (),
    directory: str | None = None,
) -> Conversion:
    """Compose files, later ones overriding, as ``.ctst`` text with a warning for what has no counterpart.

    ``directory`` is where the text will be a file, by default next to the first of ``paths``.
    """
    import os

    from containust.compose.convert import convert

    return convert(paths, os.environ if environ is None else environ, profiles, directory)


def find_secret(name: str, project_dir: str, environ: Mapping[str, str]) -> str:
    """The value of a secret (language.md, section 9). Raises E020, S003 or S005."""
    from containust.compose.secrets import find_secret as find

    return find(name, project_dir, environ)


def properties() -> list[dict[str, Any]]:
    """The table of component properties: name, what it takes, its default and its meaning."""
    from containust.compose.properties import ROWS

    return [{"name": r.name, "takes": r.form, "default": r.default, "meaning": r.meaning} for r in ROWS]
