"""``ctst build``: check a file and import every image that it names."""

from __future__ import annotations

from containust.cli.arguments import FLAG, VALUE, parse
from containust.cli.commands.pull import meter
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.cli.main import Context

HELP = """Usage: ctst build [FILE] [--dry-run] [--distroless | --no-distroless] [--from-trace TRACE] [--json]

Check FILE (default containust.ctst), import every image it names, and print one pinned reference a component. A
reduced image comes with its size before and after, and with what its programs may need that no analysis can see.

  --dry-run         say which images would be imported, and import none
  --distroless      reduce file:// images to what their programs need
  --no-distroless   even where the file asks for it, do not
  --from-trace TRACE
                    keep what a run has opened, too: the output of `ctst trace NAME --files --json`, or a path a line
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
            "--from-trace": ("trace", VALUE),
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

    from containust.sdk.build import build, traced_files, unseen
    from containust.sdk.images import Images
    from containust.sdk.stack import Stack

    path = given.positional[0] if given.positional else "containust.ctst"
    stack = Stack.load(path, state_file=context.state_file, offline=context.offline)
    images = Images.of_file(path, state_file=context.state_file, offline=context.offline)
    base = os.path.dirname(os.path.abspath(path))
    distroless = True if given.flag("distroless") else False if given.flag("no_distroless") else None
    trace = given.text("trace")
    traced = traced_files(trace) if trace else []
    dry_run = given.flag("dry_run")
    rows: list[dict[str, Any]] = []
    for component in stack.components.values():
        if context.error_color and not dry_run:
            context.err(f"{component.name}: {component.image}\n")
        show = None if dry_run else meter(context)
        rows.append(
            build(images, component, base, distroless=distroless, traced=traced, dry_run=dry_run, progress=show)
        )
    if given.flag("json"):
        from containust.sdk.documents import to_json

        context.out(to_json({"images": rows}))
        return 0
    from containust.cli.output import size

    told: set[str] = set()
    for row in rows:
        if row["id"] is None:
            context.out(f"{row['component']}: would import {row['image']}\n")
            continue
        context.out(f"{row['component']}: image://{row['id']}  {row['image']}  {size(row['size'])}\n")
        if row["id"] in told:  # components often share an image: what is said of it is said once
            continue
        told.add(row["id"])
        report = row["distroless"] or {}
        if "before" in report:
            before, after = report["before"], report["after"]
            less = 100 * (1 - after["size"] / before["size"]) if before["size"] else 0.0
            context.out(
                f"  distroless: {size(before['size'])} in {before['files']} files before, {size(after['size'])} in"
                f" {after['files']} after ({less:.1f} % less)\n"
            )
        for line in unseen(row):
            context.out(f"  not seen: {line}\n")
    return 0
