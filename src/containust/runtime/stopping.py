"""Stopping: dependents before what they depend on, a signal first, and SIGKILL for what does not heed it in time."""

from __future__ import annotations

import _signal

from containust.common.errors import ContainustError
from containust.runtime import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.container import Handle
    from containust.runtime.supervisor import Supervisor, Unit

KILL_AGAIN = 1.0  # what was frozen just after it was thawed
LOOK_AGAIN = 0.005  # whether dependents have ended


def begin(supervisor: Supervisor, units: list[Unit]) -> None:
    """Stop ``units``; serve events to see it done."""
    for unit in units:
        unit.stopping = True
        if unit.handle is None:
            supervisor.cancel(unit.timers)
            unit.settled = True
    _next(supervisor, units)


def end(supervisor: Supervisor, names: list[str]) -> None:
    """Stop units and forget them. Serves events meanwhile."""
    supervisor.stop(names)
    supervisor.run(lambda: all(supervisor.units[name].settled for name in names))
    supervisor.record()
    for name in names:
        del supervisor.units[name]


def _next(supervisor: Supervisor, units: list[Unit]) -> None:
    alive = [unit for unit in units if unit.handle]
    needed = {name for unit in alive for name in unit.component.depends_on}
    again = False
    for unit in alive:
        assert unit.handle is not None
        if unit.name in needed:
            again = True
        elif not unit.signalled:
            unit.signalled = True
            supervisor.cancel(unit.timers)
            _signal_stop(supervisor, unit, unit.handle)
    if again:
        supervisor.after(LOOK_AGAIN, lambda: _next(supervisor, units))


def _signal_stop(supervisor: Supervisor, unit: Unit, handle: Handle) -> None:
    number = signal_number(unit.container.stop_signal)
    if not process.prepared_for(handle.pid, number):
        supervisor.backend.stop(handle)
        return
    supervisor.backend.signal(handle, number)
    unit.timers.append(supervisor.after(unit.component.stop_timeout, lambda: _kill(supervisor, unit, handle)))


def _kill(supervisor: Supervisor, unit: Unit, handle: Handle) -> None:
    if unit.handle is handle:
        supervisor.backend.stop(handle)
        unit.timers.append(supervisor.after(KILL_AGAIN, lambda: _kill(supervisor, unit, handle)))


def signal_number(name: str) -> int:
    """Number of a signal given as ``SIGTERM``, ``TERM`` or ``15``. Raises ContainustError R004."""
    if name.isdigit():
        return int(name)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    if full.startswith("SIGRTMIN+"):
        return 34 + int(full[9:])
    number = getattr(_signal, full, None)
    if number is None:
        raise ContainustError("R004", f"there is no signal {name!r}", "`kill -l` lists them")
    return int(number)
