"""Reading the logs of containers: from any time on, backwards for a tail, onwards through rotation and restarts."""

from __future__ import annotations

import os

from containust.runtime.logs import MAX_FILES
from containust.runtime.restarts import due
from containust.runtime.state import RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containust.runtime.state import Container

CHUNK = 262144
MOST_HELD = 50  # rotated files that a slow reader keeps from vanishing: half a gigabyte


class Line:
    """One record of a log: ``stamp`` and ``stream`` as in the file, ``full`` false for a piece, ``data`` the bytes.

    Or several full ones that were written at once, if that was asked for: ``data`` has newlines between them.
    """

    __slots__ = ("data", "full", "stamp", "stream")

    def __init__(self, stamp: bytes, stream: bytes, full: bool, data: bytes) -> None:
        self.stamp = stamp
        self.stream = stream
        self.full = full
        self.data = data


def parse(record: bytes) -> Line | None:
    """A record of the file, without its newline; None for one that is torn or foreign."""
    fields = record.split(b" ", 3)
    if len(fields) != 4 or fields[1] not in (b"stdout", b"stderr") or fields[2] not in (b"F", b"P"):
        return None
    return Line(fields[0], fields[1], fields[2] == b"F", fields[3])


def together(records: list[bytes]) -> Iterator[Line | None]:
    """What :func:`parse` makes of ``records``; of full ones that follow each other with the same head, one."""
    at = 0
    while at < len(records):
        line = parse(records[at])
        begin, at = at, at + 1
        if line and line.full:
            head = records[begin][: len(records[begin]) - len(line.data)]
            while at < len(records) and records[at].startswith(head):
                at += 1
            if at > begin + 1:
                length = len(head)
                line.data = b"\n".join([record[length:] for record in records[begin:at]])
        yield line


class Reader:
    """Records of one container's log, oldest first, through all its files.

    ``since`` and ``until`` are prefixes of RFC 3339 stamps in UTC; ``tail`` is how many lines to begin with, None for
    all. With ``fast``, records that were written at once come as one.
    """

    __slots__ = ("_fast", "_files", "_key", "_rest", "_since", "_until", "lost", "over", "path")

    def __init__(
        self, path: str, tail: int | None = None, since: bytes = b"", until: bytes = b"", fast: bool = False
    ) -> None:
        self.path = path
        self._fast = fast
        self.lost = False  # files were rotated away before they could be read
        self.over = False  # what comes is later than ``until``
        self._since = since
        self._until = until
        self._rest = b""
        self._files: list[int] = []  # descriptors, the one that is read first
        self._key = (0, 0)  # device and inode of the newest of them
        self._look()
        self.lost = False
        if tail is not None:
            self._skip_to(tail)

    def poll(self) -> list[Line]:
        """Some records more, [] when there are none now."""
        self._look()
        while self._files and not self.over:
            data = os.read(self._files[0], CHUNK)
            if not data:
                if len(self._files) == 1:
                    return []
                # It was rotated before this read, so this was its end.
                os.close(self._files.pop(0))
                self._rest = b""
                continue
            *records, self._rest = (self._rest + data).split(b"\n")
            lines = self._chosen(records)
            if lines:
                return lines
            self._look()
        return []

    def _chosen(self, records: list[bytes]) -> list[Line]:
        since, until = self._since, self._until
        lines = []
        for line in together(records) if self._fast else map(parse, records):
            if line is None or line.stamp < since:
                continue
            if until and line.stamp > until:
                self.over = True
                break
            lines.append(line)
        return lines

    def _look(self) -> None:
        """Open the files that have come since."""
        try:
            status = os.stat(self.path)
        except FileNotFoundError:
            return
        if self._files and (status.st_dev, status.st_ino) == self._key:
            return
        found: list[tuple[tuple[int, int], int]] = []
        known = False
        for number in range(MAX_FILES):
            try:
                fd = os.open(f"{self.path}.{number}" if number else self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino)
            known = bool(self._files) and key == self._key
            if known or key in [other for other, _ in found]:
                os.close(fd)
                if known:
                    break
                continue
            found.append((key, fd))
        if self._files and not known:
            self.lost = True
        if found:
            self._key = found[0][0]
            self._files += [fd for _, fd in reversed(found)]
        while len(self._files) > MOST_HELD:
            self.lost = True
            os.close(self._files.pop(0))
            self._rest = b""

    def _skip_to(self, tail: int) -> None:
        """Go to the beginning of the last ``tail`` lines."""
        skipped = 0
        for index in range(len(self._files) - 1, -1, -1):
            fd = self._files[index]
            position, lines = _backwards(fd, tail - skipped)
            skipped += lines
            os.lseek(fd, position, os.SEEK_SET)
            if skipped >= tail:
                for older in self._files[:index]:
                    os.close(older)
                del self._files[:index]
                return

    def close(self) -> None:
        """Close what is open."""
        for fd in self._files:
            os.close(fd)
        self._files = []


def _backwards(fd: int, wanted: int) -> tuple[int, int]:
    """Offset at which the last ``wanted`` lines of a file begin, and how many it has, up to ``wanted``."""
    end = os.fstat(fd).st_size
    if not wanted:
        return end, 0
    block = 65536
    while True:
        start = max(0, end - block)
        text = os.pread(fd, end - start, start)
        first = text.find(b"\n") + 1 if start else 0  # a record that began before is not counted
        records = text[first:].split(b"\n")[:-1]
        position = start + first + sum(len(record) + 1 for record in records)
        lines = 0
        for at in range(len(records) - 1, -1, -1):
            # A line begins behind the end of another, and output without a newline at the end is a line too.
            if (lines == 0 and at == len(records) - 1) or records[at].split(b" ", 3)[2:3] == [b"F"]:
                if lines == wanted:
                    return position, lines
                lines += 1
            position -= len(records[at]) + 1
        if not start:
            return 0, lines
        block *= 8


def returns(container: Container) -> bool:
    """Whether a container that has ended is started again by the supervisor it has."""
    return container.wanted == RUNNING and due(container)


def merged(
    readers: dict[str, Reader], follow: Callable[[], bool] | None = None, pause: float = 0.05
) -> Iterator[tuple[str, Line]]:
    """(name, record) of several logs by time; those of one log in their own order.

    ``follow`` tells whether more can come: with it, the iterator waits for that at the end.
    """
    waiting: dict[str, list[Line]] = {}  # newest first, so that taking the next is cheap
    for name in readers:
        waiting[name] = []
    last = False
    while True:
        for name, reader in readers.items():
            if not waiting[name]:
                waiting[name] = reader.poll()[::-1]
        ready = [name for name in readers if waiting[name]]
        if not ready:
            if last or follow is None or all(reader.over for reader in readers.values()):
                return
            # Once more after the last of them has ended: what it wrote before is in the log by now.
            last = not follow()
            if not last:
                import time

                time.sleep(pause)
            continue
        last = False
        if len(ready) == 1:
            name = ready[0]
            for line in reversed(waiting[name]):
                yield name, line
            waiting[name] = []
            continue
        # Until one of them has to be read on, what is next is known.
        while all(waiting[name] for name in ready):
            name = min(ready, key=lambda name: waiting[name][-1].stamp)
            yield name, waiting[name].pop()


def last(readers: dict[str, Reader], tail: int) -> Iterator[tuple[str, Line]]:
    """As :func:`merged`, the last ``tail`` lines of each log only."""
    kept: dict[str, list[tuple[str, Line]]] = {name: [] for name in readers}
    for name, reader in readers.items():
        own = kept[name]
        while lines := reader.poll():
            own += [(name, line) for line in lines]
            begin, found = len(own), 0
            while begin and found <= tail:
                begin -= 1
                found += own[begin][1].full or begin == len(own) - 1
            if found > tail:
                del own[: begin + 1]
    records = [record for own in kept.values() for record in own]
    records.sort(key=lambda record: record[1].stamp)
    yield from records
