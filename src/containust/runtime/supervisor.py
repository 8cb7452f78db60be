"""The supervisor of a stack: one process, one loop over pidfds, FIFOs and timers.

It starts containers as their dependencies come up, captures their output, probes their health, restarts what its
policy says, and ends with the last container. It is no server: other commands act on the containers themselves and
record what they want; the supervisor reads that when a container ends.
"""

from __future__ import annotations

import _signal
import time

from containust.common import os
from containust.common.errors import ContainustError
from containust.runtime import restarts, stopping
from containust.runtime.events import emit
from containust.runtime.recorder import Recorder
from containust.runtime.state import FAILED, RUNNING, STOPPED, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from containust.common.types import Component
    from containust.runtime.backend.protocol import ContainerBackend
    from containust.runtime.container import Handle, Job
    from containust.runtime.loop import Timer
    from containust.runtime.project import Project
    from containust.runtime.state import Container

HANDOVER = _signal.SIGUSR1


class Unit:
    """One container under supervision."""

    __slots__ = (
        "backoff",
        "component",
        "container",
        "failures",
        "first",
        "handle",
        "job",
        "probe",
        "probe_interval",
        "settled",
        "signalled",
        "since",
        "stopping",
        "timers",
    )

    def __init__(self, container: Container, component: Component, job: Callable[[], Job]) -> None:
        self.container = container
        self.component = component
        self.job = job  # makes the order to start it, anew for each start
        self.handle: Handle | None = None
        self.first = time.monotonic()  # when its supervision began
        self.since = 0.0  # monotonic time of the last start
        self.backoff = restarts.FIRST
        self.failures = 0  # failed probes in a row
        self.probe: Handle | None = None
        self.probe_interval = 0.0  # seconds to the next but one
        self.stopping = False  # asked to stop
        self.signalled = False  # its stop signal was sent
        self.settled = False  # ended for good
        self.timers: list[Timer] = []

    @property
    def name(self) -> str:
        """The component's name."""
        return self.container.name


class Supervisor(Recorder):
    """Starts, watches and ends the containers of one stack (or one container of `run --image`)."""

    def __init__(self, project: Project, backend: ContainerBackend) -> None:
        super().__init__(project)
        self.backend = backend
        self.units: dict[str, Unit] = {}
        self.waiting: list[str] = []  # names whose dependencies are not up yet, in start order
        self.failed: dict[str, Exception] = {}  # starts that failed, by name
        self._starting: set[str] = set()  # what the start at hand is to bring up
        self.echo: Callable[[str, bytes, bytes], None] | None = None
        self.released = False  # another process has taken over
        self.interrupted = 0  # how often the user asked to stop
        # Called once, between the making of the first containers and the start of their programs: what can be done
        # while they build their roots.
        self.before_start: Callable[[], None] | None = None

    def handle_signals(self) -> None:
        """Take SIGINT, SIGTERM, SIGHUP and the hand-over signal through the loop instead of an exception."""
        self.take_signals((_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, HANDOVER), self._signalled)

    def _signalled(self, number: int) -> None:
        if number == HANDOVER:
            self.released = True
            return
        self.interrupted += 1
        if self.interrupted == 1:
            self.stop(self.units)
        else:
            for unit in self.units.values():
                if unit.handle:
                    self.backend.stop(unit.handle)

    def run(self, until: Callable[[], bool]) -> None:
        """Serve events until ``until()`` or a hand-over."""
        self.record_if_possible()
        while not self.released and not until():
            self.turn()
            self._start_ready()
            if not until():
                self.record_if_possible()

    def live(self) -> bool:
        """Whether anything is left to supervise."""
        return bool(self.waiting) or any(not unit.settled for unit in self.units.values())

    def let_go(self) -> None:
        """Give every container up untouched: another process supervises from now on."""
        self.record_if_possible()
        for unit in self.units.values():
            if unit.handle and unit.handle.capture:
                unit.handle.capture.close()

    def stop(self, names: Iterable[str]) -> None:
        """Begin to stop units: dependents first, independent ones at the same time. Serve events to see it done."""
        chosen = [self.units[name] for name in names]
        self.waiting = [name for name in self.waiting if self.units[name] not in chosen]
        stopping.begin(self, chosen)

    # -- starting -----------------------------------------------------------------------------------------------

    def add(self, unit: Unit) -> None:
        """Supervise ``unit``; it is started once its dependencies are up."""
        self.units[unit.name] = unit
        self.waiting.append(unit.name)

    def adopt(self, unit: Unit) -> bool:
        """Supervise a container that already runs; False when it has ended."""
        handle = self.backend.adopt(unit.container)
        if handle is None:
            return False
        self.units[unit.name] = unit
        self.began(unit, handle)
        self._enter(self.backend.present(unit.container))
        return True

    def resume(self, unit: Unit) -> None:
        """Supervise a container that has ended while nobody did; it is started again as its policy has it."""
        self.units[unit.name] = unit
        restarts.later(self, unit)

    def start(self, timeout: float | None = None) -> None:
        """Start all that can be, and serve events until every added unit is up, one has failed, or ``timeout`` is over,
        which counts as a failure."""
        timer = None if timeout is None else self.after(timeout, lambda: self._too_late(timeout))
        self._starting = set(self.waiting)
        self._start_ready()
        if self.failed:
            return
        self.run(lambda: bool(self.failed) or self.interrupted > 0 or not self._pending())
        self._starting = set()
        if timer:
            self.cancel([timer])

    def _too_late(self, timeout: float) -> None:
        for unit in self.units.values():
            if unit.name in self.waiting or (unit.container.health == "starting" and not unit.settled):
                from containust.runtime import unready

                self.failed[unit.name] = unready.too_late(unit.name, timeout)
                return

    def _pending(self) -> bool:
        return bool(self.waiting) or any(
            unit.component.healthcheck and unit.container.health == "starting" and not unit.settled
            for unit in self.units.values()
        )

    def _start_ready(self) -> None:
        while self.waiting and not self.failed and not self.interrupted:
            ready = [name for name in self.waiting if self._satisfied(self.units[name])]
            if self.failed or not ready:
                return
            self.waiting = [name for name in self.waiting if name not in ready]
            self._done_for(ready)
            self._launch([self.units[name] for name in ready])

    def _satisfied(self, unit: Unit) -> bool:
        for name in unit.component.depends_on:
            dependency = self.units.get(name)
            if dependency is None:
                continue  # not ours: it was running before
            if name in self.waiting:
                return False
            container = dependency.container
            if container.state == RUNNING:
                if dependency.component.healthcheck and container.health != "healthy":
                    if container.health == "unhealthy":
                        self._dependency_failed(unit, container)
                    return False
            elif container.state == FAILED:
                if dependency.settled or self._out_of_patience(dependency):
                    self._dependency_failed(unit, container)
                return False  # its restart policy has another try
            elif container.state != STOPPED:
                return False
        return True

    def _done_for(self, ready: list[str]) -> None:
        """Record of the dependencies of ``ready`` that have ended for good that this was what they were there for."""
        for name in ready:
            for dependency in self.units[name].component.depends_on:
                unit = self.units.get(dependency)
                if unit and unit.settled:
                    unit.container.done = True
                    self.changed(unit.container)

    @staticmethod
    def _out_of_patience(unit: Unit) -> bool:
        """Whether a service that dies again and again has had the time that its health check gives it to come up."""
        check = unit.component.healthcheck
        if check is None:
            return False
        from containust.runtime import health

        return time.monotonic() - unit.first >= health.patience(check)

    def _dependency_failed(self, unit: Unit, dependency: Container) -> None:
        from containust.runtime import unready

        self.failed.setdefault(unit.name, unready.dependency_failed(unit.name, dependency))

    def _launch(self, units: list[Unit]) -> None:
        """Create and start containers together."""
        handles: list[tuple[Unit, Handle]] = []
        for unit in units:
            try:
                handles.append((unit, self.backend.create(unit.job())))
            except ContainustError as error:
                self._start_failed(unit, error)
                for made, handle in handles:
                    self.backend.discard(handle)
                    made.container.pid = None
                return
        for unit, _ in handles:
            unit.container.started = now()
            unit.container.become(RUNNING)
            if unit.component.healthcheck:
                unit.container.health = "starting"
            self.changed(unit.container)
        try:
            self._recorded_before_start()
        except BaseException:
            for _, handle in handles:
                self.backend.discard(handle)
            raise
        errors = self.backend.start([handle for _, handle in handles])
        for unit, handle in handles:
            failure = errors.get(unit.container.id)
            if failure:
                self._start_failed(unit, failure)
            else:
                self.began(unit, handle)
                emit(self.project, "started", unit.name, id=unit.container.id)

    def _recorded_before_start(self) -> None:
        if self.before_start:
            prepare, self.before_start = self.before_start, None
            prepare()
            self.recorded()
        else:
            self.record()

    def _start_failed(self, unit: Unit, error: Exception) -> None:
        container = unit.container
        container.pid = container.start_ticks = container.pid_namespace = None
        container.become(FAILED)
        container.finished = now()
        code = getattr(error, "code", "R004")
        container.error = {"code": code, "message": getattr(error, "message", str(error))}
        container.exit_code = getattr(error, "status", 1)
        unit.settled = True
        self.changed(container)
        self.failed[unit.name] = error
        emit(self.project, "died", unit.name, id=container.id, error=code)

    def began(self, unit: Unit, handle: Handle) -> None:
        """``unit`` runs: watch it."""
        unit.handle = handle
        unit.since = time.monotonic()
        unit.stopping = unit.signalled = unit.settled = False
        self.watch(handle.pidfd, lambda: self._ended(unit))
        capture = handle.capture
        if capture:
            if self.echo:
                name = unit.name
                echo = self.echo
                capture.echo = lambda stream, data: echo(name, stream, data)
            for fd in capture.fds:
                self.watch(fd, lambda fd=fd: self._output(unit, fd))  # type: ignore[misc]
        arrivals = self.backend.arrivals(unit.container)
        if arrivals >= 0 and not self.watches(arrivals):
            self.watch(arrivals, self._arrived)
        if unit.component.healthcheck:
            from containust.runtime import health

            health.begin(self, unit)

    def _arrived(self) -> None:
        self._enter(self.backend.arrived())

    def _enter(self, clients: list[int]) -> None:
        for pidfd in clients:
            self.watch(pidfd, lambda pidfd=pidfd: self._left(pidfd))  # type: ignore[misc]

    def _left(self, pidfd: int) -> None:
        self.forget(pidfd)
        self.backend.left(pidfd)

    def _output(self, unit: Unit, fd: int) -> None:
        handle = unit.handle
        if handle is None or handle.capture is None:
            return
        capture = handle.capture
        if not capture.pump(fd):
            self.forget(fd)
            os.close(fd)
            del capture.fds[fd]
        elif capture.busy:
            self.busy = True

    # -- ending -------------------------------------------------------------------------------------------------

    def _ended(self, unit: Unit) -> None:
        handle = unit.handle
        if handle is None:
            return
        container = unit.container
        self.cancel(unit.timers)
        self.forget(handle.pidfd)
        status = self.backend.wait(handle)
        os.close(handle.pidfd)
        if unit.probe:
            from containust.runtime import health

            health.end(self, unit)
        if handle.capture:
            for fd in handle.capture.fds:
                self.forget(fd)
            handle.capture.drain()
        unit.handle = None
        container.oom_killed = self.backend.oom_killed(container)
        container.exit_code = container.signal = None
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            container.signal = -code if code < 0 else None
            container.exit_code = 128 - code if code < 0 else code
        container.finished = now()
        container.pid = container.start_ticks = container.pid_namespace = None
        self.backend.remove(container)
        wanted = self.wanted(container)
        asked = unit.stopping or wanted == STOPPED
        container.become(STOPPED if asked or container.exit_code == 0 else FAILED)
        container.health = None
        if container.oom_killed:
            emit(self.project, "oom", unit.name, id=container.id)
        emit(
            self.project,
            "stopped" if asked else "died",
            unit.name,
            id=container.id,
            exit_code=container.exit_code,
            signal=container.signal,
        )
        if asked:
            self.record_with_others()
        self.changed(container)
        if not asked and not self.interrupted and restarts.due(container):
            restarts.later(self, unit)
        else:
            unit.settled = True

    def came_up_unhealthy(self, unit: Unit) -> None:
        """``unit`` has turned unhealthy, which a start that waits for it fails of."""
        if unit.name not in self._starting or any(
            unit.name in self.units[name].component.depends_on for name in self.waiting
        ):
            return  # that one was not started, is the message
        from containust.runtime import unready

        self.failed[unit.name] = unready.unhealthy(unit.name)
