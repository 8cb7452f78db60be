"""``ctst doctor``: what this host offers, what is missing, and the command that mends it."""

from __future__ import annotations

from containust.cli.arguments import FLAG, parse
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst doctor [--attack] [--json]

Look at everything that containers need from this host. Nothing is changed.

  --attack   try attacks on containers of this host instead, some seconds long; the lines are those of docs/SECURITY.md
  --json     one document: {"checks": [{"name", "status", "detail", "help"}]}, status ok, warn or fail;
             with --attack {"attacks": [{"line", "name", "tried", "broke"}]}, broke by place, empty when withstood

The exit status is 1 when something is missing that containers cannot do without, or an attack got through.

Examples:
  ctst doctor
  ctst doctor --json
  ctst doctor --attack
"""
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, {"--json": ("json", FLAG), "--attack": ("attack", FLAG)})
    if given.flag("help"):
        context.out(HELP)
        return 0
    if given.positional:
        raise UsageError(f"doctor takes no {given.positional[0]!r}", "`ctst doctor --help` shows its use")
    context.take(given.values)
    if given.flag("attack"):
        return attack(given.flag("json"), context)
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


def attack(json: bool, context: Context) -> int:
    """``doctor --attack``."""
    from containust.sdk.attacks import PLACES, attack

    outcomes = attack()
    if json:
        from containust.sdk.documents import to_json

        context.out(to_json({"attacks": outcomes}))
    else:
        from containust.cli.output import paint, safe

        for outcome in outcomes:
            word, colour = ("broke", "red") if outcome.broke else ("withstood", "green")
            context.out(f"{paint(f'{word:9}', colour, context.color)}  {outcome.line:4}  {outcome.tried}\n")
            for place, how in outcome.broke.items():
                context.out(f"{'':17}{place}: {safe(how)}\n")
        got_through = sum(bool(outcome.broke) for outcome in outcomes)
        context.out(
            f"{len(outcomes)} attacks, each as {', '.join(PLACES[:-1])} and {PLACES[-1]}: {got_through} got through\n"
        )
    return 1 if any(outcome.broke for outcome in outcomes) else 0
