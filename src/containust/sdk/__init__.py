"""The public facade: what an outside program imports, and all that the command line uses.

Names are resolved on first use, so that a command loads only what it needs.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Public name -> module that has it.
PUBLIC = {
    "Component": "containust.common.types",
    "ContainustError": "containust.common.errors",
    "Expose": "containust.common.types",
    "Healthcheck": "containust.common.types",
    "Port": "containust.common.types",
    "Project": "containust.sdk.project",
    "Restart": "containust.common.types",
    "Stack": "containust.sdk.stack",
    "Tmpfs": "containust.common.types",
    "UsageError": "containust.common.errors",
    "Volume": "containust.common.types",
}


def __getattr__(name: str) -> Any:
    module = PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"containust has no {name!r}")
    return getattr(__import__(module, fromlist=[name]), name)
