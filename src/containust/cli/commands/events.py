"""``ctst events``: the life-cycle log."""

from __future__ import annotations

import sys

from containust.cli.arguments import FLAG, VALUE, parse
from containust.sdk.project import Project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst events [-f] [--since TIME] [--json]

Life-cycle events of the project, oldest first.

Examples:
  ctst events -f
  ctst events --since 1h --json
"""


def run(words: list[str], context: Context) -> int:
    """The command."""
    options = {
        "-f": ("follow", FLAG),
        "--follow": ("follow", FLAG),
        "--since": ("since", VALUE),
        "--json": ("json", FLAG),
    }
    given = parse(words, options)
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    from containust.cli.commands.logs import moment

    project = Project.current(context.cwd, state_file=context.state_file, backend=context.backend)
    events = project.events(follow=given.flag("follow"), since=moment(given.text("since")))
    if given.flag("json") and not given.flag("follow"):
        from containust.sdk.documents import to_json

        context.out(to_json({"events": list(events)}))
        return 0
    for event in events:
        if given.flag("json"):
            import json

            context.out(json.dumps(event) + "\n")
        else:
            rest = " ".join(
                f"{k}={v}" for k, v in event.items() if k not in ("time", "event", "container", "id") and v is not None
            )
            context.out(f"{event['time'][:23]}Z {event['event']:10} {event['container']} {rest}".rstrip() + "\n")
        sys.stdout.flush()
    return 0
