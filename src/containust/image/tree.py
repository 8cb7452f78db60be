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

from containust.image.limits import Limits, exceeded
from containust.image.members import (
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    WHITEOUT,
    components,
    heavy,
    show,
    unsafe,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from containust.image.members import Entry

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


class Node:
    """An inode of the merged tree. ``children`` is a dictionary for a directory, else None.

    ``device`` numbers the layer file that holds the content from ``offset`` on; ``layer`` is the layer that
    put the
    node here; ``reach`` is the length of a directory's path; ``implicit`` marks one that no entry described. ``nid``,
    ``number`` and ``nlink`` are the EROFS writer's.
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
        "reach",
        "segments",
        "size",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, mode: int, layer: int, reach: int = 0) -> None:
        self.mode = mode
        self.layer = layer
        self.reach = reach
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

    ``dropped`` counts the device nodes left out (a container gets its devices from the runtime, and nothing else
    may). What ``limits`` bound here is what no single member shows: short paths make many directories, links lead ever
    deeper, and a thousand layers add up.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.root = Node(S_IFDIR | 0o755, 0)
        self.root.implicit = True
        self.layers = 0
        self.dropped = 0
        self._limits = limits or Limits()
        self._made = 0
        self._weight = 0

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
            if entry.xattrs or entry.segments:
                self._weight += entry.weight()
                if self._weight > self._limits.metadata:
                    raise heavy(entry.path, self._limits)
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
        node = self._make(entry.mode, parent, name, entry.path)
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
                node = self._make(S_IFDIR | 0o755, trail[-1], name, path)
                node.implicit = True
                here[name] = node
            elif node.children is None:
                raise unsafe(path, f"lies below {show(name)}, which is not a directory")
            trail.append(node)
        return trail[-1]

    def _make(self, mode: int, parent: Node, name: bytes, path: bytes) -> Node:
        """A new node ``name`` of ``parent``, on behalf of the member ``path``. Raises I003 beyond a bound."""
        self._made += 1
        if self._made > self._limits.entries:
            raise exceeded(
                f"the image has more than {self._limits.entries} files and directories, at {show(path)!r}",
                "CONTAINUST_IMAGE_MAX_ENTRIES",
            )
        reach = parent.reach + 1 + len(name)
        if reach > self._limits.path:
            raise exceeded(
                f"entry {show(path)!r}... ends up more than {self._limits.path} bytes deep", "CONTAINUST_IMAGE_MAX_PATH"
            )
        return Node(mode, self.layers, reach)

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

    def nodes(self) -> Iterator[Node]:
        """Every node once for each of its names, in no order that means anything."""
        pending = [self.root]
        while pending:
            node = pending.pop()
            yield node
            if node.children:
                pending.extend(node.children.values())

    def content_size(self) -> int:
        """Bytes of all regular files; a file with several names counts once."""
        files = {id(node): node.size for node in self.nodes() if node.mode & S_IFMT == S_IFREG}
        return sum(files.values())


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
