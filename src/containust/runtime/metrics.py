"""What `ps` and `stats` show of a container, from its cgroup and its network interface."""

from __future__ import annotations

import os
import time

from containust.common.types import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.core.cgroup import Stats
    from containust.runtime.backend.running import RunningContainers
    from containust.runtime.state import Container

SAMPLE = 0.05  # seconds between the two readings that give CPU %


class Metrics(Record):
    """Figures of one container: percent of one CPU, bytes, counts; None where there is nothing to measure."""

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


def collect(backend: RunningContainers, containers: list[Container], sample: bool = True) -> dict[str, Metrics]:
    """Metrics of running containers by id; CPU % over a short interval that all share."""
    first = {c.id: (time.monotonic_ns(), backend.stats(c).cpu_ns) for c in containers} if sample else {}
    if first:
        time.sleep(SAMPLE)
    result = {}
    for container in containers:
        metrics = Metrics(backend.stats(container), network_bytes(container))
        before = first.get(container.id)
        if before and before[1] is not None and metrics.cpu_ns is not None:
            elapsed = time.monotonic_ns() - before[0]
            metrics.cpu_percent = round(100 * (metrics.cpu_ns - before[1]) / elapsed, 1)
        result[container.id] = metrics
    return result


def network_bytes(container: Container) -> tuple[int | None, int | None]:
    """Bytes received and sent by the container, read at the host's ends of its interfaces."""
    received = sent = 0
    if not container.attachments:
        return None, None
    for item in container.attachments:
        base = f"/sys/class/net/{item['host_interface']}/statistics"
        try:
            # What the host's end sends is what the container receives.
            received += _number(f"{base}/tx_bytes")
            sent += _number(f"{base}/rx_bytes")
        except OSError:
            return None, None
    return received, sent


def _number(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 32))
    finally:
        os.close(fd)
