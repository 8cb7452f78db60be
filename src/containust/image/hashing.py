"""SHA-256 of layers, whole and by chunks, beside the work of the thread that writes or indexes them.

OpenSSL gives the interpreter lock away while it hashes, so a second core does it for nothing; what costs is taking the
lock back, which a busy thread hands over only every few milliseconds.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from containust.image.durable import Writing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash
    from queue import SimpleQueue
    from types import TracebackType

CHUNK = 256 * 1024  # bytes of a layer that one digest of chunks.bin covers
PIECE = 4 * CHUNK  # bytes hashed at once while more is being written: they are in the processor's cache still
AHEAD = 32 << 20  # bytes after which the disk is asked to begin
SWITCH = 0.00005  # seconds after which a thread that hashes gets the interpreter lock back

FINISHED = -1
GIVEN_UP = -2


def digests(path: str) -> tuple[str, bytes]:
    """SHA-256 of the file in hexadecimal, and the digests of its chunks one after another, by two threads."""
    from hashlib import sha256

    whole = sha256()
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = _rest(fd, 0, os.fstat(fd).st_size, whole)
    finally:
        os.close(fd)
    return whole.hexdigest(), chunks


def _rest(fd: int, at: int, end: int, whole: _Hash) -> bytes:
    """The digests of the chunks from ``at``, where one begins, to ``end``; ``whole`` is given the same bytes."""
    import mmap
    from threading import Thread

    if at == end:
        return b""
    with mmap.mmap(fd, end, prot=mmap.PROT_READ) as data, memoryview(data) as all_of_it, all_of_it[at:] as view:
        if end - at < PIECE:
            whole.update(view)
            return chunk_digests(view)
        worker = Thread(target=whole.update, args=(view,))
        worker.start()
        chunks = chunk_digests(view)
        worker.join()
        del worker  # it holds the view
        return chunks


def chunk_digests(view: memoryview) -> bytes:
    """The SHA-256 of each chunk of ``view``, one after another."""
    from hashlib import sha256

    return b"".join(sha256(view[at : at + CHUNK]).digest() for at in range(0, len(view), CHUNK))


class Follower:
    """What :func:`digests` gives of a new file, found by other threads while it is written; a context.

    What they read is what will be stored. They also have it written to the disk meanwhile: ``writing`` tells when it
    is. The writer tells how much there is with :meth:`grown`, and may go on to other work after :meth:`finished`.
    """

    def __init__(self, path: str) -> None:
        from queue import SimpleQueue
        from threading import Thread

        self._path = path
        self._sizes: SimpleQueue[int] = SimpleQueue()
        self._found: tuple[str, bytes] | None = None
        self._error: Exception | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self.writing: Writing | None = None

    def __enter__(self) -> Follower:
        _take_turns(1)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sizes.put(FINISHED if kind is None else GIVEN_UP)
        self._thread.join()
        _take_turns(-1)

    def grown(self, size: int) -> None:
        """The file holds ``size`` bytes, which will not change any more."""
        self._sizes.put(size)

    def finished(self) -> None:
        """The file holds all that it will."""
        self._sizes.put(FINISHED)

    def result(self) -> tuple[str, bytes]:
        """The digests, once the file is finished; waits for them. Raises OSError."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found

    def _run(self) -> None:
        try:
            self._found = self._follow()
        except Exception as error:
            self._error = error
        finally:
            if self.writing is not None:
                self.writing.begin(last=True)

    def _follow(self) -> tuple[str, bytes] | None:
        from hashlib import sha256

        whole = sha256()
        chunks = []
        buffer = memoryview(bytearray(PIECE))
        fd = -1
        at = end = asked = 0
        try:
            while (size := self._sizes.get()) >= 0:
                end = size
                if fd < 0:
                    fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                    self.writing = Writing(self._path)
                if self.writing is not None and end - asked >= AHEAD:
                    self.writing.begin()
                    asked = end
                while end - at >= PIECE and self._sizes.empty():
                    if os.preadv(fd, [buffer], at) != PIECE:
                        raise OSError(5, "it became shorter while it was written", self._path)
                    whole.update(buffer)
                    chunks.append(chunk_digests(buffer))
                    at += PIECE
            if size == GIVEN_UP:
                return None
            if self.writing is not None:
                self.writing.begin(last=True)
                chunks.append(_rest(fd, at, end, whole))
        finally:
            if fd >= 0:
                os.close(fd)
        return whole.hexdigest(), b"".join(chunks)


_turns_lock = allocate_lock()
_followers = 0
_interval = 0.0


def _take_turns(more: int) -> None:
    """Threads hand the interpreter lock over quickly while there is any follower."""
    global _followers, _interval
    import sys

    with _turns_lock:
        if _followers == 0:
            _interval = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH)
        _followers += more
        if _followers == 0:
            sys.setswitchinterval(_interval)
