"""One container in the hands of the runtime: the order to start it, and the handle of it once it is there."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from containust.common.types import Component, ImageConfig, Ref
    from containust.runtime.clients import Mark
    from containust.runtime.launch import Child
    from containust.runtime.logs import Capture
    from containust.runtime.network.attachment import Attachment
    from containust.runtime.state import Container


class Job:
    """An order: make ``container`` from ``component`` and its image.

    ``lookup`` fills in references. ``stdin`` is a descriptor of the caller or -1 for nothing; ``capture`` says
    whether output goes to the log; ``peers`` are the other containers' places, by their names.
    """

    __slots__ = (
        "argv",
        "capture",
        "component",
        "config",
        "container",
        "layer",
        "lookup",
        "masks",
        "peers",
        "root_ready",
        "stdio",
        "tty",
        "user",
        "workdir",
    )

    def __init__(
        self,
        container: Container,
        component: Component,
        config: ImageConfig,
        layer: Callable[[], int],
        root_ready: bool,
        lookup: Callable[[Ref], str],
    ) -> None:
        self.container = container
        self.component = component
        self.config = config
        self.layer = layer  # opens a detached mount of the image's tree
        self.root_ready = root_ready  # the tree has every standard mount point as a plain directory or file
        self.lookup = lookup
        self.peers: dict[str, list[Attachment]] = {}
        self.masks: list[bytes] = []
        self.stdio: tuple[int, int, int] = (-1, -1, -1)
        self.capture = True
        self.tty = False
        self.argv: list[str] | None = None  # exec: instead of the component's own
        self.user: str | None = None
        self.workdir: str | None = None


class Handle:
    """A container's process, held by pidfd while it is acted on."""

    __slots__ = ("adopted", "capture", "channel", "child", "container", "mark", "pid", "pidfd", "terminal", "told")

    def __init__(self, container: Container, pid: int, pidfd: int) -> None:
        self.container = container
        self.pid = pid
        self.pidfd = pidfd
        self.child: Child | None = None  # until its program runs
        self.capture: Capture | None = None
        self.mark: Mark | None = None  # of an exec, to be removed at its end
        self.terminal = -1  # master side of its terminal
        self.adopted = False  # not our child
        self.channel = -1  # of one that joined a container below a reaper, which tells through it
        self.told = b""  # the last that it has told

    @property
    def end(self) -> int:
        """A descriptor that is readable once the program has ended, or the reaper above it has something to tell."""
        return self.channel if self.channel >= 0 else self.pidfd


def places(records: list[dict[str, Any]]) -> list[Attachment]:
    """The attachments that a state record holds; their module is loaded only where there are any."""
    if not records:
        return []
    from containust.runtime.network.attachment import Attachment

    return [Attachment.from_dict(item) for item in records]
