"""`plan` reads only and tells all; `run` does exactly that, or undoes what it began."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from harness import COMMAND, Ctst, eventually, groups, project_id, read

STACK = """
COMPONENT db {
    image   = "host:///bin/busybox"
    memory  = "64MiB"
    port    = 5432
    command = ["sleep", "1000"]
}
COMPONENT web {
    image   = "host:///bin/busybox"
    command = ["sh", "-c", "env; sleep 1000"]
}
COMPONENT other {
    image   = "host:///bin/busybox"
    env     = { A = "1" }
    command = ["sleep", "1000"]
}
CONNECT web -> db
"""


def steps(ctst: Ctst, *words: str) -> dict[str, dict[str, object]]:
    return {step["name"]: step for step in json.loads(ctst.ok("plan", "--json", *words))["steps"]}


def actions(ctst: Ctst) -> dict[str, object]:
    return {name: step["action"] for name, step in steps(ctst).items()}


def places(ctst: Ctst) -> dict[str, int]:
    return {name: row["pid"] for name, row in ctst.rows().items()}


def times(directory: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in [directory, *directory.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    return found


def quiet(directory: Path) -> bool:
    before = times(directory)
    time.sleep(0.5)
    return times(directory) == before


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("running", [False, True])
def test_a_plan_writes_nothing_and_starts_nothing(ctst: Ctst, tmp_path: Path, running: bool) -> None:
    ctst.write(STACK)
    if running:
        ctst.ok("run", "-d")
        ctst.write(STACK.replace("64MiB", "65MiB"))
        eventually(lambda: "DB_HOST" in ctst.ok("logs", "web"))
        eventually(lambda: quiet(ctst.directory))  # what the components print and their exits are written down
    before = times(ctst.directory)
    trace = tmp_path / "trace"
    calls = "trace=%file,%process,write,pwrite64,writev,ftruncate,fallocate,kill,pidfd_send_signal,mount,setns,unshare"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-y", "-e", calls, "-e", "signal=none", "-o", str(trace), *COMMAND, "plan"],
        cwd=ctst.directory,
        env={**ctst.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=ctst.enter,
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr
    assert times(ctst.directory) == before
    lines = [line.split(None, 1)[1] for line in trace.read_text().splitlines()]
    started = [line for line in lines if line.startswith(("clone", "fork", "vfork", "kill", "pidfd_send", "setns"))]
    assert started == []
    assert not [line for line in lines if line.startswith(("mkdir", "rename", "unlink", "rmdir", "symlink", "link("))]
    opened = [line for line in lines if line.startswith("open") and ("O_WRONLY" in line or "O_RDWR" in line)]
    assert [line for line in opened if "/dev/" not in line] == []
    written = [line for line in lines if line.startswith(("write", "pwrite")) and "pipe:" not in line]
    assert written == [], "standard output is a pipe; anything else is a change"
    if running:
        assert "memory: 67108864 -> 68157440" in done.stdout


def test_only_what_changed_is_recreated_and_what_was_told_its_address(ctst: Ctst) -> None:
    ctst.write(STACK)
    assert actions(ctst) == {"db": "create", "web": "create", "other": "create"}
    ctst.ok("run", "-d")
    before, events = places(ctst), len(ctst.events())
    ctst.ok("run", "-d")
    assert (places(ctst), len(ctst.events())) == (before, events), "twice did something"
    assert ctst("plan", "--detailed-exitcode").status == 0

    ctst.write(STACK.replace('A = "1"', 'A = "2", B = "3"'))
    changed = steps(ctst)["other"]
    assert changed["action"] == "recreate"
    assert changed["changes"] == [
        {"new": "2", "old": "1", "property": "env.A"},
        {"new": "3", "old": None, "property": "env.B"},
    ]
    assert ctst("plan", "--detailed-exitcode").status == 2
    ctst.ok("run", "-d")
    after = places(ctst)
    assert (after["db"], after["web"]) == (before["db"], before["web"]) and after["other"] != before["other"]

    # Another name is another address, which was given to `web` when it started.
    text = STACK.replace('A = "1"', 'A = "2", B = "3"').replace('"64MiB"', '"64MiB"\n    hostname = "database"')
    ctst.write(text)
    assert actions(ctst) == {"db": "recreate", "web": "recreate", "other": "keep"}
    assert steps(ctst)["web"]["reason"] == "follows db"
    known = len(ctst.events())
    ctst.ok("run", "-d")
    started = [name for kind, name in ctst.events()[known:] if kind == "started"]
    assert started == ["db", "web"]
    assert places(ctst)["other"] == after["other"]

    ctst.write(text.partition("COMPONENT other")[0] + "CONNECT web -> db\n")
    assert actions(ctst)["other"] == "remove"
    ctst.ok("run", "-d", "--no-remove-orphans")
    assert "other" in ctst.rows()
    ctst.ok("run", "-d")
    assert sorted(ctst.rows()) == ["db", "web"]
    ctst.ok("rm", "--force")
    ctst.assert_clean()


def test_drift_is_shown_and_mended(ctst: Ctst) -> None:
    ctst.write(STACK)
    ctst.ok("run", "-d")
    before = places(ctst)
    own = project_id(os.path.realpath(ctst.directory / ".containust"))
    for group in groups(own):
        for name, value in (("memory.memsw.limit_in_bytes", 99 << 20), ("memory.limit_in_bytes", 99 << 20),
                            ("memory.max", 99 << 20)):  # fmt: skip
            if read(f"{group}/{name}").startswith(str(64 << 20)):
                Path(group, name).write_text(str(value))
    drift = steps(ctst)["db"]
    assert drift["action"] == "update" and str(99 << 20) in json.dumps(drift["changes"]), drift
    assert "! db" in ctst.ok("plan") and "changed by hand" in ctst.ok("plan")
    ctst.ok("run", "-d")
    assert places(ctst) == before
    assert set(actions(ctst).values()) == {"keep"}
    os.kill(before["other"], 9)
    eventually(lambda: ctst.rows()["other"]["state"] == "failed")
    assert steps(ctst)["other"]["reason"] == "is failed: signal 9"
    ctst.ok("run", "-d")
    ctst.ok("rm", "--force")
    ctst.assert_clean()


def test_a_start_that_fails_brings_back_what_it_had_replaced(ctst: Ctst) -> None:
    ctst.write(STACK)
    ctst.ok("run", "-d")
    before = places(ctst)
    ids = {name: row["id"] for name, row in ctst.rows().items()}
    bad = STACK.replace('["sleep", "1000"]\n}\nCONNECT', '["nonono"]\n}\nCONNECT').replace("64MiB", "65MiB")
    bad += 'COMPONENT new {\n image = "host:///bin/busybox"\n command = ["sleep", "1000"]\n}\nCONNECT new -> db\n'
    ctst.write(bad)
    done = ctst("run", "-d")
    assert done.status == 127 and "nonono" in done.err, done
    rows = ctst.rows()
    assert {name: row["id"] for name, row in rows.items()} == ids
    assert {row["state"] for row in rows.values()} == {"running"}
    assert rows["web"]["pid"] == before["web"], "what had nothing to do with it was touched"
    ctst.write(STACK)
    assert set(actions(ctst).values()) == {"keep"}
    assert next(iter(rows["db"]["networks"].values())) in ctst.ok("exec", "web", "--", "grep", "db", "/etc/hosts")
    ctst.ok("rm", "--force")
    ctst.assert_clean()
    left = [p for p in (ctst.directory / ".containust").rglob("*") if p.parent.name in ("logs", "rootfs")]
    assert left == []


def test_a_kept_plan_is_carried_out_once_and_refused_when_stale(ctst: Ctst) -> None:
    ctst.write(STACK)
    ctst.ok("plan", "--out", "first.plan")
    ctst.ok("run", "-d", "first.plan")
    before = places(ctst)
    stale = ctst("run", "-d", "first.plan")
    assert stale.status == 1 and "error[S007]" in stale.err, stale
    ctst.ok("plan", "--out", "nothing.plan")
    ctst.ok("run", "-d", "nothing.plan")
    assert places(ctst) == before
    ctst.write(STACK.replace('A = "1"', 'A = "2"'))
    assert "error[S007]" in ctst("run", "-d", "nothing.plan").err
    ctst.ok("plan", "--out", "second.plan")
    ctst.write(STACK.replace('A = "1"', 'A = "3"'))
    assert "error[S007]" in ctst("run", "-d", "second.plan").err, "the file changed after it was planned"
    assert places(ctst) == before
    (ctst.directory / "bad.plan").write_text("{}")
    assert "error[S001]" in ctst("run", "bad.plan").err
    assert "error[S004]" in ctst("run", "no.plan").err
    assert ctst("run", "--only", "db", "second.plan").status == 2
    ctst.ok("rm", "--force")


def test_a_start_that_takes_too_long_is_undone(ctst: Ctst) -> None:
    slow = STACK.replace("port    = 5432", 'port = 5432\n    healthcheck = { command = ["false"], retries = 100 }')
    ctst.write(slow)
    done = ctst("run", "-d", "--timeout", "0.5")
    assert done.status == 1 and "error[R014]: db was not up after 0.5 s" in done.err, done
    assert ctst.rows() == {}
    ctst.assert_clean()
