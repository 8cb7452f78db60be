"""What a start depends on beside the stack itself."""

from __future__ import annotations

from containust.common import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Options:
    """What a start depends on beside the stack itself."""

    __slots__ = (
        "backend",
        "container_id",
        "environ",
        "expected",
        "forget",
        "interactive",
        "offline",
        "only",
        "remove_orphans",
        "timeout",
        "tty",
    )

    def __init__(
        self,
        offline: bool = False,
        environ: Mapping[str, str] | None = None,
        backend: str = "auto",
        remove_orphans: bool = True,
        only: set[str] | None = None,
        forget: bool = False,
        interactive: bool = False,
        tty: bool = False,
        container_id: str | None = None,
    ) -> None:
        self.timeout: float | None = None  # seconds after which a start that is not up is given up
        self.expected: list[dict[str, Any]] | None = None  # what a plan that was kept says, see runtime.planfile
        self.container_id = container_id  # for a container without a file: the id it gets
        self.offline = offline
        self.environ = os.environ if environ is None else environ
        self.backend = backend
        self.remove_orphans = remove_orphans
        self.only = only
        self.forget = forget  # --rm
        self.interactive = interactive  # stdin of the caller goes to the container
        self.tty = tty
