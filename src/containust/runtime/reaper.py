"""A kilobyte of our own that passes signals on to a program and reaps what is left to it.

It is PID 1 of a container with ``init = true``, and above every probe and program of exec: what they leave behind is
not left to a PID 1 that never waits for it.

``core/data/reaper.c`` is its source. It is executed from a sealed memory file, so that it is in no image and nothing in
a container can change it.
"""

from __future__ import annotations

import fcntl
from errno import EACCES

from containust.common import os
from containust.common.errors import ContainustError
from containust.core.syscalls import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from containust.runtime.launch import Launch

MFD_CLOEXEC = 1
MFD_ALLOW_SEALING = 2
MFD_EXEC = 0x10  # Linux 6.3; a host with vm.memfd_noexec set refuses to execute without
F_ADD_SEALS = 1033
CHANNEL = 3
SEALS = 1 | 2 | 4 | 8  # further seals, shrinking, growing, writing
DATA = os.path.join(os.path.dirname(os.path.dirname(__file__)), "core", "data")

_opened: list[int] = []


def open_reaper() -> int:
    """A descriptor of the program, one for all containers of this process. Raises ContainustError R004."""
    if not _opened:
        try:
            with open(f"{DATA}/reaper-{MACHINE}", "rb") as file:
                program = file.read()
        except FileNotFoundError:
            raise ContainustError(
                "R004", f"`init = true` is not available on {MACHINE}", "remove it from the component"
            ) from None
        try:
            fd = os.memfd_create("init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC)
        except OSError:
            fd = os.memfd_create("init", MFD_CLOEXEC | MFD_ALLOW_SEALING)
        os.write(fd, program)
        fcntl.fcntl(fd, F_ADD_SEALS, SEALS)
        _opened.append(fd)
    return _opened[0]


def execute_below(reaper: int) -> Callable[[bytes, list[bytes], Mapping[bytes, bytes]], None]:
    """An ``execve`` that starts the program below the reaper.

    Whether the program is there is asked beforehand, by the user it is to run as: once the reaper runs nobody
    listens to its errors any more.
    """

    def execute(path: bytes, argv: list[bytes], env: Mapping[bytes, bytes]) -> None:
        _check(path)
        os.execve(reaper, [b"init", path, *argv], env)

    return execute


def execute_above(launch: Launch) -> Callable[[bytes, list[bytes], Mapping[bytes, bytes]], None]:
    """As :func:`execute_below`, for what joins a container: the reaper has the channel, and tells through it."""

    def execute(path: bytes, argv: list[bytes], env: Mapping[bytes, bytes]) -> None:
        _check(path)
        reaper = launch.reaper
        if reaper == CHANNEL:
            reaper = fcntl.fcntl(reaper, fcntl.F_DUPFD_CLOEXEC, CHANNEL + 1)
        if launch.channel_fd == CHANNEL:
            os.set_inheritable(CHANNEL, True)
        else:
            os.dup2(launch.channel_fd, CHANNEL)
        os.execve(reaper, [b"init", path, *argv], env)

    return execute


def is_reaper(pid: int) -> bool:
    """Whether ``pid`` looks like one; so may what a container has made of it."""
    try:
        return os.readlink(f"/proc/{pid}/exe").startswith("/memfd:init")
    except OSError:
        return False


def _check(path: bytes) -> None:
    os.stat(path)
    if not os.access(path, os.X_OK):
        raise OSError(EACCES, os.strerror(EACCES))
