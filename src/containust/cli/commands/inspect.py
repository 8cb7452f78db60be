"""``ctst inspect``: everything known of one container."""

from __future__ import annotations

from containust.cli.arguments import parse
from containust.common.errors import UsageError
from containust.sdk.project import Project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst inspect NAME

One container as JSON; secrets appear as the references they are in the file.

Examples:
  ctst inspect web
  ctst inspect 3f2a
"""


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, {})
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    if len(given.positional) != 1:
        raise UsageError("inspect takes one container", "ctst inspect NAME")
    from containust.sdk.documents import to_json

    project = Project.current(context.cwd, state_file=context.state_file, backend=context.backend)
    context.out(to_json(project.inspect(given.positional[0])))
    return 0
