"""Limits that somebody has changed by hand since they were set."""

from __future__ import annotations

from containust.core.cgroup import read_text, write_control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.core.cgroup import Limits, Manager

PAGE = 4096


def changed(manager: Manager, path: str, limits: Limits) -> list[tuple[str, str, str]]:
    """(control file, what it holds, what ``limits`` say) for each that differs in the group ``path``; reads only."""
    found = []
    for file, wanted in manager.control_files(path, limits):
        held = read_text(file)
        if held is not None and not _equal(held.strip(), wanted):
            found.append((file.rpartition("/")[2], held.strip(), wanted))
    return found


def restore(manager: Manager, path: str, limits: Limits) -> None:
    """Write the limits again. Raises OSError."""
    for last in (False, True):  # memory before memory and swap, or the other way: it depends on which of them rises
        for file, wanted in manager.control_files(path, limits):
            try:
                write_control(file, wanted)
            except OSError:
                if last:
                    raise


def _equal(held: str, wanted: str) -> bool:
    if held.isdigit() and wanted.isdigit():
        # The kernel counts memory in pages, and rounds.
        return held == wanted or (int(wanted) > PAGE and int(held) // PAGE == int(wanted) // PAGE)
    if ":" in wanted:  # a line a device; the kernel adds what has its default
        return any(set(wanted.split()) <= set(line.split()) for line in held.splitlines())
    return held == wanted
