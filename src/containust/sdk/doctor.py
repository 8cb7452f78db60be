"""What this host offers to containers, for ``ctst doctor`` and for programs that want to know before they start."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.doctor import Check


def examine(directory: str = ".", state_file: str | None = None) -> list[Check]:
    """Records with ``name``, ``status`` (``ok``, ``warn`` or ``fail``), ``detail`` and ``help``. Changes nothing.

    ``directory`` is where the command runs: the file system of its project has to take id mappings.
    """
    from containust.runtime import doctor, project

    place = project.current(os.path.abspath(directory), state_file).directory
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return doctor.examine(place)
