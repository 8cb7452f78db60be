"""What components on the host's own network offer to containers that are connected to them."""

from __future__ import annotations

from containust.runtime.network.rules import HostService
from containust.runtime.state import RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.state import State


def host_services(state: State) -> list[HostService]:
    """One for each address of a running component, and port of one on the host's network that it depends on."""
    found = []
    for container in state.containers.values():
        if container.wanted != RUNNING:
            continue
        for name in container.spec.get("depends_on", ()):
            target = state.by_name(name)
            if target is None or "host" not in target.spec.get("networks", ()):
                continue
            for port in target.spec.get("ports", ()):
                for item in container.attachments:
                    found.append(HostService(item["address"], item["gateway"], port["number"], port["protocol"]))
    return found
