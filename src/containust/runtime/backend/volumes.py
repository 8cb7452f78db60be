"""Volumes as what a container's root has mounted."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import syscalls
from containust.core.syscalls import (
    AT_FDCWD,
    AT_RECURSIVE,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
)
from containust.runtime.launch import Bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Component, Volume
    from containust.runtime.launch import Launch
    from containust.runtime.project import Project


def mounted(component: Component, volume: Volume, launch: Launch, project: Project) -> Bind:
    """The volume as a detached mount. Raises ContainustError R003 when its source is not there."""
    source = volume.source
    if volume.kind == "managed":
        source = f"{project.volumes}/{volume.source}"
        if not os.path.isdir(source):
            from containust.runtime.volume_content import create

            create(source, launch.layer_fd, volume.target)
    try:
        tree = syscalls.open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | AT_RECURSIVE)
    except FileNotFoundError:
        raise ContainustError(
            "R003",
            f"{component.name}: volume source {source} does not exist",
            f"create it (`mkdir -p {source}`), or give a bare name for a managed volume",
        ) from None
    attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    if volume.readonly:
        attributes |= syscalls.MOUNT_ATTR_RDONLY
    # A copy of a shared mount, as systemd makes all of them, is its peer: what is mounted on one is on the other.
    syscalls.mount_setattr(tree, "", AT_RECURSIVE, set=attributes, propagation=MS_PRIVATE)
    return Bind(tree, volume.target, os.path.isdir(source), idmapped=launch.id_base is not None)
