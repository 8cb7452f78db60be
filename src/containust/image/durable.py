"""Files that are on the disk before anything refers to them.

A sync waits for the disk, and each by itself for a turn of the file system's journal. Those that need no order are
waited for together, and large files are on their way while other work goes on.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 8


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


def sync_beside(path: str) -> None:
    """Have a finished file written to the disk while other work goes on; who needs it there syncs it again."""
    from threading import Thread

    def run() -> None:
        try:
            sync(path)
        except OSError:
            pass  # the sync that counts tells it

    Thread(target=run, daemon=True).start()
