"""Stopping, starting and removing containers of a project from a process that does not supervise them."""

from __future__ import annotations

import os
import select
import time

from containust.common.errors import ContainustError
from containust.runtime import process, restarts, spec
from containust.runtime.container import Handle
from containust.runtime.engine import Engine, wait_until
from containust.runtime.ownership import Ownership
from containust.runtime.process import alive
from containust.runtime.state import RUNNING, STOPPED, Update, load
from containust.runtime.stopping import KILL_AGAIN, signal_number
from containust.runtime.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.runtime.state import Container, State

SETTLE = 10.0


def choose(state: State, names: list[str]) -> list[Container]:
    """The containers called ``names``, all of them when there are none. Raises ContainustError R005."""
    if not names:
        return list(state.containers.values())
    return [state.find(name) for name in names]


def supervise(engine: Engine, units: set[str]) -> None:
    """Bring a supervisor to life for every unit that has live containers but none.

    The new process adopts them: it captures their output and knows their exit status, and touches none of them.
    """
    for unit in units:
        if not Ownership.held(engine.project, unit):
            in_background(engine, unit, [])


def supervise_live(engine: Engine, ownership: Ownership, unit: str, start: list[str]) -> None:
    """Pass the right to supervise ``unit`` on to another process, if the unit has live containers at all.

    Those called ``start`` are started again.
    """
    try:
        if start or any(c.unit == unit and alive(c) for c in load(engine.project).containers.values()):
            ownership.leave()
            in_background(engine, unit, start)
        else:
            ownership.release()
    except ContainustError:
        pass  # what has failed before it is the news; this is recorded


def adopt_orphans(engine: Engine) -> None:
    """Bring the supervisors of all units back to life that were killed, whatever the command at hand is about."""
    live = {container.unit for container in load(engine.project).containers.values() if alive(container)}
    for unit in live:
        try:
            supervise(engine, {unit})
        except ContainustError:
            pass  # another unit's trouble is not this command's; the next one tries again


def in_background(engine: Engine, unit: str, start: list[str]) -> None:
    """Fork a supervisor for ``unit`` that adopts what runs and starts the containers called ``start``.

    Returns when that is done. Raises what the start raised.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _background(engine, unit, start, writer)
    os.close(writer)
    receive_result(reader)


def _background(engine: Engine, unit: str, start: list[str], writer: int) -> None:
    """The forked supervisor. Never returns."""
    status = 1
    try:
        os.setsid()
        ownership = Ownership(engine.project, unit)
        supervisor = Supervisor(engine.project, engine.backend)
        missed: list[Container] = []
        try:
            ownership.take()
            engine.supervises = unit
            supervisor.handle_signals()
            mine = [c for c in load(engine.project).containers.values() if c.unit == unit]
            missed = _reserve_ports(engine, mine, start)
            for container in mine:
                if alive(container):
                    component = spec.decode(container.name, container.spec)
                    supervisor.adopt(engine.unit(container, component))
            for container in engine.reconnect(start) if start else []:
                component = spec.decode(container.name, container.spec)
                supervisor.add(engine.unit(container, component))
            supervisor.start()
            if supervisor.failed:
                raise next(iter(supervisor.failed.values()))
            engine.tell_names({container.id for container in mine if container.name in start})
        except BaseException as error:
            if isinstance(error, ContainustError) and error.container:
                error.help.append(f"see `ctst logs {error.container}`")
            supervisor.record_if_possible()  # before anybody is told
            send_result(writer, error)
            supervisor.failed = {}
            if not supervisor.units:
                ownership.release()
                os._exit(1)
            if not any(one.handle for one in supervisor.units.values()):
                missed = []  # who was told that nothing has started finds nothing running
        else:
            send_result(writer, None)
        quiet()
        _resume(engine, supervisor, missed)
        engine.serve(supervisor, ownership)
        status = 0
    finally:
        os._exit(status)


def _reserve_ports(engine: Engine, containers: list[Container], start: list[str]) -> list[Container]:
    """Hold the ports of what runs, of what is to start, and of what should have been started again meanwhile.

    Returns the last; none of them where their ports are not to be had, for it is the others that somebody asked for.
    """
    needed = {c.name for c in containers if alive(c) or c.name in start}
    missed = [c for c in containers if c.name not in needed and restarts.missed(c)]
    if missed:
        try:
            engine.reserve_ports(needed | {c.name for c in missed})
            return missed
        except ContainustError:
            pass
    engine.reserve_ports(needed)
    return []


def _resume(engine: Engine, supervisor: Supervisor, containers: list[Container]) -> None:
    """Have ``containers`` started again by ``supervisor``, as the one before would have."""
    if not containers:
        return
    try:
        found = engine.reconnect([container.name for container in containers], missed=True)
    except (ContainustError, OSError):
        return  # they stay as they are, and the next supervisor tries again
    for container in found:
        supervisor.resume(engine.unit(container, spec.decode(container.name, container.spec)))


def quiet() -> None:
    """Detach from the terminal: a background supervisor reads and writes nothing of the caller's.

    What else the caller had open goes too: a pipe whose end somebody waits for, a file whose lock (flock(2)) would
    last as long as the stack. Those are the descriptors that an exec would pass on; none of our own are.
    """
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                os.close(int(name))
        except OSError:  # the one that the listing itself had
            pass


def send_result(writer: int, error: BaseException | None, value: Any = None) -> None:
    """Tell the waiting command how the start went, through a pipe, and close it."""
    import marshal

    failure: Any = None
    if isinstance(error, ContainustError):
        failure = (error.code, error.message, error.help, error.status, error.container, error.output)
    elif error is not None:
        failure = ("R004", f"the supervisor failed: {error!r}", [], 1, None, [])
    data = marshal.dumps((failure, value))
    data = len(data).to_bytes(4, "little") + data
    while data:
        data = data[os.write(writer, data) :]
    os.close(writer)


def receive_result(reader: int) -> Any:
    """Wait for :func:`send_result` of the supervisor; return the value it sent or raise the error."""
    import marshal

    data = b""
    # Not until the end of the file: a supervisor that was forked meanwhile has a copy of the other end.
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
        piece = os.read(reader, 65536)
        if not piece:
            break
        data += piece
    os.close(reader)
    if not data:
        raise ContainustError("R004", "the supervisor ended before it was ready", "see `ctst events` and try again")
    failure, value = marshal.loads(data[4:])
    if failure:
        code, message, help, status, container, output = failure
        error = ContainustError(code, message, *help, status=status)
        error.container, error.output = container, output
        raise error
    return value


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
    _settled(engine, [container.id for container in running], {c.unit for c in running})
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
            if force or not process.heeds(handle.pid, number):
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

    wait_until(recorded, SETTLE)
    engine.recover()


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
                    engine.networks(state).release(recorded.id)
                engine.erase(recorded)
                if volumes:
                    _remove_volumes(engine, recorded, state)
        engine.sweep(state)
        if not state.containers and state.networks:
            engine.networks(state).teardown()
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
