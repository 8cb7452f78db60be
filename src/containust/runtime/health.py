"""Health probes: when one is due, how long it may take, and what a row of them says of a container."""

from __future__ import annotations

import time

from containust.common.errors import ContainustError
from containust.runtime.events import emit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Healthcheck
    from containust.runtime.supervisor import Supervisor, Unit

FIRST = 0.01  # seconds from the start to the first probe
FAST = 0.1  # between the first two; it grows to the interval


def begin(supervisor: Supervisor, unit: Unit) -> None:
    """Probe ``unit``, which has just come up, from now on."""
    if unit.container.health is None:
        unit.container.health = "starting"
    unit.failures = 0
    unit.probe_interval = FAST
    unit.timers.append(supervisor.after(FIRST, lambda: _probe(supervisor, unit)))


def end(supervisor: Supervisor, unit: Unit) -> int | None:
    """End the probe that runs in ``unit``, if it does yet; how that ended, as wait(2) has it."""
    probe = unit.probe
    assert probe is not None
    unit.probe = None
    supervisor.forget(probe.end)
    return supervisor.backend.end_probe(probe)


def patience(check: Healthcheck) -> float:
    """Seconds that a service may take to turn healthy."""
    return check.start_period + check.retries * check.interval


def _probe(supervisor: Supervisor, unit: Unit) -> None:
    check = unit.component.healthcheck
    unit.timers.clear()
    if unit.handle is None or check is None or unit.stopping:
        return
    from containust.compose.interpolation import render

    backend = supervisor.backend
    try:
        job = unit.job()
        job.argv = [render(item, job.lookup) for item in check.command]
        job.capture = False
        probe = unit.probe = backend.probe(unit.container, job)
    except (ContainustError, OSError):
        _probed(supervisor, unit, check, False)
        return

    def told() -> None:
        if unit.probe and backend.probe_over(unit.probe):
            supervisor.cancel(unit.timers)
            _probed(supervisor, unit, check, end(supervisor, unit) == 0)

    supervisor.watch(probe.end, told)
    unit.timers.append(supervisor.after(check.timeout, lambda: backend.kill_probe(probe)))


def _probed(supervisor: Supervisor, unit: Unit, check: Healthcheck, success: bool) -> None:
    container = unit.container
    if unit.handle is None:
        return
    before = container.health
    wait = check.interval
    if success:
        unit.failures = 0
        container.health = "healthy"
    else:
        if container.health == "starting":
            # Probes come fast while starting, so that dependents need not wait; a slow start still has the time
            # that `retries` probes at `interval` would have given it.
            if time.monotonic() - unit.since >= patience(check):
                container.health = "unhealthy"
        else:
            unit.failures += 1
            if unit.failures >= check.retries:
                container.health = "unhealthy"
        if container.health == "starting":
            wait = min(unit.probe_interval, check.interval)
            unit.probe_interval = min(unit.probe_interval * 1.5, check.interval)
    if container.health != before:
        emit(supervisor.project, str(container.health), unit.name, id=container.id)
        supervisor.changed(container)
        if container.health == "unhealthy":
            supervisor.came_up_unhealthy(unit)
    unit.timers.append(supervisor.after(wait, lambda: _probe(supervisor, unit)))
