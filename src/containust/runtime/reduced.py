"""What a component runs, as far as its file says: what a distroless image of it has to keep."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Component


def words(component: Component) -> list[str]:
    """The words of its command lines: entrypoint, command, health probe.

    A word that is known only at run time is left out. A program in the working directory gets its whole path.
    """
    probe = component.healthcheck.command if component.healthcheck else []
    found = [word for word in (*(component.entrypoint or ()), *(component.command or ()), *probe) if type(word) is str]
    if found and "/" in found[0] and not found[0].startswith("/"):
        import os

        found[0] = os.path.normpath(os.path.join("/", component.workdir or "", found[0]))
    return found
