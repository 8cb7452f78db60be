"""The user's terminal joined to a container's: raw mode, window size, bytes both ways."""

from __future__ import annotations

import _signal
import fcntl
import os
import select
import termios
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Terminal:
    """``with Terminal(master):`` puts the user's terminal in raw mode and gives it back at the end."""

    __slots__ = ("_saved", "master")

    def __init__(self, master: int) -> None:
        self.master = master
        self._saved: list[Any] | None = None

    def __enter__(self) -> Terminal:
        if os.isatty(0):
            self._saved = termios.tcgetattr(0)
            tty.setraw(0)
        self.resize()
        _signal.signal(_signal.SIGWINCH, lambda number, frame: self.resize())
        return self

    def __exit__(self, *failure: object) -> None:
        _signal.signal(_signal.SIGWINCH, _signal.SIG_DFL)
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        os.close(self.master)

    def resize(self) -> None:
        """Give the container's terminal the size of the user's."""
        try:
            size = fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8)
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)
        except OSError:
            pass

    def proxy(self, ended: int, log: Callable[[bytes], None] | None = None) -> None:
        """Copy both ways until the process behind the pidfd ``ended`` has ended and its output is read."""
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        poll.register(ended, select.POLLIN)
        poll.register(0, select.POLLIN)
        over = False
        while True:
            ready = dict(poll.poll(20 if over else None))
            if self.master in ready:
                try:
                    data = os.read(self.master, 65536)
                except OSError:  # EIO: the last process has closed the terminal
                    return
                write_all(1, data)
                if log:
                    log(data)
            elif over:
                return
            if 0 in ready:
                try:
                    data = os.read(0, 65536)
                except OSError:  # EIO: the user's terminal is gone
                    data = b""
                if data:
                    write_all(self.master, data)
                else:
                    poll.unregister(0)
                    write_all(self.master, b"\x04")
            if ended in ready and not over:
                over = True
                poll.unregister(ended)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
