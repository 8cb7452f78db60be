"""Restarts: whether a container that has ended is started again, and when."""

from __future__ import annotations

import time

from containust.common.errors import ContainustError
from containust.runtime.events import emit
from containust.runtime.state import CREATED, FAILED, RUNNING, STOPPED, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.state import Container
    from containust.runtime.supervisor import Supervisor, Unit

FIRST = 0.1  # seconds until the first restart; it doubles with each that follows
LAST = 30.0
RESET = 10.0  # one that was up for so long begins anew


def due(container: Container) -> bool:
    """Whether the policy of ``container``, which has ended and was not asked to, has it started again."""
    policy = container.spec.get("restart") or {}
    kind, limit = policy.get("policy", "never"), policy.get("limit")
    if kind == "on-failure":
        return container.exit_code != 0 and (limit is None or container.restarts < limit)
    return bool(kind != "never")


def missed(container: Container) -> bool:
    """Whether a container that does not run would run now, had its supervisor not been killed or replaced.

    Not one whose start failed, for somebody was told.
    """
    return container.wanted == RUNNING and container.error is None and due(container)


def later(supervisor: Supervisor, unit: Unit) -> None:
    """Start ``unit`` again after a pause, which is the longer the more often it has died."""
    if time.monotonic() - unit.since >= RESET:
        unit.backoff = FIRST
    delay = unit.backoff
    unit.backoff = min(unit.backoff * 2, LAST)
    unit.timers.append(supervisor.after(delay, lambda: _restart(supervisor, unit)))


def _restart(supervisor: Supervisor, unit: Unit) -> None:
    unit.timers.clear()
    container = unit.container
    if supervisor.wanted(container) == STOPPED:
        unit.settled = True
        return
    container.restarts += 1
    container.become(CREATED)
    try:
        handle = supervisor.backend.create(unit.job())
        errors = supervisor.backend.start([handle])
    except ContainustError as error:
        errors = {container.id: error}
    supervisor.changed(container)
    if errors:
        container.become(FAILED)
        failure = errors[container.id]
        container.error = {"code": getattr(failure, "code", "R004"), "message": str(failure)}
        container.finished = now()
        if due(container) and not supervisor.interrupted:
            later(supervisor, unit)
        else:
            unit.settled = True
        return
    container.started = now()
    container.error = None
    container.become(RUNNING)
    supervisor.began(unit, handle)
    emit(supervisor.project, "restarted", unit.name, id=container.id, restarts=container.restarts)
