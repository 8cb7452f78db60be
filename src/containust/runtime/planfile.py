"""A plan kept in a file: ``ctst plan --out FILE`` writes it, ``ctst run FILE`` carries it out, or refuses.

It holds no values of the stack, only what tells whether the plan would come out the same: what happens to each
component, the digest of its definition, the container it meets. So it holds no secret either.
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.core import jsontext
from containust.runtime import spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.common.types import Stack
    from containust.runtime.plan import Step
    from containust.runtime.state import State

VERSION = 1
SUFFIX = ".plan"


def fingerprint(stack: Stack, state: State, steps: list[Step]) -> list[dict[str, Any]]:
    """What has to be the same for a plan to hold, JSON-ready, one entry a step."""
    rows = []
    for step in steps:
        container = state.by_name(step.name)
        component = stack.components.get(step.name)
        exposes = [expose for expose in stack.exposes if expose.component == step.name]
        rows.append(
            {
                "name": step.name,
                "action": step.action,
                "definition": spec.digest(component, "", exposes) if component else "",
                "container": container.id if container else "",
                "changes": sorted(change.property for change in step.changes),
            }
        )
    return rows


def write(path: str, stack: Stack, state: State, steps: list[Step], options: dict[str, Any]) -> None:
    """Keep a plan. ``options`` are those of the run that it is of. Raises ContainustError S003."""
    text = jsontext.dumps(
        {"containust_plan": VERSION, "file": stack.file, **options, "steps": fingerprint(stack, state, steps)}
    )
    temporary = f"{path}.new"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, text.encode() + b"\n")
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise ContainustError("S003", f"cannot write {path}: {error.strerror}", "name another file") from None


def read(path: str) -> dict[str, Any]:
    """A kept plan. Raises ContainustError S004 when there is none, S001 when it is damaged, S006 when it is newer."""
    try:
        with open(path, "rb") as file:
            document = jsontext.loads(file.read().decode())
        version = document["containust_plan"]
        if not isinstance(document["file"], str) or not isinstance(document["steps"], list):
            raise ValueError("not a plan")
    except FileNotFoundError:
        raise ContainustError("S004", f"there is no plan {path}", f"make it with `ctst plan --out {path}`") from None
    except OSError as error:
        raise ContainustError("S003", f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ContainustError(
            "S001", f"{path} is not a plan ({error})", f"make it anew with `ctst plan --out {path}`"
        ) from None
    if version != VERSION:
        raise ContainustError("S006", f"{path} was written by another version", "make the plan anew")
    result: dict[str, Any] = document
    return result


def check(expected: list[dict[str, Any]], stack: Stack, state: State, steps: list[Step]) -> None:
    """Raise ContainustError S007 unless the plan would be the same now."""
    present = {row["name"]: row for row in fingerprint(stack, state, steps)}
    planned = {row["name"]: row for row in expected}
    different = [name for name in {**planned, **present} if planned.get(name) != present.get(name)]
    if different:
        raise ContainustError(
            "S007",
            f"the plan is out of date: {', '.join(different)} changed since it was made; nothing was done",
            "look at `ctst plan`, and make the plan anew with --out",
        )
