"""``ctst save``: images into an archive for docker, podman, skopeo or another ``ctst``."""

from __future__ import annotations

from containust.cli.arguments import VALUE, parse
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst save NAME... -o FILE

Write images to one archive, which is an OCI layout and a `docker save` archive at once.

  -o, --output FILE   where to; - is standard output

Examples:
  ctst save host:///usr/bin/python3 -o python.tar
  ctst save myapp:1.0 -o - | docker load
"""


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, {"-o": ("output", VALUE), "--output": ("output", VALUE)})
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    output = given.text("output")
    if not given.positional:
        raise UsageError("save needs the name of an image", "`ctst images` lists them")
    if not output:
        raise UsageError("save needs a file to write to", "add -o FILE, or -o - for standard output")
    if output == "-":
        import os

        if os.isatty(1):
            raise UsageError("an archive would garble the terminal", "add -o FILE, or send it to a program")
    from containust.sdk.images import Images

    images = Images.current(context.cwd, state_file=context.state_file, offline=context.offline)
    images.save(given.positional, output)
    return 0
