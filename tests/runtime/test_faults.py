"""SIGKILL between any two system calls of run, stop, restart and rm: the state loads, the next command mends the rest.

The command is started by a launcher that counts its system calls (every call into posix, fcntl, _socket and
core/syscalls.py, by a profile function, which forked children inherit) and kills the process before the one asked for.
The program itself has no hook for it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from containust.runtime.project import Project
from containust.runtime.state import load
from harness import FULL, SOURCE, Ctst, Done, supervisors

STACK = """
COMPONENT base {
    template = true
    image    = "host:///bin/busybox"
    command  = ["sleep", "1000"]
}
COMPONENT db FROM base {
    port     = 80
    readonly = false
    healthcheck = { command = ["true"] }
}
COMPONENT web FROM base {
    memory  = "64MiB"
    restart = "always"
}
CONNECT web -> db
EXPOSE 8091:80 -> db
"""
LAUNCHER = f"""
import os, sys
last, report = int(sys.argv.pop(1)), sys.argv.pop(1)
done = 0
def step(frame, event, what):
    global done
    if event == "c_call":
        if what.__module__ not in ("posix", "fcntl", "_socket"):
            return
    elif event != "call" or not frame.f_code.co_filename.endswith("syscalls.py"):
        return
    done += 1
    if done == last:
        os.kill(os.getpid(), 9)
    if event == "c_call" and what is os._exit:
        sys.setprofile(None)
        fd = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, b"%d\\n" % done)
sys.path.insert(0, {SOURCE!r})
from containust.cli.main import run
sys.setprofile(step)
run()
"""
COMMANDS: dict[str, tuple[bool, tuple[str, ...]]] = {  # whether the stack is up before, the command
    "run": (False, ("run", "-d")),
    "change": (True, ("run", "-d")),
    "stop": (True, ("stop", "--force")),
    "restart": (True, ("restart", "-t", "0.2")),
    "rm": (True, ("rm", "--force")),
}
COUNT = 100 if FULL else 2


def launch(ctst: Ctst, last: int, report: Path, *words: str) -> int:
    process = subprocess.Popen(
        [sys.executable, "-IS", "-c", LAUNCHER, str(last), str(report), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ctst.directory,
        env=ctst.environ,
        preexec_fn=ctst.enter,  # noqa: PLW1509 - no threads here
    )
    # Not until the end of the pipe: what goes on in the background may hold it.
    status = process.wait(60)
    assert process.stderr is not None
    os.set_blocking(process.stderr.fileno(), False)
    error = (process.stderr.read() or b"").decode(errors="replace")
    process.stderr.close()
    assert "Traceback" not in error, error
    return status


def kept(ctst: Ctst) -> list[str]:
    """Logs and writable layers."""
    base = ctst.directory / ".containust"
    return [str(path) for name in ("logs", "rootfs") for path in (base / name).glob("*")]


@pytest.mark.timeout(3600 if FULL else 120)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_kill_before_any_system_call_is_mended_by_the_next_command(ctst: Ctst, tmp_path: Path, command: str) -> None:
    up, words = COMMANDS[command]
    ctst.write(STACK)
    report = tmp_path / "report"
    if up:
        ctst.ok("run", "-d")

    def change() -> None:
        if command == "change":
            ctst.write(STACK.replace("64MiB", f"{64 + int(time.monotonic() * 1000) % 1000}MiB"))

    change()
    assert launch(ctst, 0, report, *words) == 0
    total = max(int(line) for line in report.read_text().split())
    assert total > 50, "the launcher counts nothing"
    chance = random.Random(f"{command}{time.time_ns() if FULL else 3}")
    project = Project(str(ctst.directory / ".containust"))
    for _ in range(COUNT):
        if up:
            ctst.ok("run", "-d")
        else:
            ctst.ok("rm", "--force")
        change()
        at = chance.randint(1, total)
        launch(ctst, at, report, *words)
        where = f"killed before call {at} of {total}"
        load(project)  # raises when the file is damaged
        done: Done = ctst("ps", "-a", "--json")
        assert done.status == 0, (where, done)
        assert all(row["state"] in ("running", "stopped", "failed", "created") for row in
                   json.loads(done.out)["containers"]), (where, done)  # fmt: skip
        done = ctst("run", "-d")
        assert done.status == 0, (where, done)
        rows = ctst.rows()
        assert {name: row["state"] for name, row in rows.items()} == {"db": "running", "web": "running"}, (where, rows)
        assert len(supervisors(ctst.token)) == 1, where
        done = ctst("rm", "--force")
        assert done.status == 0, (where, done)
        assert ctst.clean(), (where, ctst.leftovers())
        assert kept(ctst) == [], where
