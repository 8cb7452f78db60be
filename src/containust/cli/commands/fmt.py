"""``ctst fmt``: canonical layout."""

from __future__ import annotations

from containust.cli.arguments import FLAG, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst fmt [--check | --diff] [FILE...]

Rewrite files (default containust.ctst; - for standard input) in canonical layout, comments kept.

  --check   write nothing, name the files that would change; exit status 1 when there are some
  --diff    write nothing, show what would change

Examples:
  ctst fmt
  ctst fmt --check *.ctst
"""
OPTIONS = {"--check": ("check", FLAG), "--diff": ("diff", FLAG)}


def run(words: list[str], context: Context) -> int:
    """Rewrite files in canonical layout. A file with syntax errors is left alone and shown."""
    given = parse(words, OPTIONS)
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    import sys

    from containust.cli.commands.check import within
    from containust.common.errors import ContainustError
    from containust.sdk import language

    status = 0
    for name in [*given.positional, *(given.rest or ())] or ["containust.ctst"]:
        path = within(context.directory, name)
        before = sys.stdin.buffer.read() if name == "-" else read(path)
        try:
            after = language.format_text(before, "<stdin>" if name == "-" else path)
        except ContainustError as error:
            found = getattr(error, "diagnostics", None)
            if found is None:
                raise
            context.err(language.render(found, context.error_color) + "\n")
            status = 1
            continue
        changed = after.encode() != before
        if given.flag("diff"):
            if changed:
                context.out(difference(before.decode(), after, name) + "\n")
        elif given.flag("check"):
            if changed:
                context.out(name + "\n")
        elif name == "-":
            context.out(after.removesuffix("\n") + "\n")
        elif changed:
            write(path, after)
            context.out(name + "\n")
        if changed and (given.flag("check") or given.flag("diff")):
            status = 1
    return status


def read(path: str) -> bytes:
    from containust.common.errors import ContainustError

    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ContainustError("S004", f"there is no file {path}", "name a .ctst file") from None
    except OSError as error:
        raise ContainustError("S003", f"cannot read {path}: {error.strerror}", "check its permissions") from None


def write(path: str, text: str) -> None:
    """Replace the file as a whole, with the mode it has; a symbolic link stays one."""
    import os

    from containust.common.errors import ContainustError

    target = os.path.realpath(path)
    temporary = f"{target}.{os.getpid()}.new"
    try:
        mode = os.stat(target).st_mode & 0o7777
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except OSError as error:
        raise ContainustError("S003", f"cannot write {path}: {error.strerror}", "check its permissions") from None


def difference(before: str, after: str, name: str) -> str:
    import difflib

    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), name, name, "written", "canonical", lineterm=""
    )
    return "\n".join(lines)
