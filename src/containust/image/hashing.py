"""SHA-256 of layers, whole and by chunks, beside the work of the thread that writes or indexes them.

OpenSSL gives the interpreter lock away while it hashes, so a second core does it for nothing; what costs is taking the
lock back, which a busy thread hands over only every few milliseconds: beside one, as much as can be is hashed in one
call.
"""

from __future__ import annotations

import os

from containust.image.durable import Writing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import _Hash
    from queue import SimpleQueue
    from types import TracebackType

CHUNK = 256 * 1024  # bytes of a layer that one digest of chunks.bin covers
PIECE = 4 * CHUNK  # bytes hashed at once while more is being written: they are in the processor's cache still
AHEAD = 32 << 20  # bytes after which the disk is asked to begin

FINISHED, FINISHED_ALONE, GIVEN_UP = -1, -2, -3  # instead of a size


def digests(path: str) -> tuple[str, bytes]:
    """SHA-256 of the file in hexadecimal, and the digests of its chunks one after another, by two threads."""
    from hashlib import sha256

    whole = sha256()
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = _rest(fd, 0, os.fstat(fd).st_size, whole, alone=True)
    finally:
        os.close(fd)
    return whole.hexdigest(), chunks


def _rest(fd: int, at: int, end: int, whole: _Hash, *, alone: bool) -> bytes:
    """The digests of the chunks from ``at``, where one begins, to ``end``; ``whole`` is given the same bytes.

    Chunks need the interpreter lock once each: beside a thread that is at work, unless ``alone``, they come last.
    """
    import mmap
    from threading import Thread

    if at == end:
        return b""
    with mmap.mmap(fd, end, prot=mmap.PROT_READ) as data, memoryview(data) as all_of_it, all_of_it[at:] as view:
        if end - at < PIECE:
            whole.update(view)
            return chunk_digests(view)
        if alone:
            worker = Thread(target=whole.update, args=(view,))
            worker.start()
            chunks = chunk_digests(view)
            worker.join()
            del worker  # it holds the view
            return chunks
        whole.update(view)
        middle = len(view) // 2 // CHUNK * CHUNK
        second: list[bytes] = []
        with view[middle:] as half:
            worker = Thread(target=lambda: second.append(chunk_digests(half)))
            worker.start()
            chunks = chunk_digests(view[:middle])
            worker.join()
        return chunks + second[0]


def chunk_digests(view: memoryview) -> bytes:
    """The SHA-256 of each chunk of ``view``, one after another."""
    from hashlib import sha256

    return b"".join(sha256(view[at : at + CHUNK]).digest() for at in range(0, len(view), CHUNK))


class Follower:
    """What :func:`digests` gives of a new file, found by other threads while it is written; a context.

    What they read is what will be stored. They also have it written to the disk meanwhile: ``writing`` tells when it
    is, unless ``passing``, given the open file, says that it is not to be kept. The writer tells how much there is with
    :meth:`grown`, and may go on to other work after :meth:`finished`.
    """

    def __init__(self, path: str, passing: Callable[[int], bool] | None = None) -> None:
        from queue import SimpleQueue
        from threading import Thread

        self._path = path
        self._passing = passing
        self._sizes: SimpleQueue[int] = SimpleQueue()
        self._found: tuple[str, bytes] | None = None
        self._error: Exception | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self.writing: Writing | None = None

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sizes.put(FINISHED_ALONE if kind is None else GIVEN_UP)
        self._thread.join()
        if kind is not None and self.writing is not None:
            self.writing.stop()

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
                    if self._passing is None or not self._passing(fd):
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
            if fd >= 0:
                chunks.append(_rest(fd, at, end, whole, alone=size == FINISHED_ALONE))
        finally:
            if fd >= 0:
                os.close(fd)
        return whole.hexdigest(), b"".join(chunks)
