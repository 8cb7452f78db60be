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


def emit(project: Project, kind: str, container: str, **attributes: Any) -> None:
    """Append an event. A log that cannot be written loses the event, never the operation."""
    line = jsontext.dumps({"time": now(), "event": kind, "container": container, **attributes}) + "\n"
    try:
        fd = os.open(project.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    try:
        os.write(fd, line.encode())
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
                try:
                    event: dict[str, Any] = jsontext.loads(line.decode())
                except ValueError:
                    continue
                if not since or event["time"] >= since:
                    yield event
