"""``main(FACTS, REPORT)``: try everything and write down what came of it.

FACTS is a JSON file with what an attacker may know of the host (``containust.sdk.attacks``), REPORT becomes a list of
``{"line", "name", "tried", "broke"}``, ``broke`` empty for an attack that was withstood.
"""

from __future__ import annotations

import json
import os
import signal
import time

from . import files, kernel, processes
from .frame import ATTACKS, FACTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .frame import Attempt

SECONDS = 10
MODULES = (files, kernel, processes)  # they register what they try


def fork() -> int:
    """os.fork, again while another copy of this program takes every process there is."""
    for _ in range(500):
        try:
            return os.fork()
        except BlockingIOError:
            time.sleep(0.01)
    return os.fork()


def attempt(action: Attempt) -> str:
    """What one attack came to, in a child of its own."""
    reader, writer = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            signal.alarm(SECONDS)
            text = action()
        except Exception as error:
            text = f"the attack itself failed: {error!r}"
        os.write(writer, text.encode(errors="replace")[:2000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if ended == -signal.SIGSYS:  # the filter ended it
        return ""
    return said if ended == 0 else f"ended with {ended}"


def main(facts: str, report_file: str) -> None:
    leaked = [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and os.path.lexists(f"/proc/self/fd/{fd}")]
    where = [f"{fd}: {os.readlink(f'/proc/self/fd/{fd}')}" for fd in leaked]
    with open(facts, encoding="utf-8") as file:
        FACTS.update(json.load(file))
    FACTS["leaked"] = f"open: {where}" if where else ""
    report = [
        {"line": line, "name": name, "tried": tried, "broke": attempt(action)} for line, name, tried, action in ATTACKS
    ]
    with open(report_file + ".part", "w", encoding="utf-8") as file:
        json.dump(report, file)
    os.rename(report_file + ".part", report_file)
