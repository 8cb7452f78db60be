"""What stands between a running container and its host, as ``inspect`` tells it."""

from __future__ import annotations

import os

from containust.core import capability, landlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.common.types import Component

NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")


def describe(pid: int, component: Component) -> dict[str, Any]:
    """The walls around the container whose init is ``pid``.

    ``capabilities`` (its bounding set), ``no_new_privileges`` and ``seccomp`` are read from the kernel, the last as
    ``filter`` or ``none``; ``ids`` is ``[first host id, how many]`` or ``host``; ``namespaces`` those that are not the
    reader's; ``landlock`` what the ruleset forbids, which the kernel shows nowhere. A process that has just ended
    gives empty values.
    """
    status = _status(pid)
    declared = component.capabilities
    mask = capability.DEFAULT_MASK if declared is None else capability.parse(declared)
    return {
        "ids": "host" if component.userns == "host" else _ids(pid),
        "namespaces": [name for name in NAMESPACES if _namespace(pid, name) != _namespace("self", name)],
        "capabilities": capability.names(int(status.get("CapBnd", "0"), 16)),
        "no_new_privileges": status.get("NoNewPrivs") == "1",
        "seccomp": "filter" if status.get("Seccomp") == "2" else "none",
        "landlock": list(landlock.walls(mask, "host" in component.networks)),
        "readonly_root": component.readonly,
    }


def _status(pid: int) -> dict[str, str]:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
    except OSError:
        return {}


def _ids(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
            return [int(word) for word in file.readline().split()[1:]]
    except OSError:
        return []


def _namespace(process: int | str, name: str) -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/{name}")
    except OSError:
        return ""
