"""Who supervises: a locked file in ``run/`` a supervised unit (a stack's file, or one container of `run --image`).

The lock is the kernel's: it is gone the moment its holder is, whatever ended it.
"""

from __future__ import annotations

import fcntl
import time

from containust.common import os
from containust.common.errors import ContainustError
from containust.runtime import process
from containust.runtime.project import project_id
from containust.runtime.state import permission

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.project import Project

HANDOVER = 10  # SIGUSR1
PATIENCE = 15.0


class Ownership:
    """The right to supervise one unit."""

    __slots__ = ("_fd", "inherited", "path")

    def __init__(self, project: Project, unit: str) -> None:
        self.path = lock_path(project, unit)
        self._fd = -1
        self.inherited = False  # taken from one that was killed

    def take(self) -> None:
        """Become the supervisor; a present one is asked to hand over and does so without touching a container.

        Raises ContainustError S002 when it does not within 15 s, S003 where nothing can be written.
        """
        deadline = time.monotonic() + PATIENCE
        asked = 0
        while True:
            try:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise permission(self.path, error) from None
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                owner = self._owner()
                os.close(self._fd)
                if owner and owner[0] != asked:
                    pidfd = process.open_pidfd(*owner)
                    if pidfd >= 0:
                        process.send(pidfd, HANDOVER)
                        os.close(pidfd)
                        asked = owner[0]
                if time.monotonic() > deadline:
                    raise ContainustError(
                        "S002",
                        f"another ctst (pid {owner[0] if owner else 'unknown'}) is changing this stack",
                        "wait for it to finish, or end it",
                    ) from None
                time.sleep(0.002)
                continue
            try:
                same = os.fstat(self._fd).st_ino == os.stat(self.path).st_ino
            except FileNotFoundError:
                same = False
            if same:
                break
            os.close(self._fd)  # the former holder removed the file meanwhile
        self.inherited = self._owner() is not None
        try:
            self.write()
        except OSError as error:
            self.release()
            raise permission(self.path, error) from None

    def write(self) -> None:
        """Name the calling process as the holder (again after a fork: the lock is shared with the parent)."""
        pid = os.getpid()
        os.pwrite(self._fd, f"{pid} {process.start_ticks(pid)}\n".encode().ljust(40), 0)

    def _owner(self) -> tuple[int, int] | None:
        words = os.pread(self._fd, 64, 0).split()
        return (int(words[0]), int(words[1])) if len(words) == 2 else None

    def leave(self) -> None:
        """Give the right up to a process that takes it now; it needs no room for the file on a full disk."""
        os.close(self._fd)
        self._fd = -1

    def release(self) -> None:
        """Give the right up and remove the file."""
        if self._fd >= 0:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
            os.close(self._fd)
            self._fd = -1

    @classmethod
    def seize(cls, project: Project) -> list[Ownership]:
        """The rights whose holders were killed: a holder that ends well removes its file. To be released."""
        found: list[Ownership] = []
        for path in cls.files(project):
            one = cls.__new__(cls)
            one.path = path
            try:
                one._fd = os.open(one.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(one._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(one._fd).st_ino == os.stat(one.path).st_ino:
                    found.append(one)
                    continue
            except OSError:
                pass
            os.close(one._fd)
        return found

    @staticmethod
    def held(project: Project, unit: str) -> bool:
        """Whether a live process supervises ``unit``."""
        return _locked(lock_path(project, unit))

    @staticmethod
    def files(project: Project) -> list[str]:
        """The lock files of the project, held or not."""
        try:
            names = os.listdir(project.run)
        except OSError:
            return []
        return [f"{project.run}/{name}" for name in names if name.endswith(".lock")]

    @staticmethod
    def locked(path: str) -> bool:
        """Whether a live process holds the lock file ``path``."""
        return _locked(path)


def lock_path(project: Project, unit: str) -> str:
    """The lock file of a unit."""
    return f"{project.run}/{project_id(unit)}.lock"


def _locked(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # A shared lock fails while the supervisor holds its exclusive one, and disturbs nobody else who asks.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
