"""Files that are on the disk before anything refers to them.

A sync waits for the disk, and each by itself for a turn of the file system's journal. Those that need no order are
waited for together, and large files are on their way while other work goes on.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from queue import SimpleQueue

AT_ONCE = 8
MORE, LAST, NONE = range(3)  # what a thread that writes a file is asked for


def write_file(path: str, data: bytes) -> None:
    """Write a new read-only file; it is not synced yet."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def sync(path: str) -> None:
    """fsync(2) of a file, or of a directory: its names are on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_all(paths: Sequence[str]) -> None:
    """:func:`sync` of all, in no order. Raises the OSError of one."""
    if len(paths) < 2:
        for path in paths:
            sync(path)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(sync, paths):
            pass


class Writing:
    """Has the file ``path`` written to the disk by another thread, while it grows and while other work goes on.

    Who needs it there must :meth:`wait`: the kernel tells an error of the disk once, and a later sync would not hear
    of it (fsync(2)).
    """

    def __init__(self, path: str) -> None:
        from queue import SimpleQueue
        from threading import Thread

        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # now: it may be renamed at any time
        self._asked: SimpleQueue[int] = SimpleQueue()
        self._error: OSError | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self, *, last: bool = False) -> None:
        """Have what the file holds by now written; ``last`` says that it is finished."""
        self._asked.put(LAST if last else MORE)

    def stop(self) -> None:
        """Have no more of it written, as nobody wants it."""
        self._asked.put(NONE)
        self._thread.join()

    def wait(self) -> None:
        """Wait for the last of it. Raises OSError if any of it could not be written."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        asked = MORE
        while asked == MORE:
            asked = self._asked.get()
            while not self._asked.empty():
                asked = self._asked.get()
            if asked == NONE:
                break
            try:
                os.fdatasync(self._fd)
            except OSError as error:
                self._error = error
        os.close(self._fd)
