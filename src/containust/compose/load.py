"""Read a ``.ctst`` file into a stack: text, tokens, tree, resolved components, checks."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.compose.checks import Checker, unpinned
from containust.compose.parser import parse
from containust.compose.resolver import Resolver, Unit, collect
from containust.compose.tree import ComponentNode, Import, Problems, Source, Uncollected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from containust.common.types import Stack
    from containust.compose.diagnostics import Diagnostic

LARGEST = 64 * 2**20


def load_stack(
    path: str,
    *,
    offline: bool = False,
    environ: Mapping[str, str] | None = None,
    project_dir: str | None = None,
) -> Stack:
    """The stack of the file at ``path``; its warnings are dropped.

    ``environ`` stands for the host's environment, ``project_dir`` for where ``secrets/`` and the lock of
    imports are (by default next to the file). Raises :class:`containust.compose.diagnostics.CheckFailed` when
    the file has errors, S004 when it is not there.
    """
    problems = Problems()
    source = read_source(path, problems)
    stack = analyse(source, problems, offline, os.environ if environ is None else environ, project_dir, strict=False)
    if problems.errors:
        from containust.compose.diagnostics import CheckFailed, finish

        raise CheckFailed(finish(problems))
    return stack


def load_checked(
    path: str,
    *,
    offline: bool = False,
    environ: Mapping[str, str] | None = None,
    project_dir: str | None = None,
    strict: bool = False,
    text: str | None = None,
) -> tuple[Stack | None, list[Diagnostic]]:
    """The stack, None when there are errors, and all that was found. ``text`` replaces the file's content."""
    problems = Problems()
    source = read_source(path, problems) if text is None else Source(path, text, os.path.dirname(os.path.abspath(path)))
    stack = analyse(source, problems, offline, os.environ if environ is None else environ, project_dir, strict=strict)
    if not problems.entries:
        return stack, []
    from containust.compose.diagnostics import finish

    return (None if problems.errors else stack), finish(problems)


def read_source(path: str, problems: Problems) -> Source:
    """The entry file. One that is not there is S004, one that cannot be read S003."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        directory = isinstance(error, IsADirectoryError)
        what = "is a directory" if directory else "does not exist"
        raise ContainustError(
            "S004", f"{path} {what}", "name a .ctst file, or change to the directory that has containust.ctst"
        ) from None
    except OSError as error:
        raise ContainustError("S003", f"cannot read {path}: {error.strerror}", "check its permissions") from None
    if len(data) > LARGEST:
        raise ContainustError("E001", f"{path} is larger than {LARGEST >> 20} MiB", "name a .ctst file")
    return decode(path, data, os.path.dirname(os.path.abspath(path)), problems)


def decode(
    path: str,
    data: bytes,
    directory: str | None,
    problems: Problems,
    imported_at: tuple[Source, int, int] | None = None,
) -> Source:
    """The source of ``data``: UTF-8, a byte-order mark skipped, each run of invalid bytes E001."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return Source(path, data.decode(), directory, imported_at)
    except UnicodeDecodeError:
        text = data.decode(errors="surrogateescape")
    runs = []
    start = -1
    for i, character in enumerate(text):
        if "\udc80" <= character <= "\udcff":
            if start < 0:
                start = i
        elif start >= 0:
            runs.append((start, i))
            start = -1
    if start >= 0:
        runs.append((start, len(text)))
    # A white space in their place causes no second error.
    source = Source(path, text.translate(dict.fromkeys(range(0xDC80, 0xDD00), " ")), directory, imported_at)
    for begin, end in runs:
        problems.add("E001", source, begin, end, "this is not UTF-8", ["save the file as UTF-8"])
    return source


def analyse(
    source: Source,
    problems: Problems,
    offline: bool,
    environ: Mapping[str, str],
    project_dir: str | None,
    *,
    strict: bool,
) -> Stack:
    """Everything behind reading. The stack is only meaningful when no error was reported."""
    path = os.path.abspath(source.path)
    project = project_dir or os.path.dirname(path)
    problems.rank(source)  # the first
    with Uncollected():
        return _analyse(source, problems, offline, environ, path, project, strict=strict)


def _analyse(
    source: Source,
    problems: Problems,
    offline: bool,
    environ: Mapping[str, str],
    path: str,
    project: str,
    *,
    strict: bool,
) -> Stack:
    unit = Unit(parse(source, problems), "")
    collect(unit, problems)
    units = {id(source): unit}
    for statement in unit.file.statements:
        if statement.__class__ is Import:
            from containust.compose.imports import Importer

            units = Importer(unit, path, problems, environ, offline, project).load()
            break
    resolver = Resolver(unit, units, problems, environ)
    nodes = [statement for statement in unit.file.statements if statement.__class__ is ComponentNode]
    if any(node.parent is not None for node in nodes):
        from containust.compose.templates import Templates

        Templates(resolver).link(nodes)

    def secret(name: str) -> None:
        from containust.compose.secrets import find_secret

        find_secret(name, project, environ)

    checker = Checker(resolver, path, secret)
    stack = checker.stack()
    if strict:
        unpinned(checker)
    return stack
