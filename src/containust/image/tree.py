"""The merged tree of an image: what its layers amount to, before anything is written.

A :class:`Tree` is filled layer by layer. Whiteouts and opaque directories act on the layers below only (OCI
image-spec,
layer.md), so they are applied before the entries of their own layer, whatever their order in the archive.
File contents
stay where they are: a node says in which *device* (the index of a layer file) and at which offset they lie.

Names come from archives that nobody has vetted. A name here is always one path component without a slash,
and every
path is resolved inside the tree, so that no entry can point outside of it: there is no outside.
"""

from __future__ import annotations

from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
SYMLINKS_MAX = 40

# What a container's start mounts on or writes into. Directories and their modes, then empty files.
STANDARD_DIRECTORIES = {
    "proc": 0o555,
    "sys": 0o555,
    "dev": 0o755,
    "tmp": 0o1777,
    "run": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
    "etc": 0o755,
}
STANDARD_FILES = ("etc/hosts", "etc/hostname", "etc/resolv.conf")


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


class Node:
    """An inode of the merged tree. ``children`` is a dictionary for a directory, else None.

    ``device`` numbers the layer file that holds the content from ``offset`` on; ``layer`` is the layer that
    put the
    node here; ``implicit`` marks a directory that no entry described. ``nid``, ``number`` and ``nlink`` are
    the EROFS
    writer's.
    """

    __slots__ = (
        "children",
        "device",
        "gid",
        "implicit",
        "layer",
        "mode",
        "mtime",
        "nid",
        "nlink",
        "number",
        "offset",
        "segments",
        "size",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, mode: int, layer: int) -> None:
        self.mode = mode
        self.layer = layer
        self.uid = 0
        self.gid = 0
        self.mtime = 0
        self.size = 0
        self.device = 0
        self.offset = 0
        self.target = b""
        self.xattrs: dict[str, bytes] | None = None
        self.segments: list[tuple[int, int]] | None = None
        self.children: dict[bytes, Node] | None = {} if mode & S_IFMT == S_IFDIR else None
        self.implicit = False
        self.nid = 0
        self.nlink = 0
        self.number = 0


class Tree:
    """The layers merged so far.

    ``entries`` counts every member accepted and ``dropped`` the device nodes left out (a container gets its
    devices
    from the runtime, and nothing else may).
    """

    def __init__(self) -> None:
        self.root = Node(S_IFDIR | 0o755, 0)
        self.root.implicit = True
        self.layers = 0
        self.entries = 0
        self.dropped = 0

    def add_layer(self, entries: Iterable[Entry], device: int) -> None:
        """Merge one layer, whose contents lie in the file numbered ``device``. Raises I003 naming the bad
        entry.
        """
        self.layers += 1
        kept: list[tuple[list[bytes], Entry]] = []
        whiteouts: list[tuple[list[bytes], bytes]] = []
        opaques: list[list[bytes]] = []
        for entry in entries:
            parts = components(entry.path)
            self.entries += 1
            name = parts[-1] if parts else b""
            if name.startswith(b".wh."):
                if name == b".wh..wh..opq":
                    opaques.append(parts[:-1])
                elif name.startswith(b".wh..wh."):
                    continue  # aufs bookkeeping (.wh..wh.plnk, .wh..wh.aufs): never content
                else:
                    whiteouts.append((parts[:-1], _whited(name[4:], entry.path)))
            elif entry.offset == WHITEOUT:
                whiteouts.append((parts[:-1], name))  # overlayfs's own form: a character device 0:0
            else:
                kept.append((parts, entry))
        if self.layers > 1:
            for parts in opaques:
                directory = self.find(parts)
                if directory is not None and directory.children is not None:
                    directory.children.clear()
            for parts, name in whiteouts:
                directory = self.find(parts)
                if directory is not None and directory.children is not None:
                    directory.children.pop(name, None)
        cache: dict[bytes, Node] = {}
        for parts, entry in kept:
            self._apply(parts, entry, device, cache)

    def _apply(self, parts: list[bytes], entry: Entry, device: int, cache: dict[bytes, Node]) -> None:
        kind = entry.mode & S_IFMT
        if not parts:
            if kind != S_IFDIR:
                raise unsafe(entry.path, "is the root directory, but of another type")
            _describe(self.root, entry, self.layers)
            return
        key = b"/".join(parts[:-1])
        parent = cache.get(key)
        if parent is None:
            parent = self._directory(parts[:-1], entry.path)
            cache[key] = parent
        assert parent.children is not None
        name = parts[-1]
        if entry.hardlink:
            target = self.find(components(entry.target))
            if target is None:
                raise unsafe(entry.path, f"is a hard link to {show(entry.target)}, which the image does not have")
            if target.children is not None:
                raise unsafe(entry.path, f"is a hard link to the directory {show(entry.target)}")
            _forget_below(cache, parent.children.get(name))
            parent.children[name] = target
            return
        if kind in (S_IFCHR, S_IFBLK, S_IFSOCK):
            self.dropped += 1
            parent.children.pop(name, None)
            cache.clear()
            return
        existing = parent.children.get(name)
        if kind == S_IFDIR and existing is not None and existing.children is not None:
            _describe(existing, entry, self.layers)
            return
        _forget_below(cache, existing)
        node = Node(entry.mode, self.layers)
        _describe(node, entry, self.layers)
        if kind == S_IFREG:
            node.size, node.device, node.offset, node.segments = (
                entry.size,
                device,
                entry.offset,
                entry.segments,
            )
        elif kind == S_IFLNK:
            node.target = entry.target
            node.size = len(entry.target)
        parent.children[name] = node

    def _directory(self, parts: list[bytes], path: bytes) -> Node:
        """The directory ``parts`` for a member ``path`` in it, made where no layer has described it."""
        trail = [self.root]
        pending = list(reversed(parts))
        followed = 0
        floor = len(parts) + 1  # components popped above this height come from a symbolic link's target
        while pending:
            name = pending.pop()
            if name == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            here = trail[-1].children
            assert here is not None
            node = here.get(name)
            if node is not None and node.mode & S_IFMT == S_IFLNK:
                followed += 1
                if followed > SYMLINKS_MAX:
                    raise unsafe(path, "lies below a loop of symbolic links")
                if len(pending) < floor:
                    floor = len(pending)
                if node.target.startswith(b"/"):
                    del trail[1:]
                pending.extend(reversed([p for p in node.target.split(b"/") if p not in (b"", b".")]))
                continue
            if node is None and len(pending) >= floor:
                raise unsafe(path, "lies below a symbolic link that leads nowhere")
            if node is None or (node.children is None and node.layer < self.layers):
                node = Node(S_IFDIR | 0o755, self.layers)
                node.implicit = True
                here[name] = node
            elif node.children is None:
                raise unsafe(path, f"lies below {show(name)}, which is not a directory")
            trail.append(node)
        return trail[-1]

    def find(self, parts: Iterable[bytes]) -> Node | None:
        """The node at ``parts``; symbolic links are followed in all but the last component, inside the
        tree.
        """
        trail = [self.root]
        pending = list(reversed(list(parts)))
        followed = 0
        while pending:
            name = pending.pop()
            if name == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            here = trail[-1].children
            node = here.get(name) if here is not None else None
            if node is None:
                return None
            if pending and node.mode & S_IFMT == S_IFLNK:
                followed += 1
                if followed > SYMLINKS_MAX:
                    return None
                if node.target.startswith(b"/"):
                    del trail[1:]
                pending.extend(reversed([p for p in node.target.split(b"/") if p not in (b"", b".")]))
                continue
            trail.append(node)
        return trail[-1]

    def add_standard_targets(self) -> bool:
        """Make what a container's start mounts on, where it is missing; True when all of it is plain.

        A path that exists as a symbolic link or as another type is left as the image has it, and the answer
        is False.
        """
        plain = True
        for table in (STANDARD_DIRECTORIES.items(), ((path, 0) for path in STANDARD_FILES)):
            for path, mode in table:
                *above, name = path.encode().split(b"/")
                parent = self._plain(above)
                if parent is None or parent.children is None:
                    plain = False
                    continue
                node = parent.children.get(name)
                if node is None:
                    node = Node(S_IFDIR | mode if mode else S_IFREG | 0o644, self.layers)
                    node.mtime = parent.mtime
                    parent.children[name] = node
                elif node.mode & S_IFMT != (S_IFDIR if mode else S_IFREG):
                    plain = False
        return plain

    def _plain(self, parts: list[bytes]) -> Node | None:
        node: Node | None = self.root
        for part in parts:
            node = node.children.get(part) if node is not None and node.children is not None else None
        return node

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """(path, node) of everything, directories before their content, sorted by name; the root has path
        ``b""``.
        """
        stack: list[tuple[bytes, Node]] = [(b"", self.root)]
        while stack:
            path, node = stack.pop()
            yield path, node
            if node.children:
                prefix = path + b"/" if path else b""
                stack.extend((prefix + name, node.children[name]) for name in sorted(node.children, reverse=True))

    def content_size(self) -> int:
        """Bytes of all regular files; a file with several names counts once."""
        seen: set[int] = set()
        total = 0
        for _, node in self.walk():
            if node.mode & S_IFMT == S_IFREG and id(node) not in seen:
                seen.add(id(node))
                total += node.size
        return total


def _describe(node: Node, entry: Entry, layer: int) -> None:
    node.mode = entry.mode
    node.uid = entry.uid
    node.gid = entry.gid
    node.mtime = entry.mtime
    node.xattrs = entry.xattrs
    node.layer = layer
    node.implicit = False


def _whited(name: bytes, path: bytes) -> bytes:
    if name in (b"", b".", b".."):
        raise unsafe(path, "is a whiteout of no name")
    return name


def _forget_below(cache: dict[bytes, Node], replaced: Node | None) -> None:
    """Forget resolved parents when a directory or a symbolic link among them is replaced."""
    if replaced is not None and (replaced.children is not None or replaced.mode & S_IFMT == S_IFLNK):
        cache.clear()


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
