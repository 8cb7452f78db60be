"""A kilobyte of our own that passes signals on to a program and reaps what is left to it.

It is PID 1 of a container with ``init = true``, and above every probe and program of exec: what they leave behind is
not left to a PID 1 that never waits for it.

``core/data/reaper.c`` is its source. It is executed from a sealed memory file, so that it is in no image and nothing in
a container can change it. Whether the program below it is there is asked before (``Calls.execute`` in
:mod:`containust.core.calls`), by the user it is to run as.
"""

from __future__ import annotations

import fcntl

from containust.common import os
from containust.common.errors import ContainustError
from containust.core.syscalls import MACHINE

MFD_CLOEXEC = 1
MFD_ALLOW_SEALING = 2
MFD_EXEC = 0x10  # Linux 6.3; a host with vm.memfd_noexec set refuses to execute without
F_ADD_SEALS = 1033
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


def is_reaper(pid: int) -> bool:
    """Whether ``pid`` looks like one; so may what a container has made of it."""
    try:
        return os.readlink(f"/proc/{pid}/exe").startswith("/memfd:init")
    except OSError:
        return False
