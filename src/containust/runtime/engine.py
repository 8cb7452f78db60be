"""The engine: applies a plan, and brings containers under supervision and out of it.

Everything that changes a project goes through here. A process that starts containers becomes their supervisor; one
that only ends them acts directly when a supervisor lives, and first brings one to life when it does not.
"""

from __future__ import annotations

import time

from containust.common import os
from containust.common.errors import ContainustError
from containust.common.types import Ref
from containust.image.mounting import clone_root, open_root
from containust.image.store import ImageStore
from containust.runtime import plan, restarts, spec, values
from containust.runtime.backend import detect_backend
from containust.runtime.container import Job, places
from containust.runtime.events import emit
from containust.runtime.ownership import Ownership, lock_path
from containust.runtime.process import alive
from containust.runtime.state import CREATED, RUNNING, Container, Update, load, now
from containust.runtime.supervisor import Supervisor, Unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from containust.common.types import Component, Expose, Stack
    from containust.image.store import Image
    from containust.runtime.network.attachment import Attachment
    from containust.runtime.network.ports import Reservation
    from containust.runtime.network.rules import HostService
    from containust.runtime.network.stack import StackNetworks
    from containust.runtime.network.watch import RulesetWatch
    from containust.runtime.plan import Step
    from containust.runtime.project import Project
    from containust.runtime.state import State


MEND = 0.1  # seconds in which a firewall that is loaded anew should be complete
FINISH = 10.0  # seconds in which the end of the last container must have been recorded


class Options:
    """What a start depends on beside the stack itself."""

    __slots__ = (
        "backend",
        "container_id",
        "environ",
        "expected",
        "forget",
        "interactive",
        "offline",
        "only",
        "remove_orphans",
        "timeout",
        "tty",
    )

    def __init__(
        self,
        offline: bool = False,
        environ: Mapping[str, str] | None = None,
        backend: str = "auto",
        remove_orphans: bool = True,
        only: set[str] | None = None,
        forget: bool = False,
        interactive: bool = False,
        tty: bool = False,
        container_id: str | None = None,
    ) -> None:
        self.timeout: float | None = None  # seconds after which a start that is not up is given up
        self.expected: list[dict[str, Any]] | None = None  # what a plan that was kept says, see runtime.planfile
        self.container_id = container_id  # for a container without a file: the id it gets
        self.offline = offline
        self.environ = os.environ if environ is None else environ
        self.backend = backend
        self.remove_orphans = remove_orphans
        self.only = only
        self.forget = forget  # --rm
        self.interactive = interactive  # stdin of the caller goes to the container
        self.tty = tty


def _kept(component: Component) -> list[str] | None:
    """What a distroless image of the component has to keep, None for a whole one."""
    if not component.distroless:
        return None
    from containust.runtime.reduced import words

    return words(component)


class Engine:
    """The operations of one project."""

    def __init__(self, project: Project, options: Options | None = None) -> None:
        self.project = project
        self.options = options or Options()
        self.backend = detect_backend(project, self.options.backend)
        self.store = ImageStore(project.images, offline=self.options.offline)
        self._images: dict[str, Image] = {}
        self._roots: dict[str, int] = {}  # image id -> descriptor of its tree, detached
        self.supervises = ""  # the unit this process has become the supervisor of
        self._inherited = False  # from one that was killed
        self._reservation: Reservation | None = None  # the published ports, held by the supervisor
        # Container id -> its recorded attachments, its names, its places: each is asked for by each other container.
        self._places: dict[str, tuple[list[dict[str, Any]], str, list[Attachment]]] = {}
        self._open: Update | None = None  # the state while a start is being entered into it
        self._interrupted: list[str] = []  # ran before a start that failed, and was stopped for it
        self._wanted: dict[str, str] = {}  # of those that a start begins again: what the user asked for before, by id
        self._networks: StackNetworks | None = None  # as last published
        self._turned = False  # some that ran before are offline from now on, or no longer

    # -- plan ---------------------------------------------------------------------------------------------------

    def image(self, component: Component, stack_file: str | None) -> Image:
        """The component's image, imported when it is missing."""
        if component.name not in self._images:
            base = os.path.dirname(stack_file) if stack_file else os.getcwd()
            self._images[component.name] = self.store.ensure(
                component.image,
                component.include,
                base,
                distroless=_kept(component),
                live=component.live,
            )
        return self._images[component.name]

    def changes(
        self, stack: Stack, state: State | None = None, runs: Callable[[Container], bool] = alive
    ) -> list[Step]:
        """What :meth:`up` would do. Imports nothing and writes nothing. ``runs`` tells which containers do."""
        base = os.path.dirname(stack.file)

        def image_id(component: Component) -> str | None:
            image = self.store.find(
                component.image,
                component.include,
                base,
                distroless=_kept(component),
                live=component.live,
            )
            return image.id if image else None

        return plan.compute(
            stack,
            state or load(self.project),
            image_id,
            runs,
            self.options.remove_orphans,
            self.options.only,
            self.backend.drift,
        )

    # -- up -----------------------------------------------------------------------------------------------------

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
                self.image(component, stack.file)
                for value in _texts(component):
                    self._check_secrets(value)
        self.project.create()
        self.backend.begin()
        ownership = Ownership(self.project, unit)
        ownership.take()
        self.supervises = unit
        self._inherited = ownership.inherited
        try:
            supervisor = Supervisor(self.project, self.backend)
            supervisor.echo = echo
            supervisor.handle_signals()
            steps = self._apply(supervisor, stack)
        except BaseException:
            self._release_ports()
            from containust.runtime.control import supervise_live

            # What ran before goes on, and needs somebody to watch it.
            supervise_live(self, ownership, unit, self._interrupted)
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
        if self._reservation:
            self._reservation.close()
            self._reservation = None

    def _apply(self, supervisor: Supervisor, stack: Stack) -> list[Step]:
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
        self._reserve([expose for expose in stack.exposes if actions.get(expose.component, plan.REMOVE) != plan.REMOVE])
        gone = [name for name, action in actions.items() if action in (plan.REMOVE, plan.RECREATE)]
        self._interrupted = [name for name in gone if name in supervisor.units]
        self._end(supervisor, list(self._interrupted))
        fresh: list[Container] = []
        started: list[Container] = []
        replaced: list[Container] = []
        self._open = Update(self.project)
        try:
            self._enter(stack, actions, fresh, started, replaced)
            for container in started:
                supervisor.add(self.unit(container, stack.components[container.name]))
            if started:
                supervisor.before_start = self._settle
            else:
                self._settle()
            supervisor.start(self.options.timeout)
            if supervisor.failed:
                raise next(iter(supervisor.failed.values()))
        except BaseException as error:
            self._roll_back(supervisor, fresh, [c for c in started if c not in fresh], replaced, error)
            raise
        for name, action in actions.items():
            if action == plan.UPDATE:
                self.backend.restore_limits(supervisor.units[name].container, stack.components[name])
        for old in replaced:  # only now: it would have come back, had its successor failed
            self.erase(old)
        if gone or self._turned or any(container.attachments for container in started):
            self.tell_names({container.id for container in started})
        return steps

    def tell_names(self, fresh: set[str]) -> None:
        """Bring the hosts files of running containers, those in ``fresh`` apart, in line with who is there now."""
        state = self.state()
        for container in state.containers.values():
            if container.attachments and container.id not in fresh and alive(container):
                self.backend.write_hosts(container, self._peers(container, state))

    def _settle(self) -> None:
        """Rules and record of a start, while the containers build their roots."""
        self._publish()
        if self._open:
            update, self._open = self._open, None
            update.commit()

    def state(self) -> State:
        """The project's state: the one being changed by this process, else as recorded."""
        return self._open.state if self._open else load(self.project)

    def _enter(
        self,
        stack: Stack,
        actions: dict[str, str],
        fresh: list[Container],
        started: list[Container],
        replaced: list[Container],
    ) -> None:
        """Enter the new containers with their addresses into the open state.

        ``fresh`` receives those made now, ``started`` all that are to start, ``replaced`` those that are no more.
        """
        state = self.state()
        for container in state.containers.values():
            if container.name in actions and container.offline != self.options.offline:
                container.offline = self.options.offline
                self._turned = True
        networks = self.networks(state) if state.networks else None
        kept: dict[str, list[Attachment]] = {}
        for name, action in actions.items():
            old = state.by_name(name)
            if action in (plan.REMOVE, plan.RECREATE) and old:
                kept[name] = places(old.attachments)
                if networks:
                    networks.release(old.id)
                replaced.append(state.containers.pop(old.id))
            if action in (plan.CREATE, plan.RECREATE):
                container = self._new(stack, stack.components[name])
                state.containers[container.id] = container
                fresh.append(container)
                started.append(container)
            elif action == plan.START and old:
                self._bury(old)
                self._wanted[old.id] = old.wanted
                old.begin()
                self._claim_ids(old)
                started.append(old)
        self._connect(state, started, stack.components, kept)

    def _connect(
        self,
        state: State,
        containers: list[Container],
        components: dict[str, Component],
        kept: dict[str, list[Attachment]],
    ) -> None:
        """Make the networks of ``containers`` and give each its addresses, the ones it had where that can be."""
        names = {c.id: [n for n in components[c.name].networks if n not in ("host", "none")] for c in containers}
        needed = sorted({name for own in names.values() for name in own})
        if not needed:
            return
        networks = self._networks = self.networks(state)
        networks.ensure(needed)
        for container in containers:
            keep = kept.get(container.name) or places(container.attachments)
            attachments = networks.allocate(container.id, names[container.id], keep)
            container.attachments = [item.as_dict() for item in attachments]
        state.networks = networks.recorded

    def _new(self, stack: Stack, component: Component) -> Container:
        image = self.image(component, stack.file)
        exposes = [expose for expose in stack.exposes if expose.component == component.name]
        container_id = self.options.container_id or new_id()
        recorded = component
        if image.config.volumes or image.config.healthcheck:
            from containust.runtime.image_defaults import completed

            owner = container_id if self.options.forget else component.name
            recorded = completed(component, image.config, owner)
        container = Container(
            container_id,
            component.name,
            stack_file=stack.file or None,
            spec=spec.encode(recorded),
            config_digest=spec.digest(component, image.id, exposes),
            image=component.image,
            image_id=image.id,
            created=now(),
            exposes=[expose.as_dict() for expose in exposes],
            stop_signal=component.stop_signal or image.config.stop_signal or "SIGTERM",
            remove=self.options.forget,
            offline=self.options.offline,
        )
        if component.userns == "auto":
            container.id_base = self.backend.claim_ids()
        emit(self.project, "created", component.name, id=container.id, image=component.image)
        return container

    def _claim_ids(self, container: Container) -> None:
        """Claim the host's ids again for a container that had some: a reboot has forgotten whose they are."""
        if container.id_base is None:
            return
        base = self.backend.claim_ids(container.id_base)
        if base != container.id_base and not container.spec.get("readonly", True):
            raise ContainustError(
                "R001",
                f"{container.name}: since a reboot, the ids that its files belong to are another project's",
                f"make it anew, without what it has written to its root: `ctst rm {container.name}`, `ctst run`",
            )
        container.id_base = base

    def unit(self, container: Container, component: Component) -> Unit:
        """``container`` as a supervisor takes it."""
        recorded = container.spec
        if len(recorded.get("volumes", ())) > len(component.volumes) or (
            recorded.get("healthcheck") and not component.healthcheck
        ):
            component = spec.decode(container.name, recorded)  # with what its image added
        return Unit(container, component, lambda: self.job(container, component))

    def job(self, container: Container, component: Component) -> Job:
        """The order to start ``container``, rendered against the project's present state."""
        image = self.image(component, container.stack_file)
        state = self.state()
        masks: list[bytes] = []
        job = Job(
            container,
            component,
            image.config,
            lambda: self._root(image),
            image.standard_targets,
            lambda ref: values.look_up(component, ref, state, masks, self._secret),
        )
        job.masks = masks
        job.peers = self._peers(container, state)
        if self.options.tty:
            job.tty = True
        if self.options.interactive:
            job.stdio = (0, -1, -1)
        return job

    def _peers(self, container: Container, state: State) -> dict[str, list[Attachment]]:
        """The places of all other containers, by their names separated by spaces."""
        found = {}
        for other in state.containers.values():
            if other.id != container.id and other.attachments:
                known = self._places.get(other.id)
                if known is None or known[0] is not other.attachments:
                    hostname = other.spec.get("hostname")
                    names = other.name if not hostname or hostname == other.name else f"{other.name} {hostname}"
                    known = self._places[other.id] = other.attachments, names, places(other.attachments)
                found[known[1]] = known[2]
        return found

    def _root(self, image: Image) -> int:
        """A detached mount of the image's tree; containers of one image share one file system and its page cache."""
        if self.options.container_id:
            return open_root(self.store, image)  # for one container: giving a second one up waits for a grace period
        opened = self._roots.get(image.id)
        if opened is None:
            opened = self._roots[image.id] = open_root(self.store, image)
        try:
            return clone_root(opened)
        except OSError:  # before Linux 6.15 a detached mount cannot be copied
            return open_root(self.store, image)

    def _secret(self, name: str) -> str:
        from containust.compose.secrets import find_secret

        return find_secret(name, self.project.directory, self.options.environ)

    def _check_secrets(self, value: object) -> None:
        if isinstance(value, tuple):
            for part in value:
                if isinstance(part, Ref) and part.kind == "secret":
                    self._secret(part.name)

    # -- networks -----------------------------------------------------------------------------------------------

    def networks(self, state: State) -> StackNetworks:
        """The project's networks as recorded."""
        return self.backend.networks(state.networks)

    def _publish(self) -> None:
        """Put the project's rules in place for everything that is wanted to run: one transaction."""
        state = self.state()
        exposes: list[Expose] = []
        attachments: dict[str, list[Attachment]] = {}
        offline: set[str] = set()
        on_host = False
        for container in state.containers.values():
            if container.wanted == RUNNING and container.attachments:
                attachments[container.name] = places(container.attachments)
                exposes += [spec.decode_expose(item) for item in container.exposes]
                if container.offline:
                    offline.update(item["network"] for item in container.attachments)
            elif container.wanted == RUNNING and "host" in container.spec.get("networks", ()):
                on_host = True
        if attachments:
            services: list[HostService] = []
            if on_host:
                from containust.runtime.network.services import host_services

                services = host_services(state)
            # Kept, because closing its nf_tables socket waits for a grace period of the kernel (16 ms).
            if self._networks is None or self._networks.recorded is not state.networks:
                self._networks = self.networks(state)
            self._networks.publish(exposes, attachments, offline, services)

    def reconnect(self, names: list[str], missed: bool = False) -> list[Container]:
        """Networks, addresses, ports and rules for stopped containers that are about to start again.

        The user wants that, or with ``missed`` their policy does, if it still holds then: see ``restarts.missed``.
        """
        with Update(self.project) as state:
            containers = [container for container in state.containers.values() if container.name in names]
            if missed:
                containers = [container for container in containers if restarts.missed(container)]
            for container in containers:
                self._bury(container)
                self._claim_ids(container)
                if not missed:
                    container.begin()
            components = {c.name: spec.decode(c.name, c.spec) for c in containers}
            self._connect(state, containers, components, {})
        self._publish()
        return containers

    def reserve_ports(self, names: set[str]) -> None:
        """Hold the published ports of ``names`` and of what runs. Raises ContainustError R011 when one is taken."""
        state = load(self.project)
        exposes = [
            spec.decode_expose(item)
            for container in state.containers.values()
            if container.name in names
            for item in container.exposes
        ]
        self._reserve(exposes)

    def _reserve(self, exposes: list[Expose]) -> None:
        if exposes:
            self._reservation = self.backend.reserve_ports(exposes)

    def _tear_down_networks(self, state: State) -> None:
        """Remove the project's networks from the host when nobody uses them."""
        if state.networks and not any(self._uses_networks(c) for c in state.containers.values()):
            self.networks(state).teardown()

    def _uses_networks(self, container: Container) -> bool:
        """Whether a container lives, or another process is about to start it, again perhaps."""
        if alive(container) or container.state == CREATED:
            return True
        restarts = container.wanted == RUNNING and "restart" in container.spec
        return restarts and container.unit != self.supervises and Ownership.held(self.project, container.unit)

    # -- end ----------------------------------------------------------------------------------------------------

    def _end(self, supervisor: Supervisor, names: list[str]) -> None:
        """Stop units of ``supervisor`` and forget them."""
        if names:
            supervisor.stop(names)
            supervisor.run(lambda: all(supervisor.units[name].settled for name in names))
            supervisor.record()
            for name in names:
                del supervisor.units[name]

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

    def _roll_back(
        self,
        supervisor: Supervisor,
        fresh: list[Container],
        restarted: list[Container],
        replaced: list[Container],
        error: BaseException,
    ) -> None:
        """Undo a start that failed: what it made is removed, what was there before stays, or comes back."""
        self._images.clear()
        unrecorded: dict[str, Any] = {}
        entered = not self._open
        if self._open:
            unrecorded = self._open.state.networks
            self._open.abandon()
            self._open = None
        mine = [c.name for c in (*fresh, *restarted) if c.name in supervisor.units]
        supervisor.waiting = []
        supervisor.interrupted = max(1, supervisor.interrupted)
        for name in mine:
            unit = supervisor.units[name]
            if unit.handle:
                unit.stopping = True
                self.backend.stop(unit.handle)
        supervisor.run(lambda: all(supervisor.units[name].handle is None for name in mine))
        if isinstance(error, ContainustError) and error.container in supervisor.units and not supervisor.echo:
            from containust.runtime import last_words

            last_words.add(error, self.backend.logs(supervisor.units[error.container].container))
        with Update(self.project) as state:
            if entered:
                supervisor.merge(state)
                for id, wanted in self._wanted.items():
                    if id in state.containers:
                        state.containers[id].wanted = wanted
            for container in fresh:
                recorded = state.containers.pop(container.id, None)
                if recorded and state.networks:
                    self.networks(state).release(container.id)
                self.erase(container)
            for container in replaced:
                state.containers.setdefault(container.id, container)
            if not state.networks:  # those that this start has made are in no record
                state.networks = unrecorded
            self._tear_down_networks(state)
            self.release_range(state, {container.id_base for container in fresh})
        if load(self.project).networks:
            self._publish()

    def serve(self, supervisor: Supervisor, ownership: Ownership) -> None:
        """Supervise until the last container has ended, then leave nothing behind. Returns early on a hand-over."""
        import gc

        gc.freeze()  # what is there by now stays, and need not be searched for garbage
        gc.enable()
        watch = self._watch_rules(supervisor)
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

    def _watch_rules(self, supervisor: Supervisor) -> RulesetWatch | None:
        """Put our rules in force again when somebody flushes them, and read the host's again when these change."""
        if not any(unit.container.attachments for unit in supervisor.units.values()):
            return None
        from containust.runtime.network.watch import RulesetWatch

        try:
            watch = RulesetWatch(self.project.id)
        except OSError:
            return None
        pending = False

        def mend() -> None:
            nonlocal pending
            pending = False
            try:
                # Under the lock of the state: nobody takes the networks down meanwhile.
                self._open = Update(self.project)
                if self.networks(self._open.state).outdated(self._networks):
                    self._publish()
            except ContainustError:
                pass  # at the next change, or the next command
            finally:
                if self._open:
                    self._open.abandon()
                    self._open = None

        def changed() -> None:
            nonlocal pending
            if watch.concerns_us() and not pending:
                pending = True
                supervisor.after(MEND, mend)

        supervisor.watch(watch.fd, changed)
        return watch

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
                        self.networks(state).release(recorded.id)
                    self.erase(recorded)
            self.sweep(state)
            self._tear_down_networks(state)
            self.release_range(state, {unit.container.id_base for unit in supervisor.units.values()})

    # -- recovery -----------------------------------------------------------------------------------------------

    def recover(self) -> State:
        """Clean up after processes that were killed: whatever belongs to no live container is removed.

        Live containers without a supervisor stay as they are. Cheap when there is nothing to do. Returns the state.
        """
        self.backend.begin()
        state = load(self.project)
        known = set(state.containers)
        stale = [c for c in state.containers.values() if self._stale(c)]
        strays = [id for id in self.backend.list() if id not in known and not self._others()]
        if (
            not stale
            and not strays
            and not self._inherited
            and (any(map(alive, state.containers.values())) or not self._killed())
        ):
            return state
        with Update(self.project) as state:
            for container in list(state.containers.values()):
                if self._stale(container):
                    self.backend.remove(container)
                    if container.state == CREATED and not container.started:
                        self.erase(container)
                        del state.containers[container.id]
                        continue
                    if container.remove:
                        self.erase(container)
                        del state.containers[container.id]
                        continue
                    container.ended()
            self.sweep(state)
            for id in strays:
                if id not in state.containers:
                    stray = Container(id, id[:12])
                    self.backend.remove(stray)
                    self.backend.remove_root(stray)
            if not any(alive(c) or c.state == CREATED for c in state.containers.values()):
                killed = Ownership.seize(self.project)
                if killed or self._inherited or state.networks:
                    self.networks(state).teardown()  # also what a killed one had not recorded yet
                for one in killed:
                    one.release()
        return state

    def _bury(self, container: Container) -> None:
        """What :meth:`recover` does, for one that has ended since."""
        if container.state == RUNNING:
            self.backend.remove(container)
            container.ended()

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
        return self._inherited or any(not Ownership.locked(path) for path in Ownership.files(self.project))

    def _others(self) -> bool:
        """Whether another process supervises something of the project: what it starts may not be recorded yet."""
        own = lock_path(self.project, self.supervises)
        return any(Ownership.locked(path) for path in Ownership.files(self.project) if path != own)

    def _stale(self, container: Container) -> bool:
        """Whether the record says more than is true, and nobody is there to correct it."""
        if container.state == RUNNING and alive(container):
            return False
        if container.state not in (RUNNING, CREATED):
            return False
        return container.unit == self.supervises or not Ownership.held(self.project, container.unit)


def new_id() -> str:
    """A random UUID (version 4)."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Poll a condition that another process brings about."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _texts(component: Component) -> list[object]:
    values: list[object] = [
        *component.env.values(),
        *(component.command or []),
        *(component.entrypoint or []),
    ]
    if component.healthcheck:
        values += component.healthcheck.command
    return values
