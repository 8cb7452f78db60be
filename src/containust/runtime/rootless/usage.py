"""Figures of a container that no control group accounts for: those of the processes in its PID namespace."""

from __future__ import annotations

from containust.common import os
from containust.core.cgroup import Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.state import Container

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def stats(container: Container) -> Stats:
    """CPU time with that of ended and reaped processes, resident memory (shared pages count for each), tasks."""
    found = Stats()
    namespace = _namespace(str(container.pid))
    if namespace is None:
        return found
    ticks = pages = tasks = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if _namespace(pid) != namespace:
            continue
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                text = file.read(4096)
        except OSError:
            continue
        fields = text[text.rindex(b")") + 2 :].split()  # proc_pid_stat(5), from the third field on
        ticks += sum(map(int, fields[11:15]))
        tasks += int(fields[17])
        pages += int(fields[21])
    found.cpu_ns, found.memory, found.pids = ticks * TICK, pages * PAGE, tasks
    return found


def network(container: Container) -> tuple[int | None, int | None]:
    """Bytes received and sent by the container, from its own interfaces."""
    received = sent = 0
    try:
        with open(f"/proc/{container.pid}/net/dev", "rb", buffering=0) as file:
            lines = file.readall().splitlines()[2:]
    except OSError:
        return None, None
    for line in lines:
        name, _, figures = line.partition(b":")
        if name.strip() != b"lo":
            fields = figures.split()
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


def _namespace(pid: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None
