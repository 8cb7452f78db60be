"""What every attempt uses: how to register one, raw system calls, and what counts as refused."""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Attempt = Callable[[], str]

ATTACKS: list[tuple[str, str, str, Attempt]] = []
FACTS: dict[str, Any] = {}
NEWNS, NEWUSER = 0x20000, 0x10000000


def attack(line: str, tried: str) -> Callable[[Attempt], Attempt]:
    """Register an attempt. It returns how it got through, or an empty string when it was withstood."""

    def register(attempt: Attempt) -> Attempt:
        ATTACKS.append((line, attempt.__name__, tried, attempt))
        return attempt

    return register


def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """A raw system call by name; -errno when it fails."""
    library = libc()
    library.syscall.restype = ctypes.c_long
    done = library.syscall(
        ctypes.c_long(FACTS["calls"][name]),
        *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments),
    )
    return -ctypes.get_errno() if done == -1 else int(done)


def denied(name: str, *arguments: Any) -> str:
    """Withstood when the kernel says EPERM, ENOSYS or EACCES: any other error means that the call got in."""
    done = call(name, *arguments)
    return "" if -done in (errno.EPERM, errno.ENOSYS, errno.EACCES) else f"{name} gave {done}"


def refused(what: str, action: Callable[[], object]) -> str:
    try:
        action()
    except OSError:
        return ""
    return f"{what} succeeded"


def written(path: str) -> str:
    """Opening is enough to know, and does no harm on a host where it succeeds."""
    return refused(f"opening {path} for writing", lambda: os.close(os.open(path, os.O_WRONLY)))


def made(directory: str) -> str:
    return refused(f"mkdir {directory}", lambda: os.mkdir(directory))


def read(path: str, size: int = 65536) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(size) or b""
    except OSError:
        return b""


def mountinfo() -> list[list[str]]:
    return [line.split() for line in read("/proc/self/mountinfo", 1 << 20).decode().splitlines()]


def status(name: str, pid: str = "self") -> str:
    for line in read(f"/proc/{pid}/status").decode().splitlines():
        if line.startswith(f"{name}:"):
            return line.split(":", 1)[1].strip()
    return ""


def first(*found: str) -> str:
    return next((text for text in found if text), "")


def root() -> bool:
    return os.geteuid() == 0
