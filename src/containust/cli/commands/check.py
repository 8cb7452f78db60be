"""``ctst check``: static analysis of a file."""

from __future__ import annotations

from containust.cli.arguments import FLAG, VALUE, parse
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst check [--json] [--strict] [--deny-warnings] [--stdin-path FILE] [FILE]

Check FILE (default containust.ctst; - for standard input) without starting anything. Exit status 1 on errors.

  --json              one document with the key diagnostics
  --strict            also warn of images that are not pinned (W016)
  --deny-warnings     warnings are errors
  --stdin-path FILE   with -: where the text belongs, for relative paths

Examples:
  ctst check
  ctst check --strict --deny-warnings app.ctst
"""
OPTIONS = {
    "--json": ("json", FLAG),
    "--strict": ("strict", FLAG),
    "--deny-warnings": ("deny", FLAG),
    "--stdin-path": ("stdin_path", VALUE),
}


def run(words: list[str], context: Context) -> int:
    """Show every diagnostic; 1 on errors, or on warnings too with ``--deny-warnings``."""
    given = parse(words, OPTIONS)
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    files = [*given.positional, *(given.rest or ())]
    if len(files) > 1:
        raise UsageError("check takes one file", "run it once for each")
    import os

    from containust.sdk import language

    text = None
    path = files[0] if files else "containust.ctst"
    if path == "-":
        import sys

        text = sys.stdin.buffer.read().decode(errors="replace").removeprefix("\ufeff")
        path = given.text("stdin_path") or "<stdin>"
    path = within(context.directory, path)
    stack, found = language.check_file(path, offline=context.offline, strict=given.flag("strict"), text=text)
    if given.flag("deny"):
        for one in found:
            one.severity = "error"
    errors = sum(one.severity == "error" for one in found)
    if given.flag("json"):
        import json

        context.out(json.dumps({"diagnostics": [one.as_dict() for one in found]}, indent=2, ensure_ascii=False) + "\n")
    else:
        if found:
            context.err(language.render(found, context.error_color) + "\n")
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
