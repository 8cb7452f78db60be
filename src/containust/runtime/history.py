"""The life-cycle log as its readers see it: both files, oldest event first, through rotation."""

from __future__ import annotations

import time

from containust.common import os
from containust.core import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

    from containust.runtime.project import Project

PIECE = 65536
BEGIN = b'{"time":'  # of every line; inside of one a quotation mark has a backslash in front


def read(project: Project, follow: bool = False, since: str | None = None) -> Iterator[dict[str, Any]]:
    """Events oldest first; with ``follow`` it goes on with those to come. ``since`` is an RFC 3339 prefix."""
    files = _Files(project.events)
    try:
        while True:
            lines = files.read()
            if lines is None:
                if not follow:
                    return
                time.sleep(0.05)
                continue
            for line in lines:
                event = _parse(line)
                if event and (not since or event["time"] >= since):
                    yield event
    finally:
        files.close()


class _Files:
    """The files of the log as one reader has them open, oldest first, each with the line whose end it has not seen."""

    __slots__ = ("_open", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._open: list[tuple[BinaryIO, bytes]] = []

    def read(self) -> list[bytes] | None:
        """Some more lines, of the oldest file that has any; None at the end."""
        self._look()
        for index, (file, rest) in enumerate(self._open):
            data = file.read(PIECE)
            if data:
                *lines, rest = (rest + data).split(b"\n")
                self._open[index] = file, rest
                return lines
        # A process that had the file open when it was rotated may write to it yet, but hardly until the next time.
        while len(self._open) > 2:
            self._open.pop(0)[0].close()
        return None

    def _look(self) -> None:
        """Open what is new, the newest first: what is rotated meanwhile turns out to be the same then."""
        known = [_inode(file) for file, _ in self._open]
        found: list[BinaryIO] = []
        for path in (self._path, f"{self._path}.1"):
            try:
                if os.stat(path).st_ino in known:
                    break
                file = open(path, "rb")
            except OSError:
                continue
            if _inode(file) in known:
                file.close()
                break
            known.append(_inode(file))
            found.append(file)
        self._open += [(file, b"") for file in reversed(found)]

    def close(self) -> None:
        """Close what is open."""
        for file, _ in self._open:
            file.close()


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino


def _parse(line: bytes) -> dict[str, Any] | None:
    """The event of a line. One that was cut short on a full disk has the next behind it, which is still good."""
    try:
        event: dict[str, Any] = jsontext.loads(line[max(0, line.rfind(BEGIN)) :].decode())
    except ValueError:
        return None
    return event if "time" in event and "event" in event and "container" in event else None
