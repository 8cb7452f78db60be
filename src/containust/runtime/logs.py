"""Container output: one append-only file a container in the CRI format, written by the supervisor, read by anybody.

A line is ``<RFC 3339 with nanoseconds> <stdout|stderr> <F|P> <bytes>``. ``F`` ends a line of the program, ``P`` is a
piece of one whose end has not come: an endless line, or output without a newline. Files rotate at 10 MiB, three are
kept: ``NAME.log``, ``NAME.log.1``, ``NAME.log.2``.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_SIZE = 10 * 1024 * 1024
MAX_FILES = 3
PIECE = 16384  # bytes of an unfinished line after which it is written as P
CHUNK = 262144


class Writer:
    """Appends to one container's log and rotates it."""

    __slots__ = ("_fd", "_partial", "_second", "_size", "_stamp", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._partial = {b"stdout": b"", b"stderr": b""}
        self._second = -1
        self._stamp = ""

    def write(self, stream: bytes, data: bytes) -> None:
        """Append what the program wrote to ``stream`` (``b"stdout"`` or ``b"stderr"``)."""
        whole, newline, rest = data.rpartition(b"\n")
        prefix = self._prefix(stream)
        pieces = []
        if newline:
            first = self._partial[stream]
            full = prefix + b"F "
            pieces.append(full + first + whole.replace(b"\n", b"\n" + full) + b"\n")
            self._partial[stream] = rest
        else:
            self._partial[stream] += rest
        waiting = self._partial[stream]
        if len(waiting) >= PIECE:
            pieces.append(prefix + b"P " + waiting + b"\n")
            self._partial[stream] = b""
        if pieces:
            self._append(b"".join(pieces))

    def flush(self) -> None:
        """Write unfinished lines: their program waits at a prompt, or has ended."""
        for stream, waiting in self._partial.items():
            if waiting:
                self._append(self._prefix(stream) + b"P " + waiting + b"\n")
                self._partial[stream] = b""

    def pending(self) -> bool:
        """Whether an unfinished line waits for its end."""
        return any(self._partial.values())

    def close(self) -> None:
        """Write what is left and close the file."""
        self.flush()
        os.close(self._fd)

    def _append(self, data: bytes) -> None:
        if self._size and self._size + len(data) > MAX_SIZE:
            self._rotate()
        self._size += len(data)
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except OSError:  # a full disk: output is lost, the container goes on
                return

    def _rotate(self) -> None:
        for number in range(MAX_FILES - 1, 0, -1):
            try:
                os.rename(self.path if number == 1 else f"{self.path}.{number - 1}", f"{self.path}.{number}")
            except FileNotFoundError:
                pass
        os.close(self._fd)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._size = 0

    def _prefix(self, stream: bytes) -> bytes:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if seconds != self._second:
            self._second = seconds
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        return b"%s.%09dZ %s " % (self._stamp.encode(), nanoseconds, stream)


class Line:
    """One record of a log: ``stamp`` and ``stream`` as in the file, ``full`` false for a piece, ``data`` the bytes."""

    __slots__ = ("data", "full", "stamp", "stream")

    def __init__(self, stamp: bytes, stream: bytes, full: bool, data: bytes) -> None:
        self.stamp = stamp
        self.stream = stream
        self.full = full
        self.data = data


def parse(line: bytes) -> Line | None:
    """A line of the file; None for one that is torn or foreign."""
    fields = line.split(b" ", 3)
    if len(fields) != 4 or fields[1] not in (b"stdout", b"stderr") or fields[2] not in (b"F", b"P"):
        return None
    return Line(fields[0], fields[1], fields[2] == b"F", fields[3])


def files(path: str) -> list[str]:
    """The existing files of a log, oldest first."""
    names = [f"{path}.{number}" for number in range(MAX_FILES - 1, 0, -1)] + [path]
    return [name for name in names if os.path.exists(name)]


def read(path: str) -> Iterator[Line]:
    """Every record of a log and of its rotated files, oldest first."""
    for name in files(path):
        with open(name, "rb") as file:
            for raw in file:
                line = parse(raw.rstrip(b"\n"))
                if line:
                    yield line


class Follower:
    """Reads a log from a position on, through rotation."""

    __slots__ = ("_fd", "_inode", "_rest", "path")

    def __init__(self, path: str, at_end: bool = False) -> None:
        self.path = path
        self._rest = b""
        self._fd = -1
        self._inode = 0
        if self._open() and at_end:
            os.lseek(self._fd, 0, os.SEEK_END)

    def _open(self) -> bool:
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._fd = -1
            return False
        self._inode = os.fstat(self._fd).st_ino
        return True

    def poll(self) -> list[Line]:
        """Records that have come since the last call."""
        lines: list[Line] = []
        if self._fd < 0 and not self._open():
            return lines
        self._drain(lines)
        try:
            rotated = os.stat(self.path).st_ino != self._inode
        except FileNotFoundError:
            rotated = False
        if rotated:
            self._drain(lines)
            os.close(self._fd)
            if self._open():
                self._drain(lines)
        return lines

    def _drain(self, lines: list[Line]) -> None:
        while True:
            data = os.read(self._fd, CHUNK)
            if not data:
                return
            *whole, self._rest = (self._rest + data).split(b"\n")
            lines.extend(line for raw in whole if (line := parse(raw)))

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)


class Capture:
    """The supervisor's side of one container's output: the FIFOs and the log they are written to."""

    __slots__ = ("echo", "fds", "masks", "writer")

    def __init__(self, writer: Writer, fds: dict[int, bytes], masks: list[bytes]) -> None:
        self.writer = writer
        self.fds = fds  # readable descriptor -> stream
        self.masks = masks  # secret values that appear as ***
        self.echo: Callable[[bytes, bytes], None] | None = None

    def pump(self, fd: int) -> bool:
        """Copy what is there from ``fd`` to the log; False at its end."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True
        if not data:
            return False
        for secret in self.masks:
            data = data.replace(secret, b"***")
        stream = self.fds[fd]
        self.writer.write(stream, data)
        if self.echo:
            self.echo(stream, data)
        return True

    def drain(self) -> None:
        """Copy all that is left, without waiting, and close."""
        for fd in list(self.fds):
            for _ in range(1024):
                try:
                    data = os.read(fd, CHUNK)
                except OSError:
                    break
                if not data:
                    break
                for secret in self.masks:
                    data = data.replace(secret, b"***")
                self.writer.write(self.fds[fd], data)
                if self.echo:
                    self.echo(self.fds[fd], data)
            os.close(fd)
        self.fds = {}
        self.writer.close()
