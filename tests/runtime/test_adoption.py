"""A supervisor is killed under load: its containers live on, and the next command that changes something takes over."""

from __future__ import annotations

import os
import random
import signal
import time

from harness import FULL, Ctst, eventually, kill, supervisors

LINES = 60_000 if FULL else 25_000
# A hundred lines every ten milliseconds: ten thousand a second.
SCRIPT = (
    f"i=0; while [ $i -lt {LINES} ]; do n=$((i+100)); while [ $i -lt $n ]; do echo line $i; i=$((i+1)); done; "
    "usleep 10000; done; sleep 1000"
)
STACK = f"""
COMPONENT writer {{
    image   = "host:///bin/busybox"
    command = ["sh", "-c", "{SCRIPT}"]
    healthcheck = {{ command = ["true"], interval = "200ms" }}
    restart = "always"
}}
COMPONENT other {{
    image   = "host:///bin/busybox"
    command = ["sleep", "1000"]
    restart = "on-failure:3"
}}
COMPONENT done {{
    image   = "host:///bin/busybox"
    command = ["true"]
}}
CONNECT other -> writer
"""
CHANGES = (("run", "-d"), ("stop", "done"), ("start", "done"), ("rm", "done"))


def test_nothing_is_lost_when_the_supervisor_of_a_busy_stack_is_killed(ctst: Ctst) -> None:
    ctst.write(STACK)
    ctst.ok("run", "-d")
    before = {name: row["pid"] for name, row in ctst.rows().items() if name != "done"}
    chance = random.Random(4)
    for words in CHANGES:
        time.sleep(chance.uniform(0.05, 0.4))
        (supervisor,) = supervisors(ctst.token)
        kill([supervisor])
        ctst.ok(*words)
        assert len(supervisors(ctst.token)) == 1, f"nobody supervises after {words}"
        rows = ctst.rows()
        assert {name: rows[name]["pid"] for name in before} == before, words
    last = f"line {LINES - 1}\n"
    eventually(lambda: ctst.ok("logs", "--tail", "1", "writer") == last, 60)
    assert ctst.ok("logs", "writer") == "".join(f"line {number}\n" for number in range(LINES))
    assert ctst.rows()["writer"]["health"] == "healthy"
    # It ends, its status is known, and it is started again by a supervisor that had not started it.
    os.kill(before["other"], signal.SIGKILL)
    eventually(lambda: ctst.rows()["other"]["restarts"] == 1)
    died = [line for line in ctst.ok("events").splitlines() if " died " in line and "other" in line]
    assert len(died) == 1 and "signal=9" in died[0] and "exit_code=137" in died[0], died
    ctst.ok("rm", "--force")
    ctst.assert_clean()
