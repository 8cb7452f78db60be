"""One project's containers: list, logs, exec, stop, start, remove, inspect, events."""

from __future__ import annotations

import os
import time

from containust.common.errors import ContainustError
from containust.common.types import plain
from containust.runtime import control, project
from containust.runtime.engine import Engine, Options, alive
from containust.runtime.state import RUNNING, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from containust.runtime.logs import Line
    from containust.runtime.state import Container


class Project:
    """The project of a directory. Everything raises ContainustError."""

    __slots__ = ("engine",)

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

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
        home = project.current(os.path.abspath(directory), state_file)
        return cls(Engine(home, Options(offline, None, backend)))

    @property
    def directory(self) -> str:
        """The project directory, ``.containust`` of somewhere."""
        return self.engine.project.directory

    def recover(self) -> None:
        """Clean up after processes that were killed."""
        if os.access(self.engine.project.run, os.W_OK):
            self.engine.recover()

    def names(self) -> list[str]:
        """Names of all containers."""
        return [container.name for container in load(self.engine.project).containers.values()]

    def ps(self, all: bool = False, sample: bool = True) -> list[dict[str, Any]]:
        """Containers with their state and figures, running ones only unless ``all``. Keys as in cli.md."""
        from containust.runtime.metrics import collect

        self.recover()
        containers = list(load(self.engine.project).containers.values())
        running = [c for c in containers if c.state == RUNNING and alive(c)]
        metrics = collect(self.engine.backend, running, sample) if running else {}
        rows = []
        for container in containers:
            if not all and container not in running:
                continue
            row = _row(container)
            if container.state == RUNNING and container not in running:
                row["state"] = "dead"
            if container.id in metrics:
                row.update(metrics[container.id].as_dict())
            rows.append(row)
        return rows

    def inspect(self, name: str) -> dict[str, Any]:
        """Everything known of one container. Secrets are references here as they are in the file."""
        container = load(self.engine.project).find(name)
        result: dict[str, Any] = container.as_dict()
        result["log_path"] = self.engine.backend.logs(container)
        result["cgroup"] = self.engine.backend.group_path(container)
        if container.state == RUNNING and alive(container):
            stats = self.engine.backend.stats(container)
            result["stats"] = {key: getattr(stats, key) for key in stats.__slots__}
        return result

    def stop(self, names: list[str], timeout: float | None = None, force: bool = False) -> list[str]:
        """Stop containers (all when ``names`` is empty), dependents first; the names of those that ran."""
        return control.stop(self.engine, names, timeout, force)

    def start(self, names: list[str]) -> list[str]:
        """Start stopped containers; the names of those that were started."""
        return control.start(self.engine, names)

    def restart(self, names: list[str], timeout: float | None = None) -> list[str]:
        """Stop and start containers."""
        return control.restart(self.engine, names, timeout)

    def remove(self, names: list[str], force: bool = False, volumes: bool = False) -> list[str]:
        """Remove stopped containers, running ones with ``force``; managed volumes that nobody uses with ``volumes``."""
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
        from containust.runtime import spec
        from containust.runtime.container import Job

        engine = self.engine
        state = load(engine.project)
        container = state.find(name)
        if container.state != RUNNING:
            raise ContainustError(
                "R007", f"{container.name} is not running", f"start it with `ctst start {container.name}`"
            )
        component = spec.decode(container.name, container.spec)
        if env:
            component.env = {**component.env, **env}
        job: Job = engine.job(container, component)
        job.argv, job.user, job.workdir = argv, user, workdir
        job.tty, job.capture = tty, False
        job.stdio = (0 if interactive else -1, 1, 2)
        handle = engine.backend.exec(container, job)
        if tty:
            from containust.runtime.terminal import Terminal

            with Terminal(handle.terminal) as terminal:
                terminal.proxy(handle.pidfd)
        else:
            _forward_signals(handle.pid)
        status = engine.backend.wait(handle)
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
    ) -> Iterator[tuple[str, Line]]:
        """(container, record) of several containers, oldest first. ``since`` and ``until`` are RFC 3339 prefixes.

        With ``follow`` the iterator goes on until every container has ended.
        """
        from containust.runtime import logs

        engine = self.engine
        state = load(engine.project)
        chosen = control.choose(state, names)
        paths = {c.name: engine.backend.logs(c) for c in chosen}
        followers = {name: logs.Follower(path, at_end=True) for name, path in paths.items()} if follow else {}
        records: list[tuple[bytes, str, Line]] = []
        for name, path in paths.items():
            own = [(line.stamp, name, line) for line in logs.read(path)]
            records += own[len(own) - min(tail, len(own)) :] if tail is not None else own
        records.sort(key=lambda record: record[0])
        first, last = (since or "").encode(), (until or "").encode()
        for stamp, name, line in records:
            if (not first or stamp >= first) and (not last or stamp <= last):
                yield name, line
        ids = {c.id for c in chosen}
        while followers:
            running = any(alive(c) for c in load(engine.project).containers.values() if c.id in ids)
            fresh = [(line.stamp, name, line) for name, f in followers.items() for line in f.poll()]
            fresh.sort(key=lambda record: record[0])
            for _, name, line in fresh:
                yield name, line
            if not fresh:
                if not running:
                    return
                time.sleep(0.05)

    def events(self, *, follow: bool = False, since: str | None = None) -> Iterator[dict[str, Any]]:
        """Recorded events, oldest first; with ``follow`` also those to come."""
        from containust.runtime.events import read

        return read(self.engine.project, follow, since)


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


def _forward_signals(pid: int) -> None:
    """What would end this command goes to the program instead, as with a program run directly."""
    import _signal

    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT):
        _signal.signal(number, lambda received, frame: os.kill(pid, received))
