"""Declared limits are kept by the kernel, and what it did is reported."""

from __future__ import annotations

import json

import pytest

from containust.core.cgroup import detect
from harness import BOX, PYTHON, Ctst, eventually

EAT = "x = []\nwhile True: x.append(bytearray(1 << 20))"


@pytest.mark.guest
def test_an_allocation_over_memory_is_killed_and_reported(ctst: Ctst) -> None:
    done = ctst("run", "--name", "eater", "--memory", "32MiB", "--image", PYTHON, "--", "/usr/bin/python3", "-c", EAT)
    assert done.status == 137, done
    row = ctst.rows()["eater"]
    assert (row["state"], row["oom_killed"], row["signal"], row["exit_code"]) == ("failed", True, 9, 137)
    assert "OOM" in ctst.ok("ps", "-a")
    assert json.loads(ctst.ok("inspect", "eater"))["oom_killed"] is True
    assert ("oom", "eater") in ctst.events()
    ctst.assert_clean()


@pytest.mark.guest
def test_a_child_that_is_killed_for_memory_is_reported_too(ctst: Ctst) -> None:
    script = f"import os, sys\nif os.fork() == 0:\n  exec({EAT!r})\nprint('child', os.wait()[1], flush=True)"
    command = ("--image", PYTHON, "--", "/usr/bin/python3", "-c", script)
    done = ctst("run", "--name", "eater", "--memory", "48MiB", *command)
    if detect().version == 2:  # memory.oom.group: no half of a container goes on
        assert (done.status, done.out) == (137, ""), done
    else:
        assert (done.status, done.out) == (0, "child 9\n"), done
    assert ctst.rows()["eater"]["oom_killed"] is True


@pytest.mark.guest
def test_pids_stops_a_fork_loop(ctst: Ctst) -> None:
    script = (
        "import os, time\nmade = 0\ntry:\n  while made < 200:\n    if os.fork() == 0: time.sleep(60)\n    made += 1\n"
        "except OSError as error: print(made, error.errno)"
    )
    done = ctst("run", "--rm", "--pids", "10", "--image", PYTHON, "--", "/usr/bin/python3", "-c", script)
    assert done.out == "9 11\n", done
    ctst.assert_clean()


def test_cpus_throttles(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "busy", "--cpus", "0.1", "--image", BOX, "--", "sh", "-c", "while :; do :; done")
    assert eventually(lambda: ctst.rows()["busy"]["throttled_periods"])
    stats = json.loads(ctst.ok("inspect", "busy"))["stats"]
    assert stats["throttled_periods"] > 0 and stats["cpu_ns"] > 0
    ctst.ok("stop", "--force", "busy")
    ctst.assert_clean()


@pytest.mark.guest
def test_ps_shows_what_is_used(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "a", "--memory", "64MiB", "--image", BOX, "--", "sleep", "1000")
    row = ctst.rows()["a"]
    assert row["pids"] == 1 and 0 < row["memory"] < row["memory_limit"] == 64 << 20
    assert row["cpu_percent"] is not None
    assert "64" in ctst.ok("ps")
