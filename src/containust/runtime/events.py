"""The life-cycle log: one JSON object a line in ``events.jsonl``, appended whole, so that readers never see half.

A file that has grown to 10 MiB becomes ``events.jsonl.1``, in place of the one before it. Whoever writes may do that:
under a lock on the file, so that one of them does, with one rename, so that a kill loses nothing.
:mod:`containust.runtime.history` reads them.
"""

from __future__ import annotations

from containust.common import os
from containust.core import jsontext
from containust.runtime.state import now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.runtime.project import Project

MAX_SIZE = 10 * 1024 * 1024
SEEK_CUR = 1


def emit(project: Project, kind: str, container: str, **attributes: Any) -> None:
    """Append an event. A log that cannot be written loses the event, never the operation."""
    line = jsontext.dumps({"time": now(), "event": kind, "container": container, **attributes}) + "\n"
    try:
        fd = os.open(project.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    try:
        os.write(fd, line.encode())
        if os.lseek(fd, 0, SEEK_CUR) >= MAX_SIZE:
            _rotate(project.events, fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def _rotate(path: str, fd: int) -> None:
    """Make the file that is full, and open as ``fd``, the older one. Raises OSError where another process does."""
    import fcntl

    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.stat(path).st_ino == os.fstat(fd).st_ino:
        os.rename(path, f"{path}.1")
