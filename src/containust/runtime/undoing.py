"""Undoing a start that failed: what it made is removed, what was there before stays, or comes back."""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.runtime.state import Update, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.runtime.engine import Engine
    from containust.runtime.start import Start
    from containust.runtime.supervisor import Supervisor


def undo(engine: Engine, supervisor: Supervisor, start: Start, error: BaseException) -> None:
    """Undo what ``start`` has done so far. ``error``, which it failed of, gets the container's last words."""
    engine.images.forget()
    entered = engine.open is None
    unrecorded: dict[str, Any] = {}
    if engine.open:
        unrecorded = engine.open.state.networks
        engine.open.abandon()
        engine.open = None
    _kill(supervisor, [c.name for c in start.started if c.name in supervisor.units])
    if isinstance(error, ContainustError) and error.container in supervisor.units and not supervisor.echo:
        from containust.runtime import last_words

        last_words.add(error, engine.backend.logs(supervisor.units[error.container].container))
    with Update(engine.project) as state:
        if entered:
            supervisor.merge(state)
            for id, wanted in start.wanted.items():
                if id in state.containers:
                    state.containers[id].wanted = wanted
        for container in start.fresh:
            recorded = state.containers.pop(container.id, None)
            if recorded and state.networks:
                engine.backend.networks(state.networks).release(container.id)
            engine.erase(container)
        for container in start.replaced:
            state.containers.setdefault(container.id, container)
        if not state.networks:  # those that this start has made are in no record
            state.networks = unrecorded
        engine.tear_down_networks(state)
        engine.release_range(state, {container.id_base for container in start.fresh})
    if load(engine.project).networks:
        engine.publish()


def _kill(supervisor: Supervisor, names: list[str]) -> None:
    """End units of ``supervisor``, which starts nothing more."""
    supervisor.waiting = []
    supervisor.interrupted = max(1, supervisor.interrupted)
    for name in names:
        unit = supervisor.units[name]
        if unit.handle:
            unit.stopping = True
            supervisor.backend.stop(unit.handle)
    supervisor.run(lambda: all(supervisor.units[name].handle is None for name in names))
