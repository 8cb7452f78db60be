"""``ctst build``: check a file and import every image that it names."""

from __future__ import annotations

from containust.cli.arguments import FLAG, parse
from containust.cli.commands.pull import meter
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.cli.main import Context

HELP = """Usage: ctst build [FILE] [--dry-run] [--distroless | --no-distroless] [--json]

Check FILE (default containust.ctst), import every image it names, and print one pinned reference a component.

  --dry-run         say which images would be imported, and import none
  --distroless      reduce file:// images to what their program needs
  --no-distroless   even where the file asks for it, do not
  --json            one document

Examples:
  ctst build
  ctst build stack.ctst --dry-run
"""


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(
        words,
        {
            "--dry-run": ("dry_run", FLAG),
            "--distroless": ("distroless", FLAG),
            "--no-distroless": ("no_distroless", FLAG),
            "--json": ("json", FLAG),
        },
    )
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    if len(given.positional) > 1:
        raise UsageError("build takes one file", "run it once for each")
    if given.flag("distroless") and given.flag("no_distroless"):
        raise UsageError("--distroless and --no-distroless contradict each other", "give one of them")
    import os

    from containust.sdk.images import Images
    from containust.sdk.stack import Stack

    path = given.positional[0] if given.positional else "containust.ctst"
    stack = Stack.load(path, state_file=context.state_file, offline=context.offline)
    images = Images.of_file(path, state_file=context.state_file, offline=context.offline)
    base = os.path.dirname(os.path.abspath(path))
    rows: list[dict[str, Any]] = []
    for name, component in stack.components.items():
        distroless = component.distroless
        if given.flag("no_distroless"):
            distroless = False
        elif given.flag("distroless") and component.image.startswith("file://"):
            distroless = True
        options = (component.image, component.include, base)
        found = images.store.find(*options, distroless=distroless, live=component.live)
        row: dict[str, Any] = {
            "component": name,
            "image": component.image,
            "imported": found is None,
            "id": None,
            "size": None,
        }
        if found is None and not given.flag("dry_run"):
            if context.error_color:
                context.err(f"importing {component.image}\n")
            found = images.ensure(*options, distroless=distroless, live=component.live, progress=meter(context))
        if found is not None:
            row.update(id=found.id, size=found.size)
        rows.append(row)
    if given.flag("json"):
        from containust.sdk.documents import to_json

        context.out(to_json({"images": rows}))
        return 0
    from containust.cli.output import size

    for row in rows:
        if row["id"] is None:
            context.out(f"{row['component']}: would import {row['image']}\n")
        else:
            context.out(f"{row['component']}: image://{row['id']}  {row['image']}  {size(row['size'])}\n")
    return 0
