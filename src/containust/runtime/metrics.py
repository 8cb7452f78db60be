"""What `ps` and `stats` show of a container, from its cgroup and its network interface."""

from __future__ import annotations

import time

from containust.common import os
from containust.common.types import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.core.cgroup import Stats
    from containust.runtime.backend.running import RunningContainers
    from containust.runtime.state import Container

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # nanoseconds of a clock tick, in which start times are given


class Metrics(Record):
    """Figures of one container: percent of one CPU, bytes, counts; None where the host does not account it."""

    __slots__ = (
        "cpu_ns",
        "cpu_percent",
        "cpu_pressure",
        "io_pressure",
        "io_read",
        "io_write",
        "memory",
        "memory_limit",
        "memory_peak",
        "memory_pressure",
        "net_received",
        "net_sent",
        "oom_kills",
        "pids",
        "throttled_periods",
    )

    def __init__(self, stats: Stats, network: tuple[int | None, int | None]) -> None:
        self.cpu_percent: float | None = None
        self.cpu_ns = stats.cpu_ns
        self.memory = stats.memory
        self.memory_peak = stats.memory_peak
        self.memory_limit = stats.memory_limit
        self.pids = stats.pids
        self.oom_kills = stats.oom_kills
        self.throttled_periods = stats.throttled_periods
        self.io_read = stats.io_read
        self.io_write = stats.io_write
        self.cpu_pressure = stats.cpu_pressure
        self.memory_pressure = stats.memory_pressure
        self.io_pressure = stats.io_pressure
        self.net_received, self.net_sent = network


class Meter:
    """Reads the figures of running containers. CPU % is that since the reading before; at first, that since its start.

    So one `ps` shows averages as procps does, and waits for nothing, and the readings of `ps --watch` show what is now.
    """

    __slots__ = ("_before", "_containers")

    def __init__(self, containers: RunningContainers) -> None:
        self._containers = containers
        self._before: dict[str, tuple[int, int]] = {}  # by id: boot time in ns, CPU time in ns

    def read(self, containers: list[Container]) -> dict[str, Metrics]:
        """Metrics by id."""
        interfaces = interface_bytes() if any(container.attachments for container in containers) else {}
        before, self._before = self._before, {}
        result = {}
        for container in containers:
            moved = network_bytes(container, interfaces)
            if moved[0] is None and container.attachments:
                moved = self._containers.network_bytes(container)
            metrics = Metrics(self._containers.stats(container), moved)
            moment = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if metrics.cpu_ns is not None:
                self._before[container.id] = moment, metrics.cpu_ns
                started = (container.start_ticks or 0) * TICK
                since, used = before.get(container.id, (started, 0))
                metrics.cpu_percent = round(100 * (metrics.cpu_ns - used) / max(moment - since, TICK), 1)
            result[container.id] = metrics
        return result


def network_bytes(container: Container, interfaces: dict[str, tuple[int, int]]) -> tuple[int | None, int | None]:
    """Bytes received and sent by the container, counted at the host's ends of its interfaces."""
    ends = [interfaces.get(item["host_interface"]) for item in container.attachments]
    received = sent = 0
    for end in ends:
        if end is None:
            return None, None
        # What the host's end sends is what the container receives.
        sent += end[0]
        received += end[1]
    return (received, sent) if ends else (None, None)


def interface_bytes() -> dict[str, tuple[int, int]]:
    """Bytes received and sent by each interface of this network namespace (proc_pid_net(5)), by one read of all."""
    interfaces = {}
    with open("/proc/net/dev", "rb", buffering=0) as file:
        for line in file.readall().splitlines()[2:]:
            name, _, figures = line.partition(b":")
            fields = figures.split()
            interfaces[name.strip().decode()] = int(fields[0]), int(fields[8])
    return interfaces
