"""Images of a project: list, inspect, import, pull, push, save, load, remove, verify."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.runtime import project
from containust.runtime.state import load as load_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from containust.image.store import Image
    from containust.runtime.project import Project

    Progress = Callable[[str, int, int], None]


class Images:
    """The image store of a project. Everything raises ContainustError."""

    __slots__ = ("_base", "_project", "store")

    def __init__(self, home: Project, offline: bool = False, base: str = ".") -> None:
        from containust.image.store import ImageStore

        self._project = home
        self._base = os.path.abspath(base)
        self.store = ImageStore(home.images, offline=offline)

    @classmethod
    def current(cls, directory: str = ".", *, state_file: str | None = None, offline: bool = False) -> Images:
        """The images of the project that a command without a file acts on."""
        return cls(project.current(os.path.abspath(directory), state_file), offline, directory)

    @classmethod
    def of_file(cls, path: str, *, state_file: str | None = None, offline: bool = False) -> Images:
        """The images of the project of a ``.ctst`` file."""
        return cls(project.for_file(path, state_file), offline, os.path.dirname(os.path.abspath(path)))

    def ls(self) -> list[dict[str, Any]]:
        """One row a reference: reference, id, size, stored, layers, created, distroless, used (by a container)."""
        from containust.image.catalog import listing

        used = self._in_use()
        return [{**row, "used": row["id"] in used} for row in listing(self.store)]

    def presets(self) -> list[dict[str, str | None]]:
        """What ``preset://`` knows here: name, source, and digest (None: pinned at its first use)."""
        from containust.image.sources.preset import presets

        return presets(offline=self.store.offline)

    def inspect(self, name: str) -> dict[str, Any]:
        """Everything known of one image."""
        from containust.image.catalog import inspect

        return inspect(self.store, self._named(name))

    def ensure(
        self,
        uri: str,
        include: Iterable[str] = (),
        base: str = ".",
        *,
        distroless: Iterable[str] | None = None,
        live: bool = False,
        progress: Progress | None = None,
    ) -> Image:
        """The image of ``uri``, imported when it is missing.

        ``distroless`` are the words of the command lines that a file:// image is reduced to.
        """
        kept = None if distroless is None else list(distroless)
        return self.store.ensure(uri, list(include), base, distroless=kept, live=live, progress=progress)

    def remove(self, names: list[str]) -> list[str]:
        """Remove images by reference, name or id; the references removed. I007 when a container uses one."""
        from containust.image.catalog import remove

        return remove(self.store, [self._named(name) for name in names], self._in_use())

    def prune(self) -> dict[str, int]:
        """Delete what no reference leads to, and references whose host files changed; what was freed."""
        from containust.image.catalog import prune

        return prune(self.store, self._in_use(), stale=True)

    def verify(self) -> list[dict[str, Any]]:
        """Hash everything: each reference (``reference``, ``id``) with what is wrong with it (``errors``)."""
        from containust.image.catalog import verify

        return verify(self.store)

    def save(self, names: list[str], path: str) -> None:
        """Write images to the archive ``path``, or to standard output for ``-``."""
        from containust.image.catalog import matching
        from containust.image.oci.save import save

        images = []
        for name in names:
            _, entry = matching(self.store, self._named(name))[-1]
            images.append((_repository(entry["reference"], entry["image"]["id"]), entry))
        if path == "-":
            with open(1, "wb", closefd=False) as out:
                save(self.store, images, out)
            return
        partial = f"{path}.{os.getpid()}.partial"
        try:
            with open(partial, "xb") as out:
                save(self.store, images, out)
            os.rename(partial, path)
        except OSError as error:
            raise ContainustError(
                "S003", f"cannot write {path}: {error.strerror}", "name another file with -o"
            ) from error
        finally:
            if os.path.exists(partial):
                os.unlink(partial)

    def load(self, path: str, progress: Progress | None = None) -> list[dict[str, Any]]:
        """Import every image of an archive or OCI layout; a name and an id each."""
        from containust.image.catalog import tag
        from containust.image.sources.tar import import_file
        from containust.image.staging import Staging

        loaded = []
        with Staging(self.store) as staging:
            if path == "-":
                path = f"{staging.path}/input"
                from shutil import copyfileobj

                with open(0, "rb", closefd=False) as source, open(path, "xb") as target:
                    copyfileobj(source, target, 1 << 20)
            for imported, names in import_file(staging, path, None, progress):
                if not names:
                    image_id = staging.add_record(imported.root, imported.config.as_dict())
                    names = [image_id[7:19]]
                for name in names:
                    entry = tag(staging, name, imported)
                    loaded.append({"name": name, "id": entry["image"]["id"], "reference": entry["reference"]})
        return loaded

    def pull(self, reference: str, progress: Progress | None = None) -> Image:
        """Fetch an image from its registry anew and accept what it is now; ``oci://`` may be left away."""
        from containust.common.reference import parse_reference
        from containust.image.importing import import_image
        from containust.image.sources.registry import write_lock
        from containust.image.staging import Staging

        uri = reference if "://" in reference else f"oci://{reference}"
        parsed = parse_reference(uri)
        if parsed.scheme != "oci":
            raise ContainustError("E007", f"{uri} is not in a registry", "pull takes oci://[REGISTRY/]REPOSITORY[:TAG]")
        if not self.store.offline and parsed.digest is None:
            with Staging(self.store) as staging:
                write_lock(staging, uri, None)
        return import_image(self.store, uri, (), ".", progress=progress)

    def push(self, name: str, target: str = "", progress: Progress | None = None) -> str:
        """Send an image to a registry, under its own name or as ``target``; the manifest's digest."""
        from containust.common.reference import parse_reference
        from containust.image.catalog import matching
        from containust.image.oci.push import push

        if self.store.offline:
            raise ContainustError("I005", "push needs the network, but --offline is set", "run it online")
        _, entry = matching(self.store, self._named(name))[-1]
        target = target or _repository(entry["reference"], entry["image"]["id"])
        parsed = parse_reference(target if "://" in target else f"oci://{target}")
        return push(self.store, entry, parsed.location, progress)

    def _named(self, name: str) -> str:
        """A reference as the catalog has it: what a file calls `file://./root` is there with its whole path."""
        from containust.common.reference import parse_reference

        return str(parse_reference(name).absolute(self._base)) if name.startswith(("file://.", "tar://.")) else name

    def _in_use(self) -> set[str]:
        if not self._project.exists():
            return set()
        return {container.image_id for container in load_state(self._project).containers.values()}


def _repository(reference: str, image_id: str) -> str:
    """The name under which an image is saved: its own, or one made from where it came from."""
    scheme, _, location = reference.partition("://")
    if scheme in ("image", "oci"):
        return location.partition("@")[0]
    base = os.path.basename(location.partition(",")[0].partition("@")[0].rstrip("/")).lower()
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in base.partition(".tar")[0]).strip("-")
    return f"localhost/{name or 'image'}:{image_id[7:19]}"
