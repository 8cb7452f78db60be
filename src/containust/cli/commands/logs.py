"""``ctst logs``: output of containers."""

from __future__ import annotations

import sys
from datetime import UTC

from containust.cli.arguments import FLAG, VALUE, number, parse
from containust.sdk.project import Project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context
    from containust.sdk.project import Line

HELP = """Usage: ctst logs [-f] [-t] [--tail N] [--since TIME] [--until TIME] [NAME...]

Output of containers, several interleaved by time, all of the project's without a name.

  -f, --follow   go on until they have ended
  -t             show when each line was written
  --tail N       only the last N lines of each
  --since TIME, --until TIME
                 RFC 3339, UTC unless it says otherwise, or a duration such as 1h30m for that long ago

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
    view = View(names, context.color, given.flag("timestamps"))
    try:
        for name, line in project.logs(
            names,
            follow=given.flag("follow"),
            tail=number(given.text("tail"), "--tail"),
            since=moment(given.text("since")),
            until=moment(given.text("until")),
            idle=view.flush,
            fast=view.raw,
        ):
            view.show(name, line)
    except KeyboardInterrupt:
        return 130
    finally:
        view.flush()
    return 0


class View:
    """Records as they are shown: each line once it is there, with its container in front where there are several."""

    __slots__ = ("_heads", "_inside", "_out", "_stamps", "_terminal", "raw")

    def __init__(self, names: list[str], color: bool, stamps: bool) -> None:
        from containust.cli.output import NAME_COLOURS

        width = max((len(name) for name in names), default=0)
        self._stamps = stamps
        self._heads: dict[str, bytes] = {}
        for index, name in enumerate(names if len(names) > 1 else ()):
            head = f"{name.ljust(width)} | "
            if color:
                head = f"\x1b[{NAME_COLOURS[index % len(NAME_COLOURS)]}m{head}\x1b[0m"
            self._heads[name] = head.encode()
        self._out = {b"stdout": sys.stdout.buffer, b"stderr": sys.stderr.buffer}
        self._terminal = {stream: out.isatty() for stream, out in self._out.items()}
        self.raw = not any(self._terminal.values())
        self._inside: dict[bytes, str] = {}  # stream -> the container whose line has begun there and not ended

    def show(self, name: str, line: Line) -> None:
        """One record; pieces of a line follow each other, a piece of another container's begins a line of its own."""
        from containust.cli.commands.run_file import clean

        out = self._out[line.stream]
        before = self._inside.get(line.stream)
        head = self._heads.get(name, b"")
        if self._stamps:
            head += line.stamp + b" "
        data = line.data
        if self.raw:
            if head:
                data = data.replace(b"\n", b"\n" + head)
        else:
            data = clean(data, self._terminal[line.stream])
        if before == name:
            head = b""
        elif before is not None:
            head = b"\n" + head
        out.write(head + data + (b"\n" if line.full else b""))
        if line.full:
            self._inside.pop(line.stream, None)
        else:
            self._inside[line.stream] = name

    def flush(self) -> None:
        """Let what was shown be seen."""
        for out in self._out.values():
            out.flush()


def moment(text: str | None) -> str | None:
    """A UTC stamp for RFC 3339 (``2026-01-31T12:00:00.5+02:00``), the beginning of one, or a time ago (``1h30m``).

    Raises UsageError.
    """
    if text is None:
        return None
    import re
    import time

    ago = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if ago and text:
        days, hours, minutes, seconds = (float(part or 0) for part in ago.groups())
        return _stamp(time.time_ns() - int((days * 86400 + hours * 3600 + minutes * 60 + seconds) * 1e9))
    given = re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)?)?", text)
    if given:
        from datetime import datetime

        day, clock, fraction, zone = given.groups()
        try:
            when = datetime.fromisoformat(f"{day}T{clock or '00:00'}")
            if zone and zone not in "Zz":
                when = datetime.fromisoformat(f"{day}T{clock}{zone}")
        except ValueError:
            when = None
        if when:
            seconds = int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
            return _stamp(seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0")))
    from containust.common.errors import UsageError

    raise UsageError(f"{text!r} is no time", "use RFC 3339 (2026-01-31T12:00:00Z) or a duration such as 10m or 1h30m")


def _stamp(nanoseconds: int) -> str:
    import time

    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
