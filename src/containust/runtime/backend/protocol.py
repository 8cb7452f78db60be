"""What the runtime asks of a backend. Imported for type checking only: protocols cost 10 ms of ``typing``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from containust.common.types import Component, Expose
    from containust.core.cgroup import Stats
    from containust.runtime.container import Handle, Job
    from containust.runtime.network.attachment import Attachment
    from containust.runtime.network.ports import Reservation
    from containust.runtime.network.stack import StackNetworks
    from containust.runtime.state import Container


class ContainerBackend(Protocol):
    """Runs containers. Every method raises ContainustError with the code of the step that failed."""

    def is_available(self) -> bool:
        """Whether this host can run containers this way."""

    def begin(self) -> None:
        """Become able to change what this host has of the project: an ordinary user enters the project's namespaces.

        Raises ContainustError S003 that says what is missing.
        """

    def claim_ids(self, before: int | None = None) -> int:
        """The first id of the range that the project's containers get: ``before`` if it is no other project's."""

    def release_ids(self, base: int) -> None:
        """Give the range back: the project has no container any more."""

    def networks(self, recorded: dict[str, dict[str, Any]]) -> StackNetworks:
        """The project's networks; ``recorded`` is changed in place."""

    def reserve_ports(self, exposes: list[Expose]) -> Reservation:
        """Hold the published ports of a stack. Raises ContainustError R011 when one is taken."""

    def create(self, job: Job) -> Handle:
        """Make everything of a container but do not run its program yet."""

    def start(self, handles: list[Handle]) -> dict[str, Exception]:
        """Run the programs of created containers, together; the errors of those that failed by container id."""

    def discard(self, handle: Handle) -> None:
        """Undo :meth:`create` for a handle that will not be started."""

    def adopt(self, container: Container) -> Handle | None:
        """Take over a running container whose supervisor is gone; None when it has ended."""

    def signal(self, handle: Handle, signal: int) -> None:
        """Send ``signal`` to the container's init; a container that has ended is passed over."""

    def stop(self, handle: Handle) -> None:
        """Kill every process of the container, frozen or not."""

    def wait(self, handle: Handle) -> int | None:
        """The wait status of a container whose process has ended, None when it cannot be known. Does not block."""

    def exec(self, container: Container, job: Job) -> Handle:
        """Start another program in a running container."""

    def arrivals(self, container: Container) -> int:
        """A descriptor, one for all containers, that is readable when a client of exec has come; -1 without it."""

    def arrived(self) -> list[int]:
        """pidfds of the clients that have come since."""

    def present(self, container: Container) -> list[int]:
        """pidfds of the clients that were in an adopted container before."""

    def left(self, pidfd: int) -> None:
        """The client behind ``pidfd`` has ended: end what it started, unless it ended in order. Closes it."""

    def probe(self, container: Container, job: Job) -> Handle:
        """Begin to start a health probe. Does not wait for the program; see ``Handle.end``."""

    def probe_over(self, probe: Handle) -> bool:
        """Whether a probe has ended, now that its ``end`` is readable."""

    def kill_probe(self, probe: Handle) -> None:
        """Kill a probe and all that it has started."""

    def end_probe(self, probe: Handle) -> int | None:
        """The wait status of a probe that has ended; what it left running is killed."""

    def drift(self, container: Container, component: Component) -> list[tuple[str, str, str]]:
        """Limits that were changed by hand: name, what holds, what ``component`` says."""

    def restore_limits(self, container: Container, component: Component) -> None:
        """Set the limits of a running container again."""

    def remove(self, container: Container) -> None:
        """Remove what an ended container leaves on the host: its group, its run-time files."""

    def remove_root(self, container: Container) -> None:
        """Delete the container's writable layer."""

    def logs(self, container: Container) -> str:
        """Path of the container's log (see :mod:`containust.runtime.logs`)."""

    def group_path(self, container: Container) -> str:
        """Name of the container's cgroup below each hierarchy."""

    def write_hosts(self, container: Container, peers: Mapping[str, list[Attachment]]) -> None:
        """Bring a running container's names and name servers up to date; ``peers`` as in :class:`Job`."""

    def oom_killed(self, container: Container) -> bool:
        """Whether the kernel has killed a process of the container for memory."""

    def list(self) -> Iterator[str]:
        """Ids of the containers of which this host still holds something."""

    def stats(self, container: Container) -> Stats:
        """What the kernel accounts for the container now."""
