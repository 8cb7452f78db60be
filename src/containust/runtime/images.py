"""The images of a project's components: found or imported, and mounted for the containers that start."""

from __future__ import annotations

from containust.common import os
from containust.image.mounting import clone_root, open_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Component
    from containust.image.store import Image, ImageStore


class Images:
    """``single`` says that they are wanted for one container, which needs no copy of a mount."""

    __slots__ = ("_chosen", "_roots", "_single", "_store")

    def __init__(self, store: ImageStore, single: bool) -> None:
        self._store = store
        self._single = single
        self._chosen: dict[str, Image] = {}  # by name of the component
        self._roots: dict[str, int] = {}  # image id -> descriptor of its tree, detached

    def of(self, component: Component, stack_file: str | None) -> Image:
        """The component's image, imported when it is missing."""
        if component.name not in self._chosen:
            base = os.path.dirname(stack_file) if stack_file else os.getcwd()
            self._chosen[component.name] = self._store.ensure(
                component.image,
                component.include,
                base,
                distroless=_kept(component),
                live=component.live,
            )
        return self._chosen[component.name]

    def present(self, component: Component, stack_file: str) -> str | None:
        """The id of the component's image, None where it would have to be imported."""
        image = self._store.find(
            component.image,
            component.include,
            os.path.dirname(stack_file),
            distroless=_kept(component),
            live=component.live,
        )
        return image.id if image else None

    def forget(self) -> None:
        """Choose anew from now on: what the components were made of a moment ago is no longer what they are."""
        self._chosen.clear()

    def root(self, image: Image) -> int:
        """A detached mount of the image's tree; containers of one image share one file system and its page cache."""
        if self._single:
            return open_root(self._store, image)  # giving a second one up waits for a grace period
        opened = self._roots.get(image.id)
        if opened is None:
            opened = self._roots[image.id] = open_root(self._store, image)
        try:
            return clone_root(opened)
        except OSError:  # before Linux 6.15 a detached mount cannot be copied
            return open_root(self._store, image)


def _kept(component: Component) -> list[str] | None:
    """What a distroless image of the component has to keep, None for a whole one."""
    if not component.distroless:
        return None
    from containust.runtime.reduced import words

    return words(component)
