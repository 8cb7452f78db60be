"""How containers end and begin again while a supervisor watches."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from containust.runtime.backend.linux import remove_directory
from harness import BOX, Ctst, eventually, pids, read

ONE = 'COMPONENT {name} {{\n image = "host:///bin/busybox"\n command = ["sh", "-c", "{script}"]\n {more}\n}}\n'


def component(name: str, script: str, more: str = "") -> str:
    return ONE.format(name=name, script=script, more=more)


def test_the_foreground_ends_with_the_first_status_that_is_not_0(ctst: Ctst) -> None:
    ctst.write(component("a", "exit 0") + component("b", "exit 6") + component("c", "echo done"))
    done = ctst("run")
    assert done.status == 6 and "c | done" in done.out, done
    ctst.assert_clean()


def test_a_component_that_fails_is_started_again_as_often_as_it_says(ctst: Ctst) -> None:
    ctst.write(component("a", "echo try; exit 3", 'restart = "on-failure:2"'))
    done = ctst("run")
    assert done.out.count("try") == 3, done
    row = ctst.rows()["a"]
    assert (row["restarts"], row["state"], row["exit_code"]) == (2, "failed", 3)
    assert [kind for kind, _ in ctst.events("restarted")] == ["restarted"] * 2
    ctst.assert_clean()


def test_stop_ends_one_that_would_always_start_again(ctst: Ctst) -> None:
    ctst.write(component("a", "sleep 0.05; exit 1", 'restart = "always"'))
    ctst.ok("run", "-d")
    eventually(lambda: ctst.rows()["a"]["restarts"] >= 2)
    ctst.ok("stop")
    ctst.assert_clean()
    assert ctst.rows()["a"]["pid"] is None


def test_a_program_that_ignores_its_stop_signal_is_killed_in_time(ctst: Ctst) -> None:
    ctst.write(component("a", "trap '' TERM; while :; do sleep 1; done", 'stop_timeout = "200ms"'))
    ctst.ok("run", "-d")
    ctst.ok("stop")
    ctst.assert_clean()
    row = ctst.rows()["a"]
    assert (row["state"], row["signal"]) == ("stopped", 9)
    ctst.ok("rm")


def test_a_program_that_ignores_its_stop_signal_may_finish_what_it_is_at(ctst: Ctst) -> None:
    ctst.write(component("a", "trap '' TERM; echo up; sleep 0.5; echo finished; exit 7", 'stop_timeout = "30s"'))
    ctst.ok("run", "-d")
    assert eventually(lambda: ctst.ok("logs", "a") == "up\n")
    ctst.ok("stop")
    assert ctst.ok("logs", "a") == "up\nfinished\n"
    assert ctst.rows()["a"]["exit_code"] == 7
    ctst.assert_clean()


FREEZERS = [("freezer", "freezer.state", "FROZEN", "THAWED"), ("unified", "cgroup.freeze", "1", "0")]


@pytest.fixture(params=FREEZERS, ids=["v1", "v2"])
def freezer(request: pytest.FixtureRequest) -> Iterator[tuple[Path, str, str]]:
    """An empty group of a freezer, the file that freezes it, and what to write there."""
    hierarchy, file, frozen, thawed = request.param
    root = Path("/sys/fs/cgroup", hierarchy)
    if not root.is_dir() and hierarchy == "unified":
        root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.procs").exists():
        pytest.skip(f"no {hierarchy} hierarchy here")
    group = root / f"containust-test-{os.getpid()}"
    group.mkdir()
    yield group, file, frozen
    (group / file).write_text(thawed)
    for word in (group / "cgroup.procs").read_text().split():
        (root / "cgroup.procs").write_text(word)
    eventually(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


@pytest.mark.parametrize("words", [("stop",), ("stop", "--force"), ("rm", "--force"), ("restart",)])
def test_a_frozen_container_ends_all_the_same(
    ctst: Ctst, freezer: tuple[Path, str, str], words: tuple[str, ...]
) -> None:
    """Whoever froze it, in whatever group: a process in a freezer of v1 takes no SIGKILL until it is thawed."""
    group, file, frozen = freezer
    ctst.write(component("a", "trap '' TERM; while :; do sleep 1; done", 'stop_timeout = "200ms"\n network = "none"'))
    ctst.ok("run", "-d")
    inside = ctst.popen("exec", "a", "--", "sh", "-c", "echo up; sleep 1000")
    assert inside.stdout is not None and inside.stdout.readline() == b"up\n"
    stranger = subprocess.Popen(["sleep", "1000"])
    own = json.loads(ctst.ok("inspect", "a"))["cgroup"]
    for pid in (stranger.pid, *(pid for pid in pids() if own in read(f"/proc/{pid}/cgroup"))):
        (group / "cgroup.procs").write_text(str(pid))
    (group / file).write_text(frozen)
    ctst.ok(*words)
    inside.communicate(timeout=20)
    assert inside.returncode == 137
    if words != ("restart",):
        ctst.assert_clean()
    assert (group / "cgroup.procs").read_text().split() == [str(stranger.pid)], "what is not ours stays frozen"
    assert stranger.poll() is None
    stranger.kill()
    (group / file).write_text("THAWED" if file == "freezer.state" else "0")
    stranger.wait(20)


def test_a_start_by_name_brings_up_what_it_depends_on_first(ctst: Ctst) -> None:
    check = 'healthcheck = {{ command = ["test", "-e", "/data/{}"], interval = "50ms", retries = 2 }}'
    ctst.write(
        component("db", "touch /data/up; sleep 1000", check.format("up") + '\n volume = "data:/data"')
        + component("web", "sleep 1000")
        + component("other", "sleep 1000")
        + "CONNECT web -> db\n"
    )
    ctst.ok("run", "-d")
    ctst.ok("stop")
    known = len(ctst.events())
    assert ctst.ok("start", "web").split() == ["db", "web"]
    assert [pair for pair in ctst.events()[known:] if pair[0] in ("started", "healthy")] == [
        ("started", "db"),
        ("healthy", "db"),
        ("started", "web"),
    ]
    assert ctst.rows()["other"]["state"] == "stopped"
    # A dependency that fails again is told, and what needs it is not started.
    ctst.ok("stop")
    ctst.write(
        component("db", "exit 5", check.format("never")) + component("web", "sleep 1000") + "CONNECT web -> db\n"
    )
    assert "error[R015]" in ctst("run", "-d").err
    ctst.ok("rm", "--force", "--volumes")


def test_a_one_shot_that_is_done_is_not_started_again_for_its_dependents(ctst: Ctst) -> None:
    ctst.write(
        component("migrate", "echo ran; sleep 0.2", 'healthcheck = { command = ["false"], interval = "10s" }')
        + component("web", "sleep 1000")
        + "CONNECT web -> migrate\n"
    )
    ctst.ok("run", "-d")
    order = [(kind, name) for kind, name in ctst.events() if kind in ("started", "died")]
    assert order == [("started", "migrate"), ("died", "migrate"), ("started", "web")]
    # It did what it was there for: that it does not run is no drift.
    assert ctst("plan", "--detailed-exitcode").status == 0
    ctst.ok("run", "-d")
    ctst.ok("stop", "web")
    assert ctst.ok("start", "web") == "web\n"
    ctst.ok("restart", "web")
    ctst.ok("stop", "web")
    ctst.ok("run", "-d")
    assert ctst.ok("logs", "migrate") == "ran\n"
    # A user who wants it again can have it, and a stack that was stopped as a whole starts as a whole.
    ctst.ok("start", "migrate")
    eventually(lambda: ctst.ok("logs", "migrate") == "ran\n" * 2)
    ctst.ok("stop")
    ctst.ok("run", "-d")
    assert ctst.ok("logs", "migrate") == "ran\n" * 3


def test_a_dependency_that_is_about_to_start_again_is_not_done(ctst: Ctst) -> None:
    ctst.write(
        component("tick", "exit 0", 'restart = "always"')
        + component("db", "sleep 0.5; touch /tmp/u; sleep 1000", 'healthcheck = { command = ["test", "-e", "/tmp/u"] }')
        + component("web", "sleep 1000")
        + "CONNECT web -> tick, db\n"
    )
    ctst.ok("run", "-d")
    assert json.loads(ctst.ok("inspect", "tick"))["done"] is False
    ctst.ok("stop")


def test_a_published_port_is_reachable_through_restarts(ctst: Ctst) -> None:
    ctst.write(
        component("web", "echo up; exec nc -l -p 80 -e echo here", 'port = 80\n restart = "always"')
        + "EXPOSE 8095:80 -> web\n"
    )
    ctst.ok("run", "-d")
    address = ctst.rows()["web"]["networks"]
    for restarts in range(4):  # each answer ends the program
        eventually(lambda: "here" in ctst.on_host("busybox", "nc", "127.0.0.1", "8095", "-w", "1"))
        eventually(lambda restarts=restarts: ctst.rows()["web"]["restarts"] > restarts)
    ctst.ok("restart")
    eventually(lambda: "here" in ctst.on_host("busybox", "nc", "127.0.0.1", "8095", "-w", "1"))
    assert ctst.rows()["web"]["networks"] == address
    ctst.ok("rm", "--force")


def test_everything_in_a_container_ends_with_it(ctst: Ctst) -> None:
    done = ctst.shell("for i in 1 2 3 4 5; do (trap '' TERM HUP INT; sleep 1000) & done; echo gone")
    assert done.status == 0 and done.out == "gone\n"
    ctst.assert_clean()


def test_output_without_an_end_of_line_is_kept(ctst: Ctst) -> None:
    ctst.ok("run", "--name", "a", "--image", BOX, "--", "printf", "no end")
    assert ctst.ok("logs", "a") == "no end"


def test_a_second_ctrl_c_kills(ctst: Ctst) -> None:
    ctst.write(component("a", "trap '' TERM; echo up; while :; do sleep 1; done", 'stop_timeout = "60s"'))
    process = ctst.popen("run")
    assert process.stdout is not None
    assert b"up" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    eventually(lambda: process.send_signal(signal.SIGINT) or process.poll() is not None, 20)
    process.communicate()
    ctst.assert_clean()


def test_exec_with_a_terminal(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "a", "--image", BOX, "--", "sleep", "1000")
    master, slave = pty.openpty()
    process = ctst.popen(
        "exec",
        "-it",
        "a",
        "--",
        "sh",
        "-c",
        "test -t 0 && tty; read x; echo got:$x; exit 4",
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    text = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        text += piece
        if b"/dev/" in text and b"word" not in text:
            os.write(master, b"word\r")
    os.close(master)
    assert process.wait(20) == 4 and b"got:word" in text, text


def test_a_connection_waits_for_health_and_an_unhealthy_one_stops_the_start(ctst: Ctst) -> None:
    check = 'healthcheck = {{ command = ["test", "-e", "{path}"], interval = "100ms", retries = {retries} }}'
    good = component("db", "sleep 0.3; touch /tmp/up; sleep 1000", check.format(path="/tmp/up", retries=50))
    ctst.write(good + component("web", "sleep 1000") + "CONNECT web -> db\n")
    ctst.ok("run", "-d")
    order = ctst.events("healthy", "started")
    assert order == [("started", "db"), ("healthy", "db"), ("started", "web")]
    ctst.ok("rm", "--force")
    bad = component("db", "sleep 1000", check.format(path="/never", retries=3))
    ctst.write(bad + component("web", "sleep 1000") + "CONNECT web -> db\n")
    done = ctst("run", "-d")
    assert done.status == 1 and "error[R015]" in done.err and "unhealthy" in done.err, done
    assert ctst.rows() == {}
    ctst.assert_clean()


def test_a_run_directory_goes_also_while_others_remove_and_make_files_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exec's client that ends meanwhile takes its mark away; one that begins makes one."""
    directory = tmp_path / "run"
    directory.mkdir()
    for name in ("hosts", "exec-1", "hostname"):
        (directory / name).touch()
    listed = os.listdir

    def changed_behind_our_back(path: str) -> list[str]:
        names = listed(path)
        if "exec-1" in names:
            (directory / "exec-1").unlink()
            (directory / "exec-2").touch()
        return names

    monkeypatch.setattr(os, "listdir", changed_behind_our_back)
    remove_directory(str(directory))
    assert not directory.exists()
    remove_directory(str(directory))
