"""``ctst convert``: Compose files to ``.ctst``."""

from __future__ import annotations

from containust.cli.arguments import LIST, VALUE, parse
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst convert [COMPOSE | -f FILE...] [-o FILE] [--profile NAME...]

Convert Compose files (default compose.yaml, compose.yml, docker-compose.yaml or docker-compose.yml) to a .ctst file.
What has no counterpart is a comment at its place and a warning with its line.

  -f, --file FILE     a Compose file; later ones override earlier ones
  -o, --output FILE   paths in it become relative to its directory; default: standard output
  --profile NAME      include the services of this profile

Examples:
  ctst convert -o containust.ctst
  ctst convert -f compose.yaml -f prod.yaml
"""
OPTIONS = {
    "-f": ("files", LIST),
    "--file": ("files", LIST),
    "-o": ("output", VALUE),
    "--output": ("output", VALUE),
    "--profile": ("profiles", LIST),
}
NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


def run(words: list[str], context: Context) -> int:
    """Write the converted text; a warning with its line for everything that has no counterpart."""
    given = parse(words, OPTIONS)
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    alone = [*given.positional, *(given.rest or ())]
    if len(alone) > 1:
        raise UsageError("convert takes one project", "name the files of one project with -f FILE -f FILE")
    import os

    from containust.cli.commands.check import within
    from containust.common.errors import ContainustError
    from containust.sdk import language

    names = [*alone, *given.many("files")]
    if not names:
        names = [name for name in NAMES if os.path.exists(within(context.directory, name))][:1]
        if not names:
            raise ContainustError("S004", "there is no Compose file here", f"name it, or use one of {', '.join(NAMES)}")
    output = given.text("output")
    path = within(context.directory, output) if output else ""
    result = language.convert_compose(
        [within(context.directory, name) for name in names],
        profiles=given.many("profiles"),
        directory=os.path.dirname(path) or "." if path else None,
    )
    for warning in result.warnings:
        context.err(f"warning: {warning}\n")
    if not output:
        context.out(result.text.removesuffix("\n") + "\n")
        return 0
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(result.text)
    except OSError as error:
        raise ContainustError("S003", f"cannot write {path}: {error.strerror}", "choose another -o") from None
    return 0
