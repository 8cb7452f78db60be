"""How a component differs from the container that was made of it, and what that means for the two."""

from __future__ import annotations

from containust.common.types import COMPONENT_DEFAULTS, Record
from containust.runtime import spec
from containust.runtime.plan import KEEP, RECREATE, START, UPDATE, Change, Step, weaker
from containust.runtime.state import RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.common.types import Component, Stack
    from containust.runtime.state import Container, State


def step(stack: Stack, component: Component, recorded: Container, image_id: str | None, alive: bool) -> Step:
    """What is to be done about a component that has a container. ``alive`` says whether that runs."""
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
    if alive or (recorded.done and recorded.wanted == RUNNING):
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


def follow(steps: list[Step], stack: Stack, state: State) -> None:
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
