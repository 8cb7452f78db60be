"""Stopping, starting and removing containers of a project from a process that does not supervise them."""

from __future__ import annotations

import os
import select
import time

from containust.common.errors import ContainustError
from containust.runtime import process
from containust.runtime.background import adopt_orphans, in_background, supervise
from containust.runtime.container import Handle
from containust.runtime.ownership import Ownership
from containust.runtime.process import alive
from containust.runtime.state import RUNNING, STOPPED, Update, load
from containust.runtime.stopping import KILL_AGAIN, signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.runtime.engine import Engine
    from containust.runtime.state import Container, State

SETTLE = 10.0


def choose(state: State, names: list[str]) -> list[Container]:
    """The containers called ``names``, all of them when there are none. Raises ContainustError R005."""
    if not names:
        return list(state.containers.values())
    return [state.find(name) for name in names]


def stop(engine: Engine, names: list[str], timeout: float | None = None, force: bool = False) -> list[str]:
    """Stop containers, dependents first; returns the names of those that ran.

    Each gets its stop signal and, after its own ``stop_timeout`` (or ``timeout`` seconds), is killed. With ``force``
    it is killed at once.
    """
    if not choose(engine.recover(), names):
        return []
    adopt_orphans(engine)
    with Update(engine.project) as state:
        chosen = choose(state, names)
        running = [container for container in chosen if alive(container)]
        for container in chosen:
            container.wanted = STOPPED
    supervise(engine, {container.unit for container in running})
    _end(engine, running, timeout, force)
    # Also of what had ended before: who recorded that may still be removing it, or be on the way out, killed.
    _settled(engine, [container.id for container in running], {container.unit for container in chosen})
    return [container.name for container in running]


def _end(engine: Engine, running: list[Container], timeout: float | None, force: bool) -> None:
    handles: dict[str, Handle] = {}
    for container in running:
        fd = process.hold(container)
        if fd >= 0:
            assert container.pid is not None
            handles[container.name] = Handle(container, container.pid, fd)
    depends = {c.name: list(c.spec.get("depends_on", ())) for c in running}
    deadlines: dict[str, float] = {}
    poll = select.poll()
    for handle in handles.values():
        poll.register(handle.pidfd, select.POLLIN)
    while handles:
        needed = {target for name in handles for target in depends[name]}
        for name, handle in handles.items():
            if name in deadlines or (name in needed and not force):
                continue
            container = handle.container
            limit = container.spec.get("stop_timeout", 10.0) if timeout is None else timeout
            number = signal_number(container.stop_signal)
            if force or not process.prepared_for(handle.pid, number):
                engine.backend.stop(handle)
            else:
                engine.backend.signal(handle, number)
            deadlines[name] = time.monotonic() + limit
        wait = min(deadlines.values(), default=time.monotonic()) - time.monotonic()
        ended = {fd for fd, _ in poll.poll(max(1, int(wait * 1000)))}
        moment = time.monotonic()
        for name in list(handles):
            handle = handles[name]
            if handle.pidfd in ended:
                poll.unregister(handle.pidfd)
                os.close(handle.pidfd)
                del handles[name]
            elif name in deadlines and deadlines[name] <= moment:
                engine.backend.stop(handle)
                deadlines[name] = moment + KILL_AGAIN


def _settled(engine: Engine, ids: list[str], units: set[str]) -> None:
    """Wait until the supervisors have recorded the end and, where nothing is left to do, have ended themselves."""

    def recorded() -> bool:
        state = load(engine.project)
        if any(id in state.containers and state.containers[id].state in (RUNNING, "created") for id in ids):
            return False
        idle = {unit for unit in units if not any(_lives(c) for c in state.containers.values() if c.unit == unit)}
        return not any(Ownership.held(engine.project, unit) for unit in idle)

    _wait_until(recorded, SETTLE)
    engine.recover()


def _wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Poll a condition that another process brings about."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _lives(container: Container) -> bool:
    return container.wanted == RUNNING and container.state in (RUNNING, "created", "failed")


def start(engine: Engine, names: list[str]) -> list[str]:
    """Start stopped containers as they were, after what they depend on; returns the names of those that were started.

    Running ones stay, and so do dependencies that were to end and have.
    """
    engine.recover()
    adopt_orphans(engine)
    state = load(engine.project)
    asked = choose(state, names)
    chosen = [c for c in _with_dependencies(state, asked) if not alive(c) and (c in asked or not _done(c))]
    for unit in dict.fromkeys(container.unit for container in chosen):
        in_background(engine, unit, [c.name for c in chosen if c.unit == unit])
    return [container.name for container in chosen]


def _with_dependencies(state: State, containers: list[Container]) -> list[Container]:
    """``containers`` and what they depend on, in the order of the state: dependencies first."""
    wanted = {container.id for container in containers}
    left = list(containers)
    while left:
        container = left.pop()
        for name in container.spec.get("depends_on", ()):
            needed = state.by_name(name)
            if needed and needed.id not in wanted and needed.stack_file == container.stack_file:
                wanted.add(needed.id)
                left.append(needed)
    return [container for container in state.containers.values() if container.id in wanted]


def _done(container: Container) -> bool:
    """Whether a container has ended as it should: nobody stopped it, and it did not fail."""
    return container.state == STOPPED and container.wanted == RUNNING


def restart(engine: Engine, names: list[str], timeout: float | None = None) -> list[str]:
    """Stop and start again, in dependency order."""
    chosen = [container.name for container in choose(load(engine.project), names)]
    stop(engine, chosen, timeout)
    start(engine, chosen)
    return chosen


def remove(engine: Engine, names: list[str], force: bool = False, volumes: bool = False) -> list[str]:
    """Remove containers; running ones only with ``force``. Returns their names. Raises ContainustError R006."""
    engine.recover()
    adopt_orphans(engine)
    chosen = choose(load(engine.project), names)
    if not engine.project.exists():
        return []
    running = [container.name for container in chosen if alive(container)]
    if running and not force:
        raise ContainustError(
            "R006",
            f"{', '.join(running)} {'is' if len(running) == 1 else 'are'} running",
            "stop it first with `ctst stop`, or use `ctst rm --force`",
        )
    if running:
        stop(engine, running, force=True)
    with Update(engine.project) as state:
        for container in chosen:
            recorded = state.containers.pop(container.id, None)
            if recorded:
                if recorded.attachments:
                    engine.backend.networks(state.networks).release(recorded.id)
                engine.erase(recorded)
                if volumes:
                    _remove_volumes(engine, recorded, state)
        engine.sweep(state)
        if not state.containers and state.networks:
            engine.backend.networks(state.networks).teardown()
        engine.release_range(state, {container.id_base for container in chosen})
    engine.tell_names(set())
    return [container.name for container in chosen]


def _remove_volumes(engine: Engine, container: Container, state: State) -> None:
    import shutil

    def managed(other: Container) -> set[str]:
        return {v["source"] for v in other.spec.get("volumes", ()) if v["kind"] == "managed"}

    used = {name for other in state.containers.values() for name in managed(other)}
    for name in managed(container) - used:
        shutil.rmtree(f"{engine.project.volumes}/{name}", ignore_errors=True)
