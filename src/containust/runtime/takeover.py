"""What a supervisor needs that takes over containers of a killed one: where its log had come to, and what to mask."""

from __future__ import annotations

import os
import zlib
from struct import calcsize, unpack

from containust.common.errors import ContainustError
from containust.common.types import Ref
from containust.compose.secrets import find_secret
from containust.runtime import spec
from containust.runtime.logs import JOURNAL, peek, take
from containust.runtime.values import forms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Text
    from containust.runtime.logs import Capture
    from containust.runtime.project import Project
    from containust.runtime.state import Container


def take_over(capture: Capture, container: Container, project: Project) -> None:
    """Make ``capture`` go on where the one before it ended."""
    capture.hide(secrets(container, project))
    settle(capture)


def settle(capture: Capture) -> None:
    """Finish or undo the batch that the killed supervisor was at, so that it is in the log once.

    Its records are in the log whole, in part or not at all; its bytes are still in the FIFO or not. The journal has the
    log's size before and the checksum of the bytes, which tell.
    """
    capture.open_journal()
    entry = os.pread(capture.journal, 64, 0)
    size = calcsize(JOURNAL)
    if entry[:1] != b"\1" or len(entry) <= size + 1:
        return
    inode, before, length, count, crc = unpack(JOURNAL, entry[1 : 1 + size])
    stream = entry[1 + size :].rstrip(b"\0")
    writer = capture.writer
    if writer.inode == inode and writer.size == before + length:
        for fd, name in capture.fds.items():
            if name == stream and zlib.crc32(_head(fd, count)) == crc:
                take(fd, count)
    elif writer.inode == inode and writer.size > before:
        writer.cut(before)
    os.pwrite(capture.journal, b"\0", 0)


def _head(fd: int, count: int) -> bytes:
    try:
        data = peek(fd, count)
    except BlockingIOError:
        return b""
    return data if len(data) == count else b""


def secrets(container: Container, project: Project) -> list[bytes]:
    """The secret values that a running container has, to be masked in its output.

    They are looked for where a start would find them, and in the environment that the container's program was given:
    the process that takes over need not have the variables that the one before it had.
    """
    component = spec.decode(container.name, container.spec)
    texts = [*component.env.values(), *(component.command or ()), *(component.entrypoint or ())]
    names = {part.name for text in texts for part in _parts(text) if isinstance(part, Ref) and part.kind == "secret"}
    values = []
    for name in names:
        try:
            values += forms(find_secret(name, project.directory, os.environ))
        except ContainustError:
            pass
    given = _environment(container.pid or 0) if names else {}
    for key, text in component.env.items():
        values.append(_secret_part(_parts(text), given.get(os.fsencode(key), b"")))
    return [value for value in values if value]


def _parts(text: Text) -> tuple[str | Ref, ...]:
    return (text,) if isinstance(text, str) else tuple(text)


def _secret_part(parts: tuple[str | Ref, ...], value: bytes) -> bytes:
    """What a secret put into ``value``, without the literal text around it; b"" where there is no secret."""
    references = [part for part in parts if isinstance(part, Ref)]
    if not any(part.kind == "secret" for part in references):
        return b""
    if len(references) == 1:
        at = parts.index(references[0])
        head, tail = (os.fsencode("".join(map(str, some))) for some in (parts[:at], parts[at + 1 :]))
        if value.startswith(head) and value.endswith(tail):
            return value[len(head) : len(value) - len(tail)]
    return value


def _environment(pid: int) -> dict[bytes, bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            items = file.read().split(b"\0")
    except OSError:
        return {}
    return dict(item.split(b"=", 1) for item in items if b"=" in item)
