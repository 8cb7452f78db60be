"""What can be done with a Linux container that runs, whoever started it: enter it, signal it, read its figures.

Apart from :mod:`containust.runtime.backend.linux` so that ``exec`` and ``ps`` load nothing of what starts one.
"""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import cgroup
from containust.runtime import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from containust.common.types import Component
    from containust.runtime.container import Handle, Job
    from containust.runtime.launch import Child, Launch
    from containust.runtime.network.attachment import Attachment
    from containust.runtime.project import Project
    from containust.runtime.state import Container


class RunningContainers:
    """The running containers of one project on this host."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._groups: cgroup.Manager | None = None
        self._metered: dict[str, cgroup.Cgroup] = {}  # by id: `ps --watch` looks at the same ones again
        self._last_capability = -1

    @property
    def groups(self) -> cgroup.Manager:
        """The host's cgroup manager, looked up once."""
        if self._groups is None:
            self._groups = cgroup.detect()
        return self._groups

    def group_path(self, container: Container) -> str:
        """The container's cgroup, relative to each hierarchy."""
        return f"{cgroup.PARENT}/{self.project.id}/{container.cgroup}"

    def run_directory(self, container: Container) -> str:
        """FIFOs and mounted files of one container."""
        return f"{self.project.run}/{container.id}"

    def logs(self, container: Container) -> str:
        """The container's log."""
        return f"{self.project.logs}/{container.id}.log"

    def _program(self, launch: Launch, job: Job) -> None:
        from containust.runtime import render, users

        component, config = job.component, job.config
        user = users.resolve(job.user or component.user or config.user, launch.layer_fd)
        argv = job.argv or render.arguments(component, config, job.lookup)
        env = render.environment(component, config, user, launch.hostname, job.lookup, job.tty)
        launch.argv = [os.fsencode(item) for item in argv]
        launch.paths = render.candidates(argv[0], env.get("PATH", render.DEFAULT_PATH))
        launch.env = render.encode(env)
        launch.workdir = os.fsencode(job.workdir or component.workdir or config.workdir or "/")
        launch.uid, launch.gid, launch.groups = user.uid, user.gid, user.groups
        self._privileges(launch, component)

    def _landlock(self, launch: Launch, component: Component) -> None:
        """Landlock ruleset of the component's processes, ready to apply."""
        from containust.core import landlock

        launch.landlock = landlock.ruleset(declared_mask(component), launch.network == "host")

    def _privileges(self, launch: Launch, component: Component) -> None:
        """Capability sets and filter of the component's processes, ready to apply."""
        from containust.core import capability, seccomp

        declared = component.capabilities
        mask = declared_mask(component)
        if self._last_capability < 0:
            self._last_capability = capability.last_capability()
        ambient = mask if launch.uid and declared is not None else 0
        blob = seccomp.blob(component.seccomp, mask, f"{self.project.directory}/cache")
        launch.capabilities = capability.prepare(mask, ambient, self._last_capability)
        launch.seccomp = seccomp.prepare(blob)

    def signal(self, handle: Handle, signal: int) -> None:
        process.send(handle.pidfd, signal)

    def stop(self, handle: Handle) -> None:
        # The init of a PID namespace takes every process of it along, and waits for them.
        if process.send(handle.pidfd, 9):
            self.groups.find(self.group_path(handle.container)).thaw()

    def wait(self, handle: Handle) -> int | None:
        if handle.channel >= 0:
            from containust.runtime.launch import ENDED

            told = os.read(handle.channel, 16)
            os.close(handle.channel)
            handle.channel = -1
            if told[:1] == ENDED:  # what it left behind keeps the reaper
                return told[1] << 8
        if handle.adopted:
            from containust.core.pidfd import exit_status

            return exit_status(handle.pidfd, handle.pid)
        try:
            return os.waitpid(handle.pid, 0)[1]
        except ChildProcessError:
            return None

    def exec(self, container: Container, job: Job) -> Handle:
        from containust.runtime.clients import Mark

        mark = Mark(self, container)
        try:
            handle = self.enter(container, job, mark.group)
            assert handle.child is not None
            if job.tty:
                handle.terminal = handle.child.receive_terminal()
            handle.child.wait_exec()
        except BaseException:
            mark.remove()
            raise
        if handle.child.channel >= 0:  # below a reaper that is still there
            handle.channel = handle.child.channel
        handle.child = None
        handle.mark = mark
        return handle

    def probe(self, container: Container, job: Job) -> Handle:
        from containust.runtime import probe

        return probe.start(self, container, job)

    def probe_over(self, probe: Handle) -> bool:
        from containust.runtime import probe as probes

        return probes.over(probe)

    def kill_probe(self, probe: Handle) -> None:
        from containust.runtime import probe as probes

        probes.kill(self, probe)

    def end_probe(self, probe: Handle) -> int | None:
        from containust.runtime import probe as probes

        return probes.end(self, probe)

    def enter(self, container: Container, job: Job, group: cgroup.Joinable) -> Handle:
        """Begin to start ``job``'s program in the container and in ``group``. Raises ContainustError R007, R008."""
        from containust.runtime.container import Handle
        from containust.runtime.launch import Launch

        adopted = self.adopt_process(container)
        launch = Launch()
        launch.layer_fd = launch.writable_fd = launch.dev_fd = -1
        launch.landlock = None
        launch.binds = []
        launch.nodes = []
        launch.processes = self._processes(job.component)
        launch.name = container.name
        launch.death_signal = 9
        launch.spare = None
        launch.reaper = -1
        if job.component.seccomp in ("default", "unconfined"):  # another filter need not allow what it does
            from containust.runtime.reaper import open_reaper

            launch.reaper = open_reaper()
        launch.hostname = job.component.hostname or container.name
        launch.id_base = container.id_base
        launch.network = "host" if "host" in job.component.networks else "own"
        launch.tty = job.tty
        launch.stdio = job.stdio
        launch.cgroup = group
        try:
            launch.layer_fd = os.open(f"/proc/{container.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._landlock(launch, job.component)
            self._program(launch, job)
            group.open_join()
            child = self._join(launch, adopted)
        except OSError as error:
            raise ContainustError(
                "R008", f"cannot enter {container.name}: {error.strerror}", "see `ctst ps -a`"
            ) from None
        finally:
            launch.close()
            os.close(adopted)
        handle = Handle(container, child.pid, child.pidfd)
        handle.child = child
        return handle

    def _processes(self, component: Component) -> int:
        return 0  # the cgroup counts them

    def _join(self, launch: Launch, pidfd: int) -> Child:
        from containust.runtime.join import join

        return join(launch, pidfd)

    def adopt_process(self, container: Container) -> int:
        """A pidfd of a running container's init. Raises ContainustError R007 when it has ended."""
        pidfd = process.hold(container)
        if pidfd >= 0:
            return pidfd
        raise ContainustError(
            "R007", f"{container.name} is not running", f"start it with `ctst start {container.name}`"
        )

    def oom_killed(self, container: Container) -> bool:
        """Whether the kernel has killed a process of the container for memory."""
        return self.groups.find(self.group_path(container)).oom_kills() > 0

    def write_hosts(self, container: Container, peers: Mapping[str, list[Attachment]]) -> None:
        from containust.runtime.backend.host_files import rewrite

        rewrite(self.run_directory(container), container, peers)

    def network_bytes(self, container: Container) -> tuple[int | None, int | None]:
        """Bytes received and sent, of a container whose interfaces do not end in this network namespace."""
        return None, None

    def stats(self, container: Container) -> cgroup.Stats:
        """What the kernel accounts for the container now."""
        group = self._metered.get(container.id)
        if group is None:
            group = self._metered[container.id] = self.groups.find(self.group_path(container))
        return group.stats()


def declared_mask(component: Component) -> int:
    """The capabilities of the component's processes, as a mask. Raises ContainustError E006."""
    from containust.core import capability

    declared = component.capabilities
    return capability.DEFAULT_MASK if declared is None else capability.parse(declared)
