"""Containust: a daemonless container runtime with its own composition language.

``import containust`` gives the whole public surface (see :mod:`containust.sdk`); names are resolved on first use so
that importing the package costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    import containust.sdk as sdk

    return getattr(sdk, name)


def __dir__() -> list[str]:
    import containust.sdk as sdk

    return sorted({"__version__", *sdk.PUBLIC})
