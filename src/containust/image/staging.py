"""Writing into the store so that it holds whole things only.

Everything is written below ``staging/``, synced, and renamed to a name made of its digest. A process holds a
lock on
its staging directory while it lives; what a killed one left is removed by the next import. Two that write
the same
thing both succeed: the second finds the name taken, by the same content.
"""

from __future__ import annotations

import fcntl
import os

from containust.common.errors import ContainustError
from containust.core.filesystem.private import make_private
from containust.image.durable import Writing, sync, sync_all, write_file
from containust.image.hashing import digests
from containust.image.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from containust.image.hashing import Follower
    from containust.image.store import ImageStore

PARTS = ("layers", "roots", "records", "catalog", "staging", "partial")


class Layer:
    """A layer: ``digest`` is the SHA-256 of its tar in hexadecimal, ``chunks`` the digests of its chunks.

    ``staged`` is where its tar lies while it is not in the store yet, else empty. Instead of ``digest`` and ``chunks``
    there may be ``work`` that computes them; who asks for them waits for it. ``writing`` has the tar on its way to the
    disk.
    """

    __slots__ = ("_chunks", "_digest", "_work", "_writing", "size", "staged")

    def __init__(
        self,
        digest: str,
        size: int,
        chunks: bytes,
        staged: str = "",
        work: Follower | None = None,
        writing: Writing | None = None,
    ) -> None:
        self._digest = digest
        self._chunks = chunks
        self._work = work
        self._writing = writing
        self.size = size
        self.staged = staged

    @property
    def digest(self) -> str:
        return self._work.result()[0] if self._work is not None else self._digest

    @property
    def chunks(self) -> bytes:
        return self._work.result()[1] if self._work is not None else self._chunks

    def wait_written(self) -> None:
        """Wait until a tar that is on its way to the disk is there. Raises OSError if it could not be written."""
        writing = self._writing or (self._work.writing if self._work is not None else None)
        if writing is not None:
            writing.wait()

    @property
    def path(self) -> str:
        """The layer's file, relative to the store."""
        return f"layers/{self.digest}/layer.tar"

    def file(self, store: ImageStore) -> str:
        """The layer's file as it can be opened now."""
        return self.staged or f"{store.directory}/{self.path}"


class Staging:
    """A directory of this process below ``staging/``, as a context manager; removed at the end with what is
    in it.
    """

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self.path = ""
        self._lock = -1
        self._shared = -1

    def __enter__(self) -> Staging:
        try:
            for part in PARTS:
                make_private(f"{self.store.directory}/{part}")
            # Shared by all imports: a prune waits for them, since their layers belong to no image yet.
            self._shared = os.open(f"{self.store.directory}/staging", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._shared, fcntl.LOCK_SH)
            sweep(self.store.directory)
            self.path = f"{self.store.directory}/staging/{os.getpid()}-{os.urandom(6).hex()}"
            os.mkdir(self.path, 0o700)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise storage_error(error, self.store.directory) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from shutil import rmtree

        rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        os.close(self._shared)
        if isinstance(error, OSError):
            name = error.filename
            if name is None or os.fsdecode(name).startswith(self.store.directory):
                raise storage_error(error, self.store.directory) from error

    def stage_layer(
        self, tar: str, expected: str | None = None, what: str = "", followed: Follower | None = None
    ) -> Layer:
        """The finished tar file ``tar`` of this staging directory as a layer, to be stored with the root over it.

        ``expected`` is a digest ``sha256:<hex>`` that it must have: I002 naming ``what`` otherwise. ``followed`` is who
        has computed its digests already.
        """
        if followed is not None:
            (digest, chunks), writing = followed.result(), followed.writing
        else:
            writing = Writing(tar)
            writing.begin(last=True)
            digest, chunks = digests(tar)
        check_digest(expected, f"sha256:{digest}", what)
        return Layer(digest, os.path.getsize(tar), chunks, tar, writing=writing)

    def _unpublished(self, layer: Layer) -> tuple[str, str] | None:
        """The directory of a layer that the store does not have, and where it belongs."""
        target = f"{self.store.directory}/layers/{layer.digest}"
        directory = f"{self.path}/layer-{layer.digest}"
        if not layer.staged or os.path.isdir(target) or os.path.isdir(directory):
            return None
        os.mkdir(directory, 0o755)
        os.rename(layer.staged, f"{directory}/layer.tar")
        os.chmod(f"{directory}/layer.tar", 0o444)
        write_file(f"{directory}/chunks.bin", layer.chunks)
        return directory, target

    def _publish(self, moves: list[tuple[str, str]]) -> None:
        """Give finished directories their names in the store, each of which is there only with all that is in it."""
        inside = [f"{directory}/{name}" for directory, _ in moves for name in os.listdir(directory)]
        sync_all(inside + [directory for directory, _ in moves])
        for directory, target in moves:
            try:
                os.rename(directory, target)
            except OSError:
                if not os.path.isdir(target):  # else another process was quicker, with the same content
                    raise
        sync_all(list({os.path.dirname(target) for _, target in moves}))

    def add_root(self, tree: Tree, layers: list[Layer]) -> tuple[str, dict[str, Any]]:
        """Store ``layers`` and the merged root over them; its name in the store and what the image record
        says of it.
        """
        from hashlib import sha256

        from containust.image import erofs

        standard = tree.add_standard_targets()
        directory = f"{self.path}/root-{os.urandom(4).hex()}"
        os.mkdir(directory, 0o755)
        sizes = [layer.size for layer in layers]
        extra = expand_sparse(tree, [layer.file(self.store) for layer in layers], directory)
        if extra is not None:
            sizes.append(extra[1])
        image = erofs.write(tree, sizes)
        identity = sha256("\n".join(layer.digest for layer in layers).encode()).digest()
        metadata = erofs.with_uuid(image, identity[:16])
        manifest = {
            "schema": 1,
            "layers": [
                {
                    "digest": f"sha256:{layer.digest}",
                    "size": layer.size,
                    "chunks": f"sha256:{sha256(layer.chunks).hexdigest()}",
                }
                for layer in layers
            ],
            "metadata": {"digest": f"sha256:{sha256(metadata).hexdigest()}", "size": len(metadata)},
            "extra": {"digest": f"sha256:{extra[0]}", "size": extra[1]} if extra else None,
            "size": tree.content_size(),
            "standard_targets": standard,
        }
        text = canonical(manifest)
        name = sha256(text).hexdigest()
        moves = [move for layer in layers if (move := self._unpublished(layer))]
        target = f"{self.store.directory}/roots/{name}"
        if not os.path.isdir(target):
            write_file(f"{directory}/meta.erofs", metadata)
            write_file(f"{directory}/manifest.json", text)
            moves.append((directory, target))
        for layer in layers:
            layer.wait_written()
        self._publish(moves)
        for layer in layers:
            layer.staged = ""
        devices = [layer.path for layer in layers]
        if extra is not None:
            devices.append(f"roots/{name}/extra.bin")
        return name, {"size": manifest["size"], "devices": devices, "standard_targets": standard}

    def add_record(self, root: str, config: dict[str, Any]) -> str:
        """Write the image record; the image's id."""
        from hashlib import sha256

        text = canonical({"schema": 1, "root": f"sha256:{root}", "config": config})
        name = sha256(text).hexdigest()
        target = f"{self.store.directory}/records/{name}.json"
        if not os.path.exists(target):
            self.replace(target, text)
        return f"sha256:{name}"

    def replace(self, target: str, text: bytes) -> None:
        """Write a file of the store in one step: readers see the old content or the new."""
        path = f"{self.path}/file-{os.urandom(4).hex()}"
        write_file(path, text)
        sync(path)
        os.rename(path, target)
        sync(os.path.dirname(target))


def check_digest(expected: str | None, found: str, what: str) -> None:
    """Raise I002 when ``expected`` is given and is not ``found``."""
    if expected is not None and expected != found:
        raise ContainustError(
            "I002",
            f"{what} has the digest {found}, not {expected}",
            "someone changed it, or the pin is of another version; nothing of it was used",
        )


def sweep(directory: str) -> None:
    """Remove what imports that were killed left in ``staging/``."""
    from shutil import rmtree

    from containust.image.oci.partial import KEPT, remove_partial

    remove_partial(directory, KEPT)
    for entry in os.scandir(f"{directory}/staging"):
        try:
            fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between mkdir and flock a directory of a living process is unlocked for a moment: its pid is in
            # its name.
            pid = entry.name.partition("-")[0]
            if not (pid.isdigit() and os.path.exists(f"/proc/{pid}") and not os.listdir(fd)):
                rmtree(entry.path, ignore_errors=True)
        except OSError:
            pass  # locked: its import is under way
        finally:
            os.close(fd)


def expand_sparse(tree: Tree, layers: list[str], directory: str) -> tuple[str, int] | None:
    """Write sparse members with their holes into ``extra.bin``, since EROFS data are addressed as one piece.

    Returns the file's digest and size, or None when the image has no sparse member.
    """
    sparse = [node for node in tree.nodes() if node.segments is not None]
    if not sparse:
        return None
    path = f"{directory}/extra.bin"
    position = 0
    done: set[int] = set()
    with open(path, "xb") as out:
        for node in sparse:
            if id(node) in done:
                continue
            done.add(id(node))
            with open(layers[node.device], "rb") as source:
                source.seek(node.offset)
                for offset, size in node.segments or ():
                    out.seek(position + offset)
                    left = size
                    while left:
                        data = source.read(min(left, 1 << 20))
                        if not data:
                            raise ContainustError("I004", "a sparse member ends early", "make the archive again")
                        out.write(data)
                        left -= len(data)
            node.device = len(layers)
            node.offset = position
            position += (node.size + 511) // 512 * 512
        out.truncate(position)
    for node in sparse:
        node.segments = None
    digest, _ = digests(path)
    os.chmod(path, 0o444)
    return digest, position


def canonical(value: dict[str, Any]) -> bytes:
    """JSON with one form for one value, fit to be hashed."""
    from json import dumps

    return dumps(value, sort_keys=True, separators=(",", ":")).encode()


def storage_error(error: OSError, directory: str) -> ContainustError:
    """What an OSError of the store means to the user."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ContainustError(
            "I003",
            f"no space left in the image store {directory}",
            "`ctst images prune` frees what nothing uses",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ContainustError(
            "S003",
            f"cannot write to the image store {directory}: {error.strerror}",
            "run as its owner, or set CONTAINUST_IMAGE_STORE to a directory of yours",
        )
    return ContainustError("I003", f"the image store {directory}: {error}", "check the disk, then import again")
