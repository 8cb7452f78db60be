"""A deterministic tar of host files: sorted, with owners, modes, times, extended attributes and hard
links.
"""

from __future__ import annotations

import os
from stat import S_IFMT, S_ISDIR, S_ISFIFO, S_ISLNK, S_ISREG

from containust.common.errors import ContainustError
from containust.image import tar_writer
from containust.image.members import show
from containust.image.tar_index import DROPPED_XATTRS, KEPT_XATTRS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

SMALL = 1 << 17


class Packer:
    """Writes members into a new tar file ``path``; :meth:`close` ends it."""

    def __init__(self, path: str) -> None:
        self._file: BinaryIO = open(path, "xb", buffering=1 << 20)
        self._links: dict[tuple[int, int], bytes] = {}
        self.size = 0

    def add(self, name: bytes, source: str | bytes, s: os.stat_result, *, owned: bool = True) -> None:
        """Add the host file ``source``, whose lstat is ``s``, as ``name``; sockets and devices are left out.

        Without ``owned`` it belongs to root in the tar, and is not set-user-id. Raises I001 when it cannot
        be read or changes meanwhile.
        """
        mode = s.st_mode
        uid, gid = s.st_uid, s.st_gid
        if not owned:
            uid = gid = 0
            mode &= ~0o6000
        xattrs = self._xattrs(source) if not S_ISLNK(mode) else []
        if S_ISDIR(mode):
            self._header(name, tar_writer.DIRECTORY, mode, uid, gid, 0, s.st_mtime_ns, b"", xattrs)
            return
        if s.st_nlink > 1:
            first = self._links.setdefault((s.st_dev, s.st_ino), name)
            if first != name:
                self._header(name, tar_writer.HARD_LINK, mode, uid, gid, 0, s.st_mtime_ns, first)
                return
        if S_ISLNK(mode):
            target = os.readlink(os.fsencode(source))
            self._header(name, tar_writer.SYMBOLIC_LINK, 0o777, uid, gid, 0, s.st_mtime_ns, target)
        elif S_ISREG(mode):
            self._header(name, tar_writer.REGULAR, mode, uid, gid, s.st_size, s.st_mtime_ns, b"", xattrs)
            self._content(source, s)
        elif S_ISFIFO(mode):
            self._header(name, tar_writer.FIFO, mode, uid, gid, 0, s.st_mtime_ns, b"", xattrs)

    def directory(self, name: bytes, mode: int = 0o755) -> None:
        """Add a directory that no host directory stands for."""
        self._header(name, tar_writer.DIRECTORY, mode, 0, 0, 0, 0)

    def text(self, name: bytes, content: bytes, mode: int = 0o644) -> None:
        """Add a file with the given content."""
        self._header(name, tar_writer.REGULAR, mode, 0, 0, len(content), 0)
        self._file.write(content + tar_writer.padding(len(content)))

    def symlink(self, name: bytes, target: bytes) -> None:
        """Add a symbolic link."""
        self._header(name, tar_writer.SYMBOLIC_LINK, 0o777, 0, 0, 0, 0, target)

    def flushed(self) -> int:
        """The bytes of the file, all of which its readers see."""
        self._file.flush()
        return os.lseek(self._file.fileno(), 0, os.SEEK_CUR)

    def close(self) -> None:
        """Write the end marker."""
        self._file.write(tar_writer.END)
        self._file.close()

    def _header(
        self,
        name: bytes,
        kind: bytes,
        mode: int,
        uid: int,
        gid: int,
        size: int,
        mtime: int,
        target: bytes = b"",
        xattrs: list[tuple[str, bytes]] | None = None,
    ) -> None:
        self._file.write(tar_writer.header(name, kind, mode, uid, gid, size, mtime, target, xattrs or ()))
        self.size += size

    def _content(self, source: str | bytes, s: os.stat_result) -> None:
        try:
            fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise unreadable(source, error) from error
        try:
            now = os.fstat(fd)
            if (now.st_ino, now.st_size, now.st_ctime_ns, S_IFMT(now.st_mode)) != (
                s.st_ino,
                s.st_size,
                s.st_ctime_ns,
                S_IFMT(s.st_mode),
            ):
                raise changed(source)
            if s.st_size <= SMALL:
                data = os.read(fd, s.st_size + 1)
                while len(data) < s.st_size and (more := os.read(fd, s.st_size - len(data))):
                    data += more
                if len(data) != s.st_size:
                    raise changed(source)
                self._file.write(data + tar_writer.padding(len(data)))
                return
            self._file.flush()
            left = s.st_size
            out = self._file.fileno()
            while left:
                sent = os.sendfile(out, fd, None, left)
                if sent == 0:
                    raise changed(source)
                left -= sent
            if os.fstat(fd).st_ctime_ns != s.st_ctime_ns:
                raise changed(source)
            self._file.write(tar_writer.padding(s.st_size))
        finally:
            os.close(fd)

    @staticmethod
    def _xattrs(source: str | bytes) -> list[tuple[str, bytes]]:
        try:
            names = os.listxattr(source, follow_symlinks=False)
        except OSError:
            return []
        found = []
        for name in names:
            if name.startswith(KEPT_XATTRS) and not name.startswith(DROPPED_XATTRS):
                try:
                    found.append((name, os.getxattr(source, name, follow_symlinks=False)))
                except OSError:
                    continue
        return found


def unreadable(path: str | bytes, error: OSError) -> ContainustError:
    """The I001 error of a host file that cannot be read."""
    return ContainustError(
        "I001",
        f"cannot read {show(os.fsencode(path))}: {error.strerror}",
        "check that it exists and that you may read it",
    )


def changed(path: str | bytes) -> ContainustError:
    """The I001 error of a host file that changes while it is being read."""
    return ContainustError(
        "I001",
        f"{show(os.fsencode(path))} changed while it was being read",
        "stop what writes to it and run again; `live = true` uses a changing directory as it is",
    )
