"""``ctst images``: list, inspect, verify, remove and prune images."""

from __future__ import annotations

from containust.cli.arguments import FLAG, VALUE, parse
from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst images [ls] [--json]
       ctst images rm NAME... | inspect NAME | verify | prune

The images of this project: those that its components used, and those loaded or pulled.

  ls            one line a reference (the default)
  inspect NAME  everything known of one image, as JSON
  rm NAME...    forget images, by reference, name or id, and free what they alone used
  prune         free what nothing refers to, and images of host files that have changed since
  verify        hash every stored byte; exit status 1 when something is wrong
  --presets     what preset:// knows instead: official images, or what the mirror CONTAINUST_PRESET_MIRROR (a directory
                or an https:// prefix, perhaps with @sha256: of its presets.json) pins
  --json        one document

Examples:
  ctst images
  ctst images rm image://alpine:3.21
"""


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(
        words,
        {
            "--json": ("json", FLAG),
            "--list": ("list", FLAG),
            "--remove": ("remove", VALUE),
            "--presets": ("presets", FLAG),
        },
    )
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    from containust.sdk.documents import to_json
    from containust.sdk.images import Images

    images = Images.current(context.cwd, state_file=context.state_file, offline=context.offline)
    if given.flag("presets"):
        presets = images.presets()
        if given.flag("json"):
            context.out(to_json({"presets": presets}))
            return 0
        from containust.cli.output import table

        lines = [[f"preset://{row['name']}", str(row["source"]), row["digest"] or "at first use"] for row in presets]
        context.out(table(["PRESET", "SOURCE", "PINNED"], lines))
        return 0
    action, *names = given.positional or ["ls"]
    remove = given.text("remove")
    if remove is not None:
        action, names = "rm", [remove]
    if action == "ls" and not names:
        rows = images.ls()
        if given.flag("json"):
            context.out(to_json({"images": rows}))
            return 0
        from containust.cli.output import size, table

        cells = [
            [
                row["reference"] + (" (distroless)" if row["distroless"] else ""),
                row["id"][7:19],
                size(row["size"]),
                str(row["layers"]),
                row["created"],
                "yes" if row["used"] else "-",
            ]
            for row in rows
        ]
        context.out(table(["REFERENCE", "ID", "SIZE", "LAYERS", "IMPORTED", "USED"], cells))
        return 0
    if action == "inspect" and len(names) == 1:
        context.out(to_json(images.inspect(names[0])))
        return 0
    if action == "rm" and names:
        removed = images.remove(names)
        if given.flag("json"):
            context.out(to_json({"removed": removed}))
        else:
            context.out("".join(f"removed {reference}\n" for reference in removed))
        return 0
    if action == "prune" and not names:
        freed = images.prune()
        if given.flag("json"):
            context.out(to_json({"freed": freed}))
        else:
            from containust.cli.output import size

            context.out(f"freed {size(freed['bytes'])}: {freed['roots']} images, {freed['layers']} layers\n")
        return 0
    if action == "verify" and not names:
        found = images.verify()
        if given.flag("json"):
            context.out(to_json({"images": found}))
        else:
            for row in found:
                context.out(f"{'damaged' if row['errors'] else 'ok':8}{row['id'][7:19]}  {row['reference']}\n")
                context.err("".join(f"        {error}\n" for error in row["errors"]))
        return 1 if any(row["errors"] for row in found) else 0
    raise UsageError(f"images does not take {' '.join(given.positional)!r}", "see `ctst images --help`")
