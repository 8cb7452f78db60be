"""``ctst ps``: list containers with their figures."""

from __future__ import annotations

import time

from containust.cli.arguments import FLAG, parse
from containust.common.errors import UsageError
from containust.sdk.project import Project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.cli.main import Context

HELP = """Usage: ctst ps [-a] [--json] [--watch]

List the project's running containers. CPU% is the part of one CPU used since the container's start; with --watch, after
the first look, since the look before.

  -a, --all   stopped ones too
  --json      one document, sizes in bytes, times RFC 3339
  --watch     again every second until Ctrl+C

Examples:
  ctst ps -a
  ctst ps --json
"""
COLUMNS = ["NAME", "STATE", "HEALTH", "CPU%", "MEM/LIMIT", "NET I/O", "PIDS", "PORTS", "RESTARTS", "UPTIME"]


def run(words: list[str], context: Context) -> int:
    """The command."""
    options = {
        "-a": ("all", FLAG),
        "--all": ("all", FLAG),
        "--json": ("json", FLAG),
        "--watch": ("watch", FLAG),
    }
    given = parse(words, options)
    if given.flag("help"):
        context.out(HELP)
        return 0
    if given.positional:
        raise UsageError(f"ps takes no {given.positional[0]!r}", "`ctst inspect NAME` shows one container")
    context.take(given.values)
    project = Project.current(context.cwd, state_file=context.state_file, backend=context.backend)
    while True:
        began = time.monotonic()
        rows = project.ps(all=given.flag("all"))
        if given.flag("json"):
            from containust.sdk.documents import to_json

            context.out(to_json({"containers": rows}))
        else:
            if given.flag("watch"):
                context.out("\x1b[H\x1b[2J")
            context.out(render(rows))
        if not given.flag("watch"):
            return 0
        import sys

        sys.stdout.flush()
        # Every second; with so many containers that this would take a sixtieth of a core, less often.
        time.sleep(max(1.0, 60 * (time.monotonic() - began)))


def render(rows: list[dict[str, Any]]) -> str:
    """The table."""
    from containust.cli.output import size, table

    cells = []
    for row in rows:
        memory = "-"
        if row.get("memory") is not None:
            memory = f"{size(row['memory'])}/{size(row['memory_limit'])}"
        net = "-"
        if row.get("net_received") is not None:
            net = f"{size(row['net_received'])}/{size(row['net_sent'])}"
        ports = ",".join(
            f"{bracketed(p['address'])}:{p['host_port']}->{p['container_port']}/{p['protocol']}" for p in row["ports"]
        )
        cells.append(
            [
                row["name"],
                state(row),
                row["health"] or "-",
                "-" if row.get("cpu_percent") is None else f"{row['cpu_percent']:.1f}",
                memory,
                net,
                str(row["pids"]) if row.get("pids") is not None else "-",
                ports or "-",
                str(row["restarts"]),
                uptime(row["started"]) if row["state"] == "running" else "-",
            ]
        )
    return table(COLUMNS, cells)


def bracketed(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def state(row: dict[str, Any]) -> str:
    """The state with how it ended."""
    if row["oom_killed"]:
        return f"{row['state']} (OOM)"
    if row["state"] in ("stopped", "failed") and row["exit_code"] is not None:
        return f"{row['state']} ({row['exit_code']})"
    return str(row["state"])


def uptime(started: str | None) -> str:
    """Time since an RFC 3339 stamp, in its largest unit."""
    if not started:
        return "-"
    import time

    # By hand: strptime would import re, locale and datetime, more than all the rest of the command.
    fields = [int(started[start:end]) for start, end in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19))]
    began = time.mktime((*fields, 0, 0, 0)) - time.timezone  # type: ignore[arg-type]
    seconds = max(0, int(time.time() - began))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
