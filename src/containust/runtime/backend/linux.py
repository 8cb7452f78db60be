"""Containers by Linux system calls: the native backend."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import syscalls
from containust.core.cgroup import CPU_PERIOD, Limits
from containust.core.filesystem.devices import open_dev
from containust.core.filesystem.rootfs import spare_numbers
from containust.core.syscalls import (
    AT_FDCWD,
    AT_RECURSIVE,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
)
from containust.runtime import process
from containust.runtime.backend.running import RunningContainers
from containust.runtime.container import Handle, places
from containust.runtime.launch import Bind, Launch
from containust.runtime.logs import Capture, Writer
from containust.runtime.network import hosts
from containust.runtime.spawn import begin, complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from containust.common.types import Component, Expose, Volume
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
            bounds = self._limits(component)
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
            launch.tmpfs = scratch(component)
            self._root(launch, job)
            self._files(launch, job, run, base)
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

    def _root(self, launch: Launch, job: Job) -> None:
        component = job.component
        if not component.readonly:
            launch.overlay = "upper"
            base = job.container.id_base or 0
            directory = f"{self.project.rootfs}/{job.container.id}"
            os.makedirs(directory, 0o700, exist_ok=True)
            os.chown(directory, base, base)  # the container's root opens the other two in it
            for path in (f"{directory}/upper", f"{directory}/work"):
                os.makedirs(path, 0o755, exist_ok=True)
                os.chown(path, base, base)
            launch.writable_fd = syscalls.open_tree(AT_FDCWD, directory, OPEN_TREE_CLONE)
            syscalls.mount_setattr(launch.writable_fd, "", 0, propagation=MS_PRIVATE)
            return
        targets = [volume.target for volume in component.volumes] + [target for target, _ in launch.tmpfs]
        plain = job.root_ready and all(_present(launch.layer_fd, target) for target in targets)
        launch.overlay = "none" if plain else "scratch"

    def _files(self, launch: Launch, job: Job, run: str, base: int) -> None:
        contents = {
            "hosts": hosts.hosts_file(launch.hostname, [job.component.name], launch.attachments, job.peers),
            "hostname": hosts.hostname_file(launch.hostname),
            "resolv.conf": hosts.resolv_conf(launch.network, offline=job.container.offline),
        }
        for name, content in contents.items():
            path = f"{run}/{name}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.write(fd, content.encode())
            if base:
                os.fchown(fd, base, base)
            os.close(fd)
            tree = syscalls.open_tree(AT_FDCWD, path, OPEN_TREE_CLONE)
            attributes = syscalls.MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
            syscalls.mount_setattr(tree, "", 0, set=attributes, propagation=MS_PRIVATE)
            launch.binds.append(Bind(tree, f"etc/{name}", False, idmapped=False))
        for volume in job.component.volumes:
            launch.binds.append(self._volume(job.component, volume, launch))

    def _volume(self, component: Component, volume: Volume, launch: Launch) -> Bind:
        source = volume.source
        if volume.kind == "managed":
            source = f"{self.project.volumes}/{volume.source}"
            if not os.path.isdir(source):
                from containust.runtime.volume_content import create

                create(source, launch.layer_fd, volume.target)
        try:
            tree = syscalls.open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | AT_RECURSIVE)
        except FileNotFoundError:
            raise ContainustError(
                "R003",
                f"{component.name}: volume source {source} does not exist",
                f"create it (`mkdir -p {source}`), or give a bare name for a managed volume",
            ) from None
        attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
        if volume.readonly:
            attributes |= syscalls.MOUNT_ATTR_RDONLY
        # A copy of a shared mount, as systemd makes all of them, is its peer: what is mounted on one is on the other.
        syscalls.mount_setattr(tree, "", AT_RECURSIVE, set=attributes, propagation=MS_PRIVATE)
        return Bind(tree, volume.target, os.path.isdir(source), idmapped=launch.id_base is not None)

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
        pidfd = process.hold(container)
        if pidfd < 0:
            return None
        assert container.pid is not None
        handle = Handle(container, container.pid, pidfd)
        handle.adopted = True
        readers: dict[int, bytes] = {}
        for _, name, stream in STDIO:
            try:
                fd = os.open(f"{self.run_directory(container)}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            readers[fd] = stream
        if readers:
            journal = f"{self.run_directory(container)}/{JOURNAL_NAME}"
            handle.capture = Capture(Writer(self.logs(container)), readers, [], journal)
            from containust.runtime.takeover import take_over

            take_over(handle.capture, container, self.project)
        return handle

    def _limits(self, component: Component) -> Limits:
        found = limits(component)
        if found.io_max is not None or found.io_weight is not None:
            from containust.core.cgroup import disks

            bound = (volume.source for volume in component.volumes if volume.kind != "managed")
            volumes = [source for source in bound if os.path.exists(source)]  # others are an error of their own
            what = "io_weight" if found.io_max is None else "io_max"
            found.disks = disks.under((self.project.directory, *volumes), what)
        return found

    def drift(self, container: Container, component: Component) -> list[tuple[str, str, str]]:
        from containust.core.cgroup.drift import changed

        try:
            bounds = self._limits(component)
        except (OSError, ContainustError):  # a volume that is gone says nothing of the limits
            bounds = limits(component)
        return changed(self.groups, self.group_path(container), bounds)

    def restore_limits(self, container: Container, component: Component) -> None:
        from containust.core.cgroup.drift import restore

        try:
            restore(self.groups, self.group_path(container), self._limits(component))
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
        _remove_tree(self.run_directory(container))

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


def limits(component: Component) -> Limits:
    """A component's limits in kernel terms."""
    return Limits(
        memory=component.memory,
        cpu_shares=component.cpu_shares,
        cpu_quota=None if component.cpus is None else max(1000, int(component.cpus * CPU_PERIOD)),
        io_weight=component.io_weight,
        io_max=component.io_max,
        pids=component.pids,
        devices=component.userns == "host" and _makes_nodes(component),
    )


def _makes_nodes(component: Component) -> bool:
    names = {name.upper().removeprefix("CAP_") for name in component.capabilities or ()}
    return bool(names & {"MKNOD", "ALL"})


def scratch(component: Component) -> list[tuple[str, dict[str, str | int | None]]]:
    """The tmpfs mounts of a container: what a read-only root needs, then what the component declares."""
    mounts: dict[str, dict[str, str | int | None]] = {}
    if component.readonly:
        mounts["/tmp"] = {"mode": "1777"}
        mounts["/run"] = {"mode": "755"}
        mounts["/var/tmp"] = {"mode": "1777"}
    for declared in component.tmpfs:
        options: dict[str, str | int | None] = {"mode": "1777"}
        if declared.size:
            options["size"] = str(declared.size)
        mounts[declared.target] = options
    for volume in component.volumes:  # a volume at the same place wins
        mounts.pop(volume.target, None)
    return list(mounts.items())


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


def _present(root_fd: int, target: str) -> bool:
    from containust.core.filesystem.rootfs import resolve

    try:
        os.close(resolve(root_fd, target))
    except OSError:
        return False
    return True


def _remove_tree(path: str) -> None:
    try:
        for name in os.listdir(path):
            os.unlink(f"{path}/{name}")
        os.rmdir(path)
    except FileNotFoundError:
        pass
