"""The disks that a container's files lie on, for weights and bounds of what it reads and writes there."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.core.cgroup import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from containust.core.cgroup import Limits


def under(paths: Iterable[str], what: str) -> list[str]:
    """``major:minor`` of each disk below ``paths``, the whole one where a path lies on a partition.

    Raises ContainustError R002 for a path that no block device is known of; ``what`` is the property that needs one.
    """
    found = set()
    for path in paths:
        device = os.stat(path).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        here = f"/sys/dev/block/{number}"
        if not os.path.exists(here):
            raise ContainustError(
                "R002",
                f"`{what}` is of disks, and {path} is on none that the kernel tells of",
                f"put it on a file system of one disk (ext4, xfs), or remove `{what}`",
            )
        if os.path.exists(f"{here}/partition"):
            with open(f"{os.path.realpath(here)}/../dev") as file:
                number = file.read().strip()
        found.add(number)
    return sorted(found)


def check_weight(disks: list[str]) -> None:
    """Raise ContainustError R002 unless one of ``disks`` is shared by weights: by BFQ, or by blk-iocost on v2.

    Groups have a file to write a weight to all the same, which nothing reads.
    """
    costs = (read_text("/sys/fs/cgroup/io.cost.qos") or "").splitlines()
    weighing = {line.split()[0] for line in costs if "enable=1" in line.split()}
    if any(disk in weighing or _has_bfq(f"/sys/dev/block/{disk}") for disk in disks):
        return
    raise ContainustError(
        "R002",
        f"`io_weight`: the disk ({', '.join(disks)}) is not shared by weights, its scheduler heeds none",
        *(
            f"`echo bfq > /sys/dev/block/{disk}/queue/scheduler` has it shared so (`modprobe bfq` first)"
            for disk in disks
        ),
        "or remove `io_weight`; `io_max` bounds any disk",
    )


def _has_bfq(device: str) -> bool:
    """Whether BFQ schedules a disk, or one that it is made of (device mapper, RAID)."""
    for queue in ("queue", "../queue"):  # a partition has that of its disk
        if "[bfq]" in (read_text(f"{device}/{queue}/scheduler") or ""):
            return True
    try:
        parts = os.listdir(f"{device}/slaves")
    except OSError:
        return False
    return any(_has_bfq(os.path.realpath(f"{device}/slaves/{part}")) for part in parts)


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
