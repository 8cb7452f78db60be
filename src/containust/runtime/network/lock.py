"""One lock a host for what projects share: the choice of subnets and the host's forwarding settings.

Held for about a millisecond, by commands that make or remove a network. The file is in ``/run``, mode 0600 in
a
directory of mode 0700: nobody but root can take the lock to keep others from it.
"""

from __future__ import annotations

import fcntl

from containust.common import os
from containust.common.errors import ContainustError

DIRECTORY = "/run/containust"


class HostLock:
    """``with HostLock():`` waits for the lock and holds it."""

    __slots__ = ("_descriptor",)

    def __enter__(self) -> HostLock:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                self._descriptor = os.open(DIRECTORY + "/network.lock", flags, 0o600)
            except FileNotFoundError:
                os.makedirs(DIRECTORY, 0o700, exist_ok=True)
                self._descriptor = os.open(DIRECTORY + "/network.lock", flags, 0o600)
        except OSError as error:
            raise ContainustError(
                "R013",
                f"{DIRECTORY}: {error.strerror}",
                'networks are made by root: run as root, or with network = "none" or "host"',
            ) from error
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
