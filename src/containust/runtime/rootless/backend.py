"""The Linux backend for an ordinary user: the same one, after entering the project's namespaces."""

from __future__ import annotations

import resource

from containust.common import os
from containust.common.errors import ContainustError
from containust.common.types import DEFAULT_PIDS
from containust.core.filesystem.devices import bound_dev
from containust.runtime.backend.linux import LinuxBackend
from containust.runtime.backend.running import RunningContainers
from containust.runtime.rootless import groups
from containust.runtime.rootless.client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.common.types import Component, Expose
    from containust.core import cgroup
    from containust.core.cgroup import Stats
    from containust.runtime.container import Handle, Job
    from containust.runtime.launch import Child, Launch
    from containust.runtime.network.attachment import Attachment
    from containust.runtime.network.ports import Reservation
    from containust.runtime.network.stack import StackNetworks
    from containust.runtime.project import Project
    from containust.runtime.state import Container


class RootlessRunning(RunningContainers):
    """The running containers of an ordinary user's project."""

    def __init__(self, project: Project) -> None:
        super().__init__(project)
        self.client = Client(project)

    @property
    def groups(self) -> cgroup.Manager:
        """As far as control groups are delegated to the user."""
        if self._groups is None:
            self._groups = groups.detect()
        return self._groups

    def begin(self) -> None:
        """Enter the project's namespaces. What was never started has none."""
        if os.path.isdir(self.project.run):
            self.client.enter()

    def enter(self, container: Container, job: Job, group: cgroup.Joinable) -> Handle:
        """As at root's, from inside."""
        self.begin()
        return super().enter(container, job, group)

    def stats(self, container: Container) -> Stats:
        """From the cgroup, or from /proc without one."""
        if self.groups.version:
            return super().stats(container)
        from containust.runtime.rootless import usage

        return usage.stats(container)

    def network_bytes(self, container: Container) -> tuple[int | None, int | None]:
        """The host's ends are in the project's namespace: asked of the container's."""
        from containust.runtime.rootless import usage

        return usage.network(container)

    def _processes(self, component: Component) -> int:
        if self.groups.version and "pids" in groups.offered(getattr(self.groups, "root", "")):
            return 0
        allowed = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        wanted = component.pids or DEFAULT_PIDS
        return wanted if allowed == resource.RLIM_INFINITY else min(allowed, wanted)

    def _join(self, launch: Launch, pidfd: int) -> Child:
        from containust.runtime.rootless.join import join

        return join(launch, pidfd)


class RootlessBackend(RootlessRunning, LinuxBackend):
    """Starts and removes them."""

    rootless = True

    def is_available(self) -> bool:
        from containust.runtime.rootless import requirements

        if not self.client.inside:
            requirements.check()
        return True

    def create(self, job: Job) -> Handle:
        """As root's. Raises ContainustError R013 for the host's network next to one of the project's."""
        if self.client.networked and "host" in job.component.networks:
            raise ContainustError(
                "R013",
                f'{job.component.name}: without root, network = "host" does not go with other networks in one project',
                "run it by itself (`ctst run --image … --network host`), or publish its ports with EXPOSE",
            )
        return super().create(job)

    def _attach(self, pairs: list[tuple[int, list[Attachment]]]) -> None:
        self.client.enter_network()
        super()._attach(pairs)

    def claim_ids(self, before: int | None = None) -> int:
        return 0  # of the project's user namespace

    def release_ids(self, base: int) -> None:
        pass

    def networks(self, recorded: dict[str, dict[str, Any]]) -> StackNetworks:
        from containust.runtime.rootless.networks import RootlessNetworks

        return RootlessNetworks(self.client, self.project, recorded)

    def reserve_ports(self, exposes: list[Expose]) -> Reservation:
        from containust.runtime.network.ports import Reservation

        self.client.ask("reserve", [expose.as_dict() for expose in exposes])
        return Reservation()  # the keeper holds them

    @staticmethod
    def _devices(launch: Launch, base: int) -> None:
        launch.dev_fd, launch.nodes = bound_dev()
