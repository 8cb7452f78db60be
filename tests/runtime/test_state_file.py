"""The state file in trouble: the right code, nothing overwritten, and many commands at once lose nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from containust.core import syscalls as sc
from harness import BOX, FULL, SOURCE, Ctst, eventually

ONE = """
COMPONENT a {
    image   = "host:///bin/busybox"
    network = "none"
    command = ["sleep", "1000"]
}
"""
COMMANDS = (("ps",), ("stop",), ("run", "-d"), ("rm", "--force"))


@pytest.fixture
def up(ctst: Ctst) -> Iterator[tuple[Ctst, Path]]:
    """A running container, and its state file, which is put right again at the end."""
    ctst.write(ONE)
    ctst.ok("run", "-d")
    path = ctst.directory / ".containust" / "state" / "state.json"
    good = path.read_bytes()
    yield ctst, path
    if path.is_dir():
        path.rmdir()
    elif path.is_symlink() or not path.is_file() or path.read_bytes() != good:
        path.unlink(missing_ok=True)
    if not path.exists():
        path.write_bytes(good)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda good: good[: len(good) // 2], "S001"),
        (lambda good: b"", "S001"),
        (lambda good: bytes(range(256)), "S001"),
        (lambda good: b"[" * 200_000, "S001"),
        (lambda good: b"[]", "S001"),
        (lambda good: good.replace(b'"pid":', b'"pid": "x", "was":'), "S001"),
        (lambda good: good.replace(b'"schema_version":', b'"schema_version": 99, "was":'), "S006"),
    ],
    ids=["truncated", "empty", "binary", "deep", "list", "types", "newer"],
)
def test_a_damaged_file_is_refused_and_left_alone(up: tuple[Ctst, Path], damage: object, code: str) -> None:
    ctst, path = up
    assert callable(damage)
    bad = damage(path.read_bytes())
    assert bad != path.read_bytes()
    path.write_bytes(bad)
    for words in COMMANDS:
        done = ctst(*words)
        assert done.status == 1 and f"error[{code}]" in done.err, done
        assert path.read_bytes() == bad
    assert sorted(os.listdir(path.parent)) == ["state.json", "state.json.lock"]


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_what_is_no_plain_file_is_refused(up: tuple[Ctst, Path], kind: str) -> None:
    ctst, path = up
    elsewhere = ctst.directory / "elsewhere"
    path.rename(elsewhere)
    content = elsewhere.read_bytes()
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    for words in COMMANDS:
        done = ctst(*words)
        assert done.status == 1 and "error[S001]" in done.err, done
    assert elsewhere.read_bytes() == content
    if kind != "directory":
        path.unlink()


def test_a_read_only_or_full_file_system_is_told_and_changes_nothing(ctst: Ctst) -> None:
    ctst.write(ONE)
    ctst.ok("run", "-d")
    state = ctst.directory / ".containust" / "state"

    def commands() -> None:
        before = (state / "state.json").read_bytes()
        for words in (("stop",), ("rm", "--force"), ("restart",)):
            done = ctst(*words)
            assert done.status == 3 and "error[S003]" in done.err, done
        assert ctst.rows()["a"]["state"] == "running"
        assert (state / "state.json").read_bytes() == before

    # A mount of the state's own directory: the supervisor's other files stay as they are.
    sc.mount(str(state), str(state), None, sc.MS_BIND)
    try:
        sc.mount(None, str(state), None, sc.MS_BIND | sc.MS_REMOUNT | sc.MS_RDONLY)
        commands()
    finally:
        sc.umount2(str(state), sc.MNT_DETACH)
    content = {path.name: path.read_bytes() for path in state.iterdir()}
    sc.mount("tmpfs", str(state), "tmpfs", 0, "size=64k")
    try:
        for name, data in content.items():
            (state / name).write_bytes(data)
        with open(state / "fill", "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        commands()
        assert sorted(os.listdir(state)) == ["fill", "state.json", "state.json.lock"]
        # The supervisor goes on watching, and writes down what happened once it can.
        os.kill(ctst.rows()["a"]["pid"], signal.SIGKILL)
        time.sleep(0.3)
        (state / "fill").unlink()
        eventually(lambda: ctst.rows()["a"]["state"] == "failed")
        recorded = (state / "state.json").read_bytes()
    finally:
        sc.umount2(str(state), sc.MNT_DETACH)
    (state / "state.json").write_bytes(recorded)
    assert ctst.rows()["a"]["signal"] == 9
    ctst.ok("rm")
    ctst.assert_clean()


JUMPED = f"""
import sys, time
jump, time_ns, now = int(sys.argv.pop(1)), time.time_ns, time.time
time.time_ns, time.time = (lambda: time_ns() + jump * 10**9), (lambda: now() + jump)
sys.path.insert(0, {SOURCE!r})
from containust.cli.main import run
run()
"""


def test_a_clock_that_jumps_disturbs_nothing(ctst: Ctst) -> None:
    """Everything that waits counts monotonic time, and a process is known by its start in ticks since boot."""
    ctst.write(ONE)
    ctst.ok("run", "-d")
    pid = ctst.rows()["a"]["pid"]

    def jumped(seconds: int, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-IS", "-c", JUMPED, str(seconds), *words],
            cwd=ctst.directory,
            env=ctst.environ,
            preexec_fn=ctst.enter,
            capture_output=True,
            text=True,
            check=False,
            timeout=40,
        )
        assert done.returncode == 0, done
        return done.stdout

    for jump in (-3 * 86400, 400 * 86400):
        jumped(jump, "run", "-d")
        assert ctst.rows()["a"]["pid"] == pid
        assert jumped(jump, "ps").count("running") == 1
    assert jumped(-3 * 86400, "stop", "--force") == "a\n"
    assert int(ctst.rows()["a"]["finished"][:4]) > time.gmtime().tm_year, "its supervisor lives in the future"
    ctst.ok("run", "-d")
    ctst.ok("rm", "--force")
    ctst.assert_clean()


@pytest.mark.timeout(900 if FULL else 120)
def test_many_commands_at_once_lose_no_update(ctst: Ctst) -> None:
    """200 with CONTAINUST_FULL: starts, stops and looks, all of one project."""
    count = 200 if FULL else 12
    ctst.ok("run", "-d", "--name", "first", "--network", "none", "--image", BOX, "--", "sleep", "1000")
    looks = [("ps", "-a"), ("events",), ("inspect", "first")]
    started = [f"c{number}" for number in range(count * 3 // 4)]
    processes = [
        ctst.popen("run", "-d", "--name", name, "--network", "none", "--image", BOX, "--", "sleep", "1000")
        for name in started
    ]
    processes += [ctst.popen(*looks[number % 3]) for number in range(count - len(started))]
    for process in processes:
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, (process.args, out, err)
    rows = {name: row for name, row in ctst.rows().items() if name != "first"}
    assert sorted(rows) == sorted(started)
    assert {row["state"] for row in rows.values()} == {"running"}
    assert len({row["pid"] for row in rows.values()}) == len(started)
    stops = [ctst.popen("stop", "--force", name) for name in started]
    for process in stops:
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, (out, err)
    assert {row["state"] for name, row in ctst.rows().items() if name != "first"} == {"stopped"}
    removals = [ctst.popen("rm", name) for name in started]
    for process in removals:
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, (out, err)
    assert list(ctst.rows()) == ["first"]
    ctst.ok("rm", "--force")
    ctst.assert_clean()


def test_a_pid_that_is_another_s_now_is_never_signalled(up: tuple[Ctst, Path]) -> None:
    ctst, path = up
    ctst.ok("stop", "--force")
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        document = json.loads(path.read_text())
        recorded = document["containers"][0]
        recorded.update(state="running", wanted="running", pid=stranger.pid, start_ticks=12345)
        recorded["boot_id"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        for words in (("stop", "--force"), ("restart", "-t", "0"), ("rm", "--force"), ("run", "-d")):
            path.write_text(json.dumps(document))
            ctst(*words)
            assert stranger.poll() is None, words
        ctst.ok("stop", "--force")  # or the next line would take from under a supervisor what it looks after
        path.write_text(json.dumps(document))
        assert "error[R007]" in ctst("exec", "a", "--", "true").err
        assert stranger.poll() is None
        ctst.ok("rm", "--force")
    finally:
        stranger.kill()
        stranger.wait()
