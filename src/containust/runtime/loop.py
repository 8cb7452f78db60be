"""One loop over descriptors and timers, in which nothing ever waits for anything else."""

from __future__ import annotations

import _signal
import select
import time

from containust.common import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# After much output: FIFOs fill meanwhile, and their writers need not wake anybody. Twice as long costs these 1 %, four
# times 4 %, for what they write has left the processor's cache when it is read.
PAUSE = 0.0005


class Timer:
    """A callback at a monotonic time."""

    __slots__ = ("callback", "deadline")

    def __init__(self, deadline: float, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.callback = callback


class Loop:
    """Calls back when a descriptor is readable, a time has come or a signal has."""

    def __init__(self) -> None:
        self.busy = False  # a callback took much at once, and more is coming
        self._poll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: list[Timer] = []

    def take_signals(self, numbers: tuple[int, ...], callback: Callable[[int], None]) -> None:
        """Take signals through the loop instead of an exception."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in numbers:
            _signal.signal(number, lambda number, frame: None)

        def arrived() -> None:
            for number in os.read(reader, 64):
                callback(number)

        self.watch(reader, arrived)

    def turn(self) -> None:
        """Wait for something to happen, and serve it."""
        timeout = -1.0
        if self._timers:
            timeout = max(0.0, min(timer.deadline for timer in self._timers) - time.monotonic())
        for fd, _ in self._poll.poll(timeout):
            callback = self._callbacks.get(fd)
            if callback:
                callback()
        if self.busy:
            self.busy = False
            time.sleep(PAUSE)
        moment = time.monotonic()
        due = [timer for timer in self._timers if timer.deadline <= moment]
        if due:
            self._timers = [timer for timer in self._timers if timer.deadline > moment]
            for timer in due:
                timer.callback()

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever ``fd`` is readable."""
        self._callbacks[fd] = callback
        self._poll.register(fd, select.EPOLLIN)

    def watches(self, fd: int) -> bool:
        """Whether ``fd`` is watched."""
        return fd in self._callbacks

    def forget(self, fd: int) -> None:
        """Watch ``fd`` no longer, if it was."""
        if self._callbacks.pop(fd, None):
            self._poll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, in ``seconds``."""
        timer = Timer(time.monotonic() + seconds, callback)
        self._timers.append(timer)
        return timer

    def cancel(self, timers: list[Timer]) -> None:
        """Take ``timers`` back, and empty the list."""
        if timers:
            self._timers = [timer for timer in self._timers if timer not in timers]
            timers.clear()
