"""A merged tree as files and directories: the rung for kernels that cannot mount EROFS.

The tree has been merged before anything is written, so there are no paths of an archive to follow here, only
names to
create in directories that this process has just made. Every directory is opened inside the new root without
following
a symbolic link, every file is created anew.
"""

from __future__ import annotations

import errno
import os

from containust.core.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from containust.image.durable import sync
from containust.image.layers import build_tree
from containust.image.members import (
    S_IFIFO,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
)
from containust.image.staging import Layer, Staging, expand_sparse, storage_error
from containust.image.tree import Node, Tree
from containust.image.verify import read_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.image.store import Image, ImageStore

COPY_MAX = 1 << 30


def extract_root(store: ImageStore, image: Image) -> str:
    """Extract the image's root to its ``tree`` directory in the store; the path of that. Raises S003, I001,
    I003.
    """
    from containust.image.store import missing

    target = f"{store.directory}/roots/{image.layer}/tree"
    manifest = read_manifest(store, image.layer)
    if manifest is None:
        raise missing(f"the store has lost the root of {image.reference}", "import it again with `ctst build`")
    layers = [Layer(layer["digest"][7:], layer["size"], b"") for layer in manifest["layers"]]
    tree = build_tree(store, layers)
    tree.add_standard_targets()
    with Staging(store) as staging:
        files = [layer.file(store) for layer in layers]
        extra = expand_sparse(tree, files, staging.path)
        if extra is not None:
            files.append(f"{staging.path}/extra.bin")
        directory = f"{staging.path}/tree"
        os.mkdir(directory, 0o700)
        try:
            write_tree(tree, files, directory)
            os.sync()
        except OSError as error:
            raise storage_error(error, store.directory) from error
        try:
            os.rename(directory, target)
        except OSError:
            if not os.path.isdir(target):
                raise
        sync(os.path.dirname(target))
    return target


def write_tree(tree: Tree, files: list[str], directory: str) -> None:
    """Create ``tree`` in the empty ``directory``; ``files`` hold the contents by device number. Raises
    OSError.
    """
    contents = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in files]
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        links: dict[int, bytes] = {}
        finished: list[tuple[bytes, Node]] = []
        stack: list[tuple[bytes, Node]] = [(b"", tree.root)]
        while stack:
            path, node = stack.pop()
            finished.append((path, node))
            fd = _open_directory(root_fd, path)
            try:
                for name, child in (node.children or {}).items():
                    full = path + b"/" + name if path else name
                    if child.children is not None:
                        os.mkdir(name, 0o700, dir_fd=fd)
                        stack.append((full, child))
                    elif id(child) in links:
                        os.link(links[id(child)], name, src_dir_fd=root_fd, dst_dir_fd=fd, follow_symlinks=False)
                    else:
                        _write(child, name, fd, contents)
                        links[id(child)] = full
            finally:
                os.close(fd)
        for path, node in reversed(finished):  # last, since creating entries changes a directory's times
            fd = _open_directory(root_fd, path)
            try:
                _describe(fd, node)
            finally:
                os.close(fd)
    finally:
        os.close(root_fd)
        for fd in contents:
            os.close(fd)


def _open_directory(root_fd: int, path: bytes) -> int:
    return openat2(
        root_fd,
        os.fsdecode(path) or ".",
        os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW,
        RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    )


def _write(node: Node, name: bytes, dir_fd: int, contents: list[int]) -> None:
    kind = node.mode & S_IFMT
    times = (node.mtime, node.mtime)
    if kind == S_IFLNK:
        os.symlink(node.target, name, dir_fd=dir_fd)
        os.chown(name, node.uid, node.gid, dir_fd=dir_fd, follow_symlinks=False)
        os.utime(name, ns=times, dir_fd=dir_fd, follow_symlinks=False)
    elif kind == S_IFIFO:
        os.mkfifo(name, 0o600, dir_fd=dir_fd)
        os.chown(name, node.uid, node.gid, dir_fd=dir_fd, follow_symlinks=False)
        os.chmod(name, node.mode & 0o7777, dir_fd=dir_fd)
        os.utime(name, ns=times, dir_fd=dir_fd, follow_symlinks=False)
    elif kind == S_IFREG:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
        try:
            left, offset = node.size, node.offset
            while left:
                sent = os.sendfile(fd, contents[node.device], offset, min(left, COPY_MAX))
                if sent == 0:
                    raise OSError(5, "a layer is shorter than its index says")
                left -= sent
                offset += sent
            _describe(fd, node)
        finally:
            os.close(fd)


def _describe(fd: int, node: Node) -> None:
    """Owner, attributes, mode and times, in the order in which one does not undo another."""
    os.fchown(fd, node.uid, node.gid)
    for name, value in (node.xattrs or {}).items():
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            # An attribute that this file system does not take is lost here, as are those beyond a block of ext4's,
            # which it tells by ENOSPC; EROFS keeps any.
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSPC, errno.E2BIG):
                raise
    os.fchmod(fd, node.mode & 0o7777)
    os.utime(fd, ns=(node.mtime, node.mtime))
