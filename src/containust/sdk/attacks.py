"""Attacks on this host's containers, tried for real: what ``ctst doctor --attack`` does.

Containers of a project of its own, in a temporary directory, run :mod:`containust.runtime.attacks.inside`: as the
container's program, as a health probe, through ``exec``, as another user, and with a writable root below a reaper. None
has a network.
"""

from __future__ import annotations

import os
import sys

from containust.common.types import Record
from containust.runtime.attacks import RUN, facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PIDS = 200
CANARY = "CONTAINUST_ATTACK_CANARY"
PLACES = ("program", "probe", "exec", "user", "writable")
STACK = """\
COMPONENT program {{
    image = {image}
    command = {program}
    volumes = [{volume}]
    pids = {pids}
    healthcheck = {{ command = {probe}, timeout = "60s", retries = 1 }}
}}
COMPONENT user {{
    image = {image}
    command = {user}
    user = "1000:1000"
    volumes = [{volume}]
    pids = {pids}
}}
COMPONENT writable {{
    image = {image}
    command = {writable}
    readonly = false
    init = true
    volumes = [{volume}]
    pids = {pids}
}}
"""


class Outcome(Record):
    """One attack. ``line`` is its place in docs/SECURITY.md, ``tried`` says what was done, ``broke`` how it got
    through, by the place it was tried from; empty when it was withstood everywhere."""

    __slots__ = ("broke", "line", "name", "tried")

    def __init__(self, line: str, name: str, tried: str, broke: dict[str, str]) -> None:
        self.line = line
        self.name = name
        self.tried = tried
        self.broke = broke


def attack(parent: str | None = None) -> list[Outcome]:
    """Try everything that can be tried from inside a container; takes some seconds and leaves nothing.

    ``parent`` is where the temporary project is made. Raises ContainustError when the containers cannot start.
    """
    import shutil
    import socket
    import tempfile

    directory = tempfile.mkdtemp(prefix="containust-attack-", dir=parent)
    known = os.environ.get(CANARY)
    os.environ[CANARY] = "1"
    loopback, abstract = socket.socket(), socket.socket(socket.AF_UNIX)
    try:
        loopback.bind(("127.0.0.1", 0))
        loopback.listen()
        name = f"containust-attack-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        volume = facts.prepare(directory, PIDS, {"port": loopback.getsockname()[1], "socket": name})
        return _gather(_run(directory, volume))
    finally:
        if known is None:
            del os.environ[CANARY]
        loopback.close()
        abstract.close()
        shutil.rmtree(directory, ignore_errors=True)


def _run(directory: str, volume: str) -> dict[str, list[dict[str, str]]]:
    """The report of each place."""
    from containust.sdk.project import Project
    from containust.sdk.stack import Stack

    python = _python()

    def argv(place: str, then: str = "") -> list[str]:
        return [python, "-ISc", RUN.format(report=f"/attack/{place}.json") + then]

    stay = "; import time; time.sleep(600)"
    words = {place: _quoted(argv(place, "" if place == "probe" else stay)) for place in PLACES}
    text = STACK.format(image=_quoted(f"host://{python}"), volume=_quoted(f"{volume}:/attack"), pids=PIDS, **words)
    path = f"{directory}/containust.ctst"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    stack = Stack.load(path)
    try:
        stack.up()
        Project.current(directory).exec("program", argv("exec"))
        return {place: _report(f"{volume}/{place}.json") for place in PLACES}
    finally:
        Project.current(directory).stop([], force=True)
        stack.down()


def _python() -> str:
    """An interpreter that other users may run too."""
    candidates = ("/usr/bin/python3", getattr(sys, "_base_executable", sys.executable))
    for path in [os.path.realpath(path) for path in candidates if os.path.exists(path)]:
        parents = [path[:end] for end in range(1, len(path)) if path[end] == "/"]
        if all(os.stat(parent).st_mode & 1 for parent in parents):
            return path
    from containust.common.errors import ContainustError

    raise ContainustError(
        "R004", "the attacks need a Python that every user may run", "install python3 of the distribution"
    )


def _report(path: str) -> list[dict[str, str]]:
    import json
    import time

    from containust.common.errors import ContainustError

    limit = time.monotonic() + 120  # some seconds, but not on a machine that is emulated or busy
    while not os.path.exists(path):
        if time.monotonic() > limit:
            raise ContainustError("R004", f"the attacks in {path} came to no end", "run `ctst doctor --attack` again")
        time.sleep(0.02)
    with open(path, encoding="utf-8") as file:
        report: list[dict[str, str]] = json.load(file)
    return report


def _gather(reports: dict[str, list[dict[str, str]]]) -> list[Outcome]:
    found: dict[str, Outcome] = {}
    for place, report in reports.items():
        for entry in report:
            outcome = found.setdefault(entry["name"], Outcome(entry["line"], entry["name"], entry["tried"], {}))
            if entry["broke"]:
                outcome.broke[place] = entry["broke"]
    return list(found.values())


def _quoted(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
