"""Start-up is a feature: what run, exec and ps import, and how many processes they make, is pinned here.

A module that a command newly needs is added to its list by hand, with a measurement of what it costs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import containust
from harness import BOX, COMMAND, Ctst

PACKAGE = os.path.dirname(os.path.dirname(containust.__file__))
LISTS = Path(containust.__file__).parent / "cli" / "starts"
RECORD = f"""
import posix
import sys
before = set(sys.modules)
end = posix._exit
def record(status):
    sys.stderr.write(" ".join(sorted(set(sys.modules) - before)))
    sys.stderr.flush()
    end(status)
posix._exit = record
sys.path.insert(0, {PACKAGE!r})
from containust.cli.main import run
run()
"""
# Different names of one thing: with the version of cgroups, and of Python.
SAME = {
    "containust.core.cgroup.v2": "containust.core.cgroup.v1",
    "_sha2": "_sha256",
}
HEAVY = {
    "argparse", "asyncio", "collections", "contextlib", "ctypes", "dataclasses", "enum", "functools", "hashlib",
    "inspect", "json", "logging", "pathlib", "re", "secrets", "shutil", "signal", "socket", "subprocess", "tempfile",
    "threading", "typing", "urllib", "uuid",
}  # fmt: skip
COMMANDS = {
    "run": ("run", "other/stack.ctst"),
    "run-image": ("run", "--rm", "--image", BOX, "--", "true"),
    "exec": ("exec", "one", "true"),
    "ps": ("ps",),
}

STACK = f"""
COMPONENT web {{
    image = "{BOX}"
    command = ["true"]
    port = 80
    env = {{ DATABASE = "${{db.connection_string}}" }}
}}
COMPONENT db {{
    image = "{BOX}"
    command = ["true"]
    port = 5432
}}
CONNECT web -> db
EXPOSE 8080:80 -> web
"""


@pytest.fixture
def running(ctst: Ctst) -> Ctst:
    """A project whose image is imported and which has one container, called ``one``."""
    ctst.ok("run", "-d", "--name", "one", "--image", BOX, "--", "sleep", "600")
    ctst.ok("run", "--rm", "--image", BOX, "--", "true")
    ctst.ok("exec", "one", "true")
    (ctst.home / "other").mkdir()
    (ctst.home / "other/stack.ctst").write_text(STACK)
    ctst.ok("run", str(ctst.home / "other/stack.ctst"))
    return ctst


def ran(ctst: Ctst, *argv: str) -> subprocess.CompletedProcess[str]:
    """A program where the containers' host is, which has to succeed."""
    done = subprocess.run(
        argv,
        cwd=ctst.home,
        env=ctst.environ,
        preexec_fn=ctst.enter,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_imports_what_is_listed_and_no_more(running: Ctst, command: str) -> None:
    done = ran(running, sys.executable, "-IS", "-c", RECORD, *COMMANDS[command])
    found = {SAME.get(name, name) for name in done.stderr.split()}
    assert not found & HEAVY
    pinned = set((LISTS / f"{command}.txt").read_text().split())
    assert sorted(found - pinned) == [], "newly imported"
    assert sorted(pinned - found) == [], "no longer imported: take it off the list"


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_bytecode_comes_from_one_file_also_with_options_before_the_command(running: Ctst, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ["strace", "-qq", "-e", "trace=openat,open", "-o", str(trace)]
    ran(running, *strace, *COMMAND, "-C", ".", *COMMANDS["run-image"])
    opened = [line for line in trace.read_text().splitlines() if f"{PACKAGE}/containust" in line]
    assert [line for line in opened if "run-image." in line], opened
    assert not [line for line in opened if ".py" in line], opened


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("command", "children"), [("run", 2), ("run-image", 1), ("exec", 2), ("ps", 0)])
def test_a_command_makes_the_container_s_process_and_no_other(
    running: Ctst, tmp_path: Path, command: str, children: int
) -> None:
    """For exec the reaper, which is in the container, and its program."""
    trace = tmp_path / "trace"
    calls = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=clone,clone3,fork,vfork,execve,execveat",
        "-e",
        "signal=none",
        "-o",
        str(trace),
    ]
    ran(running, *calls, *COMMAND, *COMMANDS[command])
    lines = [line.split(None, 1) for line in trace.read_text().splitlines()]
    made = [call for _, call in lines if call.startswith(("clone", "fork", "vfork"))]
    assert len(made) == children, made
    first = lines[0][0]  # `ctst` itself, which may execute its interpreter once more
    # strace cuts a line in two where another process's came between.
    ends = [call for pid, call in lines if pid != first and call.startswith(("execve", "<... execve"))]
    executed = [call for call in ends if call.endswith("= 0")]
    assert len(executed) == children, executed
