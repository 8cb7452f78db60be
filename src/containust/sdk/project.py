"""One project's containers: list, logs, exec, stop, start, remove, inspect, events."""

from __future__ import annotations

import _signal
import time

from containust.common import os
from containust.common.errors import ContainustError
from containust.common.types import plain
from containust.runtime import process, project
from containust.runtime.backend import detect_running
from containust.runtime.process import alive
from containust.runtime.state import FAILED, RUNNING, STOPPED, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from containust.runtime.backend.running import RunningContainers
    from containust.runtime.engine import Engine
    from containust.runtime.metrics import Meter, Metrics
    from containust.runtime.state import Container, State
    from containust.runtime.transcript import Line as Line

SETTLING = 20  # looks, 5 ms apart, until a supervisor has written down how a container has ended just now


class Project:
    """The project of a directory. Everything raises ContainustError."""

    __slots__ = ("_engine", "_meter", "backend", "home", "offline")

    def __init__(self, home: project.Project, offline: bool = False, backend: str = "auto") -> None:
        self.home = home
        self.offline = offline
        self.backend = backend
        self._engine: Engine | None = None
        self._meter: Meter | None = None

    @property
    def engine(self) -> Engine:
        """What changes the project; made on first use, so that `ps` and `exec` do without."""
        if self._engine is None:
            from containust.runtime.engine import Engine
            from containust.runtime.options import Options

            self._engine = Engine(self.home, Options(self.offline, None, self.backend))
        return self._engine

    @property
    def containers(self) -> RunningContainers:
        """The running containers of the project."""
        return detect_running(self.home, self.backend)

    @classmethod
    def current(
        cls,
        directory: str = ".",
        *,
        state_file: str | None = None,
        offline: bool = False,
        backend: str = "auto",
    ) -> Project:
        """The project that a command without a file acts on (cli.md)."""
        return cls(project.current(os.path.abspath(directory), state_file), offline, backend)

    @property
    def directory(self) -> str:
        """The project directory, ``.containust`` of somewhere."""
        return self.home.directory

    def names(self) -> list[str]:
        """Names of all containers."""
        return [container.name for container in load(self.home).containers.values()]

    def ps(self, all: bool = False) -> list[dict[str, Any]]:
        """Containers with their state and figures, running ones only unless ``all``. Keys as in cli.md.

        ``cpu_percent`` is the use since the call before on this object, at the first since the container's start.
        """
        from containust.runtime.recovery import needed

        state = load(self.home)
        running = _running(state)
        if needed(self.home, state, len(running)) and os.access(self.home.run, os.W_OK):
            state = self.engine.recover()  # cleans up after processes that were killed
            running = _running(state)
        for _ in range(SETTLING):
            if not any(c.state == RUNNING and c.id not in running for c in state.containers.values()):
                break
            time.sleep(0.005)
            state = load(self.home)
            running = _running(state)
        metrics = self._figures(list(running.values())) if running else {}
        containers = state.containers.values()
        rows = []
        for container in containers:
            if not all and container.id not in running:
                continue
            row = _row(container)
            if container.state == RUNNING and container.id not in running:
                # It has ended, and its supervisor cannot write down how.
                row["state"] = STOPPED if container.wanted == STOPPED else FAILED
            if container.id in metrics:
                row.update(metrics[container.id].as_dict())
            rows.append(row)
        return rows

    def _figures(self, containers: list[Container]) -> dict[str, Metrics]:
        if self._meter is None:
            from containust.runtime.metrics import Meter

            self._meter = Meter(self.containers)
        return self._meter.read(containers)

    def inspect(self, name: str) -> dict[str, Any]:
        """Everything known of one container. Secrets are references here as they are in the file."""
        container = load(self.home).find(name)
        result: dict[str, Any] = container.as_dict()
        result["log_path"] = self.containers.logs(container)
        result["cgroup"] = self.containers.group_path(container)
        if container.state == RUNNING and alive(container):
            stats = self.containers.stats(container)
            result["stats"] = {key: getattr(stats, key) for key in stats.__slots__}
            from containust.runtime import confinement, spec

            assert container.pid is not None
            component = spec.decode(container.name, container.spec)
            result["confinement"] = confinement.describe(container.pid, component)
        return result

    def stop(self, names: list[str], timeout: float | None = None, force: bool = False) -> list[str]:
        """Stop containers (all when ``names`` is empty), dependents first; the names of those that ran."""
        from containust.runtime import control

        return control.stop(self.engine, names, timeout, force)

    def start(self, names: list[str]) -> list[str]:
        """Start stopped containers; the names of those that were started."""
        from containust.runtime import control

        return control.start(self.engine, names)

    def restart(self, names: list[str], timeout: float | None = None) -> list[str]:
        """Stop and start containers."""
        from containust.runtime import control

        return control.restart(self.engine, names, timeout)

    def remove(self, names: list[str], force: bool = False, volumes: bool = False) -> list[str]:
        """Remove stopped containers, running ones with ``force``; managed volumes that nobody uses with ``volumes``."""
        from containust.runtime import control

        return control.remove(self.engine, names, force, volumes)

    def exec(
        self,
        name: str,
        argv: list[str],
        *,
        tty: bool = False,
        interactive: bool = False,
        user: str | None = None,
        workdir: str | None = None,
        env: dict[str, str] | None = None,
    ) -> int:
        """Run a program in a running container on the caller's standard streams; its exit status.

        126 when it cannot be executed, 127 when it is not there, 128+N when signal N ended it.
        """
        from containust.runtime.execution import execute

        backend = self.containers
        signals = _Signals()
        handle = execute(self.home, backend, name, argv, tty, interactive, user, workdir, env or {})
        signals.forward(handle.pidfd)
        if tty:
            from containust.runtime.terminal import Terminal

            with Terminal(handle.terminal) as terminal:
                terminal.proxy(handle.end)
        status = backend.wait(handle)
        if handle.mark:
            handle.mark.remove()
        code = os.waitstatus_to_exitcode(status or 0)
        return 128 - code if code < 0 else code

    def logs(
        self,
        names: list[str],
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str | None = None,
        until: str | None = None,
        idle: Callable[[], None] | None = None,
        fast: bool = False,
    ) -> Iterator[tuple[str, Line]]:
        """(container, record) of several containers, oldest first. ``since`` and ``until`` are RFC 3339 prefixes.

        With ``follow`` the iterator goes on until every container has ended for good, and calls ``idle`` each time
        before it waits. With ``fast``, lines that were written at once come as one record, newlines between them.
        Raises R005 for an unknown name and R017 at the end when something was missed.
        """
        from containust.runtime import control, transcript
        from containust.runtime.ownership import Ownership

        chosen = control.choose(load(self.home), names)
        first, last = (since or "").encode(), (until or "").encode()
        # With an end in time the tail is that of what is left, which is not the file's.
        ahead = None if last else tail
        fast = fast and ahead == tail  # or lines are counted
        readers = {c.name: transcript.Reader(self.containers.logs(c), ahead, first, last, fast) for c in chosen}
        ids = {c.id for c in chosen}

        def more() -> bool:
            if idle:
                idle()
            containers = [c for c in load(self.home).containers.values() if c.id in ids]
            return any(alive(c) or (transcript.returns(c) and Ownership.held(self.home, c.unit)) for c in containers)

        try:
            if last and tail is not None:
                yield from transcript.last(readers, tail)
            else:
                yield from transcript.merged(readers, more if follow else None)
            lost = [name for name, reader in readers.items() if reader.lost]
        finally:
            for reader in readers.values():
                reader.close()
        if lost:
            raise ContainustError(
                "R017",
                f"output of {', '.join(lost)} was rotated away before it could be read",
                "let a file or a pipe take it, which is faster than a terminal",
            )

    def events(self, *, follow: bool = False, since: str | None = None) -> Iterator[dict[str, Any]]:
        """Recorded events, oldest first; with ``follow`` also those to come."""
        from containust.runtime.history import read

        return read(self.home, follow, since)


def _running(state: State) -> dict[str, Container]:
    return {c.id: c for c in state.containers.values() if c.state == RUNNING and alive(c)}


def _row(container: Container) -> dict[str, Any]:
    return {
        "id": container.id,
        "name": container.name,
        "state": container.state,
        "health": container.health,
        "pid": container.pid,
        "image": container.image,
        "exit_code": container.exit_code,
        "signal": container.signal,
        "oom_killed": container.oom_killed,
        "restarts": container.restarts,
        "created": container.created,
        "started": container.started,
        "finished": container.finished,
        "ports": plain(container.exposes),
        "networks": {item["network"]: item["address"] for item in container.attachments},
        "stack": container.stack_file,
        "error": container.error,
    }


class _Signals:
    """What would end this command goes to the program instead, as with a program run directly.

    What comes before there is one is kept for it; the same once more ends the command.
    """

    __slots__ = ("_early", "_pidfd")

    def __init__(self) -> None:
        self._early: list[int] = []
        self._pidfd = -1
        for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT):
            _signal.signal(number, self._received)

    def _received(self, number: int, frame: object) -> None:
        if self._pidfd >= 0:
            process.send(self._pidfd, number)
        else:
            self._early.append(number)
            _signal.signal(number, _signal.SIG_DFL)

    def forward(self, pidfd: int) -> None:
        """The program has started."""
        self._pidfd = pidfd
        for number in self._early:
            process.send(pidfd, number)
            _signal.signal(number, self._received)
