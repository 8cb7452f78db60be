"""Limits of an ordinary user's containers where a part of the cgroup v2 hierarchy is delegated to the user."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ordinary_user import User

from harness import BOX

pytestmark = pytest.mark.unified
ROOT = Path("/sys/fs/cgroup")


@pytest.fixture
def user() -> Iterator[User]:
    """One whose session is in a delegated group, as that of systemd's ``user@.service`` is."""
    one = User(uplink=False)
    group = ROOT / f"user-{one.uid}"
    session = group / "session"
    (ROOT / "cgroup.subtree_control").write_text("+memory +cpu +pids")
    session.mkdir(parents=True)
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control", session, session / "cgroup.procs"):
        os.chown(path, one.uid, one.uid)
    one.group = str(session)
    yield one
    one.close()
    session.rmdir()
    for left in sorted(group.rglob("*/"), reverse=True):
        left.rmdir()
    group.rmdir()


def test_limits_hold_where_they_are_delegated(user: User) -> None:
    limits = ("--memory", "64m", "--cpus", "0.5", "--pids", "30")
    user.ok("run", "-d", "--name", "one", *limits, "--image", BOX, "--", "sleep", "1000", seconds=200)
    (group,) = (ROOT / f"user-{user.uid}" / "containust").glob("*/*")
    assert (group / "memory.max").read_text() == f"{64 << 20}\n"
    assert (group / "cpu.max").read_text() == "50000 100000\n"
    assert (group / "pids.max").read_text() == "30\n"
    row = user.rows()["one"]
    assert str(row["pid"]) in (group / "cgroup.procs").read_text().split()
    assert row["memory_limit"] == 64 << 20 and row["pids"] == 1
    script = "for i in $(seq 40); do sleep 9 & done; true"
    assert "can't fork" in user("exec", "one", "sh", "-c", script, seconds=200).err
    user.ok("rm", "--force", seconds=200)
    eater = ("sh", "-c", "x=$(head -c 100000000 /dev/zero | tr '\\\\0' x); echo survived")
    done = user("run", "--name", "eater", "--memory", "16m", "--image", BOX, "--", *eater, seconds=200)
    assert "survived" not in done.out and done.status != 0
    assert user.rows()["eater"]["oom_killed"] is True
    user.ok("rm", "--force", seconds=200)
    assert not (ROOT / f"user-{user.uid}" / "containust").exists()


def test_what_is_not_delegated_is_refused_and_doctor_says_so(user: User) -> None:
    checks = {check["name"]: check for check in json.loads(user("doctor", "--json", seconds=200).out)["checks"]}
    assert checks["cgroups"]["status"] == "warn"
    assert "without io" in checks["cgroups"]["detail"] and "io_weight" in checks["cgroups"]["detail"]
    user.write(f"""
        COMPONENT slow {{
            image = "{BOX}"
            command = ["sleep", "1000"]
            io_weight = 10
            network = "none"
        }}
        """)
    done = user("run", "-d", seconds=200)
    assert done.status == 1 and "R002" in done.err and "io_weight cannot be enforced" in done.err, done
