"""What a container wrote before a start failed because of it: its log is removed with it."""

from __future__ import annotations

from containust.runtime.transcript import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.errors import ContainustError

LINES = 10
WIDTH = 500  # characters of a line that are shown


def add(error: ContainustError, path: str) -> None:
    """Give ``error`` the last lines of the log at ``path``."""
    reader = Reader(path, LINES)
    lines = [""]
    while records := reader.poll():
        for record in records:
            lines[-1] += record.data.decode("utf-8", "backslashreplace")
            if record.full:
                lines.append("")
    reader.close()
    if not lines[-1]:
        lines.pop()
    error.output = [line if len(line) <= WIDTH else f"{line[:WIDTH]}…" for line in lines[-LINES:]]
    if not error.output:
        error.help.append(f"{error.container} wrote nothing")
