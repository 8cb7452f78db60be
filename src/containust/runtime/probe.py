"""Health probes: another program in the container, with a group of its own, so that its end is the end of all of it.

Unlike an exec nobody waits for its program to start: what cannot start has failed, and a probe that is held up (by a
frozen container, by a container out of memory) must not hold up the supervisor.
"""

from __future__ import annotations

import os

from containust.core.cgroup.below import below
from containust.runtime import process
from containust.runtime.launch import ENDED, RUNS, open_channels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.core.cgroup.below import Below
    from containust.core.cgroup.none import NoCgroup
    from containust.runtime.backend.running import RunningContainers
    from containust.runtime.container import Handle, Job
    from containust.runtime.state import Container

GROUP = "probe"


def start(containers: RunningContainers, container: Container, job: Job) -> Handle:
    """Begin the probe that ``job`` describes. Raises ContainustError R007 or R008 when the container has ended."""
    probe = containers.enter(container, job, _group(containers, container))
    assert probe.child is not None
    if probe.child.launch.reaper >= 0:
        probe.channel = probe.child.channel
    return probe


def over(probe: Handle) -> bool:
    """Whether the probe's program has ended, now that its ``end`` is readable."""
    if probe.channel >= 0:
        probe.told = os.read(probe.channel, 4096)
    return probe.told != RUNS


def kill(containers: RunningContainers, probe: Handle) -> None:
    """Kill the probe and everything it has started."""
    if probe.told == RUNS:
        _group(containers, probe.container).kill(lambda pid: pid == probe.pid)
    else:
        process.send(probe.pidfd, 9)
    _kill_session(containers, probe)


def end(containers: RunningContainers, probe: Handle) -> int | None:
    """Wait status of a probe whose program has ended; what it left behind is killed."""
    told = probe.told
    if probe.child:
        open_channels.discard(probe.child.channel)
        os.close(probe.child.channel)
        probe.child = None
        probe.channel = -1
    group = _group(containers, probe.container)
    if told[:1] == ENDED:
        group.end(lambda pid: pid == probe.pid)
    else:
        group.kill()
    _kill_session(containers, probe)
    status = containers.wait(probe)
    os.close(probe.pidfd)
    return told[1] << 8 if told[:1] == ENDED else status


def _kill_session(containers: RunningContainers, probe: Handle) -> None:
    if not _group(containers, probe.container).directory:
        # No groups for this user: the session's processes, by the probe that still has its pid.
        try:
            os.killpg(probe.pid, 9)
        except OSError:
            pass


def _group(containers: RunningContainers, container: Container) -> Below | NoCgroup:
    return below(containers.groups.find(containers.group_path(container)), GROUP)
