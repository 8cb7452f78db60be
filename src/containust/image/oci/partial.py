"""Beginnings of blobs, kept in the store's ``partial/`` so that an interrupted pull goes on where it ended.

A file is named by the digest that the whole blob must have, and locked by who fetches it. Nothing of it is used before
the whole has been hashed; what lies there a week is removed.
"""

from __future__ import annotations

import fcntl
import os

from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

    from containust.image.staging import Staging

KEPT = 7 * 24 * 3600  # seconds


class Partial:
    """The file of the blob with the hexadecimal ``digest``, as a context manager; open for reading and writing.

    It is gone after success. After a failure that another try may mend it stays with what has arrived. Where
    another process is fetching the same blob, the file is a private one.
    """

    def __init__(self, staging: Staging, digest: str) -> None:
        self._staging = staging
        self._path = f"{staging.store.directory}/partial/{digest}"
        self._digest = digest

    def __enter__(self) -> IO[bytes]:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if not _lock(fd) or not _same(fd, self._path):
            os.close(fd)
            self._path = f"{self._staging.path}/fetched-{self._digest}"
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "r+b")
        return self._file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A blob that is not what it should be is of no use, and a full disk wants its space back.
        worth = error is not None and not (
            isinstance(error, OSError) or (isinstance(error, ContainustError) and error.code != "I006")
        )
        try:
            self._file.flush()
        except OSError:
            worth = False
        if not worth or os.fstat(self._file.fileno()).st_size == 0:
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass
        try:
            self._file.close()
        except OSError:
            pass  # of a full disk, whose error is on its way already


def remove_partial(directory: str, older: float = 0) -> int:
    """Remove what no process fetches of the store's ``partial/`` and is ``older`` (seconds); the bytes freed."""
    import time

    freed = 0
    try:
        names = os.listdir(f"{directory}/partial")
    except OSError:
        return 0
    for name in names:
        path = f"{directory}/partial/{name}"
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            s = os.fstat(fd)
            if time.time() - s.st_mtime >= older and _lock(fd) and _same(fd, path):
                os.unlink(path)
                freed += s.st_blocks * 512
        finally:
            os.close(fd)
    return freed


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(fd: int, path: str) -> bool:
    """Whether ``path`` still names the open file: who held the lock before may have removed it."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False
