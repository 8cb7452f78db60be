"""``ctst logs``: output of containers."""

from __future__ import annotations

import sys

from containust.cli.arguments import FLAG, VALUE, number, parse
from containust.sdk.project import Project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst logs [-f] [-t] [--tail N] [--since TIME] [--until TIME] [NAME...]

Output of containers, several interleaved by time, all of the project's without a name.

  -f, --follow   go on until they have ended
  -t             show when each line was written
  --tail N       only the last N lines of each
  --since TIME, --until TIME
                 RFC 3339, or a duration such as 10m for that long ago

Examples:
  ctst logs -f web
  ctst logs --since 10m -t web db
"""
OPTIONS = {
    "-f": ("follow", FLAG),
    "--follow": ("follow", FLAG),
    "-t": ("timestamps", FLAG),
    "--timestamps": ("timestamps", FLAG),
    "--tail": ("tail", VALUE),
    "-n": ("tail", VALUE),
    "--since": ("since", VALUE),
    "--until": ("until", VALUE),
}


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, OPTIONS)
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    project = Project.current(context.cwd, state_file=context.state_file, backend=context.backend)
    names = given.positional or project.names()
    from containust.cli.commands.run import clean
    from containust.cli.output import NAME_COLOURS

    width = max((len(name) for name in names), default=0)
    colours = {name: NAME_COLOURS[index % len(NAME_COLOURS)] for index, name in enumerate(names)}
    out = {b"stdout": sys.stdout.buffer, b"stderr": sys.stderr.buffer}
    try:
        for name, line in project.logs(
            names,
            follow=given.flag("follow"),
            tail=number(given.text("tail"), "--tail"),
            since=moment(given.text("since")),
            until=moment(given.text("until")),
        ):
            head = b""
            if len(names) > 1:
                text = f"{name.ljust(width)} | "
                colour = colours.get(name, "36")
                head = (f"\x1b[{colour}m{text}\x1b[0m" if context.color else text).encode()
            if given.flag("timestamps"):
                head += line.stamp + b" "
            stream = out[line.stream]
            stream.write(head + clean(line.data, context.color) + (b"\n" if line.full else b""))
            if given.flag("follow"):
                stream.flush()
    except KeyboardInterrupt:
        return 130
    sys.stdout.buffer.flush()
    sys.stderr.buffer.flush()
    return 0


def moment(text: str | None) -> str | None:
    """An RFC 3339 stamp for a time of day or a duration ago. Raises UsageError."""
    if text is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if text[-1:] in units and text[:-1].isdigit():
        import time

        ago = time.time() - int(text[:-1]) * units[text[-1]]
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ago))
    if len(text) >= 10 and text[:4].isdigit() and text[4] == "-":
        return text.rstrip("Z")
    from containust.common.errors import UsageError

    raise UsageError(f"{text!r} is no time", "use RFC 3339 (2026-01-31T12:00:00Z) or a duration such as 10m")
