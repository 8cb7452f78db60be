"""Where containers run: the protocol, and the choice of a backend."""

from __future__ import annotations

import sys

from containust.common import os
from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.backend.protocol import ContainerBackend
    from containust.runtime.backend.running import RunningContainers
    from containust.runtime.project import Project


def detect_backend(project: Project, wanted: str = "auto") -> ContainerBackend:
    """The backend that ``--backend`` names: ``auto``, ``linux`` or ``vm``.

    Raises ContainustError R010 where there is none.
    """
    if _native(wanted):
        if os.geteuid():
            from containust.runtime.rootless.backend import RootlessBackend

            return RootlessBackend(project)
        from containust.runtime.backend.linux import LinuxBackend

        return LinuxBackend(project)
    raise _none(wanted)


def detect_running(project: Project, wanted: str = "auto") -> RunningContainers:
    """As :func:`detect_backend`, for what runs already: without what it takes to start a container."""
    if _native(wanted):
        if os.geteuid():
            from containust.runtime.rootless.backend import RootlessRunning

            return RootlessRunning(project)
        from containust.runtime.backend.running import RunningContainers

        return RunningContainers(project)
    raise _none(wanted)


def _native(wanted: str) -> bool:
    return wanted in ("auto", "linux") and sys.platform == "linux"


def _none(wanted: str) -> ContainustError:
    return ContainustError(
        "R010",
        f"there is no {wanted} backend on {sys.platform} in this version",
        "run on Linux with `--backend linux`; the virtual machine backend is still to come",
    )
