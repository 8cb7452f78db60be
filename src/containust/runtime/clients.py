"""Clients of `exec` as the supervisor sees them: what one that is killed has left in a container ends with it.

A client leaves its mark in the container's run-time directory while its program runs: a file called ``exec-PID``, and
its program and all that this starts are in a cgroup of the same name below the container's. The supervisor hears of the
file by inotify, waits for the client by pidfd, and kills the group if the mark is still there when the client has gone:
one that ends in order has removed it.
"""

from __future__ import annotations

from _struct import unpack_from

from containust.common import os
from containust.core.cgroup.below import below

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.backend.running import RunningContainers
    from containust.runtime.state import Container

PREFIX = "exec-"


class Mark:
    """``with Mark(containers, container) as mark:`` around the life of a program that is executed."""

    __slots__ = ("_path", "group")

    def __init__(self, containers: RunningContainers, container: Container) -> None:
        name = f"{PREFIX}{os.getpid()}"
        self._path = f"{containers.run_directory(container)}/{name}"
        self.group = below(containers.groups.find(containers.group_path(container)), name)
        try:
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError:
            pass  # the container has just ended: entering it says so

    def remove(self) -> None:
        """The program has ended, and the client is about to; what the program left in the background stays."""
        try:
            os.unlink(self._path)
        except OSError:
            pass
        try:
            os.rmdir(self.group.directory)
        except OSError:
            pass


class Clients:
    """The clients of a supervisor's containers."""

    __slots__ = ("_containers", "_marks", "_watched")

    def __init__(self, containers: RunningContainers) -> None:
        self._containers = containers
        self._watched: dict[int, Container] = {}  # by inotify's number
        self._marks: dict[int, tuple[Container, str]] = {}  # by pidfd

    def watch(self, number: int, container: Container) -> None:
        """Clients of ``container`` are announced under ``number``."""
        self._watched[number] = container

    def arrived(self, events: bytes) -> list[int]:
        """pidfds of the clients that ``events`` of inotify(7) tell of, and which are still there."""
        found = []
        at = 0
        while at < len(events):
            number, _, _, length = unpack_from("iIII", events, at)
            name = events[at + 16 : at + 16 + length].rstrip(b"\0").decode(errors="replace")
            at += 16 + length
            container = self._watched.get(number)
            if container and name.startswith(PREFIX) and name[len(PREFIX) :].isdigit():
                found += self.one(container, name)
        return found

    def present(self, container: Container) -> list[int]:
        """As :meth:`arrived`, for those that were there before this supervisor."""
        try:
            names = os.listdir(self._containers.run_directory(container))
        except OSError:
            return []
        return [fd for name in names if name.startswith(PREFIX) for fd in self.one(container, name)]

    def one(self, container: Container, name: str) -> list[int]:
        """The pidfd of the client that left the mark ``name``; none for one that is gone already."""
        try:
            pidfd = os.pidfd_open(int(name[len(PREFIX) :]))
        except OSError:
            self._end(container, name)
            return []
        self._marks[pidfd] = container, name
        return [pidfd]

    def left(self, pidfd: int) -> None:
        """The client behind ``pidfd`` has ended."""
        os.close(pidfd)
        container, name = self._marks.pop(pidfd)
        self._end(container, name)

    def _end(self, container: Container, name: str) -> None:
        path = f"{self._containers.run_directory(container)}/{name}"
        if not os.path.exists(path):
            return
        from containust.runtime.reaper import is_reaper

        below(self._containers.groups.find(self._containers.group_path(container)), name).end(is_reaper)
        try:
            os.unlink(path)
        except OSError:
            pass
