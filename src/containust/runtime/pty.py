"""The terminal of a container's program: the calls by which a child opens it, see pts(4)."""

from __future__ import annotations

from _struct import pack

from containust.common import os
from containust.core import syscalls
from containust.core.calls import ANY, NR_fchownat, NR_ioctl, NR_sendmsg

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.launch import Child

TIOCSPTLCK = 0x40045431
TIOCGPTPEER = 0x5441
TIOCSCTTY = 0x540E
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
SOL_SOCKET = 1
SCM_RIGHTS = 1


def take_terminal(child: Child) -> None:
    """Open a terminal, have it control the session, and pass its master side to the parent."""
    calls, launch = child.calls, child.launch
    master = calls.openat(syscalls.AT_FDCWD, "/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    calls.add("ioctl", "TIOCSPTLCK", NR_ioctl, master, TIOCSPTLCK, bytes(4))
    slave = calls.result()
    calls.add("ioctl", "TIOCGPTPEER", NR_ioctl, master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY, slot=slave)
    calls.add("fchown", "terminal", NR_fchownat, slave, b"", launch.uid, 5, syscalls.AT_EMPTY_PATH)
    calls.add("ioctl", "TIOCSCTTY", NR_ioctl, slave, TIOCSCTTY, 0)
    # The size of the user's, before the program asks for it.
    calls.add("ioctl", "TIOCGWINSZ", NR_ioctl, 0, TIOCGWINSZ, calls.scratch, forgiven=ANY)
    sized = calls.if_there()
    calls.add("ioctl", "TIOCSWINSZ", NR_ioctl, slave, TIOCSWINSZ, calls.scratch, forgiven=ANY)
    calls.end_if(sized)
    # struct msghdr: no name, one buffer, ancillary data with one descriptor.
    control = calls.scratch + 64
    data = pack("<2Q", calls.keep(b"T"), 1)
    message = pack("<QI4xQQQQI4x", 0, 0, calls.keep(data), 1, control, 24, 0)
    calls.store(control, 20)
    calls.store(control + 4, 0)
    calls.store(control + 8, SOL_SOCKET)
    calls.store(control + 12, SCM_RIGHTS)
    calls.store(control + 16, master)
    calls.store(control + 20, 0)
    calls.add("sendmsg", "terminal", NR_sendmsg, child.terminals[1].fileno(), message, 0)
    for fd in (0, 1, 2):
        calls.dup3(slave, fd, 0)
