"""A stack of a ``.ctst`` file, or of one component made by hand: plan it, bring it up, take it down."""

from __future__ import annotations

from containust.common import types
from containust.runtime import project
from containust.runtime.engine import Engine
from containust.runtime.options import Options
from containust.runtime.start import new_id
from containust.runtime.state import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from containust.runtime.plan import Step
    from containust.runtime.supervisor import Supervisor


class Stack:
    """``Stack.load(path)`` or ``Stack.single(component)``. Everything raises ContainustError."""

    __slots__ = ("_resolved", "engine", "unit")

    def __init__(self, resolved: types.Stack, engine: Engine, unit: str) -> None:
        self._resolved = resolved
        self.engine = engine
        self.unit = unit

    @classmethod
    def load(
        cls,
        path: str,
        *,
        state_file: str | None = None,
        offline: bool = False,
        backend: str = "auto",
        remove_orphans: bool = True,
        only: list[str] | None = None,
    ) -> Stack:
        """Read and check the file at ``path``. ``only`` names components to act on, with their dependencies."""
        from containust.compose.load import load_stack

        home = project.for_file(path, state_file)
        resolved = load_stack(path, offline=offline, project_dir=home.directory)
        chosen = _with_dependencies(resolved, only) if only else None
        options = Options(offline, None, backend, remove_orphans, chosen)
        return cls(resolved, Engine(home, options), resolved.file)

    @classmethod
    def single(
        cls,
        component: types.Component,
        exposes: list[types.Expose],
        *,
        directory: str = ".",
        state_file: str | None = None,
        offline: bool = False,
        backend: str = "auto",
        forget: bool = False,
        interactive: bool = False,
        tty: bool = False,
    ) -> Stack:
        """One container without a file, in the project of ``directory``. ``forget`` removes it when it ends."""
        home = project.current(directory, state_file)
        options = Options(
            offline, None, backend, forget=forget, interactive=interactive, tty=tty, container_id=new_id()
        )
        assert options.container_id is not None
        resolved = types.Stack("", {component.name: component}, exposes)
        return cls(resolved, Engine(home, options), options.container_id)

    @property
    def resolved(self) -> types.Stack:
        """The file as it was read and resolved."""
        return self._resolved

    @property
    def components(self) -> dict[str, types.Component]:
        """The components to deploy, by name."""
        return self._resolved.components

    @property
    def templates(self) -> list[str]:
        """Names that the file defines and does not deploy."""
        return self._resolved.templates

    @property
    def exposes(self) -> list[types.Expose]:
        """The published ports."""
        return self._resolved.exposes

    def closed_ports(self) -> list[tuple[str, str]]:
        """Published ports that the host's firewall keeps closed to other hosts: what, and what to do."""
        if all(expose.address in ("127.0.0.1", "::1") for expose in self.exposes):
            return []
        from containust.runtime.network.firewall import warnings

        return warnings(self.exposes)

    def plan(self) -> list[Step]:
        """What :meth:`up` would do; reads only."""
        return self.engine.changes(self._resolved)

    def keep_plan(self, path: str, steps: list[Step]) -> None:
        """Write a plan that :meth:`from_plan` carries out, and refuses when something has changed meanwhile."""
        from containust.runtime import planfile

        options = {"state_file": self.engine.project.state_file, "remove_orphans": self.engine.options.remove_orphans}
        planfile.write(path, self._resolved, load(self.engine.project), steps, options)

    @classmethod
    def from_plan(cls, path: str, *, offline: bool = False, backend: str = "auto") -> Stack:
        """The stack of a plan that was kept; :meth:`up` does exactly that or raises ContainustError S007."""
        from containust.runtime import planfile

        kept = planfile.read(path)
        beside = project.for_file(kept["file"]).state_file == kept["state_file"]
        stack = cls.load(
            kept["file"],
            state_file=None if beside else kept["state_file"],
            offline=offline,
            backend=backend,
            remove_orphans=kept["remove_orphans"],
        )
        stack.engine.options.expected = kept["steps"]
        return stack

    def up(self) -> list[Step]:
        """Bring the stack up in the background; returns what was done once everything is up and healthy.

        The calling process forks a supervisor, which ends with the last container.
        """
        from containust.runtime import background

        return background.up(self.engine, self._resolved, self.unit)

    def run(
        self,
        echo: Callable[[str, bytes, bytes], None] | None,
        ready: Callable[[list[Step]], None] | None = None,
    ) -> int:
        """Bring the stack up and supervise it in this process until its last container has ended.

        ``echo`` gets output as (component, stream, bytes), ``ready`` what was done once all is up. Returns the exit
        status: the first that is not 0 of a component that isn't restarted. SIGINT and SIGTERM stop the stack in
        reverse order, a second one kills it.
        """
        supervisor, ownership, steps = self.engine.up(self._resolved, self.unit, echo)
        if ready:
            ready(steps)
        terminal = next(
            (u.handle.terminal for u in supervisor.units.values() if u.handle and u.handle.terminal >= 0), -1
        )
        if terminal >= 0:
            self._attach(supervisor, terminal)
        self.engine.serve(supervisor, ownership)
        if supervisor.released:
            return 0
        return _exit_status(supervisor)

    @staticmethod
    def _attach(supervisor: Supervisor, master: int) -> None:
        from containust.runtime.terminal import Terminal

        (unit,) = supervisor.units.values()
        assert unit.handle is not None and unit.handle.capture is not None
        capture = unit.handle.capture
        capture.echo = None  # what the terminal shows is only logged
        with Terminal(master) as terminal:
            terminal.proxy(unit.handle.pidfd, lambda data: capture.write(b"stdout", data))

    def down(self) -> list[str]:
        """Stop and remove every container of the stack; returns their names."""
        from containust.runtime import control

        state = load(self.engine.project)
        names = [c.name for c in state.containers.values() if c.unit == self.unit]
        control.stop(self.engine, names)
        return control.remove(self.engine, names)

    def ps(self) -> list[dict[str, Any]]:
        """The containers of the stack's project, as `ctst ps --json` gives them."""
        from containust.sdk.project import Project

        options = self.engine.options
        return Project(self.engine.project, options.offline, options.backend).ps(all=True)


def _exit_status(supervisor: Supervisor) -> int:
    for unit in supervisor.units.values():
        code = unit.container.exit_code
        # `on-failure` ends here when its attempts are used up; the others only when they are asked to stop.
        ends = unit.component.restart.policy in ("never", "on-failure")
        if code and ends and not (unit.stopping and unit.container.signal):
            return code
    return 0


def _with_dependencies(stack: types.Stack, names: list[str]) -> set[str]:
    from containust.common.errors import ContainustError

    chosen: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in stack.components:
            raise ContainustError("E002", f"no component called {name}", f"there are {', '.join(stack.components)}")
        if name not in chosen:
            chosen.add(name)
            waiting += stack.components[name].depends_on
    return chosen
