"""The orders to start containers: what each is made from, the values it refers to, and who else is there."""

from __future__ import annotations

from containust.common.types import Ref
from containust.runtime.container import Job, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.common.types import Component
    from containust.runtime.images import Images
    from containust.runtime.network.attachment import Attachment
    from containust.runtime.options import Options
    from containust.runtime.project import Project
    from containust.runtime.state import Container, State


class Jobs:
    """Of one project."""

    __slots__ = ("_images", "_options", "_places", "_project")

    def __init__(self, project: Project, options: Options, images: Images) -> None:
        self._project = project
        self._options = options
        self._images = images
        # Container id -> its recorded attachments, its names, its places: each is asked for by each other container.
        self._places: dict[str, tuple[list[dict[str, Any]], str, list[Attachment]]] = {}

    def job(self, container: Container, component: Component, state: State) -> Job:
        """The order to start ``container``, rendered against ``state``."""
        image = self._images.of(component, container.stack_file)
        masks: list[bytes] = []
        job = Job(
            container,
            component,
            image.config,
            lambda: self._images.root(image),
            image.standard_targets,
            lambda ref: self._look_up(component, ref, state, masks),
        )
        job.masks = masks
        job.peers = self.peers(container, state)
        if self._options.tty:
            job.tty = True
        if self._options.interactive:
            job.stdio = (0, -1, -1)
        return job

    def peers(self, container: Container, state: State) -> dict[str, list[Attachment]]:
        """The places of all other containers, by their names separated by spaces."""
        found = {}
        for other in state.containers.values():
            if other.id != container.id and other.attachments:
                known = self._places.get(other.id)
                if known is None or known[0] is not other.attachments:
                    hostname = other.spec.get("hostname")
                    names = other.name if not hostname or hostname == other.name else f"{other.name} {hostname}"
                    known = self._places[other.id] = other.attachments, names, places(other.attachments)
                found[known[1]] = known[2]
        return found

    def check_secrets(self, component: Component) -> None:
        """Raises ContainustError when a secret is missing that a start of the component would ask for."""
        for value in _texts(component):
            if isinstance(value, tuple):
                for part in value:
                    if isinstance(part, Ref) and part.kind == "secret":
                        self._secret(part.name)

    def _look_up(self, component: Component, ref: Ref, state: State, masks: list[bytes]) -> str:
        from containust.runtime.values import look_up

        return look_up(component, ref, state, masks, self._secret)

    def _secret(self, name: str) -> str:
        from containust.compose.secrets import find_secret

        return find_secret(name, self._project.directory, self._options.environ)


def _texts(component: Component) -> list[object]:
    values: list[object] = [
        *component.env.values(),
        *(component.command or []),
        *(component.entrypoint or []),
    ]
    if component.healthcheck:
        values += component.healthcheck.command
    return values
