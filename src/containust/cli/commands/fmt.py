"""``ctst fmt``: canonical layout."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXAMPLES = """\
examples:
  ctst fmt                     rewrite containust.ctst in canonical layout
  ctst fmt --check *.ctst      write nothing; exit status 1 when a file is not in it
"""


def run(arguments: list[str], context: Any) -> int:
    """Rewrite files in canonical layout. A file with syntax errors is left alone and shown."""
    import argparse
    import sys

    from containust.cli.commands.check import within
    from containust.common.errors import ContainustError
    from containust.sdk import language

    parser = argparse.ArgumentParser(
        prog="ctst fmt",
        description="Rewrite files in canonical layout, comments kept.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", default=["containust.ctst"], metavar="FILE", help="- reads standard input")
    parser.add_argument("--check", action="store_true", help="write nothing, name the files that would change")
    parser.add_argument("--diff", action="store_true", help="write nothing, show what would change")
    options = parser.parse_args(arguments)
    status = 0
    for name in options.files:
        path = within(context.directory, name)
        before = sys.stdin.buffer.read() if name == "-" else read(path)
        try:
            after = language.format_text(before, "<stdin>" if name == "-" else path)
        except ContainustError as error:
            found = getattr(error, "diagnostics", None)
            if found is None:
                raise
            context.err(language.render(found, context.color) + "\n")
            status = 1
            continue
        changed = after.encode() != before
        if options.diff:
            if changed:
                context.out(difference(before.decode(), after, name) + "\n")
        elif options.check:
            if changed:
                context.out(name + "\n")
        elif name == "-":
            context.out(after.removesuffix("\n") + "\n")
        elif changed:
            write(path, after)
            context.out(name + "\n")
        if changed and (options.check or options.diff):
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
