"""Containers by Linux system calls: the native backend."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import syscalls
from containust.core.filesystem.devices import open_dev
from containust.core.filesystem.rootfs import spare_numbers
from containust.runtime import process
from containust.runtime.backend import roots
from containust.runtime.backend.limits import limits, on_disks
from containust.runtime.backend.running import RunningContainers
from containust.runtime.container import Handle, places
from containust.runtime.launch import Launch
from containust.runtime.logs import Capture, Writer
from containust.runtime.spawn import begin, complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from containust.common.types import Component, Expose
    from containust.runtime.clients import Clients
    from containust.runtime.container import Job, places
    from containust.runtime.network.attachment import Attachment
    from containust.runtime.network.ports import Reservation
    from containust.runtime.network.stack import StackNetworks
    from containust.runtime.state import Container

# An unprivileged user of a container may listen on any port of its own network namespace.
SYSCTLS = (("net/ipv4/ip_unprivileged_port_start", "0"),)
JOURNAL_NAME = "journal"
IN_CREATE = 0x100
READ_AHEAD = 4 * 1024 * 1024
SHM_SIZE = 64 * 1024 * 1024
STDIO = ((1, "stdout", b"stdout"), (2, "stderr", b"stderr"))


class LinuxBackend(RunningContainers):
    """The containers of one project on this host: starts and removes them."""

    rootless = False
    _inotify = -1
    _watched: list[tuple[int, Container]] | None = None
    _clients: Clients | None = None

    def is_available(self) -> bool:
        return os.geteuid() == 0

    def begin(self) -> None:
        pass

    def claim_ids(self, before: int | None = None) -> int:
        from containust.runtime.ranges import claim

        return claim(self.project.id, self.project.directory, before)

    def release_ids(self, base: int) -> None:
        from containust.runtime.ranges import release

        release(base, self.project.directory)

    def networks(self, recorded: dict[str, dict[str, Any]]) -> StackNetworks:
        from containust.runtime.network.stack import StackNetworks

        return StackNetworks(self.project.id, recorded)

    def reserve_ports(self, exposes: list[Expose]) -> Reservation:
        from containust.runtime.network.ports import reserve

        return reserve(exposes, self.project.id)

    def create(self, job: Job) -> Handle:
        container, component = job.container, job.component
        if container.id_base == 0 and not self.rootless:
            raise ContainustError(
                "S003",
                f"{component.name} was made by an ordinary user, whose ids its files have",
                "run the command as that user, or remove the container and run it again as root",
            )
        base = container.id_base or 0
        launch = Launch()
        launch.layer_fd = launch.writable_fd = launch.dev_fd = -1
        launch.landlock = None
        launch.binds = []
        launch.nodes = []
        launch.processes = self._processes(component)
        launch.name = component.name
        launch.death_signal = 0
        launch.reaper = -1
        if component.init:
            from containust.runtime.reaper import open_reaper

            launch.reaper = open_reaper()
        launch.id_base = container.id_base
        launch.hostname = component.hostname or component.name
        launch.network = "host" if "host" in component.networks else "own"
        launch.attachments = places(container.attachments)
        launch.readonly = component.readonly
        launch.tty = job.tty
        launch.shm_size = SHM_SIZE
        launch.sysctls = []
        launch.network_messages = []
        launch.spare = None
        launch.shares_memory = not self.rootless
        if launch.attachments:
            from containust.runtime.network import inside

            launch.network_messages = inside.prepare(launch.attachments)
            launch.sysctls = [(name, value.encode()) for name, value in (*SYSCTLS, *inside.SETTINGS)]
        elif launch.network == "own":
            launch.sysctls = [(name, value.encode()) for name, value in SYSCTLS]
        run = self.run_directory(container)
        try:
            os.mkdir(run, 0o700)  # first of all: by it the next command finds what a killed one has left
        except OSError as error:
            raise ContainustError("R003", f"{component.name}: cannot make {run}: {error.strerror}") from None
        try:
            bounds = on_disks(component, self.project)
            if bounds.io_weight is not None:
                from containust.core.cgroup.disks import check_weight

                check_weight(bounds.disks)
            launch.cgroup = self.groups.create(self.group_path(container), bounds)
        except BaseException:
            os.rmdir(run)
            raise
        capture: Capture | None = None
        try:
            # First what the child has to find open; the rest is prepared while it makes its namespaces.
            launch.layer_fd = job.layer()
            self._landlock(launch, component)
            self._devices(launch, base)
            launch.tmpfs = roots.scratch(component)
            roots.prepare(launch, job, self.project)
            roots.mount_files(launch, job, self.project, run)
            capture = self._stdio(launch, job, run)
            if launch.overlay != "none":
                launch.spare = spare_numbers(launch.dev_fd)
            child = begin(launch)
            try:
                self._program(launch, job)
                if capture:
                    capture.hide(job.masks)  # the program's secrets are known by now
                if capture and capture.fds and (base or launch.uid):
                    for _, name, _ in STDIO:
                        os.chown(f"{run}/{name}", base + launch.uid, base + launch.gid)
                complete(child)
            except BaseException:
                child.abort()
                raise
        except OSError as error:
            self._give_up(launch, container, capture)
            raise ContainustError(
                "R003",
                f"{component.name}: {error.strerror or error}: {error.filename or 'preparing its root'}",
            ) from None
        except BaseException:
            self._give_up(launch, container, capture)
            raise
        handle = Handle(container, child.pid, child.pidfd)
        handle.child = child
        handle.capture = capture
        container.pid = child.pid
        container.start_ticks = process.start_ticks(child.pid)
        container.pid_namespace = process.pid_namespace(child.pid)
        container.boot_id = process.boot_id()
        return handle

    def start(self, handles: list[Handle]) -> dict[str, Exception]:
        failed: dict[str, Exception] = {}
        pairs = [
            (handle.pid, handle.child.launch.attachments)
            for handle in handles
            if handle.child and handle.child.launch.attachments
        ]
        try:
            if pairs:
                self._attach(pairs)
        except ContainustError as error:
            # A child that failed on its own has lost its namespace: its report is the cause, the network a symptom.
            for handle in handles:
                failed[handle.container.id] = self._abort(handle) or error
            causes = [e for e in failed.values() if e is not error]
            return dict.fromkeys(failed, causes[0]) if causes else failed
        for handle in handles:
            assert handle.child is not None
            try:
                handle.child.go_on()
            except OSError:
                pass  # the child is gone; what it reported is read below
            _read_ahead(handle.child.launch)
        for handle in handles:
            child = handle.child
            assert child is not None
            try:
                if child.launch.tty:
                    handle.terminal = child.receive_terminal()
                child.wait_exec()
            except ContainustError as error:
                failed[handle.container.id] = error
                handle.pidfd = -1
                if handle.capture:
                    handle.capture.drain()
                self.remove(handle.container)
            self._parent_done(child.launch)
            handle.child = None
        return failed

    def _attach(self, pairs: list[tuple[int, list[Attachment]]]) -> None:
        from containust.core.rtnetlink import link_index
        from containust.runtime.network.stack import StackNetworks

        bridges = {one.network: one.bridge for _, attachments in pairs for one in attachments}
        recorded = {network: {"bridge": name, "index": link_index(name)} for network, name in bridges.items()}
        StackNetworks(self.project.id, recorded).attach(pairs)

    def _abort(self, handle: Handle) -> Exception | None:
        assert handle.child is not None
        reported = handle.child.abort()
        self._parent_done(handle.child.launch)
        handle.child = None
        handle.pidfd = -1
        if handle.capture:
            handle.capture.drain()
        self.remove(handle.container)
        return reported

    def discard(self, handle: Handle) -> None:
        """Undo :meth:`create` for a handle that will not be started."""
        self._abort(handle)

    @staticmethod
    def _parent_done(launch: Launch) -> None:
        launch.close()
        for fd in launch.stdio[1:]:
            if fd > 2:
                os.close(fd)
        launch.stdio = (-1, -1, -1)

    def _give_up(self, launch: Launch, container: Container, capture: Capture | None) -> None:
        launch.close()
        if capture:
            self._parent_done(launch)
            capture.drain()
        self.remove(container)

    @staticmethod
    def _devices(launch: Launch, base: int) -> None:
        launch.dev_fd = open_dev(base)

    def _stdio(self, launch: Launch, job: Job, run: str) -> Capture | None:
        stdin, stdout, stderr = job.stdio
        if job.tty or not job.capture:
            launch.stdio = (stdin, stdout, stderr)
            if not job.tty:
                return None
            return Capture(Writer(self.logs(job.container)), {}, [])
        readers: dict[int, bytes] = {}
        ends = []
        for _, name, stream in STDIO:
            path = f"{run}/{name}"
            os.mkfifo(path, 0o600)
            readers[os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)] = stream
            # Read and write: the container itself keeps its FIFO open, so a dead supervisor breaks no pipe.
            ends.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        launch.stdio = (stdin, ends[0], ends[1])
        return Capture(Writer(self.logs(job.container)), readers, [], f"{run}/{JOURNAL_NAME}")

    def adopt(self, container: Container) -> Handle | None:
        from containust.runtime.backend.adoption import adopt

        return adopt(self, container)

    def drift(self, container: Container, component: Component) -> list[tuple[str, str, str]]:
        from containust.core.cgroup.drift import changed

        try:
            bounds = on_disks(component, self.project)
        except (OSError, ContainustError):  # a volume that is gone says nothing of the limits
            bounds = limits(component)
        return changed(self.groups, self.group_path(container), bounds)

    def restore_limits(self, container: Container, component: Component) -> None:
        from containust.core.cgroup.drift import restore

        try:
            restore(self.groups, self.group_path(container), on_disks(component, self.project))
        except OSError as error:
            raise ContainustError(
                "R002",
                f"cannot set a limit of {container.name} in {error.filename}: {error.strerror}",
                "it may use more than that already; `ctst restart` it",
            ) from None

    def arrivals(self, container: Container) -> int:
        try:
            if self._inotify < 0:
                self._inotify = syscalls.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
                self._watched = []
            number = syscalls.inotify_add_watch(self._inotify, self.run_directory(container), IN_CREATE)
        except OSError:  # as many of them as one user may have
            return self._inotify
        assert self._watched is not None
        self._watched.append((number, container))
        return self._inotify

    def arrived(self) -> list[int]:
        events = os.read(self._inotify, 65536)
        return self._known_clients().arrived(events) if b"exec-" in events else []

    def present(self, container: Container) -> list[int]:
        return self._known_clients().present(container)

    def _known_clients(self) -> Clients:
        if self._clients is None:
            from containust.runtime.clients import Clients

            self._clients = Clients(self)
        for number, container in self._watched or ():
            self._clients.watch(number, container)
        self._watched = []
        return self._clients

    def left(self, pidfd: int) -> None:
        assert self._clients is not None
        self._clients.left(pidfd)

    def remove(self, container: Container) -> None:
        if not os.path.exists(self.run_directory(container)):
            return  # it is made first and removed last
        path = self.group_path(container)
        group = self.groups.find(path)
        if not group.remove():
            group.kill()
            group.remove()
        self.groups.prune(path.rpartition("/")[0])
        remove_directory(self.run_directory(container))

    def remove_root(self, container: Container) -> None:
        """Delete the container's writable layer."""
        path = f"{self.project.rootfs}/{container.id}"
        if os.path.isdir(path):
            import shutil

            shutil.rmtree(path, ignore_errors=True)
            try:
                os.rmdir(self.project.rootfs)
            except OSError:
                pass

    def list(self) -> Iterator[str]:
        """Ids that have a run-time directory."""
        try:
            names = os.listdir(self.project.run)
        except OSError:
            return
        for name in names:
            if len(name) == 36 and name[8] == "-":
                yield name


def _read_ahead(launch: Launch) -> None:
    """Read the program while the child still builds its root: a fresh EROFS has nothing of it in memory.

    Not for what the root only has with volumes and links of the container's.
    """
    for path in launch.paths:
        try:
            found = syscalls.openat2(
                launch.layer_fd,
                os.fsdecode(path),
                os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY,
                syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS,
            )
        except OSError:
            continue
        try:
            os.posix_fadvise(found, 0, READ_AHEAD, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(found)
        return


def remove_directory(path: str) -> None:
    """Remove a directory of files, also where others remove and make some: the client of an exec has its mark there."""
    while True:
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            return
        for name in names:
            try:
                os.unlink(f"{path}/{name}")
            except FileNotFoundError:
                pass
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != syscalls.ENOTEMPTY:
                raise
