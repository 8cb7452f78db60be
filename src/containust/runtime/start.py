"""A start on its way into the record: the containers that are new, and those that are to start again."""

from __future__ import annotations

from containust.common import os
from containust.runtime import plan, spec
from containust.runtime.container import places
from containust.runtime.events import emit
from containust.runtime.state import Container, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Component, Stack
    from containust.runtime.engine import Engine
    from containust.runtime.network.attachment import Attachment
    from containust.runtime.state import State


class Start:
    """What a start has done to the record so far, by which one that fails is undone."""

    __slots__ = ("fresh", "interrupted", "replaced", "started", "turned", "wanted")

    def __init__(self) -> None:
        self.fresh: list[Container] = []  # made now
        self.started: list[Container] = []  # all that are to start
        self.replaced: list[Container] = []  # those that are no more
        self.interrupted: list[str] = []  # ran before, and were stopped for it
        self.wanted: dict[str, str] = {}  # of those that it begins again: what the user asked for before, by id
        self.turned = False  # some that ran before are offline from now on, or no longer


def enter(engine: Engine, state: State, stack: Stack, actions: dict[str, str], start: Start) -> None:
    """Enter what starts by ``actions`` (of components by name) into ``state``, with its addresses."""
    for container in state.containers.values():
        if container.name in actions and container.offline != engine.options.offline:
            container.offline = engine.options.offline
            start.turned = True
    networks = engine.backend.networks(state.networks) if state.networks else None
    kept: dict[str, list[Attachment]] = {}
    for name, action in actions.items():
        old = state.by_name(name)
        if action in (plan.REMOVE, plan.RECREATE) and old:
            kept[name] = places(old.attachments)
            if networks:
                networks.release(old.id)
            start.replaced.append(state.containers.pop(old.id))
        if action in (plan.CREATE, plan.RECREATE):
            container = _new(engine, stack, stack.components[name])
            state.containers[container.id] = container
            start.fresh.append(container)
            start.started.append(container)
        elif action == plan.START and old:
            from containust.runtime.revival import make_ready

            make_ready(engine.backend, old)
            start.wanted[old.id] = old.wanted
            old.begin()
            start.started.append(old)
    needed = {network for container in start.started for network in stack.components[container.name].networks}
    if needed - {"host", "none"}:
        engine.connections.connect(state, start.started, stack.components, kept)


def _new(engine: Engine, stack: Stack, component: Component) -> Container:
    image = engine.images.of(component, stack.file)
    exposes = [expose for expose in stack.exposes if expose.component == component.name]
    container_id = engine.options.container_id or new_id()
    recorded = component
    if image.config.volumes or image.config.healthcheck:
        from containust.runtime.image_defaults import completed

        owner = container_id if engine.options.forget else component.name
        recorded = completed(component, image.config, owner)
    container = Container(
        container_id,
        component.name,
        stack_file=stack.file or None,
        spec=spec.encode(recorded),
        config_digest=spec.digest(component, image.id, exposes),
        image=component.image,
        image_id=image.id,
        created=now(),
        exposes=[expose.as_dict() for expose in exposes],
        stop_signal=component.stop_signal or image.config.stop_signal or "SIGTERM",
        remove=engine.options.forget,
        offline=engine.options.offline,
    )
    if component.userns == "auto":
        container.id_base = engine.backend.claim_ids()
    emit(engine.project, "created", component.name, id=container.id, image=component.image)
    return container


def new_id() -> str:
    """A random UUID (version 4)."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
