"""Plans and their outcome, in words."""

from __future__ import annotations

from containust.cli.output import paint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    from containust.common.types import Expose

    class Change(Protocol):
        property: str
        old: Any
        new: Any

    class Step(Protocol):
        action: str
        name: str
        image: str
        reason: str
        changes: list[Any]
        weaker: list[str]


SYMBOLS = {"create": "+", "recreate": "-/+", "start": "!", "update": "!", "remove": "-", "keep": " "}
COLOURS = {"create": "green", "recreate": "yellow", "start": "cyan", "update": "cyan", "remove": "red"}
DONE = {
    "create": "created",
    "recreate": "recreated",
    "start": "started",
    "update": "limits restored",
    "remove": "removed",
    "keep": "unchanged",
}


def details(steps: Iterable[Step], colour: bool) -> str:
    """A plan as `ctst plan` prints it, with totals."""
    lines = []
    counts = dict.fromkeys(SYMBOLS, 0)
    for step in steps:
        counts[step.action] += 1
        if step.action == "keep":
            continue
        reason = f"  ({step.reason})" if step.reason else ""
        lines.append(
            paint(f"{SYMBOLS[step.action]:>3} {step.name}", COLOURS[step.action], colour) + f"  {step.image}{reason}\n"
        )
        for change in step.changes:
            lines.append(f"      ~ {change.property}: {shown(change.old)} -> {shown(change.new)}\n")
        lines += [f"      {paint('!', 'yellow', colour)} {text}\n" for text in step.weaker]
    lines.append(
        f"Plan: {counts['create']} to create, {counts['recreate']} to recreate, {counts['start']} to start, "
        f"{counts['remove']} to remove, {counts['keep']} unchanged"
        + (f", {counts['update']} to restore.\n" if counts["update"] else ".\n")
    )
    return "".join(lines)


def shown(value: Any) -> str:
    """A property's value; references as they are written in the file."""
    if isinstance(value, list) and any(isinstance(part, dict) and "kind" in part for part in value):
        return repr("".join(part if isinstance(part, str) else _reference(part) for part in value))
    return repr(value)


def _reference(part: dict[str, Any]) -> str:
    if part["kind"] == "secret":
        return f"${{secret.{part['name']}}}"
    return f"${{{part['name']}.{part['attribute']}}}"


def summary(steps: Iterable[Step], exposes: Iterable[Expose], colour: bool) -> str:
    """What `run -d` did, one line a component, and where to reach it."""
    lines = [
        f"{paint(SYMBOLS[s.action].rjust(3), COLOURS.get(s.action, 'bold'), colour)} {s.name} {DONE[s.action]}\n"
        for s in steps
    ]
    lines += [f"    {e.place}/{e.protocol} -> {e.component}:{e.container_port}\n" for e in exposes]
    return "".join(lines)
