"""The order of a container's birth, in the system calls that were made."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from containust.core import landlock
from harness import BOX, COMMAND, Ctst

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def calls(ctst: Ctst, tmp_path: Path, *words: str) -> list[str]:
    """The system calls of the container's first process, from its first to its execve."""
    trace = tmp_path / "trace"
    done = subprocess.run(
        ["strace", "-ff", "-qq", "-e", "signal=none", "-s", "200", "-o", str(trace), *COMMAND, *words],
        cwd=ctst.directory,
        env=ctst.environ,
        preexec_fn=ctst.enter,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for path in tmp_path.glob("trace.*"):
        lines = path.read_text().splitlines()
        ends = [number for number, line in enumerate(lines) if line.startswith(('execve("/usr/bin/true"', "execveat("))]
        if ends and any(line.startswith("seccomp(") for line in lines):
            return lines[: ends[-1] + 1]
    raise AssertionError("no trace has the program")


def position(lines: list[str], start: str) -> int:
    found = [number for number, line in enumerate(lines) if line.startswith(start)]
    assert found, f"no {start}"
    return found[-1]


@pytest.mark.parametrize("how", ["run", "exec"])
def test_nothing_is_looked_up_in_the_container_and_the_walls_go_up_in_order(
    ctst: Ctst, tmp_path: Path, how: str
) -> None:
    if how == "run":
        ctst.ok("run", "--rm", "--image", BOX, "--", "true")
        lines = calls(ctst, tmp_path, "run", "--rm", "--image", BOX, "--", "/usr/bin/true")
        inside = lines[position(lines, "pivot_root") :]
    else:
        ctst.ok("run", "-d", "--name", "one", "--image", BOX, "--", "sleep", "600")
        lines = calls(ctst, tmp_path, "exec", "one", "--", "/usr/bin/true")
        inside = lines[position(lines, "setns") :]
    # Names that are looked up in the container's root: fixed, and none of a module, a codec, a library or a database.
    names = {
        match[1] for line in inside if (match := re.match(r'(?:open|openat|openat2|stat|newfstatat)\(.*?"(.*?)"', line))
    }
    assert names <= {"/", "/dev/null", "/usr/bin/true"}, names
    wall = ["landlock_restrict_self"] if landlock.abi() >= 2 else []
    order = ["setresgid", "capset", "prctl(PR_SET_NO_NEW_PRIVS", "close_range", *wall, "seccomp(", "execve"]
    places = [position(lines, start) for start in order]
    assert places == sorted(places), order
    after = lines[position(lines, "seccomp(") + 1 :]
    if how == "run":
        assert len(after) == 1 and after[0].startswith("execve"), after
    else:  # whether the program is there, and the reaper above it, which has no name
        assert {re.split(r"\W", line)[0] for line in after} <= {"faccessat", "dup3", "execveat"}
        assert after[-1].startswith("execveat("), after
    assert not [line for line in inside if line.startswith(("clone", "fork"))]
