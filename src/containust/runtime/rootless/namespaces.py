"""Making the namespaces of a project, and finding those that live processes of it are in.

Everything here runs in the keeper, which stays in the host's namespaces: as the owner of the project's user namespace
it has all privileges over it and what is below (user_namespaces(7)).
"""

from __future__ import annotations

import fcntl

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import syscalls
from containust.core.syscalls import CLONE_NEWNET, CLONE_NEWUSER
from containust.runtime import process
from containust.runtime.ownership import Ownership
from containust.runtime.rootless import requirements
from containust.runtime.state import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.runtime.project import Project

NS_GET_PARENT = 0xB702
SIGKILL = 9


def new_user() -> int:
    """A user namespace with the caller as root and the subordinate ids behind. Raises ContainustError S003, R001."""
    requirements.check()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = syscalls.clone3(CLONE_NEWUSER)
    except OSError as error:
        os.close(reader)
        os.close(writer)
        raise ContainustError(
            "S003",
            f"this host lets {requirements.login()} make no user namespace: {error.strerror}",
            "`ctst doctor` tells which setting or security module forbids it",
        ) from None
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        name, uid, gid = requirements.login(), os.geteuid(), os.getegid()
        for program, path, own in (
            ("newuidmap", requirements.SUBUID, uid),
            ("newgidmap", requirements.SUBGID, gid),
        ):
            words = [str(pid), "0", str(own), "1"]
            at = 1
            for first, count in requirements.subordinate(path, uid, name):
                words += [str(at), str(first), str(count)]
                at += count
            _run(requirements.find(program) or program, words)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writer)
        os.waitpid(pid, 0)
        os.close(pidfd)


def _run(program: str, words: list[str]) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.posix_spawn(
        program, [program, *words], {"PATH": requirements.SYSTEM_PATH}, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 2)]
    )
    os.close(writer)
    said = b""
    while piece := os.read(reader, 4096):
        said += piece
    os.close(reader)
    if os.waitpid(pid, 0)[1]:
        raise ContainustError(
            "S003",
            f"{os.path.basename(program)} refused the ids: {said.decode(errors='replace').strip()}",
            f"{requirements.SUBUID} and {requirements.SUBGID} must give them to {requirements.login()}, "
            "and the program must be set-user-ID root (or have its file capability)",
        )


def new_network(user: int) -> int:
    """A network namespace that belongs to the user namespace ``user``, with its loopback up."""

    def inside() -> None:
        from containust.core.calls import at_once
        from containust.runtime.spawn import loopback_up

        syscalls.unshare(CLONE_NEWNET)
        at_once(loopback_up)
        # It is there to forward, also for an interface that comes later; nobody else has its addresses.
        for name, value in (
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
        ):
            try:
                with open(f"/proc/sys/net/{name}", "w") as file:
                    file.write(value)
            except OSError:
                continue  # without IPv6

    with Inside(user, -1, inside) as there:
        return os.open(f"/proc/{there.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Inside:
    """``with Inside(user, network, prepare) as there:`` a child in these namespaces while the block runs."""

    __slots__ = ("_hold", "_network", "_prepare", "_user", "pid")

    def __init__(self, user: int, network: int, prepare: Callable[[], None] | None = None) -> None:
        self._user = user
        self._network = network
        self._prepare = prepare

    def __enter__(self) -> Inside:
        ready, ready_writer = os.pipe2(os.O_CLOEXEC)
        hold, self._hold = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._hold)
                os.close(ready)
                syscalls.setns(self._user, CLONE_NEWUSER)
                if self._network >= 0:
                    syscalls.setns(self._network, CLONE_NEWNET)
                if self._prepare:
                    self._prepare()
                os.write(ready_writer, b"\0")
                os.read(hold, 1)
            except OSError as error:
                os.write(ready_writer, str(error).encode()[:500])
            finally:
                os._exit(0)
        os.close(ready_writer)
        os.close(hold)
        said = os.read(ready, 512)
        os.close(ready)
        if said != b"\0":
            self.__exit__()
            raise ContainustError("R001", f"cannot enter the project's namespaces: {said.decode(errors='replace')}")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._hold)
        os.waitpid(self.pid, 0)


def living(project: Project) -> list[tuple[int, bool]]:
    """pidfds of the project's live supervisors and containers, each with whether it is a container."""
    found = []
    for path in Ownership.files(project):
        try:
            with open(path) as file:
                words = file.read().split()
        except OSError:
            continue
        if len(words) == 2:
            pidfd = process.open_pidfd(int(words[0]), int(words[1]))
            if pidfd >= 0:
                found.append((pidfd, False))
    try:
        containers = list(load(project).containers.values())
    except ContainustError:
        containers = []
    for container in containers:
        if container.pid and container.start_ticks is not None and container.boot_id == process.boot_id():
            pidfd = process.open_pidfd(container.pid, container.start_ticks)
            if pidfd >= 0:
                found.append((pidfd, True))
    return found


def surviving(project: Project) -> tuple[int, int]:
    """The user and network namespaces of what lives after the keeper was killed; -1 for one that is not found.

    Supervisors are in both. A container's own user namespace is below the project's; of the network nothing is seen
    from there.
    """
    own_user, own_network = _identity("/proc/self/ns/user"), _identity("/proc/self/ns/net")
    user = network = -1
    for pidfd, container in living(project):
        pid = _pid(pidfd)
        try:
            if user < 0:
                fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
                while fd >= 0 and _parent_identity(fd) not in (None, own_user):
                    above = fcntl.ioctl(fd, NS_GET_PARENT)
                    os.close(fd)
                    fd = above
                if _identity(f"/proc/self/fd/{fd}") == own_user:
                    os.close(fd)
                else:
                    user = fd
            if not container and network < 0 and _identity(f"/proc/{pid}/ns/net") != own_network:
                network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            pass  # it has just ended
        finally:
            os.close(pidfd)
    return user, network


def _pid(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line.split()[1])
    return -1


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _parent_identity(user: int) -> tuple[int, int] | None:
    try:
        parent = fcntl.ioctl(user, NS_GET_PARENT)
    except OSError:
        return None  # the first of all, or one that is above the caller's
    try:
        return _identity(f"/proc/self/fd/{parent}")
    finally:
        os.close(parent)
