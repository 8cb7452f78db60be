"""A component's limits in kernel terms."""

from __future__ import annotations

from containust.common import os
from containust.core.cgroup import CPU_PERIOD, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Component
    from containust.runtime.project import Project


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


def on_disks(component: Component, project: Project) -> Limits:
    """As :func:`limits`, with the disks that the ones of input and output are for. Raises OSError, ContainustError."""
    found = limits(component)
    if found.io_max is not None or found.io_weight is not None:
        from containust.core.cgroup import disks

        bound = (volume.source for volume in component.volumes if volume.kind != "managed")
        volumes = [source for source in bound if os.path.exists(source)]  # others are an error of their own
        what = "io_weight" if found.io_max is None else "io_max"
        found.disks = disks.under((project.directory, *volumes), what)
    return found
