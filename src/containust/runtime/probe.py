"""Health probes: another program in the container, with a group of its own, so that its end is the end of all of it.

Unlike an exec nobody waits for its program to start: what cannot start has failed, and a probe that is held up (by a
frozen container, by a container out of memory) must not hold up the supervisor.
"""

from __future__ import annotations

import os

from containust.core.cgroup.below import Below
from containust.runtime import process
from containust.runtime.launch import open_channels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.backend.running import RunningContainers
    from containust.runtime.container import Handle, Job
    from containust.runtime.state import Container

GROUP = "probe"


def start(containers: RunningContainers, container: Container, job: Job) -> Handle:
    """Begin the probe that ``job`` describes. Raises ContainustError R007 or R008 when the container has ended."""
    return containers.enter(container, job, _group(containers, container))


def kill(containers: RunningContainers, probe: Handle) -> None:
    """Kill the probe and everything it has started."""
    process.send(probe.pidfd, 9)
    _group(containers, probe.container).kill()


def end(containers: RunningContainers, probe: Handle) -> int | None:
    """Wait status of a probe whose program has ended; what it left behind is killed."""
    if probe.child:
        open_channels.discard(probe.child.channel)
        probe.child.channel.close()
        probe.child = None
    status = containers.wait(probe)
    os.close(probe.pidfd)
    _group(containers, probe.container).kill()
    return status


def _group(containers: RunningContainers, container: Container) -> Below:
    return Below(containers.groups.find(containers.group_path(container)), GROUP)
