"""Identity of processes: a pid counts only together with its start time (runtime.md, "Shape")."""

from __future__ import annotations

from containust.common import os
from containust.core import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.state import Container

_boot_id = ""


def boot_id() -> str:
    """Identifier of this boot of the kernel; a pid recorded under another one names nothing."""
    global _boot_id
    if not _boot_id:
        fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
        _boot_id = os.read(fd, 64).decode().strip()
        os.close(fd)
    return _boot_id


def start_ticks(pid: int) -> int | None:
    """Start time of ``pid`` in clock ticks after boot (proc_pid_stat(5), field 22); None when there is no such process
    or it is a zombie."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 2048)
    except OSError:
        return None
    finally:
        os.close(fd)
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def open_pidfd(pid: int, ticks: int) -> int:
    """A pidfd of exactly the process that started at ``ticks``; -1 when it is gone or another has its pid."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return -1
    if start_ticks(pid) != ticks:
        os.close(fd)
        return -1
    return fd


def send(pidfd: int, signal: int) -> bool:
    """Send a signal; False when the process has ended."""
    try:
        syscalls.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        return False
    return True


def prepared_for(pid: int, signal: int) -> bool:
    """Whether a container's init has said what ``signal`` is to do: it catches it, blocks it to fetch it itself, or
    ignores it, to finish first what it is at.

    Anything else would die of it, were the kernel not to drop what the init of a PID namespace has no handler for
    (pid_namespaces(7)), so there is no point in waiting.
    """
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            text = file.read(4096)
    except OSError:
        return True
    for field in (b"SigCgt:", b"SigBlk:", b"SigIgn:"):
        at = text.find(field)
        if at >= 0 and int(text[at + 8 : at + 24], 16) >> (signal - 1) & 1:
            return True
    return False


def alive(container: Container) -> bool:
    """Whether the recorded process is there now."""
    pid = container.pid
    return (
        pid is not None
        and container.boot_id == boot_id()
        and start_ticks(pid) == container.start_ticks
        and container.pid_namespace in (None, pid_namespace(pid) or container.pid_namespace)
    )


def pid_namespace(pid: int) -> int | None:
    """Inode of the PID namespace of ``pid``: no two containers that live share one. None where it cannot be read."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None


def hold(container: Container) -> int:
    """A pidfd of exactly the recorded process, to be closed; -1 when it has ended, whoever has its pid now."""
    if container.pid is None:
        return -1
    try:
        fd = os.pidfd_open(container.pid)
    except OSError:
        return -1
    if alive(container):
        return fd
    os.close(fd)
    return -1
