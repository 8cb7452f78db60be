"""``ctst push``: an image of the project's store to a registry."""

from __future__ import annotations

from containust.cli.arguments import FLAG, parse
from containust.cli.commands.pull import meter
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst push NAME [TARGET] [--json]

Send an image to a registry by the OCI distribution protocol, under its own name or as TARGET, and print its
digest.

  --json   one document

Examples:
  ctst push registry.example.org/team/app:1.0
  ctst push host:///usr/bin/python3 localhost:5000/python:host
"""


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, {"--json": ("json", FLAG)})
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    if len(given.positional) not in (1, 2):
        raise UsageError("push takes an image, and perhaps a target", "ctst push NAME REGISTRY/REPOSITORY:TAG")
    from containust.sdk.images import Images

    images = Images.current(context.cwd, state_file=context.state_file, offline=context.offline)
    name, target = (*given.positional, "")[:2]
    digest = images.push(name, target, meter(context))
    if given.flag("json"):
        from containust.sdk.documents import to_json

        context.out(to_json({"pushed": [{"image": name, "digest": digest}]}))
    else:
        context.out(f"{digest}\n")
    return 0
