"""The engine: applies a plan, and brings containers under supervision and out of it.

Everything that changes a project goes through here. A process that starts containers becomes their supervisor; one
that only ends them acts directly when a supervisor lives, and first brings one to life when it does not.
"""

from __future__ import annotations

import time

from containust.common import os
from containust.common.errors import ContainustError
from containust.image.store import ImageStore
from containust.runtime import plan, spec, stopping
from containust.runtime.backend import detect_backend
from containust.runtime.events import emit
from containust.runtime.images import Images
from containust.runtime.jobs import Jobs
from containust.runtime.options import Options
from containust.runtime.ownership import Ownership, lock_path
from containust.runtime.process import alive
from containust.runtime.start import Start, enter
from containust.runtime.state import CREATED, RUNNING, Container, Update, load
from containust.runtime.supervisor import Supervisor, Unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.common.types import Component, Stack
    from containust.runtime.connections import Connections
    from containust.runtime.plan import Step
    from containust.runtime.project import Project
    from containust.runtime.state import State


FINISH = 10.0  # seconds in which the end of the last container must have been recorded


class Engine:
    """The operations of one project."""

    def __init__(self, project: Project, options: Options | None = None) -> None:
        self.project = project
        self.options = options or Options()
        self.backend = detect_backend(project, self.options.backend)
        store = ImageStore(project.images, offline=self.options.offline)
        self.images = Images(store, single=self.options.container_id is not None)
        self.jobs = Jobs(project, self.options, self.images)
        self.supervises = ""  # the unit this process has become the supervisor of
        self.inherited = False  # from one that was killed
        self.open: Update | None = None  # the state while a start is being entered into it
        self._connections: Connections | None = None

    @property
    def connections(self) -> Connections:
        """The project's networks and ports; asked for where there are any."""
        if self._connections is None:
            from containust.runtime.connections import Connections

            self._connections = Connections(self.project, self.backend)
        return self._connections

    def state(self) -> State:
        """The project's state: the one being changed by this process, else as recorded."""
        return self.open.state if self.open else load(self.project)

    def changes(
        self, stack: Stack, state: State | None = None, runs: Callable[[Container], bool] = alive
    ) -> list[Step]:
        """What :meth:`up` would do. Imports nothing and writes nothing. ``runs`` tells which containers do."""
        return plan.compute(
            stack,
            state or load(self.project),
            lambda component: self.images.present(component, stack.file),
            runs,
            self.options.remove_orphans,
            self.options.only,
            self.backend.drift,
        )

    # -- start --------------------------------------------------------------------------------------------------

    def up(
        self, stack: Stack, unit: str, echo: Callable[[str, bytes, bytes], None] | None = None
    ) -> tuple[Supervisor, Ownership, list[Step]]:
        """Make reality match ``stack``; returns the supervisor with everything up, or rolls back and raises.

        ``unit`` names what is supervised together: the stack's file or one container's id. The caller goes on with
        :meth:`serve`. ``echo`` gets the containers' output as (name, stream, bytes).
        """
        if not self.backend.is_available():
            raise ContainustError(
                "S003",
                "containers cannot be started by this user on this host",
                "`ctst doctor` says what is missing",
            )
        for component in stack.components.values():
            if self.options.only is None or component.name in self.options.only:
                self._check_offline(component)
                self.images.of(component, stack.file)
                self.jobs.check_secrets(component)
        self.project.create()
        self.backend.begin()
        ownership = Ownership(self.project, unit)
        ownership.take()
        self.supervises = unit
        self.inherited = ownership.inherited
        start = Start()
        try:
            supervisor = Supervisor(self.project, self.backend)
            supervisor.echo = echo
            supervisor.handle_signals()
            steps = self._apply(supervisor, stack, start)
        except BaseException:
            self._release_ports()
            from containust.runtime.background import supervise_live

            # What ran before goes on, and needs somebody to watch it.
            supervise_live(self, ownership, unit, start.interrupted)
            raise
        return supervisor, ownership, steps

    def _check_offline(self, component: Component) -> None:
        if self.options.offline and "host" in component.networks:
            raise ContainustError(
                "R013",
                f"{component.name} is on the host's network, which --offline cannot keep from leading out",
                "give it a network of its own, or leave --offline away",
            )

    def _release_ports(self) -> None:
        if self._connections:
            self._connections.release_ports()

    def _apply(self, supervisor: Supervisor, stack: Stack, start: Start) -> list[Step]:
        state = self.recover()
        for container in state.containers.values():
            if container.stack_file == stack.file and alive(container):
                component = stack.components.get(container.name) or spec.decode(container.name, container.spec)
                supervisor.adopt(self.unit(container, component))
        # One that ends from here on is what its supervisor sees to, no change.
        steps = self.changes(stack, state, lambda container: container.name in supervisor.units)
        if self.options.expected is not None:
            from containust.runtime import planfile

            planfile.check(self.options.expected, stack, state, steps)
        actions = {step.name: step.action for step in steps}
        exposes = [expose for expose in stack.exposes if actions.get(expose.component, plan.REMOVE) != plan.REMOVE]
        if exposes:
            self.connections.reserve(exposes)
        gone = [name for name, action in actions.items() if action in (plan.REMOVE, plan.RECREATE)]
        start.interrupted = [name for name in gone if name in supervisor.units]
        if start.interrupted:
            stopping.end(supervisor, start.interrupted)
        self.open = Update(self.project)
        try:
            enter(self, self.open.state, stack, actions, start)
            for container in start.started:
                supervisor.add(self.unit(container, stack.components[container.name]))
            if start.started:
                supervisor.before_start = self._settle
            else:
                self._settle()
            supervisor.start(self.options.timeout)
            if supervisor.failed:
                raise next(iter(supervisor.failed.values()))
        except BaseException as error:
            from containust.runtime.undoing import undo

            undo(self, supervisor, start, error)
            raise
        for name, action in actions.items():
            if action == plan.UPDATE:
                self.backend.restore_limits(supervisor.units[name].container, stack.components[name])
        for old in start.replaced:  # only now: it would have come back, had its successor failed
            self.erase(old)
        if gone or start.turned or any(container.attachments for container in start.started):
            self.tell_names({container.id for container in start.started})
        return steps

    def tell_names(self, fresh: set[str]) -> None:
        """Bring the hosts files of running containers, those in ``fresh`` apart, in line with who is there now."""
        state = self.state()
        for container in state.containers.values():
            if container.attachments and container.id not in fresh and alive(container):
                self.backend.write_hosts(container, self.jobs.peers(container, state))

    def _settle(self) -> None:
        """Rules and record of a start, while the containers build their roots."""
        self.publish()
        if self.open:
            update, self.open = self.open, None
            update.commit()

    def publish(self) -> None:
        """Put the project's rules in place for everything that is wanted to run."""
        state = self.state()
        if any(container.attachments and container.wanted == RUNNING for container in state.containers.values()):
            self.connections.publish(state)

    def unit(self, container: Container, component: Component) -> Unit:
        """``container`` as a supervisor takes it."""
        recorded = container.spec
        if len(recorded.get("volumes", ())) > len(component.volumes) or (
            recorded.get("healthcheck") and not component.healthcheck
        ):
            component = spec.decode(container.name, recorded)  # with what its image added
        return Unit(container, component, lambda: self.jobs.job(container, component, self.state()))

    # -- end ----------------------------------------------------------------------------------------------------

    def serve(self, supervisor: Supervisor, ownership: Ownership) -> None:
        """Supervise until the last container has ended, then leave nothing behind. Returns early on a hand-over."""
        import gc

        gc.freeze()  # what is there by now stays, and need not be searched for garbage
        gc.enable()
        watch = None
        if any(unit.container.attachments for unit in supervisor.units.values()):
            watch = self.connections.watch(supervisor)
        try:
            supervisor.run(lambda: not supervisor.live())
            if watch:
                watch.close()
            if supervisor.released:
                supervisor.let_go()
            else:
                self._finish_when_possible(supervisor)
        finally:
            self._release_ports()
            ownership.release()

    def _finish_when_possible(self, supervisor: Supervisor) -> None:
        """As :meth:`finish`; a full disk gets some time, for how the containers ended is known to nobody else."""
        deadline = time.monotonic() + FINISH
        while True:
            kept = supervisor.unrecorded()
            try:
                self.finish(supervisor)
                return
            except ContainustError:
                if time.monotonic() > deadline or supervisor.interrupted or supervisor.released:
                    raise
            supervisor.record_later(kept)
            time.sleep(0.2)

    def finish(self, supervisor: Supervisor) -> None:
        """After the last container: forget the `--rm` ones, take the networks down when nobody uses them."""
        with Update(self.project) as state:
            supervisor.merge(state)
            for unit in supervisor.units.values():
                recorded = state.containers.get(unit.container.id)
                if recorded and recorded.remove:
                    del state.containers[recorded.id]
                    if recorded.attachments:
                        self.backend.networks(state.networks).release(recorded.id)
                    self.erase(recorded)
            self.sweep(state)
            self.tear_down_networks(state)
            self.release_range(state, {unit.container.id_base for unit in supervisor.units.values()})

    def tear_down_networks(self, state: State) -> None:
        """Remove the project's networks from the host when nobody uses them."""
        if state.networks:
            self.connections.tear_down_unused(state, self.supervises)

    def release_range(self, state: State, bases: set[int | None]) -> None:
        """Give the project's id range back when its last container is gone."""
        if not state.containers:
            for base in bases:
                if base is not None:
                    self.backend.release_ids(base)

    def erase(self, container: Container) -> None:
        """Delete all that the project keeps of a stopped container but its record."""
        self.backend.remove(container)
        self.backend.remove_root(container)
        if container.remove and container.spec.get("volumes"):
            from containust.runtime.image_defaults import forget_volumes

            forget_volumes(container, self.project.volumes)
        for suffix in ("", ".1", ".2", ".new"):
            try:
                os.unlink(f"{self.backend.logs(container)}{suffix}")
            except FileNotFoundError:
                pass
        emit(self.project, "removed", container.name, id=container.id)

    # -- recovery -----------------------------------------------------------------------------------------------

    def recover(self) -> State:
        """Clean up after processes that were killed: whatever belongs to no live container is removed.

        Live containers without a supervisor stay as they are. Cheap when there is nothing to do. Returns the state.
        """
        self.backend.begin()
        state = load(self.project)
        listed = list(self.backend.list())
        strays = [id for id in listed if id not in state.containers and not self._others()]
        if (
            strays
            or self.inherited
            or any(id in state.containers and self.left_over(state.containers[id]) for id in listed)
            or any(map(self.stale, state.containers.values()))
            or (self._killed() and not any(map(alive, state.containers.values())))
        ):
            from containust.runtime.repair import repair

            return repair(self, strays)
        return state

    def left_over(self, container: Container) -> bool:
        """Whether whoever recorded that it has ended was killed before removing what the host has of it."""
        return container.state not in (RUNNING, CREATED) and not alive(container) and self._unattended(container)

    def sweep(self, state: State) -> None:
        """Delete logs and writable layers that a killed process left: of containers that are in no record.

        The caller holds the state's lock. Where another process supervises, they may be what it would go back to.
        """
        if self._others():
            return
        for directory in (self.project.logs, self.project.rootfs):
            try:
                names = os.listdir(directory)
            except OSError:
                continue
            for name in names:
                id = name[:36]
                if len(id) == 36 and id[8] == "-" and id not in state.containers:
                    if directory == self.project.logs:
                        os.unlink(f"{directory}/{name}")
                    else:
                        self.backend.remove_root(Container(id, id[:12]))

    def _killed(self) -> bool:
        """Whether a supervisor was killed: one that ends well removes its lock file."""
        return any(not Ownership.locked(path) for path in Ownership.files(self.project))

    def _others(self) -> bool:
        """Whether another process supervises something of the project: what it starts may not be recorded yet."""
        own = lock_path(self.project, self.supervises)
        return any(Ownership.locked(path) for path in Ownership.files(self.project) if path != own)

    def stale(self, container: Container) -> bool:
        """Whether the record says more than is true, and nobody is there to correct it."""
        if container.state == RUNNING and alive(container):
            return False
        return container.state in (RUNNING, CREATED) and self._unattended(container)

    def _unattended(self, container: Container) -> bool:
        """Whether no other process sees to it."""
        return container.unit == self.supervises or not Ownership.held(self.project, container.unit)
