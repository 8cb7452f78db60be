"""SHA-256 of layers, whole and by chunks, beside the work of the thread that reads or indexes them.

OpenSSL gives the interpreter lock away while it hashes, so a second core does it for nothing; what costs is taking the
lock back, which a busy thread hands over only every few milliseconds.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from queue import Queue
    from types import TracebackType

CHUNK = 256 * 1024  # bytes of a layer that one digest of chunks.bin covers
QUEUED = 8  # pieces that may wait for a hash
SWITCH = 0.0001  # seconds after which a thread that hashes gets the interpreter lock back


def digests(path: str) -> tuple[str, bytes]:
    """SHA-256 of the file in hexadecimal, and the digests of its chunks one after another, by two threads."""
    import mmap
    from hashlib import sha256
    from threading import Thread

    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return sha256(b"").hexdigest(), b""
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data, memoryview(data) as view:
            whole = sha256()
            if size < 4 * CHUNK:
                whole.update(view)
                return whole.hexdigest(), chunk_digests(view)
            worker = Thread(target=whole.update, args=(view,))
            worker.start()
            chunks = chunk_digests(view)
            worker.join()
            return whole.hexdigest(), chunks


def chunk_digests(view: memoryview) -> bytes:
    """The SHA-256 of each chunk of ``view``, one after another."""
    from hashlib import sha256

    return b"".join(sha256(view[at : at + CHUNK]).digest() for at in range(0, len(view), CHUNK))


class FileDigests:
    """What :func:`digests` gives of a file, computed by threads from the beginning of this context on."""

    def __init__(self, path: str) -> None:
        from threading import Thread

        self._path = path
        self._found: tuple[str, bytes] | None = None
        self._error: OSError | None = None
        self._interval = 0.0
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> FileDigests:
        import sys

        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import sys

        self._thread.join()
        sys.setswitchinterval(self._interval)

    def _run(self) -> None:
        try:
            self._found = digests(self._path)
        except OSError as error:
            self._error = error

    def result(self) -> tuple[str, bytes]:
        """The digests; waits for them. Raises OSError."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found


class StreamDigests:
    """The same of what is fed to it in pieces, as a context manager whose end ends its thread."""

    def __init__(self) -> None:
        from hashlib import sha256
        from queue import Queue
        from threading import Thread

        self._whole = sha256()
        self._chunks: list[bytes] = []
        self._queue: Queue[bytes | None] = Queue(QUEUED)
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> StreamDigests:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()

    def update(self, piece: bytes) -> None:
        """The next piece of the stream; waits while too many are not hashed yet."""
        self._queue.put(piece)

    def result(self) -> tuple[str, bytes]:
        """The digests, once the context has ended."""
        return self._whole.hexdigest(), b"".join(self._chunks)

    def _run(self) -> None:
        from hashlib import sha256

        chunk = sha256()
        room = CHUNK
        while piece := self._queue.get():
            self._whole.update(piece)
            view = memoryview(piece)
            while len(view) >= room:
                chunk.update(view[:room])
                self._chunks.append(chunk.digest())
                chunk, view, room = sha256(), view[room:], CHUNK
            chunk.update(view)
            room -= len(view)
        if room < CHUNK:
            self._chunks.append(chunk.digest())
