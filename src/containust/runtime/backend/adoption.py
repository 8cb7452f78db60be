"""Taking over a running container whose supervisor is gone."""

from __future__ import annotations

from containust.common import os
from containust.runtime import process
from containust.runtime.backend.linux import JOURNAL_NAME, STDIO
from containust.runtime.container import Handle
from containust.runtime.logs import Capture, Writer
from containust.runtime.takeover import take_over

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.backend.linux import LinuxBackend
    from containust.runtime.state import Container


def adopt(backend: LinuxBackend, container: Container) -> Handle | None:
    """A handle of the container, its output from where it had come to; None when it has ended."""
    pidfd = process.hold(container)
    if pidfd < 0:
        return None
    assert container.pid is not None
    handle = Handle(container, container.pid, pidfd)
    handle.adopted = True
    readers: dict[int, bytes] = {}
    for _, name, stream in STDIO:
        try:
            fd = os.open(f"{backend.run_directory(container)}/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        readers[fd] = stream
    if readers:
        journal = f"{backend.run_directory(container)}/{JOURNAL_NAME}"
        handle.capture = Capture(Writer(backend.logs(container)), readers, [], journal)
        take_over(handle.capture, container, backend.project)
    return handle
