"""Paths inside a directory that plays the root: links are followed as a process with that root would follow them."""

from __future__ import annotations

import errno
import os
from stat import S_ISDIR, S_ISLNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SYMLINKS_MAX = 40
PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


class Root:
    """The directory ``path`` as a root; empty for the host's own. Paths given and returned start at the root."""

    __slots__ = ("path",)

    def __init__(self, path: str = "") -> None:
        self.path = path

    def host(self, path: str) -> str:
        """Where a path without symbolic links lies on the host."""
        return f"{self.path}{path}"

    def walk(self, path: str, passed: Callable[[str, os.stat_result], None] | None = None) -> str:
        """The real path of ``path``; ``passed`` gets each symbolic link on the way. Raises OSError."""
        current = ""
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        followed = 0
        while pending:
            part = pending.pop()
            if part == "..":
                current = current.rpartition("/")[0]
                continue
            candidate = f"{current}/{part}"
            s = os.lstat(self.path + candidate)
            if S_ISLNK(s.st_mode):
                followed += 1
                if followed > SYMLINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if passed is not None:
                    passed(candidate, s)
                target = os.readlink(self.path + candidate)
                if target.startswith("/"):
                    current = ""
                pending.extend(p for p in reversed(target.split("/")) if p not in ("", "."))
                continue
            if pending and not S_ISDIR(s.st_mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            current = candidate
        return current or "/"

    def real(self, path: str) -> str | None:
        """The real path of what exists, else None."""
        if not self.path:
            return os.path.realpath(path) if os.path.exists(path) else None
        try:
            return self.walk(path)
        except OSError:
            return None

    def is_directory(self, path: str) -> bool:
        """Whether ``path`` is a directory, or leads to one."""
        real = self.real(path)
        return real is not None and os.path.isdir(self.host(real))

    def read(self, path: str, most: int) -> bytes:
        """At most ``most`` bytes of a file. Raises OSError."""
        with open(self.host(self.walk(path)), "rb") as file:
            return file.read(most)

    def glob(self, pattern: str) -> list[str]:
        """What an absolute pattern matches, sorted; the directories before its first wildcard may be links."""
        from glob import glob, has_magic

        if not self.path:
            return sorted(glob(pattern))
        fixed = pattern
        while has_magic(fixed):
            fixed = os.path.dirname(fixed)
        if fixed == pattern:
            return [pattern] if self.real(pattern) is not None else []
        above = self.real(fixed)
        if above is None:
            return []
        rest = os.path.relpath(pattern, fixed)
        return [os.path.join(fixed, name) for name in sorted(glob(rest, root_dir=self.host(above)))]

    def which(self, name: str, directories: tuple[str, ...] = PATH) -> str | None:
        """The program that a shell with the default search path would run."""
        for directory in directories:
            real = self.real(f"{directory}/{name}")
            if real is not None and os.path.isfile(self.host(real)) and os.access(self.host(real), os.X_OK):
                return f"{directory}/{name}"
        return None
