"""SIGKILL before any message that the installed command sends to the kernel: the next command leaves nothing of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import BOX, COMMAND, FULL, Ctst, marked, read

STACK = f"""
COMPONENT web {{
    image   = "{BOX}"
    command = ["sleep", "0.2"]
    network = ["front", "back"]
}}
COMPONENT db {{
    image   = "{BOX}"
    command = ["sleep", "0.2"]
    network = "back"
}}
EXPOSE "[::]":8080:80 -> web
"""


@pytest.mark.timeout(3600 if FULL else 120)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_kill_before_any_message_leaves_nothing_to_the_next_command(ctst: Ctst, tmp_path: Path) -> None:
    path, trace = str(ctst.write(STACK)), tmp_path / "trace"
    ctst.ok("build", path)
    before = ctst.on_host("ip", "-o", "link"), ctst.on_host("nft", "list", "ruleset")
    number, killed, said = 1, 0, -9
    while said == -9:
        # Of the command itself, which supervises: netlink requests, and what it tells the containers' first processes.
        inject = f"inject=sendto:signal=KILL:when={number}"
        words = ["strace", "-qq", "-e", "trace=sendto", "-e", inject, "-o", str(trace), *COMMAND, "run", path]
        given = {"cwd": ctst.directory, "env": ctst.environ, "preexec_fn": ctst.enter, "timeout": 60}
        done = subprocess.run(words, capture_output=True, check=False, **given)
        said = done.returncode
        killed += said == -9
        ctst.ok("ps")
        if any(row["state"] == "running" for row in ctst.rows().values()):  # one had been let go already, and lives on
            ctst.ok("stop", "--force")
        now = ctst.on_host("ip", "-o", "link"), ctst.on_host("nft", "list", "ruleset")
        assert now == before, (number, read(str(trace))[-300:])
        assert not marked(ctst.token), number
        number += 1 if FULL else 5
    assert said == 0, done
    assert killed >= (14 if FULL else 3)
    assert os.listdir(ctst.directory / ".containust/run") == []
