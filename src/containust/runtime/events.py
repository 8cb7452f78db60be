"""The life-cycle log: one JSON object a line in ``events.jsonl``, appended whole, so that readers never see half."""

from __future__ import annotations

from containust.common import os
from containust.core import jsontext
from containust.runtime.state import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from containust.runtime.project import Project

BEGIN = b'{"time":'  # of every line; inside of one a quotation mark has a backslash in front


def emit(project: Project, kind: str, container: str, **attributes: Any) -> None:
    """Append an event. A log that cannot be written loses the event, never the operation."""
    line = jsontext.dumps({"time": now(), "event": kind, "container": container, **attributes}) + "\n"
    try:
        fd = os.open(project.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    try:
        os.write(fd, line.encode())
    except OSError:
        pass
    finally:
        os.close(fd)


def read(project: Project, follow: bool = False, since: str | None = None) -> Iterator[dict[str, Any]]:
    """Events oldest first; with ``follow`` it goes on with those to come. ``since`` is an RFC 3339 prefix."""
    import time

    try:
        file = open(project.events, "rb")
    except FileNotFoundError:
        return
    with file:
        rest = b""
        while True:
            data = file.read(65536)
            if not data:
                if not follow:
                    return
                time.sleep(0.05)
                continue
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                event = _parse(line)
                if event and (not since or event["time"] >= since):
                    yield event


def _parse(line: bytes) -> dict[str, Any] | None:
    """The event of a line. One that was cut short on a full disk has the next behind it, which is still good."""
    try:
        event: dict[str, Any] = jsontext.loads(line[max(0, line.rfind(BEGIN)) :].decode())
    except ValueError:
        return None
    return event if "time" in event and "event" in event and "container" in event else None
