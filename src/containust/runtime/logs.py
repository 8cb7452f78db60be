"""Container output on its way from the FIFOs to the log: one append-only file a container in the CRI format.

A record is ``<RFC 3339 with nanoseconds> <stdout|stderr> <F|P> <bytes>`` and a newline. ``F`` ends a line of the
program, ``P`` is a piece of one whose end has not come yet: an endless line, or output without a newline. Files rotate
at 10 MiB, three are kept: ``NAME.log``, ``NAME.log.1``, ``NAME.log.2``.
:mod:`containust.runtime.transcript` reads them.

Nothing is lost or doubled when the supervisor is killed: output is copied out of the FIFO, written to the log, and only
then taken from the FIFO. A journal beside the FIFO tells the next supervisor how far its predecessor had come.
"""

from __future__ import annotations

import fcntl
import time
from _struct import pack

from containust.common import os
from containust.core import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SIZE = 10 * 1024 * 1024
MAX_FILES = 3
PIECE = 16384  # bytes of a line after which it is cut into pieces
CHUNK = 524288  # half of a grown FIFO: the other half is the program's to fill meanwhile
GROWN = 1048576  # four times as much is slower, as more is in no cache then
SMALL = 65536  # the size a FIFO has
BUSY = 16384  # bytes at once from which on more is worth waiting for
AGAIN = 0.002  # seconds: what comes so soon after what was there before, and ...
OFTEN = 8  # ... so many times in a row, is waited for too, or each write of a line would wake two processes
JOURNAL = "<QQQQL"  # inode and size of the log before a batch, the batch's size there and in the FIFO, CRC of that
F_SETPIPE_SZ = 1031
SPLICE_F_NONBLOCK = 2
STREAMS = (b"stdout", b"stderr")


class Writer:
    """Appends records to one container's log and rotates it."""

    __slots__ = ("_fd", "_second", "_stamp", "inode", "path", "size")

    def __init__(self, path: str) -> None:
        self.path = path
        self._second = -1
        self._stamp = b""
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        status = os.fstat(self._fd)
        self.inode, self.size = status.st_ino, status.st_size

    def make_room(self, length: int) -> None:
        """Rotate when ``length`` bytes more are too many for the file."""
        if not self.size or self.size + length <= MAX_SIZE:
            return
        successor = f"{self.path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(successor, flags, 0o600)
        except OSError:
            return  # no room for another file: the present one grows
        for number in range(MAX_FILES - 1, 0, -1):
            try:
                os.rename(self.path if number == 1 else f"{self.path}.{number - 1}", f"{self.path}.{number}")
            except FileNotFoundError:
                pass
        os.rename(successor, self.path)
        os.close(self._fd)
        self._fd = fd
        self.inode, self.size = os.fstat(fd).st_ino, 0

    def append(self, views: list[bytes | memoryview], length: int) -> None:
        """Write records whole or not at all: on a full disk output is lost, and the container goes on."""
        try:
            written = os.writev(self._fd, views)
        except OSError:
            written = 0
        if written < length and not self._finish(b"".join(views)[written:]):
            os.ftruncate(self._fd, self.size)
            return
        self.size += length

    def _finish(self, rest: bytes) -> bool:
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except OSError:
                return False
        return True

    def cut(self, size: int) -> None:
        """Drop what is behind the first ``size`` bytes."""
        os.ftruncate(self._fd, size)
        self.size = size

    def prefix(self, stream: bytes) -> bytes:
        """The head of a record that is written now, up to the tag."""
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if seconds != self._second:
            self._second = seconds
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()
        return b"%s.%09dZ %s " % (self._stamp, nanoseconds, stream)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def frame(prefix: bytes, data: bytes) -> list[bytes | memoryview]:
    """Records for ``data``, as buffers to be written one after the other; ``prefix`` is a record's head up to the tag.

    What ends without a newline becomes a record with the tag ``P`` right away: nothing waits in memory.
    """
    if len(data) > PIECE and _long_lines(data):
        return [_pieces(prefix, data)]
    full = prefix + b"F "
    text = memoryview(data.replace(b"\n", b"\n" + full))
    if data.endswith(b"\n"):
        return [full, text[: -len(full)]]
    last = data.rfind(b"\n")
    if last < 0:
        return [prefix + b"P ", text, b"\n"]
    rest = len(data) - last - 1
    return [full, text[: len(text) - rest - len(full)], prefix + b"P ", text[len(text) - rest :], b"\n"]


def _long_lines(data: bytes) -> bool:
    at = 0
    while len(data) - at > PIECE:
        at = data.rfind(b"\n", at, at + PIECE) + 1
        if not at:
            return True
    return False


def _pieces(prefix: bytes, data: bytes) -> bytes:
    full, part = prefix + b"F ", prefix + b"P "
    records: list[bytes | memoryview] = []
    *lines, rest = data.split(b"\n")
    for line in (*lines, None, rest):
        if line is None:
            full = part  # what follows the last newline is unfinished
            continue
        view = memoryview(line)
        while len(view) > PIECE:
            records += (part, view[:PIECE], b"\n")
            view = view[PIECE:]
        if view or full is not part:
            records += (full, view, b"\n")
    return b"".join(records)


class Capture:
    """The supervisor's side of one container's output: the FIFOs and the log they are written to.

    ``journal`` is the path of its journal, "" for output that no other process could take over.
    """

    __slots__ = ("_grown", "_held", "_looked", "_masks", "_often", "_path", "busy", "echo", "fds", "journal", "writer")

    def __init__(self, writer: Writer, fds: dict[int, bytes], masks: list[bytes], journal: str = "") -> None:
        self.writer = writer
        self.fds = fds  # readable descriptor -> stream
        self.echo: Callable[[bytes, bytes], None] | None = None
        self.busy = False  # much was there at once: a pause before the next look costs less than it delays
        self.journal = -1
        self._path = journal
        self._masks: list[bytes] = []
        self.hide(masks)
        self._held = dict.fromkeys(STREAMS, b"")  # what may be the beginning of a secret
        self._grown: dict[int, bool] = {}
        self._looked = 0.0  # monotonic time of the last look that found something
        self._often = 0  # how many of these followed each other soon

    def hide(self, secrets: list[bytes]) -> None:
        """Secret values that appear as ``***`` from now on, also when they come in several pieces."""
        self._masks = sorted(set(secrets), key=len, reverse=True)

    def pump(self, fd: int) -> bool:
        """Copy what is there from ``fd`` to the log; False at its end."""
        try:
            data = peek(fd, CHUNK)
        except BlockingIOError:
            self.busy = False
            return True
        if not data:
            return False
        moment = time.monotonic()
        self._often = self._often + 1 if moment - self._looked < AGAIN else 0
        self._looked = moment
        much = len(data) >= BUSY and self._grown.get(fd, False)
        self.busy = len(data) < CHUNK // 2 and (much or self._often >= OFTEN)
        if len(data) >= SMALL // 2 and fd not in self._grown:
            self._grow(fd)
        self.open_journal()
        take(fd, self._put(self.fds[fd], data))
        if self.journal >= 0:
            self._note(b"\0")
        return True

    def open_journal(self) -> None:
        """Have the journal open, where there is one to keep."""
        if self._path and self.journal < 0:
            try:
                self.journal = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError:
                self._path = ""

    def _note(self, entry: bytes) -> None:
        """Write to the journal. Where there is no room for that, a kill may lose or double what is at hand."""
        try:
            os.pwrite(self.journal, entry, 0)
        except OSError:
            pass

    def write(self, stream: bytes, data: bytes) -> None:
        """Log what was read elsewhere: at a terminal."""
        while data:
            data = data[self._put(stream, data) :]

    def drain(self) -> None:
        """Copy all that is left, without waiting, and close."""
        self._path = ""  # whoever came next would find the FIFOs empty
        for fd in list(self.fds):
            for _ in range(4096):
                try:
                    data = os.read(fd, CHUNK)
                except OSError:
                    break
                if not data:
                    break
                self.write(self.fds[fd], data)
            os.close(fd)
        self.fds = {}
        self.close()

    def close(self) -> None:
        """Write what was held back and close the log; FIFOs stay as they are."""
        masks, self._masks = self._masks, []
        for stream, held in self._held.items():
            if held:
                self._held[stream] = b""
                self.write(stream, held)
        self._masks = masks
        self.writer.close()
        if self.journal >= 0:
            os.close(self.journal)
            self.journal = -1

    def _put(self, stream: bytes, data: bytes) -> int:
        """Append ``data`` to the log; how much of it was done."""
        held = self._held[stream]
        text, rest = data, b""
        if self._masks:
            from containust.runtime.masking import masked

            text, rest = masked(held + data, self._masks)
        views = frame(self.writer.prefix(stream), text) if text else []
        length = sum(map(len, views))
        if length > MAX_SIZE and len(data) > SMALL:  # next to nothing but newlines, each of which is a record
            return self._put(stream, data[:SMALL])
        if length:
            self.writer.make_room(length)
        if self.journal >= 0:
            from zlib import crc32  # not before there is output

            entry = pack(JOURNAL, self.writer.inode, self.writer.size, length, len(data), crc32(data))
            self._note(b"\1" + entry + stream)
        if length:
            self.writer.append(views, length)
        self._held[stream] = rest
        if self.echo and text:
            self.echo(stream, text)
        return len(data)

    def _grow(self, fd: int) -> None:
        try:
            fcntl.fcntl(fd, F_SETPIPE_SZ, GROWN)
            self._grown[fd] = True
        except OSError:  # a limit of the host: it works with what there is
            self._grown[fd] = False


_scratch: list[int] = []  # a pipe of this process: reading side, writing side, and /dev/null


def peek(fd: int, most: int) -> bytes:
    """What is in the pipe ``fd``, up to ``most`` bytes, left in it; b"" at its end. Raises BlockingIOError (tee(2))."""
    if not _scratch:
        _scratch.extend(os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
        _scratch.append(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))
        try:
            fcntl.fcntl(_scratch[0], F_SETPIPE_SZ, GROWN)
        except OSError:
            pass
    count = syscalls.tee(fd, _scratch[1], most, SPLICE_F_NONBLOCK)
    data = os.read(_scratch[0], count) if count else b""
    while len(data) < count:
        data += os.read(_scratch[0], count - len(data))
    return data


def take(fd: int, count: int) -> None:
    """Remove ``count`` bytes from the pipe ``fd``, which holds as many (splice(2))."""
    while count > 0:
        count -= os.splice(fd, _scratch[2], count)
