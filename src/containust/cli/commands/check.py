"""``ctst check``: static analysis of a file."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXAMPLES = """\
examples:
  ctst check                                  check containust.ctst in this directory
  ctst check --strict --deny-warnings app.ctst   for continuous integration: warnings fail too
"""


def run(arguments: list[str], context: Any) -> int:
    """Show every diagnostic; 1 on errors, or on warnings too with ``--deny-warnings``."""
    import argparse
    import os

    from containust.sdk import language

    parser = argparse.ArgumentParser(
        prog="ctst check",
        description="Check a file without starting anything.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "file", nargs="?", default="containust.ctst", help="default: containust.ctst; - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="one document with the key diagnostics")
    parser.add_argument("--strict", action="store_true", help="also warn of images that are not pinned (W016)")
    parser.add_argument("--deny-warnings", action="store_true", help="warnings are errors")
    parser.add_argument("--stdin-path", metavar="FILE", help="with -: where the text belongs, for relative paths")
    options = parser.parse_args(arguments)
    text = None
    path = options.file
    if path == "-":
        import sys

        text = sys.stdin.buffer.read().decode(errors="replace").removeprefix("\ufeff")
        path = options.stdin_path or "<stdin>"
    path = within(context.directory, path)
    stack, found = language.check_file(path, offline=context.offline, strict=options.strict, text=text)
    if options.deny_warnings:
        for one in found:
            one.severity = "error"
    errors = sum(one.severity == "error" for one in found)
    if options.json:
        import json

        context.out(json.dumps({"diagnostics": [one.as_dict() for one in found]}, indent=2, ensure_ascii=False) + "\n")
    else:
        if found:
            context.err(language.render(found, context.color) + "\n")
        summary = f"{os.path.basename(path)}: {counted(errors, 'error')}, {counted(len(found) - errors, 'warning')}"
        if errors:
            context.err(summary + "\n")
        else:
            components = counted(len(stack.components), "component") if stack is not None else "checked"
            context.out(f"{summary}, {components}\n")
    return 1 if errors else 0


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def within(directory: str, path: str) -> str:
    """``path`` as seen from ``directory``, left as written when that is where we are."""
    import os

    if not directory or os.path.isabs(path) or os.path.abspath(directory) == os.getcwd():
        return path
    return os.path.join(directory, path)
