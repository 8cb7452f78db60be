"""What the containers of a project reach and are reached by: networks, addresses, rules, published ports.

Loaded where a container is on a network of the project's own, or publishes a port.
"""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.runtime import spec
from containust.runtime.container import places
from containust.runtime.ownership import Ownership
from containust.runtime.process import alive
from containust.runtime.state import CREATED, RUNNING, Update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Component, Expose
    from containust.runtime.backend.protocol import ContainerBackend
    from containust.runtime.network.attachment import Attachment
    from containust.runtime.network.ports import Reservation
    from containust.runtime.network.rules import HostService
    from containust.runtime.network.stack import StackNetworks
    from containust.runtime.network.watch import RulesetWatch
    from containust.runtime.project import Project
    from containust.runtime.state import Container, State
    from containust.runtime.supervisor import Supervisor

MEND = 0.1  # seconds in which a firewall that is loaded anew should be complete


class Connections:
    """Of one project, as one process makes and watches them."""

    __slots__ = ("_backend", "_networks", "_project", "_reservation")

    def __init__(self, project: Project, backend: ContainerBackend) -> None:
        self._project = project
        self._backend = backend
        self._networks: StackNetworks | None = None  # as last published
        self._reservation: Reservation | None = None  # the published ports, held by the supervisor

    def reserve(self, exposes: list[Expose]) -> None:
        """Hold published ports. Raises ContainustError R011 when one is taken."""
        self._reservation = self._backend.reserve_ports(exposes)

    def release_ports(self) -> None:
        """Let go of the published ports."""
        if self._reservation:
            self._reservation.close()
            self._reservation = None

    def connect(
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
        networks = self._networks = self._backend.networks(state.networks)
        networks.ensure(needed)
        for container in containers:
            keep = kept.get(container.name) or places(container.attachments)
            attachments = networks.allocate(container.id, names[container.id], keep)
            container.attachments = [item.as_dict() for item in attachments]
        state.networks = networks.recorded

    def publish(self, state: State) -> None:
        """Put the project's rules in place for everything that is wanted to run: one transaction."""
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
                self._networks = self._backend.networks(state.networks)
            self._networks.publish(exposes, attachments, offline, services)

    def watch(self, supervisor: Supervisor) -> RulesetWatch | None:
        """Put our rules in force again when somebody flushes them, and read the host's again when these change."""
        from containust.runtime.network.watch import RulesetWatch

        try:
            watch = RulesetWatch(self._project.id)
        except OSError:
            return None
        pending = False

        def mend() -> None:
            nonlocal pending
            pending = False
            self._mend()

        def changed() -> None:
            nonlocal pending
            if watch.concerns_us() and not pending:
                pending = True
                supervisor.after(MEND, mend)

        supervisor.watch(watch.fd, changed)
        return watch

    def _mend(self) -> None:
        try:
            update = Update(self._project)  # under the lock of the state: nobody takes the networks down meanwhile
        except ContainustError:
            return  # at the next change, or the next command
        try:
            if self._backend.networks(update.state.networks).outdated(self._networks):
                self.publish(update.state)
        except ContainustError:
            pass
        finally:
            update.abandon()

    def tear_down_unused(self, state: State, supervises: str) -> None:
        """Remove the project's networks from the host when nobody uses them; ``supervises`` is this process's unit."""
        if not any(self._used_by(container, supervises) for container in state.containers.values()):
            self._backend.networks(state.networks).teardown()

    def _used_by(self, container: Container, supervises: str) -> bool:
        """Whether a container lives, or another process is about to start it, again perhaps."""
        if alive(container) or container.state == CREATED:
            return True
        restarts = container.wanted == RUNNING and "restart" in container.spec
        return restarts and container.unit != supervises and Ownership.held(self._project, container.unit)
