"""What processes that were killed have left: record and host are brought in line again."""

from __future__ import annotations

from containust.runtime.ownership import Ownership
from containust.runtime.process import alive
from containust.runtime.state import CREATED, Container, Update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.engine import Engine
    from containust.runtime.state import State


def repair(engine: Engine, strays: list[str]) -> State:
    """Remove whatever belongs to no live container. ``strays`` are ids that the host has something of.

    Live containers without a supervisor stay as they are. Returns the state.
    """
    with Update(engine.project) as state:
        for container in list(state.containers.values()):
            if engine.stale(container):
                engine.backend.remove(container)
                if container.remove or (container.state == CREATED and not container.started):
                    engine.erase(container)
                    del state.containers[container.id]
                else:
                    container.ended()
            elif engine.left_over(container):
                engine.backend.remove(container)
        engine.sweep(state)
        for id in strays:
            if id not in state.containers:
                stray = Container(id, id[:12])
                engine.backend.remove(stray)
                engine.backend.remove_root(stray)
        if not any(alive(c) or c.state == CREATED for c in state.containers.values()):
            killed = Ownership.seize(engine.project)
            if killed or engine.inherited or state.networks:
                engine.backend.networks(state.networks).teardown()  # also what a killed one had not recorded yet
            for one in killed:
                one.release()
    return state
