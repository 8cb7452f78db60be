"""Stopped containers that start again: what they have left, and the ids, networks and ports that they had."""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.runtime import restarts, spec
from containust.runtime.state import RUNNING, Update, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.backend.protocol import ContainerBackend
    from containust.runtime.engine import Engine
    from containust.runtime.state import Container


def make_ready(backend: ContainerBackend, container: Container) -> None:
    """Bury ``container`` if it has ended since the record was last brought in line, and claim its ids again."""
    if container.state == RUNNING:
        backend.remove(container)
        container.ended()
    if container.id_base is not None:
        _claim_ids(backend, container, container.id_base)


def _claim_ids(backend: ContainerBackend, container: Container, before: int) -> None:
    """The host's ids that it had: a reboot has forgotten whose they are."""
    base = backend.claim_ids(before)
    if base != before and not container.spec.get("readonly", True):
        raise ContainustError(
            "R001",
            f"{container.name}: since a reboot, the ids that its files belong to are another project's",
            f"make it anew, without what it has written to its root: `ctst rm {container.name}`, `ctst run`",
        )
    container.id_base = base


def reconnect(engine: Engine, names: list[str], missed: bool = False) -> list[Container]:
    """Networks, addresses, ports and rules for stopped containers that are about to start again.

    The user wants that, or with ``missed`` their policy does, if it still holds then: see ``restarts.missed``.
    """
    with Update(engine.project) as state:
        containers = [container for container in state.containers.values() if container.name in names]
        if missed:
            containers = [container for container in containers if restarts.missed(container)]
        for container in containers:
            make_ready(engine.backend, container)
            if not missed:
                container.begin()
        components = {c.name: spec.decode(c.name, c.spec) for c in containers}
        engine.connections.connect(state, containers, components, {})
    engine.publish()
    return containers


def reserve_ports(engine: Engine, names: set[str]) -> None:
    """Hold the published ports of the containers called ``names``. Raises ContainustError R011 when one is taken."""
    state = load(engine.project)
    exposes = [
        spec.decode_expose(item)
        for container in state.containers.values()
        if container.name in names
        for item in container.exposes
    ]
    if exposes:
        engine.connections.reserve(exposes)
