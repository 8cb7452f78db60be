"""Supervisors in processes of their own: forked by a command, which waits until all is up, and detached from it."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.runtime import restarts, revival, spec
from containust.runtime.ownership import Ownership
from containust.runtime.plan import Step
from containust.runtime.process import alive
from containust.runtime.state import load
from containust.runtime.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from containust.common.types import Stack
    from containust.runtime.engine import Engine
    from containust.runtime.state import Container


def up(engine: Engine, stack: Stack, unit: str) -> list[Step]:
    """:meth:`Engine.up` in a process of its own, which ends with the last container.

    Returns what was done once everything is up and healthy. Raises what the start raised.
    """
    done = _forked(lambda writer: _up(engine, stack, unit, writer))
    return [Step(action, name, image, reason, []) for action, name, image, reason in done or []]


def _up(engine: Engine, stack: Stack, unit: str, writer: int) -> int:
    """The forked process; its exit status."""
    try:
        supervisor, ownership, steps = engine.up(stack, unit)
    except BaseException as error:
        send_result(writer, error)
        return 1
    send_result(writer, None, [(s.action, s.name, s.image, s.reason) for s in steps])
    quiet()
    engine.serve(supervisor, ownership)
    return 0


def _forked(run: Callable[[int], int]) -> Any:
    """Call ``run`` in a process and a session of its own, which ends with the status that it returns.

    ``run`` gets the descriptor for :func:`send_result`; what it sends is returned, or raised.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        status = 1
        try:
            os.close(reader)
            os.setsid()
            status = run(writer)
        finally:
            os._exit(status)
    os.close(writer)
    return receive_result(reader)


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
    _forked(lambda writer: _background(engine, unit, start, writer))


def _background(engine: Engine, unit: str, start: list[str], writer: int) -> int:
    """The forked supervisor; its exit status."""
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
        for container in revival.reconnect(engine, start) if start else []:
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
            return 1
        if not any(one.handle for one in supervisor.units.values()):
            missed = []  # who was told that nothing has started finds nothing running
    else:
        send_result(writer, None)
    quiet()
    _resume(engine, supervisor, missed)
    engine.serve(supervisor, ownership)
    return 0


def _reserve_ports(engine: Engine, containers: list[Container], start: list[str]) -> list[Container]:
    """Hold the ports of what runs, of what is to start, and of what should have been started again meanwhile.

    Returns the last; none of them where their ports are not to be had, for it is the others that somebody asked for.
    """
    needed = {c.name for c in containers if alive(c) or c.name in start}
    missed = [c for c in containers if c.name not in needed and restarts.missed(c)]
    if missed:
        try:
            revival.reserve_ports(engine, needed | {c.name for c in missed})
            return missed
        except ContainustError:
            pass
    revival.reserve_ports(engine, needed)
    return []


def _resume(engine: Engine, supervisor: Supervisor, containers: list[Container]) -> None:
    """Have ``containers`` started again by ``supervisor``, as the one before would have."""
    if not containers:
        return
    try:
        found = revival.reconnect(engine, [container.name for container in containers], missed=True)
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
