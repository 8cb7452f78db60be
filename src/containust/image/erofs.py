"""EROFS metadata over files that hold the contents already.

:func:`write` turns a :class:`~containust.image.tree.Tree` into an EROFS image with inodes, directories,
symbolic links
and extended attributes only: the data of a regular file are found in one of the extra devices (the layers'
tar files),
by an address in the unified block space. The kernel then mounts the tree without anything having been
unpacked
(``mount -t erofs -o device=layer.tar``). Format: linux/fs/erofs/erofs_fs.h,
Documentation/filesystems/erofs.rst.

Blocks have 512 bytes, since that is what tar aligns contents to; this needs Linux 6.4. Only the parts of the
format
are used that never changed: extended inodes, flat data with or without an inline tail, a device table.
"""

from __future__ import annotations

from struct import Struct

from containust.common.errors import ContainustError
from containust.image.members import (
    S_IFDIR,
    S_IFIFO,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.image.tree import Node, Tree

BLOCK_BITS = 9
BLOCK = 1 << BLOCK_BITS
MAGIC = 0xE0F5E1E2
SUPER_OFFSET = 1024
SUPER_SIZE = 128
UUID_OFFSET = SUPER_OFFSET + 48
SLOT = 32  # the unit of an inode number
INODE_SIZE = 64
DIRENT_SIZE = 12
FEATURE_COMPAT_MTIME = 0x2
FEATURE_INCOMPAT_DEVICE_TABLE = 0x8
FLAT_PLAIN = 0
FLAT_INLINE = 2
NO_ADDRESS = 0xFFFFFFFF
XATTR_HEADER = 12

# Longest prefix first: which number stands for the beginning of an attribute's name.
XATTR_PREFIXES = (
    ("system.posix_acl_access", 2),
    ("system.posix_acl_default", 3),
    ("user.", 1),
    ("trusted.", 4),
    ("security.", 6),
)

_SUPER = Struct("<IIIBBHQQIIII16s16sIHHHBBIQ")
_INODE = Struct("<HHHHQIIIIQII16x")
_DIRENT = Struct("<QHBB")
_DEVICE = Struct("<64sIIIH50x")
_FILE_TYPES = {S_IFREG: 1, S_IFDIR: 2, S_IFIFO: 5, S_IFLNK: 7}


def write(tree: Tree, device_sizes: list[int]) -> bytearray:
    """The EROFS image of ``tree``, the same for the same tree, with a UUID of zeros.

    ``device_sizes`` are the lengths in bytes of the files that will be given as ``device=``, in order; a node's
    ``device`` counts from 0 in it. Raises I003 when a tree does not fit into the format.
    """
    devices = bytearray()
    first_blocks = []
    slots_at = SUPER_OFFSET + SUPER_SIZE
    inodes_at = _aligned(slots_at + 128 * len(device_sizes), BLOCK)

    nodes, parents = _number(tree)
    layout = _Layout(inodes_at)
    plain: list[tuple[Node, int]] = []  # directories and links whose data get blocks of their own, and their sizes
    bodies: list[bytes] = []
    for node in nodes:
        body = _xattr_body(node)
        bodies.append(body)
        kind = node.mode & S_IFMT
        length = 0
        if kind == S_IFDIR:
            length = _directory_size(node)
        elif kind == S_IFLNK:
            length = len(node.target)
        inline = 0 < length <= BLOCK - INODE_SIZE - len(body)
        node.nid = layout.place(INODE_SIZE + len(body), length if inline else 0)
        if length and not inline:
            plain.append((node, length))
    data_at = _aligned(layout.end, BLOCK)
    addresses: dict[int, int] = {}
    end = data_at
    for node, length in plain:
        addresses[node.number] = end >> BLOCK_BITS
        end = _aligned(end + length, BLOCK)
    blocks = end >> BLOCK_BITS

    next_block = blocks
    for size in device_sizes:
        count = (size + BLOCK - 1) >> BLOCK_BITS
        first_blocks.append(next_block)
        devices += _DEVICE.pack(b"", count, next_block, 0, 0)
        next_block += count
    if next_block >= NO_ADDRESS:
        raise ContainustError("I003", "the image's layers hold more than 2 TiB", "split the image")

    image = bytearray(end)
    for node, body in zip(nodes, bodies, strict=True):
        kind = node.mode & S_IFMT
        data = b""
        address = NO_ADDRESS
        size = 0
        data_layout = FLAT_PLAIN
        if kind == S_IFDIR:
            data = _directory(node, parents[node.number])
            size = len(data)
        elif kind == S_IFLNK:
            data = node.target
            size = len(data)
        elif kind == S_IFREG:
            size = node.size
            if size:
                address = first_blocks[node.device] + (node.offset >> BLOCK_BITS)
        at = node.nid * SLOT
        if data:
            if node.number in addresses:
                address = addresses[node.number]
                start = address << BLOCK_BITS
                image[start : start + size] = data
            else:
                data_layout = FLAT_INLINE
                start = at + INODE_SIZE + len(body)
                image[start : start + size] = data
        seconds, nanoseconds = divmod(node.mtime, 1_000_000_000)
        _INODE.pack_into(
            image,
            at,
            data_layout << 1 | 1,
            (len(body) - XATTR_HEADER) // 4 + 1 if body else 0,
            node.mode,
            0,
            size,
            address,
            node.number,
            node.uid,
            node.gid,
            seconds & 0xFFFFFFFFFFFFFFFF,
            nanoseconds,
            node.nlink,
        )
        image[at + INODE_SIZE : at + INODE_SIZE + len(body)] = body
    image[slots_at : slots_at + len(devices)] = devices
    _SUPER.pack_into(
        image,
        SUPER_OFFSET,
        MAGIC,
        0,  # no checksum: the manifest has the digest of the whole image
        FEATURE_COMPAT_MTIME,
        BLOCK_BITS,
        0,
        tree.root.nid,
        len(nodes),
        0,
        0,
        blocks,
        0,
        0,
        b"",
        b"",
        FEATURE_INCOMPAT_DEVICE_TABLE,
        0,
        len(device_sizes),
        slots_at >> 7,
        0,
        0,
        0,
        0,
    )
    return image


def with_uuid(image: bytearray, uuid: bytes) -> bytes:
    """The image with the 16 bytes ``uuid`` in its superblock."""
    image[UUID_OFFSET : UUID_OFFSET + 16] = uuid
    return bytes(image)


class _Layout:
    """Where inodes go: at 32-byte slots, an inline tail never across a block's end."""

    def __init__(self, start: int) -> None:
        self.end = start

    def place(self, head: int, tail: int) -> int:
        at = _aligned(self.end, SLOT)
        if tail and (at + head) // BLOCK != (at + head + tail - 1) // BLOCK:
            at = _aligned(at, BLOCK)  # head and tail together fit into one block: the caller sees to it
        self.end = at + head + tail
        return at // SLOT


def _number(tree: Tree) -> tuple[list[Node], dict[int, Node]]:
    """Every inode once, numbered in walking order from 1, with its link count; and each directory's
    parent.
    """
    nodes: list[Node] = []
    parents: dict[int, Node] = {}
    for node in tree.nodes():
        node.nlink = 0
        node.number = 0
    root = tree.root
    root.number = 1
    nodes.append(root)
    parents[1] = root
    root.nlink = 2
    queue = [root]
    for directory in queue:
        assert directory.children is not None
        for name in sorted(directory.children):
            node = directory.children[name]
            if not node.number:
                nodes.append(node)
                node.number = len(nodes)
            if node.children is not None:
                node.nlink = 2
                directory.nlink += 1
                parents[node.number] = directory
                queue.append(node)
            else:
                node.nlink += 1
    return nodes, parents


def _directory_size(node: Node) -> int:
    """Length in bytes of the directory's data: full blocks, then what the last one holds."""
    assert node.children is not None
    full = 0
    used = 0
    for name in sorted([b".", b"..", *node.children]):
        need = DIRENT_SIZE + len(name)
        if used + need > BLOCK:
            full += BLOCK
            used = 0
        used += need
    return full + used


def _directory(node: Node, parent: Node) -> bytes:
    """The directory's data: in each block the entries sorted by name, then the names."""
    assert node.children is not None
    children = node.children
    targets = {b".": node, b"..": parent}
    out = bytearray()
    block: list[tuple[bytes, Node]] = []
    used = 0

    def flush() -> None:
        names_at = DIRENT_SIZE * len(block)
        for name, target in block:
            out.extend(_DIRENT.pack(target.nid, names_at, _FILE_TYPES.get(target.mode & S_IFMT, 0), 0))
            names_at += len(name)
        for name, _ in block:
            out.extend(name)

    for name in sorted([b".", b"..", *children]):
        need = DIRENT_SIZE + len(name)
        if used + need > BLOCK:
            flush()
            out.extend(bytes(-len(out) % BLOCK))
            block = []
            used = 0
        block.append((name, children[name] if name in children else targets[name]))
        used += need
    flush()
    return bytes(out)


def _xattr_body(node: Node) -> bytes:
    """The inode's extended attributes as they follow it, empty when it has none; a multiple of 4 bytes."""
    if not node.xattrs:
        return b""
    body = bytearray(XATTR_HEADER)
    for name, value in sorted(node.xattrs.items()):
        for prefix, number in XATTR_PREFIXES:
            if name.startswith(prefix):
                index = number
                suffix = name[len(prefix) :].encode("utf-8", "surrogateescape")
                break
        else:
            continue
        if len(suffix) > 255 or len(value) > 0xFFFF:
            raise ContainustError("I003", f"extended attribute {name[:80]!r} is too long", "remove it and import again")
        body += bytes((len(suffix), index)) + len(value).to_bytes(2, "little") + suffix + value
        body += bytes(-len(body) % 4)
    if len(body) == XATTR_HEADER:
        return b""
    if (len(body) - XATTR_HEADER) // 4 + 1 > 0xFFFF:
        raise ContainustError(
            "I003", "an entry has more than 256 KiB of extended attributes", "remove them and import again"
        )
    return bytes(body)


def _aligned(value: int, unit: int) -> int:
    return (value + unit - 1) // unit * unit
