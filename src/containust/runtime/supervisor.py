"""The supervisor of a stack: one process, one loop over pidfds, FIFOs and timers.

It starts containers as their dependencies come up, captures their output, probes their health, restarts what its
policy says, and ends with the last container. It is no server: other commands act on the containers themselves and
record what they want; the supervisor reads that when a container ends.
"""

from __future__ import annotations

import _signal
import select
import time

from containust.common import os
from containust.common.errors import ContainustError
from containust.runtime import process
from containust.runtime.events import emit
from containust.runtime.state import CREATED, FAILED, RUNNING, STOPPED, Update, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from containust.common.types import Component, Healthcheck
    from containust.runtime.backend.protocol import ContainerBackend
    from containust.runtime.container import Handle, Job
    from containust.runtime.project import Project
    from containust.runtime.state import Container, State

BACKOFF_FIRST = 0.1
BACKOFF_LAST = 30.0
BACKOFF_RESET = 10.0
PROBE_FIRST = 0.1
PAUSE = 0.001  # after much output at once: FIFOs fill meanwhile, and their writers need not wake anybody

RECORD_AGAIN = 1.0
TOGETHER = 0.004
KILL_AGAIN = 1.0  # what was frozen just after it was thawed

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
        self.backoff = BACKOFF_FIRST
        self.failures = 0  # failed probes in a row
        self.probe: Handle | None = None
        self.probe_interval = PROBE_FIRST
        self.stopping = False  # asked to stop
        self.signalled = False  # its stop signal was sent
        self.settled = False  # ended for good
        self.timers: list[Timer] = []

    @property
    def name(self) -> str:
        """The component's name."""
        return self.container.name


class Timer:
    """A callback at a monotonic time."""

    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: float, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.callback = callback


class Supervisor:
    """Starts, watches and ends the containers of one stack (or one container of `run --image`)."""

    def __init__(self, project: Project, backend: ContainerBackend) -> None:
        self.project = project
        self.backend = backend
        self.units: dict[str, Unit] = {}
        self.waiting: list[str] = []  # names whose dependencies are not up yet, in start order
        self.failed: dict[str, Exception] = {}  # starts that failed, by name
        self._starting: set[str] = set()  # what the start at hand is to bring up
        self.echo: Callable[[str, bytes, bytes], None] | None = None
        self.released = False  # another process has taken over
        self.interrupted = 0  # how often the user asked to stop
        self._poll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []
        self._changed: dict[str, Container] = {}
        self._record_from = 0.0  # monotonic time before which recording is not tried again
        self._recorded: tuple[tuple[int, int], dict[str, Container]] = (
            (0, 0),
            {},
        )  # as others left it, and by what known
        self._wake = -1
        self._busy = False  # a container writes fast
        # Called once, between the making of the first containers and the start of their programs: what can be done
        # while they build their roots.
        self.before_start: Callable[[], None] | None = None

    # -- loop ---------------------------------------------------------------------------------------------------

    def handle_signals(self) -> None:
        """Take SIGINT, SIGTERM, SIGHUP and the hand-over signal through the loop instead of an exception."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for signal in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, HANDOVER):
            _signal.signal(signal, lambda number, frame: None)
        self._wake = reader
        self.watch(reader, self._signalled)

    def _signalled(self) -> None:
        for number in os.read(self._wake, 64):
            if number == HANDOVER:
                self.released = True
            else:
                self.interrupted += 1
                if self.interrupted == 1:
                    self.stop(self.units)
                else:
                    for unit in self.units.values():
                        if unit.handle:
                            self.backend.stop(unit.handle)

    def run(self, until: Callable[[], bool]) -> None:
        """Serve events until ``until()`` or a hand-over."""
        self._record_if_possible()
        while not self.released and not until():
            timeout = -1.0
            if self._timers:
                timeout = max(0.0, min(timer.deadline for timer in self._timers) - time.monotonic())
            for fd, _ in self._poll.poll(timeout):
                callback = self._callbacks.get(fd)
                if callback:
                    callback()
            if self._busy:
                self._busy = False
                time.sleep(PAUSE)
            moment = time.monotonic()
            due = [timer for timer in self._timers if timer.deadline <= moment]
            if due:
                self._timers = [timer for timer in self._timers if timer.deadline > moment]
                for timer in due:
                    timer.callback()
            self._start_ready()
            if not until():
                self._record_if_possible()

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever ``fd`` is readable."""
        self._callbacks[fd] = callback
        self._poll.register(fd, select.EPOLLIN)

    def _forget(self, fd: int) -> None:
        if self._callbacks.pop(fd, None):
            self._poll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, in ``seconds``."""
        timer = Timer(time.monotonic() + seconds, callback)
        self._timers.append(timer)
        return timer

    def _cancel(self, timers: list[Timer]) -> None:
        if timers:
            self._timers = [timer for timer in self._timers if timer not in timers]
            timers.clear()

    def record(self) -> None:
        """Write the containers that changed; what others have recorded as wanted is kept."""
        if not self._changed:
            return
        with Update(self.project) as state:
            self.merge(state)

    def _record_if_possible(self) -> None:
        """As :meth:`_record`, but a full disk or a state file that somebody has damaged is no reason to stop watching:
        what happened is recorded as soon as that is possible."""
        if not self._changed or time.monotonic() < self._record_from:
            return
        changed = self.unrecorded()
        try:
            self.record()
        except ContainustError:
            self.record_later(changed)
            self._record_from = time.monotonic() + RECORD_AGAIN
            self.after(RECORD_AGAIN, lambda: None)

    def unrecorded(self) -> dict[str, Container]:
        """What has changed since it was last recorded, by id."""
        return dict(self._changed)

    def record_later(self, containers: dict[str, Container]) -> None:
        """Take back what could not be recorded."""
        self._changed = {**containers, **self._changed}

    def merge(self, state: State) -> None:
        """Put what changed into ``state``."""
        for container in self._changed.values():
            recorded = state.containers.get(container.id)
            if recorded is not None:
                container.wanted = recorded.wanted
                container.remove = recorded.remove
                container.offline = recorded.offline
                state.containers[container.id] = container
        self._changed = {}

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
        self._running(unit, handle)
        self._enter(self.backend.present(unit.container))
        return True

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
            self._cancel([timer])

    def _too_late(self, timeout: float) -> None:
        for unit in self.units.values():
            if unit.name in self.waiting or (unit.container.health == "starting" and not unit.settled):
                error = ContainustError(
                    "R014", f"{unit.name} was not up after {timeout:g} s", "allow more with --timeout"
                )
                error.container = unit.name
                self.failed[unit.name] = error
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
                        self._dependency_failed(unit, name, "is unhealthy")
                    return False
            elif container.state == FAILED:
                if dependency.settled or self._out_of_patience(dependency):
                    self._dependency_failed(unit, name, f"ended with {ending(container)}")
                return False  # its restart policy has another try
            elif container.state != STOPPED:
                return False
        return True

    @staticmethod
    def _out_of_patience(unit: Unit) -> bool:
        """Whether a service that dies again and again has had the time that its health check gives it to come up."""
        check = unit.component.healthcheck
        return check is not None and time.monotonic() - unit.first >= patience(check)

    def _dependency_failed(self, unit: Unit, name: str, what: str) -> None:
        error = ContainustError("R015", f"{unit.name} was not started: its dependency {name} {what}")
        error.container = name
        self.failed.setdefault(unit.name, error)

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
            self._changed[unit.container.id] = unit.container
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
                self._running(unit, handle)
                emit(self.project, "started", unit.name, id=unit.container.id)

    def _recorded_before_start(self) -> None:
        if self.before_start:
            prepare, self.before_start = self.before_start, None
            prepare()
            self._changed = {}
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
        self._changed[container.id] = container
        self.failed[unit.name] = error
        emit(self.project, "died", unit.name, id=container.id, error=code)

    def _running(self, unit: Unit, handle: Handle) -> None:
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
        if arrivals >= 0 and arrivals not in self._callbacks:
            self.watch(arrivals, self._arrived)
        if unit.component.healthcheck:
            if unit.container.health is None:
                unit.container.health = "starting"
            unit.failures = 0
            unit.probe_interval = PROBE_FIRST
            unit.timers.append(self.after(0.01, lambda: self._probe(unit)))

    def _arrived(self) -> None:
        self._enter(self.backend.arrived())

    def _enter(self, clients: list[int]) -> None:
        for pidfd in clients:
            self.watch(pidfd, lambda pidfd=pidfd: self._left(pidfd))  # type: ignore[misc]

    def _left(self, pidfd: int) -> None:
        self._forget(pidfd)
        self.backend.left(pidfd)

    def _output(self, unit: Unit, fd: int) -> None:
        handle = unit.handle
        if handle is None or handle.capture is None:
            return
        capture = handle.capture
        if not capture.pump(fd):
            self._forget(fd)
            os.close(fd)
            del capture.fds[fd]
        elif capture.busy:
            self._busy = True

    # -- ending -------------------------------------------------------------------------------------------------

    def _ended(self, unit: Unit) -> None:
        handle = unit.handle
        if handle is None:
            return
        container = unit.container
        self._cancel(unit.timers)
        self._forget(handle.pidfd)
        status = self.backend.wait(handle)
        os.close(handle.pidfd)
        if unit.probe:
            self._end_probe(unit)
        if handle.capture:
            for fd in handle.capture.fds:
                self._forget(fd)
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
        wanted = self._wanted(container)
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
        if asked and not self._changed:  # others are about to end as well, and one record will do
            self._record_from = time.monotonic() + TOGETHER
            self.after(TOGETHER, lambda: None)
        self._changed[container.id] = container
        if not asked and self._restarts(unit):
            self._restart_later(unit)
        else:
            unit.settled = True

    def _wanted(self, container: Container) -> str:
        from containust.runtime.state import load

        try:
            status = os.stat(self.project.state_file)
            version = status.st_ino, status.st_mtime_ns
            if version != self._recorded[0]:
                self._recorded = version, load(self.project).containers
        except (ContainustError, OSError):  # the file cannot be read now: what was wanted last holds
            return container.wanted
        recorded = self._recorded[1].get(container.id)
        return recorded.wanted if recorded else STOPPED

    def _restarts(self, unit: Unit) -> bool:
        restart = unit.component.restart
        if self.interrupted or restart.policy == "never":
            return False
        if restart.policy == "on-failure":
            if unit.container.exit_code == 0:
                return False
            return restart.limit is None or unit.container.restarts < restart.limit
        return True

    def _restart_later(self, unit: Unit) -> None:
        if time.monotonic() - unit.since >= BACKOFF_RESET:
            unit.backoff = BACKOFF_FIRST
        delay = unit.backoff
        unit.backoff = min(unit.backoff * 2, BACKOFF_LAST)
        unit.timers.append(self.after(delay, lambda: self._restart(unit)))

    def _restart(self, unit: Unit) -> None:
        unit.timers.clear()
        if self._wanted(unit.container) == STOPPED:
            unit.settled = True
            return
        container = unit.container
        container.restarts += 1
        container.become(CREATED)
        try:
            handle = self.backend.create(unit.job())
            errors = self.backend.start([handle])
        except ContainustError as error:
            errors = {container.id: error}
        if errors:
            container.become(FAILED)
            failure = errors[container.id]
            container.error = {"code": getattr(failure, "code", "R004"), "message": str(failure)}
            container.finished = now()
            self._changed[container.id] = container
            if self._restarts(unit):
                self._restart_later(unit)
            else:
                unit.settled = True
            return
        container.started = now()
        container.error = None
        container.become(RUNNING)
        self._changed[container.id] = container
        self._running(unit, handle)
        emit(self.project, "restarted", unit.name, id=container.id, restarts=container.restarts)

    def live(self) -> bool:
        """Whether anything is left to supervise."""
        return bool(self.waiting) or any(not unit.settled for unit in self.units.values())

    def let_go(self) -> None:
        """Give every container up untouched: another process supervises from now on."""
        self._record_if_possible()
        for unit in self.units.values():
            if unit.handle and unit.handle.capture:
                unit.handle.capture.close()

    # -- stopping -----------------------------------------------------------------------------------------------

    def stop(self, names: Iterable[str]) -> None:
        """Begin to stop units: dependents first, independent ones at the same time. Serve events to see it done."""
        chosen = [self.units[name] for name in names]
        self.waiting = [name for name in self.waiting if self.units[name] not in chosen]
        for unit in chosen:
            unit.stopping = True
            if unit.handle is None:
                self._cancel(unit.timers)
                unit.settled = True
        self._stop_next(chosen)

    def _stop_next(self, units: list[Unit]) -> None:
        alive = [unit for unit in units if unit.handle]
        needed = {name for unit in alive for name in unit.component.depends_on}
        again = False
        for unit in alive:
            assert unit.handle is not None
            if unit.name in needed:
                again = True
            elif not unit.signalled:
                unit.signalled = True
                self._cancel(unit.timers)
                self._signal_stop(unit, unit.handle)
        if again:
            self.after(0.005, lambda: self._stop_next(units))

    def _signal_stop(self, unit: Unit, handle: Handle) -> None:
        number = signal_number(unit.container.stop_signal)
        if not process.heeds(handle.pid, number):
            self.backend.stop(handle)
            return
        self.backend.signal(handle, number)
        unit.timers.append(self.after(unit.component.stop_timeout, lambda: self._kill(unit, handle)))

    def _kill(self, unit: Unit, handle: Handle) -> None:
        if unit.handle is handle:
            self.backend.stop(handle)
            unit.timers.append(self.after(KILL_AGAIN, lambda: self._kill(unit, handle)))

    # -- health -------------------------------------------------------------------------------------------------

    def _probe(self, unit: Unit) -> None:
        check = unit.component.healthcheck
        unit.timers.clear()
        if unit.handle is None or check is None or unit.stopping:
            return
        from containust.compose.interpolation import render

        try:
            job = unit.job()
            job.argv = [render(item, job.lookup) for item in check.command]
            job.capture = False
            probe = unit.probe = self.backend.probe(unit.container, job)
        except (ContainustError, OSError):
            self._probed(unit, False)
            return
        self.watch(probe.end, lambda: self._probe_told(unit))
        unit.timers.append(self.after(check.timeout, lambda: self.backend.kill_probe(probe)))

    def _probe_told(self, unit: Unit) -> None:
        if unit.probe and self.backend.probe_over(unit.probe):
            self._probe_ended(unit)

    def _probe_ended(self, unit: Unit) -> None:
        self._cancel(unit.timers)
        status = self._end_probe(unit)
        self._probed(unit, status == 0)

    def _end_probe(self, unit: Unit) -> int | None:
        probe = unit.probe
        assert probe is not None
        unit.probe = None
        self._forget(probe.end)
        return self.backend.end_probe(probe)

    def _probed(self, unit: Unit, success: bool) -> None:
        check = unit.component.healthcheck
        if check is None or unit.handle is None:
            return
        before = unit.container.health
        if success:
            unit.failures = 0
            unit.container.health = "healthy"
            wait = check.interval
        else:
            wait = check.interval
            if unit.container.health == "starting":
                # Probes come fast while starting, so that dependents need not wait; a slow start still has the time
                # that `retries` probes at `interval` would have given it.
                if time.monotonic() - unit.since >= patience(check):
                    unit.container.health = "unhealthy"
            else:
                unit.failures += 1
                if unit.failures >= check.retries:
                    unit.container.health = "unhealthy"
            if unit.container.health == "starting":
                wait = min(unit.probe_interval, check.interval)
                unit.probe_interval = min(unit.probe_interval * 1.5, check.interval)
        if unit.container.health != before:
            emit(self.project, str(unit.container.health), unit.name, id=unit.container.id)
            self._changed[unit.container.id] = unit.container
            if unit.container.health == "unhealthy" and unit.name in self._starting:
                self._came_up_unhealthy(unit)
        unit.timers.append(self.after(wait, lambda: self._probe(unit)))

    def _came_up_unhealthy(self, unit: Unit) -> None:
        if any(unit.name in self.units[name].component.depends_on for name in self.waiting):
            return  # that one was not started, is the message
        error = ContainustError(
            "R014",
            f"{unit.name} is unhealthy: its health check has not succeeded",
            "mend what it checks, or give it more time with start_period or retries",
        )
        error.container = unit.name
        self.failed[unit.name] = error


def patience(check: Healthcheck) -> float:
    """Seconds that a service may take to turn healthy."""
    return check.start_period + check.retries * check.interval


def ending(container: Container) -> str:
    """How a container ended, in words."""
    if container.oom_killed:
        return "an out-of-memory kill"
    if container.signal:
        return f"signal {container.signal}"
    if container.exit_code is None:
        return "an unknown status"
    return f"exit status {container.exit_code}"


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
