"""The disks that a container's files lie on, for bounds of what it reads and writes there."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from containust.core.cgroup import Limits


def under(paths: Iterable[str]) -> list[str]:
    """``major:minor`` of each disk below ``paths``, the whole one where a path lies on a partition.

    Raises ContainustError R002 for a path that no block device is known of.
    """
    found = set()
    for path in paths:
        device = os.stat(path).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        here = f"/sys/dev/block/{number}"
        if not os.path.exists(here):
            raise ContainustError(
                "R002",
                f"`io_max` bounds a disk, and {path} is on none that the kernel tells of",
                "put it on a file system of one disk (ext4, xfs), or remove `io_max`",
            )
        if os.path.exists(f"{here}/partition"):
            with open(f"{os.path.realpath(here)}/../dev") as file:
                number = file.read().strip()
        found.add(number)
    return sorted(found)


def bounds_v2(limits: Limits) -> list[tuple[str, str]]:
    """A line for ``io.max`` a disk (Documentation/admin-guide/cgroup-v2.rst of the kernel)."""
    return [("io.max", f"{disk} rbps={limits.io_max} wbps={limits.io_max}") for disk in limits.disks]


def bounds_v1(limits: Limits) -> list[tuple[str, str]]:
    """The same for the throttling files of v1 (Documentation/admin-guide/cgroup-v1/blkio-controller.rst)."""
    return [
        (f"blkio.throttle.{way}_bps_device", f"{disk} {limits.io_max}")
        for disk in limits.disks
        for way in ("read", "write")
    ]
