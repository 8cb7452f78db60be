"""Members of archives as they were found: names that nobody has vetted, and what is said about bad ones."""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.image.limits import exceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.image.limits import Limits

S_IFMT = 0o170000
S_IFSOCK = 0o140000
S_IFLNK = 0o120000
S_IFREG = 0o100000
S_IFBLK = 0o060000
S_IFDIR = 0o040000
S_IFCHR = 0o020000
S_IFIFO = 0o010000

NAME_MAX = 255
WHITEOUT = -1  # as an entry's offset: the member is overlayfs's whiteout, a character device 0:0


class Entry:
    """One member of a layer: what a tar header says, with pax records applied.

    ``path`` and ``target`` (of a symbolic or hard link) are bytes, ``mode`` carries the file type, ``mtime``
    is in
    nanoseconds, ``offset`` where the content begins in the layer's file, ``xattrs`` maps full names to
    values.
    ``segments`` is the map of a sparse member, (offset, length) pairs of its data, else None.
    """

    __slots__ = (
        "gid",
        "hardlink",
        "mode",
        "mtime",
        "offset",
        "path",
        "segments",
        "size",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(
        self,
        path: bytes,
        mode: int,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 0,
        size: int = 0,
        offset: int = 0,
        target: bytes = b"",
        hardlink: bool = False,
        xattrs: dict[str, bytes] | None = None,
        segments: list[tuple[int, int]] | None = None,
    ) -> None:
        self.path = path
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.size = size
        self.offset = offset
        self.target = target
        self.hardlink = hardlink
        self.xattrs = xattrs
        self.segments = segments

    def weight(self) -> int:
        """The bytes of memory, about, that its names, attributes and maps take."""
        size = len(self.path) + len(self.target)
        if self.xattrs:
            size += sum(len(name) + len(value) for name, value in self.xattrs.items())
        if self.segments:
            size += 16 * len(self.segments)
        return size


def components(path: bytes) -> list[bytes]:
    """The components of a member's path; ``./`` and doubled slashes are fine, ``..`` and over-long names
    are I003.
    """
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    for part in parts:
        if part == b"..":
            raise unsafe(path, "climbs out with '..'")
        if len(part) > NAME_MAX:
            raise unsafe(path, f"has a name of more than {NAME_MAX} bytes")
        if b"\0" in part:
            raise unsafe(path, "has a NUL byte in its name")
    return parts


def show(name: bytes) -> str:
    """A name as it may be printed: undecodable and control characters escaped, long ones cut."""
    text = name[:200].decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def unsafe(path: bytes, why: str) -> ContainustError:
    """The I003 error about one entry."""
    return ContainustError(
        "I003",
        f"entry {show(path)!r} {why}",
        "the archive is damaged or was made to do harm; nothing of it was kept",
    )


def heavy(path: bytes, limits: Limits) -> ContainustError:
    """The I003 error of more names and attributes than memory should hold."""
    return exceeded(
        f"the archive has more than {limits.metadata} bytes of names and attributes, at {show(path)!r}",
        "CONTAINUST_IMAGE_MAX_METADATA",
    )
