"""Deterministic tar headers: the same tree gives the same bytes on every host and with every Python.

Members are ustar; what ustar cannot say (long names, large numbers, fractions of a second, extended
attributes) goes
into a pax header before it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = 512
END = bytes(2 * BLOCK)

REGULAR = b"0"
HARD_LINK = b"1"
SYMBOLIC_LINK = b"2"
DIRECTORY = b"5"
FIFO = b"6"


def header(
    path: bytes,
    kind: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    target: bytes = b"",
    xattrs: Iterable[tuple[str, bytes]] = (),
) -> bytes:
    """The header blocks of one member. ``mtime`` is in nanoseconds; directories' paths get their slash
    here.
    """
    if kind == DIRECTORY and not path.endswith(b"/"):
        path += b"/"
    seconds, fraction = divmod(mtime, 1_000_000_000)
    records = []
    if len(path) > 100:
        records.append((b"path", path))
    if len(target) > 100:
        records.append((b"linkpath", target))
    if size >= 1 << 33:
        records.append((b"size", b"%d" % size))
    if uid >= 1 << 21:
        records.append((b"uid", b"%d" % uid))
    if gid >= 1 << 21:
        records.append((b"gid", b"%d" % gid))
    if fraction or seconds < 0 or seconds >= 1 << 33:
        sign, rest = (b"-", -mtime) if mtime < 0 else (b"", mtime)
        text = b"%d.%09d" % divmod(rest, 1_000_000_000)
        records.append((b"mtime", sign + text.rstrip(b"0").rstrip(b".")))
    for name, value in sorted(xattrs):
        records.append((b"SCHILY.xattr." + name.encode("utf-8", "surrogateescape"), value))
    out = b""
    if records:
        body = b"".join(_record(key, value) for key, value in records)
        out = _block(b"././@PaxHeader", b"x", 0o644, 0, 0, len(body), 0, b"") + body + bytes(-len(body) % BLOCK)
    return out + _block(
        path[:100],
        kind,
        mode & 0o7777,
        uid if uid < 1 << 21 else 0,
        gid if gid < 1 << 21 else 0,
        size if size < 1 << 33 else 0,
        seconds if 0 <= seconds < 1 << 33 else 0,
        target[:100],
    )


def padding(size: int) -> bytes:
    """What fills the last block after ``size`` bytes of content."""
    return bytes(-size % BLOCK)


def _block(path: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, target: bytes) -> bytes:
    block = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0        %s%sustar\x0000%s" % (
        path.ljust(100, b"\0"),
        mode,
        uid,
        gid,
        size,
        mtime,
        kind,
        target.ljust(100, b"\0"),
        bytes(247),
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)
