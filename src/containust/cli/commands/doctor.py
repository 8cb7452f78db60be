"""``ctst doctor``: what this host offers, what is missing, and the command that mends it."""

from __future__ import annotations

from containust.cli.arguments import FLAG, parse
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst doctor [--json]

Look at everything that containers need from this host. Nothing is changed.

  --json   one document: {"checks": [{"name", "status", "detail", "help"}]}, status ok, warn or fail

The exit status is 1 when something is missing that containers cannot do without.

Examples:
  ctst doctor
  ctst doctor --json
"""
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, {"--json": ("json", FLAG)})
    if given.flag("help"):
        context.out(HELP)
        return 0
    if given.positional:
        raise UsageError(f"doctor takes no {given.positional[0]!r}", "`ctst doctor --help` shows its use")
    context.take(given.values)
    from containust.sdk.doctor import examine

    checks = examine(context.cwd, context.state_file)
    if given.flag("json"):
        from containust.sdk.documents import to_json

        context.out(to_json({"checks": checks}))
    else:
        from containust.cli.output import paint, safe

        width = max(len(check.name) for check in checks)
        for check in checks:
            status = paint(f"{check.status:4}", COLOURS[check.status], context.color)
            context.out(f"{status}  {check.name:{width}}  {safe(check.detail)}\n")
            if check.help:
                context.out(f"      {'':{width}}  {paint('help', 'cyan', context.color)}: {safe(check.help)}\n")
    return 1 if any(check.status == "fail" for check in checks) else 0
