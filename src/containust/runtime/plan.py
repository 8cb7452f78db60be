"""What has to be done to make the recorded and the live state match a file. Reads only."""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.common.types import COMPONENT_DEFAULTS, Record
from containust.runtime import spec
from containust.runtime.state import RUNNING

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
        step = _step(stack, component, recorded, image_id(component), alive(recorded))
        if step.action == KEEP and drift:
            step.changes = [Change(file, held, wanted) for file, held, wanted in drift(recorded, component)]
            if step.changes:
                step.action, step.reason = UPDATE, "changed by hand"
        steps.append(step)
    _follow(steps, stack, state)
    if remove_orphans and only is None:
        steps += [
            Step(REMOVE, container.name, container.image, "no longer in the file", [])
            for container in state.containers.values()
            if container.stack_file == stack.file and container.name not in stack.components
        ]
    return steps


def _step(stack: Stack, component: Component, recorded: Container, image_id: str | None, alive: bool) -> Step:
    exposes = [expose for expose in stack.exposes if expose.component == component.name]
    image = image_id or recorded.image_id
    if spec.digest(component, image, exposes) != recorded.config_digest:
        changes = differences(recorded.spec, spec.encode(component))
        if image != recorded.image_id:
            changes.append(Change("image content", recorded.image_id[:19], image[:19]))
        published = [expose.as_dict() for expose in exposes]
        if published != recorded.exposes:
            changes.append(Change("EXPOSE", recorded.exposes, published))
        return Step(RECREATE, component.name, component.image, "changed", changes, weaker(component))
    if alive:
        return Step(KEEP, component.name, component.image, "", [], weaker(component))
    reason = "died" if recorded.state == RUNNING else f"is {recorded.state}{_how(recorded)}"
    return Step(START, component.name, component.image, reason, [], weaker(component))


def _how(recorded: Container) -> str:
    if recorded.error:
        return f": {recorded.error.get('message')}"
    if recorded.oom_killed:
        return ": killed for memory"
    if recorded.signal:
        return f": signal {recorded.signal}"
    return f": exit status {recorded.exit_code}" if recorded.exit_code else ""


def _follow(steps: list[Step], stack: Stack, state: State) -> None:
    """Recreate also what was told the address of something that gets another one: it is in their environment."""
    moved: dict[str, list[Change]] = {}
    for step in steps:
        recorded = state.by_name(step.name)
        if step.action == RECREATE and recorded:
            before, after = spec.decode(step.name, recorded.spec), stack.components[step.name]
            changes = [
                Change(f"{step.name}.{what}", old, new)
                for (what, old), (_, new) in zip(_address(before), _address(after), strict=True)
                if old != new
            ]
            if changes:
                moved[step.name] = changes
    if not moved:
        return
    for step in steps:
        told = [name for name in stack.components[step.name].depends_on if name in moved]
        if told and step.action in (KEEP, START, UPDATE):
            step.action, step.reason = RECREATE, f"follows {', '.join(told)}"
            step.changes = [change for name in told for change in moved[name]]


def _address(component: Component) -> list[tuple[str, Any]]:
    """What dependents know of a component."""
    scheme = component.image.rpartition("/")[2].partition(":")[0]  # it is the scheme of a connection string
    return [
        ("port", component.ports[0].number if component.ports else None),
        ("network", sorted(component.networks)),
        ("hostname", component.hostname),
        ("image", scheme),
    ]


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


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Property by property; for maps key by key."""
    changes = []
    for key, default in COMPONENT_DEFAULTS.items():
        before, after = old.get(key, default), new.get(key, default)
        if isinstance(before, Record):
            before = before.as_dict()
        if isinstance(after, Record):
            after = after.as_dict()
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            changes += [
                Change(f"{key}.{name}", before.get(name), after.get(name))
                for name in sorted({*before, *after})
                if before.get(name) != after.get(name)
            ]
        else:
            changes.append(Change(key, before, after))
    return changes
