"""What a supervisor writes down of its containers, and what others have written of what they want of these."""

from __future__ import annotations

import time

from containust.common import os
from containust.common.errors import ContainustError
from containust.runtime.loop import Loop
from containust.runtime.state import STOPPED, Update, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.project import Project
    from containust.runtime.state import Container, State

RECORD_AGAIN = 1.0
TOGETHER = 0.004


class Recorder(Loop):
    """A loop that records in the project's state what has changed of containers."""

    def __init__(self, project: Project) -> None:
        super().__init__()
        self.project = project
        self._changed: dict[str, Container] = {}
        self._record_from = 0.0  # monotonic time before which recording is not tried again
        # As others left it, and by what known.
        self._recorded: tuple[tuple[int, int], dict[str, Container]] = ((0, 0), {})

    def changed(self, container: Container) -> None:
        """``container`` is to be recorded anew."""
        self._changed[container.id] = container

    def record(self) -> None:
        """Write the containers that changed; what others have recorded as wanted is kept."""
        if not self._changed:
            return
        with Update(self.project) as state:
            self.merge(state)

    def record_if_possible(self) -> None:
        """As :meth:`record`, but a full disk or a state file that somebody has damaged is no reason to stop watching:
        what happened is recorded as soon as that is possible."""
        if not self._changed or time.monotonic() < self._record_from:
            return
        changed = self.unrecorded()
        try:
            self.record()
        except ContainustError:
            self.record_later(changed)
            self._put_off(RECORD_AGAIN)

    def record_with_others(self) -> None:
        """Let what changes from here on wait for what is about to change as well: one record will do."""
        if not self._changed:
            self._put_off(TOGETHER)

    def _put_off(self, seconds: float) -> None:
        self._record_from = time.monotonic() + seconds
        self.after(seconds, lambda: None)

    def unrecorded(self) -> dict[str, Container]:
        """What has changed since it was last recorded, by id."""
        return dict(self._changed)

    def record_later(self, containers: dict[str, Container]) -> None:
        """Take back what could not be recorded."""
        self._changed = {**containers, **self._changed}

    def recorded(self) -> None:
        """Everything has been recorded, by somebody else."""
        self._changed = {}

    def merge(self, state: State) -> None:
        """Put what changed into ``state``."""
        for container in self._changed.values():
            recorded = state.containers.get(container.id)
            if recorded is not None:
                container.wanted = recorded.wanted
                container.remove = recorded.remove
                container.offline = recorded.offline
                state.containers[container.id] = container
        self._changed = {}

    def wanted(self, container: Container) -> str:
        """What the user asked for last of ``container``: running or stopped."""
        try:
            status = os.stat(self.project.state_file)
            version = status.st_ino, status.st_mtime_ns
            if version != self._recorded[0]:
                self._recorded = version, load(self.project).containers
        except (ContainustError, OSError):  # the file cannot be read now: what was wanted last holds
            return container.wanted
        recorded = self._recorded[1].get(container.id)
        return recorded.wanted if recorded else STOPPED
