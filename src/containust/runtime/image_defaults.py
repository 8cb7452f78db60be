"""What an image's configuration adds to a component that says nothing of it: a health check and volumes.

Compose has the same rules: a ``HEALTHCHECK`` holds until the service has one of its own, and each ``VOLUME`` without a
mount gets storage that outlives the container, filled with what the image has there.
"""

from __future__ import annotations

from containust.common.types import Volume
from containust.runtime import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Component, ImageConfig
    from containust.runtime.state import Container


def completed(component: Component, config: ImageConfig, owner: str) -> Component:
    """A copy of ``component`` with the health check and the volumes of its image; ``owner`` begins the volumes' names.

    A path that has a volume or a tmpfs already is left alone.
    """
    made = spec.decode(component.name, spec.encode(component))
    if made.healthcheck is None:
        made.healthcheck = config.healthcheck
    taken = {_plain(item.target) for item in made.volumes} | {_plain(item.target) for item in made.tmpfs}
    for path in config.volumes:
        target = _plain(path)
        if target not in taken and target != "/" and ".." not in target.split("/"):
            made.volumes.append(Volume("managed", name_of(owner, target), target))
    return made


def name_of(owner: str, target: str) -> str:
    """The managed volume of the path ``target``: ``OWNER.var-lib-data``."""
    return f"{owner}.{''.join(c if c.isalnum() else '-' for c in target.strip('/'))}"


def forget_volumes(container: Container, volumes: str) -> None:
    """Remove the volumes below the directory ``volumes`` that belong to this container alone."""
    import shutil

    for volume in container.spec.get("volumes", ()):
        if volume["kind"] == "managed" and volume["source"].startswith(f"{container.id}."):
            shutil.rmtree(f"{volumes}/{volume['source']}", ignore_errors=True)


def _plain(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
