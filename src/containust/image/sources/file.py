"""``file://``: a directory, packed once into a deterministic tar and stored like any other layer.

The directory is walked in sorted order and does not leave its file system, so that a mounted /proc stays
out. The
lstat of every path goes into the catalog; an unchanged tree is known again by those alone.
"""

from __future__ import annotations

import os
from stat import S_ISDIR

from containust.common.types import ImageConfig
from containust.image.hashing import Follower
from containust.image.importing import DEFAULT_PATH, Imported, default_command, settle
from containust.image.layers import build_tree
from containust.image.pack import Packer, changed, unreadable
from containust.image.staging import Staging
from containust.image.store import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.reference import Reference
    from containust.image.store import Progress


def import_directory(staging: Staging, reference: Reference, progress: Progress | None = None) -> Imported:
    """Pack the directory of a ``file://`` reference. Raises I001 when it is none, is unreadable, or
    changes.
    """
    directory = existing_directory(reference)
    found = walk(directory)
    settle(max(s.st_ctime_ns for _, s in found))
    tar = f"{staging.path}/layer.tar"
    packer = Packer(tar)
    sources: dict[str, os.stat_result] = {}
    prefix = len(os.fsencode(directory)) + 1
    total = sum(s.st_size for _, s in found)
    with Follower(tar) as follower:
        for number, (path, s) in enumerate(found):
            packer.add(path[prefix:] or b".", path, s)
            sources[os.fsdecode(path)] = s
            if number % 256 == 0:
                follower.grown(packer.flushed())
                if progress:
                    progress("packing", packer.size, total)
        packer.close()
        follower.grown(os.path.getsize(tar))
        follower.finished()
        for path, s in found:
            if S_ISDIR(s.st_mode) and os.lstat(path).st_ctime_ns != s.st_ctime_ns:
                raise changed(path)
    layer = staging.stage_layer(tar, reference.digest, reference.location, follower)
    tree = build_tree(staging.store, [layer])
    config = ImageConfig(env=[DEFAULT_PATH], command=default_command(directory))
    root, facts = staging.add_root(tree, [layer])
    return Imported(root, facts, config, sources)


def existing_directory(reference: Reference) -> str:
    """The real path of the directory of a ``file://`` reference. Raises I001."""
    directory = os.path.realpath(reference.location)
    if not os.path.exists(reference.location):
        raise missing(
            f"the directory {reference.location} does not exist",
            "file:// wants a directory with a root file system; for an archive use tar://",
        )
    if not os.path.isdir(directory):
        raise missing(f"{reference.location} is not a directory", f"for an archive use tar://{reference.location}")
    return directory


def walk(directory: str) -> list[tuple[bytes, os.stat_result]]:
    """(path, lstat) of the directory and everything below it on the same file system, in the order of their
    bytes.
    """
    top = os.fsencode(directory)
    try:
        first = os.lstat(top)
    except OSError as error:
        raise unreadable(top, error) from error
    found = []
    stack = [(top, first)]
    while stack:
        path, s = stack.pop()
        found.append((path, s))
        if not S_ISDIR(s.st_mode) or s.st_dev != first.st_dev:
            continue
        try:
            with os.scandir(path) as entries:
                children = [(entry.path, entry.stat(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            raise unreadable(path, error) from error
        children.sort(key=lambda child: child[0], reverse=True)
        stack.extend(children)
    return found
