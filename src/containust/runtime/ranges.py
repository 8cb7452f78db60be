"""Id ranges of projects: 65536 host ids each, claimed once a host in ``/run/containust/ranges``."""

from __future__ import annotations

import fcntl

from containust.common import os
from containust.common.errors import ContainustError

DIRECTORY = "/run/containust/ranges"
# A high range that no distribution hands out: systemd's containers end at 0x6FFF0000, subordinate ids start at 100000
# and rarely pass 0x10000000.
FIRST = 0x7000_0000
SIZE = 65536
COUNT = 0x7000


def claim(project_id: str, directory: str, before: int | None = None) -> int:
    """First host id of the project's range. Two projects never share one while both exist.

    ``before`` is the one that it had, and has again unless another project does: a reboot forgets all claims.
    A claim is a symbolic link from the range to the project's directory, made atomically; it is taken over when that
    directory is gone. Raises ContainustError R001 without permission.
    """
    slot = int(project_id, 16) % COUNT if before is None else (before - FIRST) // SIZE % COUNT
    try:
        for _ in range(COUNT):
            base = FIRST + slot * SIZE
            path = f"{DIRECTORY}/{base}"
            try:
                os.symlink(directory, path)
                return base
            except FileNotFoundError:
                os.makedirs(DIRECTORY, 0o755, exist_ok=True)
                continue
            except FileExistsError:
                owner = os.readlink(path)
            if owner == directory:
                return base
            if not os.path.exists(owner) and _take_over(path, owner, directory):
                return base
            slot = (slot + 1) % COUNT
    except OSError as error:
        raise ContainustError(
            "R001", f"cannot claim an id range in {DIRECTORY}: {error.strerror}", "run as root"
        ) from None
    raise ContainustError("R001", "every id range of this host is claimed", f"remove stale links in {DIRECTORY}")


def _take_over(path: str, owner: str, directory: str) -> bool:
    """Give ``directory`` the claim of a project that is gone; False when another project was quicker."""
    lock = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.readlink(path) != owner:
            return False
        temporary = f"{path}.new"
        try:
            os.unlink(temporary)  # of one that was killed
        except FileNotFoundError:
            pass
        os.symlink(directory, temporary)
        os.rename(temporary, path)
        return True
    finally:
        os.close(lock)


def release(base: int, directory: str) -> None:
    """Give a range back; one that is not claimed by ``directory`` stays as it is."""
    path = f"{DIRECTORY}/{base}"
    try:
        if os.readlink(path) == directory:
            os.unlink(path)
    except OSError:
        pass
