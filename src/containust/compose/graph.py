"""The graph of CONNECT: what can start together, in which order, where it goes in a circle, and what a connection
puts into an environment.

Linear in components and connections, without recursion.
"""

from __future__ import annotations

from containust.common.types import Ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from containust.common.types import Component, Stack, Text


def stages(stack: Stack) -> list[list[str]]:
    """Sets of components that can start at the same time, one after the other; each in file order."""
    return levels({name: component.depends_on for name, component in stack.components.items()})


def order(stack: Stack) -> list[str]:
    """Every component after those it depends on; stop goes in reverse."""
    return [name for stage in stages(stack) for name in stage]


def levels(depends_on: Mapping[str, list[str]]) -> list[list[str]]:
    """Kahn's algorithm by levels. Whatever is in or behind a cycle is in no level."""
    position = {name: i for i, name in enumerate(depends_on)}
    waiting = {}
    dependents: dict[str, list[str]] = {}
    ready = []
    for name, targets in depends_on.items():
        known = {target for target in targets if target in position}
        waiting[name] = len(known)
        if not known:
            ready.append(name)
        for target in known:
            dependents.setdefault(target, []).append(name)
    result = []
    while ready:
        ready.sort(key=position.__getitem__)
        result.append(ready)
        following = []
        for name in ready:
            for dependent in dependents.get(name, ()):
                waiting[dependent] -= 1
                if not waiting[dependent]:
                    following.append(dependent)
        ready = following
    return result


def cycles(depends_on: Mapping[str, list[str]], most: int = 100) -> list[list[str]]:
    """Cycles as paths whose first name is not repeated at the end; none shares a name with another."""
    if sum(len(level) for level in levels(depends_on)) == len(depends_on):
        return []
    settled = {name for level in levels(depends_on) for name in level}
    found: list[list[str]] = []
    reported: set[str] = set()
    for root in depends_on:
        if root in settled or len(found) >= most:
            continue
        path = [root]
        index = {root: 0}
        pending = [iter(depends_on[root])]
        while pending:
            target = next(pending[-1], None)
            if target is None:
                pending.pop()
                settled.add(path[-1])
                del index[path.pop()]
            elif target in index:
                if path[-1] not in reported and target not in reported and len(found) < most:
                    cycle = path[index[target] :]
                    found.append(cycle)
                    reported.update(cycle)
            elif target in depends_on and target not in settled:
                index[target] = len(path)
                path.append(target)
                pending.append(iter(depends_on[target]))
    return found


def wired(name: str, target: Component, protocol: str) -> dict[str, Text]:
    """What CONNECT puts into the environment of a component that depends on ``target`` (section 6)."""
    prefix = name.upper().replace("-", "_").replace(".", "_")
    host = Ref("component", name, "host")
    env: dict[str, Text] = {f"{prefix}_HOST": (host,)}
    if target.ports:
        port = str(target.ports[0].number)
        env[f"{prefix}_PORT"] = port
        env[f"{prefix}_CONNECTION_STRING"] = (f"{protocol}://", host, f":{port}")
    else:
        env[f"{prefix}_CONNECTION_STRING"] = (f"{protocol}://", host)
    return env


PROTOCOLS = (
    ("postgres", "postgres"),
    ("mysql", "mysql"),
    ("mariadb", "mysql"),
    ("redis", "redis"),
    ("valkey", "redis"),
    ("mongo", "mongodb"),
    ("rabbitmq", "amqp"),
    ("amqp", "amqp"),
    ("nats", "nats"),
)


def protocol(image: str) -> str:
    """The scheme of a connection string, by the last part of an image's name; tag and digest say nothing."""
    name = image.partition("@sha256:")[0].rstrip("/").rpartition("/")[2].lower()
    if image.startswith("oci://"):
        name = name.partition(":")[0]
    for part, scheme in PROTOCOLS:
        if part in name:
            return scheme
    return "http"
