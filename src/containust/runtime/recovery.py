"""Whether a killed process may have left something: asked before each look at a project, so it is cheap."""

from __future__ import annotations

from containust.common import os
from containust.runtime.state import CREATED, RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.project import Project
    from containust.runtime.state import State


def needed(project: Project, state: State, live: int) -> bool:
    """True when the record and the host may differ; only then is the engine's ``recover`` worth loading.

    ``live`` is how many of the containers that are recorded as running do run.
    """
    containers = state.containers.values()
    running = sum(container.state == RUNNING for container in containers)
    if live != running or any(container.state == CREATED for container in containers):
        return True
    try:
        names = os.listdir(project.run)
    except OSError:
        return False
    strays = any(len(name) == 36 and name not in state.containers for name in names)
    return strays or (not running and any(name.endswith(".lock") for name in names))
