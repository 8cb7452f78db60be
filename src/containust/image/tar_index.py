"""Where everything lies in a tar file: one pass over the headers, no content read.

Reads ustar, GNU (long names, sparse, base-256 numbers) and pax (extended attributes, sub-second times,
sparse 0.0, 0.1
and 1.0); POSIX.1-2001 pax, "GNU tar: Basic Tar Format". What follows the end marker is ignored.
Every header is hostile input: checksums, bounds, numbers and names are checked after pax records have been
applied,
and damage is I004 with the position, an unsafe member I003 with its name.
"""

from __future__ import annotations

from struct import Struct
from zlib import adler32

from containust.common.errors import ContainustError
from containust.image.limits import HEADER_MAX, exceeded
from containust.image.members import (
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFREG,
    WHITEOUT,
    Entry,
    heavy,
    show,
    unsafe,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

    from containust.image.limits import Limits

BLOCK = 512
ZERO = bytes(BLOCK)
ID_MAX = 0xFFFFFFFE  # 2**32 - 1 is "no id" to the kernel

_HEADER = Struct("100s8s8s8s12s12s8sc100s8s64s8s8s155s12x")
_TYPES = {
    b"0": S_IFREG,
    b"\0": S_IFREG,
    b"7": S_IFREG,
    b"S": S_IFREG,
    b"1": S_IFREG,
    b"2": S_IFLNK,
    b"3": S_IFCHR,
    b"4": S_IFBLK,
    b"5": S_IFDIR,
    b"D": S_IFDIR,
    b"6": S_IFIFO,
}
# Extended attributes that mean the same on every host. Those of overlayfs would redirect lookups in a lower
# directory.
KEPT_XATTRS = (
    "user.",
    "security.capability",
    "system.posix_acl_access",
    "system.posix_acl_default",
    "trusted.",
)
DROPPED_XATTRS = ("trusted.overlay.", "user.overlay.", "trusted.SGI_")
# What a global header may say of every member after it; one attribute would become a million.
GLOBAL = frozenset(("path", "linkpath", "size", "uid", "gid", "mtime"))


def scan(data: mmap | bytes, limits: Limits) -> Iterator[Entry]:
    """Every member of the tar in ``data``, in order; offsets count from the start of ``data``.

    Raises I004 for damage, I003 for an unsafe member or a passed bound.
    """
    end = len(data)
    position = 0
    count = 0
    total = 0
    weight = 0
    extended = 0
    pax: dict[str, bytes] = {}
    global_pax: dict[str, bytes] = {}
    numbers: dict[bytes, int] = {}
    unpack = _HEADER.unpack
    while position < end:
        header = data[position : position + BLOCK]
        if len(header) < BLOCK:
            if header.strip(b"\0"):
                raise damaged(position, "the archive ends within a header")
            break
        if header == ZERO:
            following = data[position + BLOCK : position + 2 * BLOCK]
            if following.strip(b"\0"):
                raise damaged(position + BLOCK, "data follow a single empty block")
            break
        name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, major, minor, prefix = unpack(header)
        if byte_sum(header) - sum(checksum) + 256 != number(checksum, position):
            raise damaged(position, "a header's checksum is wrong")
        count += 1
        if count > limits.entries:
            raise exceeded(
                f"the archive has more than {limits.entries} entries, at {show(text_of(name))!r}",
                "CONTAINUST_IMAGE_MAX_ENTRIES",
            )
        length = number(size, position)
        content = position + BLOCK

        if kind in b"xgLK":
            extended += length
            if extended > HEADER_MAX:
                raise damaged(position, "a member has more than 4 MiB of extended headers")
            body = bytes(data[content : content + length])
            if len(body) < length:
                raise damaged(position, "the archive ends within an extended header")
            if kind == b"L":
                pax["path"] = text_of(body)
            elif kind == b"K":
                pax["linkpath"] = text_of(body)
            elif kind == b"x":
                _records(body, pax, position)
            else:
                _records(body, global_pax, position)
                if any(key.startswith("GNU.sparse.") for key in global_pax):
                    raise unsafe(text_of(name), "is a global header with the map of a sparse file")
                global_pax = {key: value for key, value in global_pax.items() if key in GLOBAL}
            position = content + (length + BLOCK - 1) // BLOCK * BLOCK
            continue
        if kind == b"V":
            position = content
            pax = {}
            continue
        extended = 0
        fmt = _TYPES.get(kind)
        if fmt is None:
            raise unsafe(text_of(name), f"is of type {kind!r}, which is none that an image can have")

        path = text_of(name)
        if magic.startswith(b"ustar\0") and prefix[0]:
            path = text_of(prefix) + b"/" + path
        target = text_of(link) if kind in b"12" else b""
        try:
            permissions = numbers[mode]
        except KeyError:
            permissions = numbers[mode] = number(mode, position)
        try:
            owner = numbers[uid]
        except KeyError:
            owner = numbers[uid] = number(uid, position)
        try:
            group = numbers[gid]
        except KeyError:
            group = numbers[gid] = number(gid, position)
        try:
            time = numbers[mtime]
        except KeyError:
            time = numbers[mtime] = number(mtime, position, negative=True) * 1_000_000_000
        xattrs = None
        segments = None
        apparent = -1
        if pax or global_pax:
            both = {**global_pax, **pax} if global_pax else pax
            path = both.get("path", path)
            if kind in b"12":
                target = both.get("linkpath", target)
            if "size" in both:
                length = decimal(both["size"], path)
            if "uid" in both:
                owner = decimal(both["uid"], path)
            if "gid" in both:
                group = decimal(both["gid"], path)
            if "mtime" in both:
                time = nanoseconds(both["mtime"], path)
            xattrs = _xattrs(pax) or None
            if "GNU.sparse.name" in both:
                path = both["GNU.sparse.name"]
            if "GNU.sparse.major" in both or "GNU.sparse.map" in both or "GNU.sparse.numblocks" in both:
                segments, apparent, skip = _pax_sparse(both, data, content, length, path)
                stored = (length + BLOCK - 1) // BLOCK * BLOCK
                position_after = content + stored
                content += skip
                length -= skip
            pax = {}
        if fmt == S_IFREG and kind != b"1" and path.endswith(b"/"):
            fmt = S_IFDIR  # the form of directories before 1988
        if fmt != S_IFREG or kind == b"1":
            length = 0
        if kind == b"S":
            segments, apparent, content = _gnu_sparse(header, data, position, path)
        if segments is None or kind == b"S":
            position_after = content + (length + BLOCK - 1) // BLOCK * BLOCK
        if content + length > end:
            raise damaged(position, f"the archive ends within {show(path)!r}")
        if length and position_after > end and segments is None:
            # What fills the last block is missing, as umoci leaves it: it is copied to where there are whole blocks.
            segments, apparent = [(0, length)], length
        if owner > ID_MAX or group > ID_MAX:
            raise unsafe(path, "has an owner beyond 2^32 - 2")
        if len(path) > limits.path or len(target) > limits.path:
            raise exceeded(
                f"entry {show(path)!r}... has a path or link of more than {limits.path} bytes",
                "CONTAINUST_IMAGE_MAX_PATH",
            )
        if fmt == S_IFLNK and not target:
            raise unsafe(path, "is a symbolic link to nothing")
        if b"\0" in path or b"\0" in target:
            raise unsafe(path, "has a NUL byte in its name or link")
        size_now = length if segments is None else apparent
        if segments is not None:
            _check_segments(segments, apparent, length, path)
        total += size_now
        if total > limits.size:
            raise exceeded(
                f"the archive holds more than {limits.size} bytes, at {show(path)!r}",
                "CONTAINUST_IMAGE_MAX_SIZE",
            )
        offset = content
        if kind == b"3" and number(major, position) == 0 and number(minor, position) == 0:
            offset = WHITEOUT
        entry = Entry(
            path,
            fmt | permissions & 0o7777,
            owner,
            group,
            time,
            size_now,
            offset,
            target,
            kind == b"1",
            xattrs,
            segments,
        )
        weight += entry.weight()
        if weight > limits.metadata:
            raise heavy(path, limits)
        yield entry
        position = position_after


def byte_sum(header: bytes) -> int:
    """``sum(header)`` of a block, five times as fast: below 65521 the low half of an Adler-32 is one more than it."""
    return (adler32(header[:256]) & 0xFFFF) + (adler32(header[256:]) & 0xFFFF) - 2


def text_of(field: bytes) -> bytes:
    """A NUL-terminated field without what follows the NUL."""
    return field.partition(b"\0")[0]


def number(field: bytes, position: int, negative: bool = False) -> int:
    """A numeric header field: octal text, or base-256 when its first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        if field[0] == 0xFF:
            value -= 1 << 8 * len(field)
        else:
            value &= (1 << 8 * len(field) - 1) - 1
        if (value < 0 and not negative) or abs(value) >= 1 << 63:
            raise damaged(position, "a header has a number out of range")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not digits:
        return 0
    if not digits.isdigit():
        raise damaged(position, "a header has a number that is none")
    try:
        return int(digits, 8)
    except ValueError:
        raise damaged(position, "a header has a number that is none") from None


def decimal(value: bytes, path: bytes) -> int:
    """A pax record's unsigned decimal number."""
    if not value.isdigit() or len(value) > 19:
        raise unsafe(path, f"has the pax number {show(value)!r}")
    return int(value)


def nanoseconds(value: bytes, path: bytes) -> int:
    """A pax time, seconds with a fraction and perhaps a sign, in nanoseconds."""
    whole, _, fraction = value.partition(b".")
    sign = -1 if whole.startswith(b"-") else 1
    whole = whole.lstrip(b"-")
    if (whole and not whole.isdigit()) or (fraction and not fraction.isdigit()) or len(whole) > 18:
        raise unsafe(path, f"has the pax time {show(value)!r}")
    return sign * (int(whole or b"0") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))


def _records(body: bytes, into: dict[str, bytes], position: int) -> None:
    """The records of a pax header, ``<length> <key>=<value>\\n`` each."""
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 20)
        if space < 0:
            if body[at:].strip(b"\0"):
                raise damaged(position, "a pax header is malformed")
            return
        digits = body[at:space]
        if not digits.isdigit():
            raise damaged(position, "a pax header is malformed")
        stop = at + int(digits)
        if stop > len(body) or stop <= space or body[stop - 1] != 10:
            raise damaged(position, "a pax header is malformed")
        key, equals, value = body[space + 1 : stop - 1].partition(b"=")
        if not equals:
            raise damaged(position, "a pax header is malformed")
        name = key.decode("utf-8", "surrogateescape")
        if name in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            # Format 0.0 repeats its two keys; joined, they are format 0.1.
            earlier = into.get("GNU.sparse.map")
            into["GNU.sparse.map"] = value if earlier is None else earlier + b"," + value
        elif value or name.startswith("SCHILY.xattr."):
            into[name] = value
        else:
            into.pop(name, None)  # an empty value takes a global record back
        at = stop


def _xattrs(pax: dict[str, bytes]) -> dict[str, bytes]:
    found = {}
    for key, value in pax.items():
        if key.startswith("SCHILY.xattr."):
            name = key[13:]
        elif key.startswith("LIBARCHIVE.xattr."):
            name = key[17:]
            if "SCHILY.xattr." + name in pax:
                continue
            from base64 import b64decode

            try:
                value = b64decode(value + b"=" * (-len(value) % 4))
            except ValueError:
                continue
        else:
            continue
        if name.startswith(KEPT_XATTRS) and not name.startswith(DROPPED_XATTRS):
            found[name] = value
    return found


def _gnu_sparse(
    header: bytes, data: mmap | bytes, position: int, path: bytes
) -> tuple[list[tuple[int, int]], int, int]:
    """The map of an old GNU sparse member, its apparent size, and where its data begin."""
    segments = []
    table = header[386:482]
    more = header[482]
    apparent = number(header[483:495], position)
    content = position + BLOCK
    while True:
        for at in range(0, len(table) // 24 * 24, 24):
            pair = table[at : at + 24]
            if not pair[12]:
                break
            segments.append((number(pair[:12], position), number(pair[12:24], position)))
        if not more:
            return segments, apparent, content
        block = bytes(data[content : content + BLOCK])
        if len(block) < BLOCK or len(segments) > 1_000_000:
            raise unsafe(path, "has a sparse map without an end")
        table, more = block[:504], block[504]
        content += BLOCK


def _pax_sparse(
    pax: dict[str, bytes], data: mmap | bytes, content: int, length: int, path: bytes
) -> tuple[list[tuple[int, int]], int, int]:
    """The map of a pax sparse member, its apparent size, and how many bytes of its content are the map."""
    apparent = decimal(pax.get("GNU.sparse.realsize") or pax.get("GNU.sparse.size") or b"", path)
    if pax.get("GNU.sparse.major") == b"1":
        head = bytes(data[content : content + min(length, HEADER_MAX)])
        first, newline, _ = head.partition(b"\n")
        count = decimal(first, path)
        if not newline or count > 1_000_000:
            raise unsafe(path, "has a damaged sparse map")
        lines = head.split(b"\n", 2 * count + 1)
        if len(lines) < 2 * count + 2:
            raise unsafe(path, "has a damaged sparse map")
        numbers = [decimal(line, path) for line in lines[1 : 2 * count + 1]]
        used = sum(len(line) + 1 for line in lines[: 2 * count + 1])
        skip = (used + BLOCK - 1) // BLOCK * BLOCK
    else:
        text = pax.get("GNU.sparse.map", b"")
        numbers = [decimal(item, path) for item in text.split(b",")] if text else []
        skip = 0
    if len(numbers) % 2 or skip > length:
        raise unsafe(path, "has a damaged sparse map")
    return list(zip(numbers[::2], numbers[1::2], strict=True)), apparent, skip


def _check_segments(segments: list[tuple[int, int]], apparent: int, stored: int, path: bytes) -> None:
    at = 0
    held = 0
    for offset, size in segments:
        if offset < at or offset + size > apparent:
            raise unsafe(path, "has a sparse map that overlaps or leaves the file")
        at = offset + size
        held += size
    if held > stored:
        raise unsafe(path, "has a sparse map of more data than the archive holds")


def damaged(position: int, why: str) -> ContainustError:
    """The I004 error of a tar that cannot be read on, at byte ``position``."""
    return ContainustError(
        "I004", f"not a valid tar archive: {why} (at byte {position})", "download or make the archive again"
    )
