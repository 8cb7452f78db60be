"""What has to be done to make the recorded and the live state match a file. Reads only."""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.common.types import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from containust.common.types import Component, Stack
    from containust.runtime.state import Container, State

CREATE = "create"
RECREATE = "recreate"
START = "start"
REMOVE = "remove"
UPDATE = "update"
KEEP = "keep"
SYMBOLS = {CREATE: "+", RECREATE: "-/+", START: "!", UPDATE: "!", REMOVE: "-", KEEP: " "}


class Change(Record):
    """One property: its old and its new value, JSON-ready."""

    __slots__ = ("new", "old", "property")

    def __init__(self, property: str, old: Any, new: Any) -> None:
        self.property = property
        self.old = old
        self.new = new


class Step(Record):
    """What happens to one component. ``reason`` says why it is started or recreated, ``weaker`` what the file takes
    away from the default isolation."""

    __slots__ = ("action", "changes", "image", "name", "reason", "weaker")

    def __init__(
        self, action: str, name: str, image: str, reason: str, changes: list[Change], weaker: list[str] | None = None
    ) -> None:
        self.action = action
        self.name = name
        self.image = image
        self.reason = reason
        self.changes = changes
        self.weaker = weaker or []


def compute(
    stack: Stack,
    state: State,
    image_id: Callable[[Component], str | None],
    alive: Callable[[Container], bool],
    remove_orphans: bool = True,
    only: set[str] | None = None,
    drift: Callable[[Container, Component], list[tuple[str, str, str]]] | None = None,
) -> list[Step]:
    """The steps in start order, removals last.

    ``image_id`` gives the id of a component's image, None when it is not imported yet; ``alive`` says whether a
    recorded container's process runs; ``drift`` gives limits of a running one that were changed by hand, as (name,
    what holds, what should). Raises ContainustError R009 for a name that another stack holds.
    """
    steps = []
    for name, component in stack.components.items():
        if only is not None and name not in only:
            continue
        recorded = state.by_name(name)
        if recorded is None:
            steps.append(Step(CREATE, name, component.image, "", [], weaker(component)))
            continue
        if recorded.stack_file != stack.file:
            raise ContainustError(
                "R009",
                f"the name {name} belongs to {recorded.stack_file or 'a container of `ctst run --image`'}",
                f"rename the component, or remove that container with `ctst rm {name}`",
            )
        from containust.runtime import comparison

        step = comparison.step(stack, component, recorded, image_id(component), alive(recorded))
        if step.action == KEEP and drift:
            step.changes = [Change(file, held, wanted) for file, held, wanted in drift(recorded, component)]
            if step.changes:
                step.action, step.reason = UPDATE, "changed by hand"
        steps.append(step)
    if any(step.action == RECREATE for step in steps):
        from containust.runtime import comparison

        comparison.follow(steps, stack, state)
    if remove_orphans and only is None:
        steps += [
            Step(REMOVE, container.name, container.image, "no longer in the file", [])
            for container in state.containers.values()
            if container.stack_file == stack.file and container.name not in stack.components
        ]
    return steps


def weaker(component: Component) -> list[str]:
    """What a component switches off, in words; empty for the default isolation."""
    found = []
    if component.userns == "host":
        found.append('userns = "host": its root is the root of the host')
    if component.seccomp == "unconfined":
        found.append('seccomp = "unconfined": every system call is allowed')
    if "host" in component.networks:
        found.append('network = "host": it has the interfaces of the host')
    for name in component.capabilities or ():
        if name.upper().removeprefix("CAP_") in ("SYS_PTRACE", "SYS_ADMIN", "ALL"):
            found.append(f"capability {name}: no Landlock")
    return found
