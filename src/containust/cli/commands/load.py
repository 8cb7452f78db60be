"""``ctst load``: the images of an archive into the catalog."""

from __future__ import annotations

from containust.cli.arguments import FLAG, VALUE, parse
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst load FILE [--json]

Import every image of an archive made by `ctst save`, docker, podman or skopeo, or of an OCI layout's
directory. Use
one as `image://NAME` then.

  -i, --input FILE   the same as FILE; - is standard input
  --json             one document

Examples:
  ctst load image.tar
  docker save alpine | ctst load -
"""


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, {"-i": ("input", VALUE), "--input": ("input", VALUE), "--json": ("json", FLAG)})
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    paths = [*given.positional, *([text] if (text := given.text("input")) else [])]
    if len(paths) != 1:
        raise UsageError("load takes one archive", "ctst load FILE, or - for standard input")
    from containust.sdk.images import Images

    images = Images.current(context.cwd, state_file=context.state_file, offline=context.offline)
    loaded = images.load(paths[0])
    if given.flag("json"):
        from containust.sdk.documents import to_json

        context.out(to_json({"images": loaded}))
    else:
        context.out("".join(f"{image['reference']}  {image['id']}\n" for image in loaded))
    return 0
