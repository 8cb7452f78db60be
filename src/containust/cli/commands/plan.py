"""``ctst plan``: what ``run`` would do."""

from __future__ import annotations

from containust.cli.arguments import FLAG, VALUE, parse
from containust.common.errors import UsageError
from containust.sdk.stack import Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst plan [--json] [--detailed-exitcode] [--out PLAN] [--graph dot|mermaid|svg] [FILE]

What `ctst run FILE` would do now, against the recorded and the live state. Reads only.

  +   create     -/+ recreate     -   remove     !   drift: start again what died, restore limits changed by hand

  --detailed-exitcode   exit status 2 when there are changes
  --out FILE.plan       keep the plan; `ctst run FILE.plan` does exactly that, or refuses when something has changed
  --graph FORMAT        the CONNECT graph instead

Examples:
  ctst plan
  ctst plan --graph mermaid stack.ctst
"""
OPTIONS = {
    "--json": ("json", FLAG),
    "--detailed-exitcode": ("detailed", FLAG),
    "--out": ("out", VALUE),
    "--graph": ("graph", VALUE),
}


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, OPTIONS)
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    if len(given.positional) > 1:
        raise UsageError("plan takes one file")
    file = given.positional[0] if given.positional else "containust.ctst"
    if given.text("graph"):
        from containust.sdk.language import graph

        stack = Stack.load(file, state_file=context.state_file, offline=context.offline)
        context.out(graph(stack.resolved, given.text("graph") or ""))
        return 0
    stack = Stack.load(file, state_file=context.state_file, offline=context.offline, backend=context.backend)
    steps = stack.plan()
    out = given.text("out")
    if out:
        if not out.endswith(".plan"):
            raise UsageError(f"--out {out}: the name of a plan ends in .plan", f"--out {out}.plan")
        stack.keep_plan(out, steps)
    if given.flag("json"):
        from containust.sdk.documents import to_json

        context.out(to_json({"steps": steps, "templates": stack.templates}))
    else:
        from containust.cli.output.plan import details

        context.out(details(steps, context.color))
        if stack.templates:
            context.out(f"Not deployed (templates): {', '.join(stack.templates)}\n")
        for expose in stack.exposes:
            if expose.address not in ("127.0.0.1", "::1"):
                context.out(f"Note: port {expose.host_port} is open on {expose.address}.\n")
    changes = any(step.action != "keep" for step in steps)
    return 2 if changes and given.flag("detailed") else 0
