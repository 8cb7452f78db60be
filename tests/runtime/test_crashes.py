"""Kill ``ctst`` at any moment: containers live on, no line is lost, and the next command leaves nothing behind."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import threading
import time

import pytest

from harness import FULL, Ctst, eventually, kill, marked, pids, read

STACK = """
COMPONENT base {
    template = true
    image    = "host:///bin/busybox"
}
COMPONENT writer FROM base {
    command = ["sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); usleep 1000; done; sleep 1000"]
}
COMPONENT quiet FROM base {
    port     = 80
    writable = true
    command  = ["sleep", "1000"]
}
COMPONENT last FROM base {
    command = ["sleep", "1000"]
}
CONNECT quiet -> writer
CONNECT last -> quiet
EXPOSE 8090:80 -> quiet
"""


def stack(ctst: Ctst) -> None:
    ctst.write(STACK.replace("    writable = true\n", "    readonly = false\n"))


def kill_supervisor(ctst: Ctst) -> None:
    supervisors = marked(ctst.token)
    assert len(supervisors) == 1, supervisors
    kill(supervisors)


def ended(pid: int) -> bool:
    """Whether a process has come to its end: a killed one has given up its memory some time before."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return not fields or fields[0] in "ZX"


def lines(ctst: Ctst) -> list[str]:
    text: str = ctst.ok("logs", "writer")
    return text.split("\n")[:-1]


def test_containers_outlive_their_supervisor_and_are_adopted(ctst: Ctst) -> None:
    stack(ctst)
    ctst.ok("run", "-d")
    before = {name: row["pid"] for name, row in ctst.rows().items()}
    kill_supervisor(ctst)
    rows = ctst.rows()
    assert {name: row["pid"] for name, row in rows.items()} == before
    assert {row["state"] for row in rows.values()} == {"running"}
    assert ctst.ok("exec", "quiet", "--", "echo", "in") == "in\n"
    ctst.ok("run", "-d")  # adopts
    assert {name: row["pid"] for name, row in ctst.rows().items()} == before, "adoption restarted something"
    assert len(marked(ctst.token)) == 1
    eventually(lambda: len(lines(ctst)) >= 2000, 60)
    assert lines(ctst) == [f"line {i}" for i in range(2000)], "a line was lost or doubled in the hand-over"
    assert sorted(ctst.ok("stop", "-t", "1").split()) == ["last", "quiet", "writer"]
    ctst.assert_clean()


def test_stop_works_without_a_supervisor(ctst: Ctst) -> None:
    stack(ctst)
    ctst.ok("run", "-d")
    kill_supervisor(ctst)
    assert sorted(ctst.ok("stop", "-t", "1").split()) == ["last", "quiet", "writer"]
    ctst.assert_clean()
    rows = ctst.rows()
    assert {row["state"] for row in rows.values()} == {"stopped"}
    assert {row["pid"] for row in rows.values()} == {None}


def test_what_ends_without_a_supervisor_is_cleaned_by_the_next_command(ctst: Ctst) -> None:
    stack(ctst)
    ctst.ok("run", "-d")
    before = {name: row["pid"] for name, row in ctst.rows().items()}
    kill_supervisor(ctst)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: all(map(ended, before.values())))
    assert {row["state"] for row in ctst.rows().values()} == {"failed"}
    ctst.assert_clean()
    assert "! writer" in ctst.ok("plan")
    ctst.ok("run", "-d")
    assert {row["state"] for row in ctst.rows().values()} == {"running"}


def test_a_repeated_hand_over_loses_no_line(ctst: Ctst) -> None:
    stack(ctst)
    ctst.ok("run", "-d")
    before = {name: row["pid"] for name, row in ctst.rows().items()}
    for _ in range(4):
        ctst.ok("run", "-d")
    assert {name: row["pid"] for name, row in ctst.rows().items()} == before
    assert len(marked(ctst.token)) == 1
    eventually(lambda: len(lines(ctst)) >= 2000, 60)
    assert lines(ctst) == [f"line {i}" for i in range(2000)]


@pytest.mark.parametrize("command", ["ps", "run"])
def test_what_was_never_recorded_is_found_all_the_same(ctst: Ctst, command: str) -> None:
    """As after a kill between the making of networks and containers and the record of them."""
    stack(ctst)
    ctst.ok("run", "-d")
    before = [row["pid"] for row in ctst.rows().values()]
    kill_supervisor(ctst)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: all(map(ended, before)))
    (ctst.directory / ".containust" / "state" / "state.json").unlink()
    assert ctst.leftovers()
    if command == "run":
        ctst.write('COMPONENT one {\n image = "host:///bin/busybox"\n command = ["true"]\n network = "none"\n}\n')
        ctst.ok("run")
    else:
        ctst.ok("ps")
    ctst.assert_clean()


@pytest.mark.parametrize("command", ["ps", "run", "rm"])
def test_a_kill_at_any_moment_of_a_start_leaves_nothing_to_the_next_command(ctst: Ctst, command: str) -> None:
    stack(ctst)
    ctst.ok("run", "-d")
    ctst.ok("rm", "--force")
    count = 35 if FULL else 4
    chance = random.Random(f"{command}{time.time_ns() if FULL else 1}")
    for _ in range(count):
        process = ctst.popen("run")
        time.sleep(chance.uniform(0.01, 0.35))
        process.kill()
        process.communicate()
        if command == "run":
            ctst.ok("run", "-d")
            assert {row["state"] for row in ctst.rows().values()} == {"running"}
        if command == "ps":
            ctst.ok("ps")
            eventually(lambda: no_half_made(ctst))
        done = ctst("rm", "--force")
        assert done.status == 0, done
        ctst.assert_clean()
        assert ctst.rows() == {}


def no_half_made(ctst: Ctst) -> bool:
    """Whether each recorded container is whole, and nothing runs that is not recorded."""
    rows = ctst.rows()
    assert all(row["state"] in ("running", "failed", "stopped") for row in rows.values()), rows
    live = {row["pid"] for row in rows.values() if row["state"] == "running"}
    inits = set()
    for pid in pids():
        group = read(f"/proc/{pid}/cgroup")
        if f"containust/{project(ctst)}/" in group:
            status = read(f"/proc/{pid}/status")  # once: it may end meanwhile
            if any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in status.splitlines()):
                inits.add(pid)
    return inits == live


def project(ctst: Ctst) -> str:
    from containust.runtime.project import project_id

    return project_id(os.path.realpath(ctst.directory / ".containust"))


def test_a_kill_at_any_moment_of_a_stop_leaves_nothing(ctst: Ctst) -> None:
    stack(ctst)
    chance = random.Random(2)
    for _ in range(30 if FULL else 3):
        ctst.ok("run", "-d")
        process = ctst.popen("stop", "-t", "1")
        time.sleep(chance.uniform(0.01, 0.2))
        for pid in {process.pid, *marked(ctst.token)}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.communicate()
        ctst.ok("stop", "-t", "1")
        ctst.assert_clean()
    ctst.ok("rm")


def test_ctrl_c_while_starting_leaves_nothing(ctst: Ctst) -> None:
    stack(ctst)
    ctst.ok("run", "-d")
    ctst.ok("rm", "--force")
    chance = random.Random(3)
    for _ in range(20 if FULL else 4):
        process = ctst.popen("run")
        time.sleep(chance.uniform(0.03, 0.3))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert b"Traceback" not in out + err, err
        ctst.assert_clean()


@pytest.mark.parametrize("dying", [False, True])
def test_what_has_ended_by_the_record_goes_too_when_its_supervisor_was_killed_between(ctst: Ctst, dying: bool) -> None:
    """Also by a command that finds the killed one still there, with its lock."""
    stack(ctst)
    ctst.ok("run", "-d")
    lock = next((ctst.directory / ".containust/run").glob("*.lock"))
    ctst.ok("stop", "-t", "1")
    state = json.loads((ctst.directory / ".containust/state/state.json").read_text())
    directory = ctst.directory / ".containust/run" / state["containers"][0]["id"]
    directory.mkdir()
    (directory / "hosts").touch()
    holder = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(holder, fcntl.LOCK_EX)
    if dying:
        threading.Timer(0.5, os.close, [holder]).start()
    else:
        os.close(holder)
    ctst.ok("stop")
    ctst.assert_clean()
    ctst.ok("rm")
