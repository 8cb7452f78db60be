"""A stack of three connected components, from nothing to nothing, as the main job has it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from harness import Ctst, eventually

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "counter"
URL = "http://127.0.0.1:8080"


@pytest.fixture
def counter(ctst: Ctst) -> Ctst:
    shutil.copytree(EXAMPLE, ctst.directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".containust"))
    return ctst


def page(ctst: Ctst, path: str = "/x") -> str:
    text: str = ctst.on_host("busybox", "wget", "-q", "-O", "-", f"{URL}{path}")
    return text


def alter(ctst: Ctst, old: str, new: str) -> None:
    path = ctst.directory / "containust.ctst"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_from_nothing_to_nothing(counter: Ctst) -> None:
    assert counter("check").status == 0
    assert counter("plan", "--detailed-exitcode").status == 2
    out = counter.ok("plan")
    assert [line.split()[:2] for line in out.splitlines() if "+" in line] == [["+", n] for n in ("store", "api", "web")]
    assert "3 to create" in out
    assert counter.leftovers() == [], "plan has made something"

    out = counter.ok("run", "-d")
    assert [line.split()[1] for line in out.splitlines() if "created" in line] == ["store", "api", "web"]
    assert eventually(lambda: page(counter)) == "Hello from api: /x was asked for 1 times\n"
    assert page(counter) == "Hello from api: /x was asked for 2 times\n"

    rows = counter.rows()
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(("store", "api", "web"), "running")
    assert rows["store"]["health"] == "healthy"
    assert {"id", "name", "state", "health", "pid", "image", "ports", "restarts", "memory", "cpu_percent"} <= set(
        rows["web"]
    )
    starts = [name for kind, name in counter.events("started")]
    assert starts == ["store", "api", "web"], "not in CONNECT order"
    order = counter.events("healthy", "started")
    assert order.index(("healthy", "store")) < order.index(("started", "api"))

    logs = counter.ok("logs")
    for line in ("store | store: ready", "api   | api: store is ", "web   | web: api is "):
        assert line in logs, logs
    assert counter.ok("logs", "store", "--tail", "1") == "store: ready\n"

    env = dict(
        line.split("=", 1)
        for line in counter.ok(
            "exec",
            "web",
            "--",
            "/usr/bin/python3",
            "-c",
            "import os\nfor item in os.environ.items(): print('='.join(item))",
        ).splitlines()
    )
    assert env["API_HOST"] == "api" and env["API_PORT"] == "7000"
    assert re.fullmatch(r"\w+://api:7000", env["API_CONNECTION_STRING"])
    assert not any(key.startswith("STORE_") for key in env), "web is not connected to store"
    hosts = counter.ok("exec", "web", "--", "/usr/bin/python3", "-c", "print(open('/etc/hosts').read())")
    for name in ("web", "api", "store"):
        assert re.search(rf"^[\d.]+\s.*\b{name}\b", hosts, re.M), hosts

    inspected = json.loads(counter.ok("inspect", "web"))
    assert inspected["name"] == "web" and inspected["stats"]["pids"] >= 1

    assert counter("plan", "--detailed-exitcode").status == 0
    before = {name: row["pid"] for name, row in rows.items()}
    counter.ok("run", "-d")
    assert {name: row["pid"] for name, row in counter.rows().items()} == before, "a second run is not idempotent"
    assert eventually(lambda: page(counter)) == "Hello from api: /x was asked for 3 times\n"

    assert sorted(counter.ok("stop").split()) == ["api", "store", "web"]
    counter.assert_clean()
    assert [name for _, name in counter.events("stopped")] == ["web", "api", "store"], "not in reverse order"
    assert {row["state"] for row in counter.rows().values()} == {"stopped"}
    assert "3 to start" in counter.ok("plan")

    counter.ok("start")
    assert eventually(lambda: page(counter)) == "Hello from api: /x was asked for 1 times\n"
    done = counter("rm")
    assert done.status == 1 and "error[R006]" in done.err
    assert sorted(counter.ok("rm", "--force").split()) == ["api", "store", "web"]
    counter.assert_clean()
    assert counter.rows() == {}


def test_the_foreground_shows_logs_and_stops_in_reverse_order(counter: Ctst) -> None:
    process = counter.popen("run")
    assert process.stdout is not None
    text = b""
    while b"web: api is" not in text:
        piece = os.read(process.stdout.fileno(), 4096)
        assert piece, process.communicate()[1]
        text += piece
    for head in (b"store | store: ready", b"api   | api: ", b"web   | web: "):
        assert head in text, text
    assert eventually(lambda: page(counter))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert b"Traceback" not in out + err
    assert process.returncode in (0, 130), err
    counter.assert_clean()
    assert [name for _, name in counter.events("stopped")] == ["web", "api", "store"]


def test_logs_follow(counter: Ctst) -> None:
    counter.ok("run", "-d")
    process = counter.popen("logs", "-f", "web", "--tail", "0")
    assert process.stderr is not None
    text = b""
    errors = process.stderr.fileno()
    os.set_blocking(errors, False)

    def seen() -> bool:
        nonlocal text
        page(counter, "/followed")
        try:
            text += os.read(errors, 65536)
        except BlockingIOError:
            pass
        return b"/followed" in text

    eventually(seen)
    counter.ok("stop")
    process.communicate(timeout=20)
    assert process.returncode == 0
    counter.assert_clean()


SMALL = """
COMPONENT base {
    template = true
    image    = "host:///bin/busybox"
    command  = ["sleep", "1000"]
}
COMPONENT a FROM base {
    env = { LEVEL = "1" }
}
COMPONENT b FROM base {
}
COMPONENT c FROM base {
    port = 80
}
CONNECT a -> b
"""


def test_a_change_recreates_what_changed_and_nothing_else(ctst: Ctst) -> None:
    ctst.write(SMALL)
    ctst.ok("run", "-d")
    before = {name: row["pid"] for name, row in ctst.rows().items()}
    ctst.write(SMALL.replace('LEVEL = "1"', 'LEVEL = "2"'))
    plan = ctst.ok("plan")
    assert "-/+ a" in plan and "1 to recreate" in plan and "2 unchanged" in plan
    assert "LEVEL" in plan and "'1' -> '2'" in plan
    ctst.ok("run", "-d")
    after = {name: row["pid"] for name, row in ctst.rows().items()}
    assert after["a"] != before["a"] and after["b"] == before["b"] and after["c"] == before["c"]
    assert "LEVEL=2" in ctst.ok("exec", "a", "--", "env")

    without = SMALL.replace('LEVEL = "1"', 'LEVEL = "2"').replace("COMPONENT c FROM base {\n    port = 80\n}\n", "")
    ctst.write(without)
    assert "  - c" in ctst.ok("plan")
    ctst.ok("run", "-d", "--no-remove-orphans")
    assert set(ctst.rows()) == {"a", "b", "c"}
    ctst.ok("run", "-d")
    rows = ctst.rows()
    assert set(rows) == {"a", "b"} and rows["a"]["pid"] == after["a"]

    os.kill(rows["b"]["pid"], signal.SIGKILL)
    eventually(lambda: ctst.rows()["b"]["state"] == "failed")
    plan = ctst.ok("plan")
    assert "  ! b" in plan and "1 to start" in plan
    ctst.ok("run", "-d")
    rows = ctst.rows()
    assert rows["b"]["state"] == "running" and rows["a"]["pid"] == after["a"]
    ctst.ok("stop")
    ctst.assert_clean()


def test_names_are_found_by_id_prefix_and_errors_suggest(ctst: Ctst) -> None:
    ctst.write(SMALL)
    ctst.ok("run", "-d")
    full = ctst.rows()["a"]["id"]
    assert json.loads(ctst.ok("inspect", full[:8]))["name"] == "a"
    assert json.loads(ctst.ok("inspect", full))["name"] == "a"
    done = ctst("inspect", "nothing")
    assert done.status == 4 and "error[R005]" in done.err and "help:" in done.err
    ctst.ok("stop", "b")
    states = {name: row["state"] for name, row in ctst.rows().items()}
    assert states["b"] == "stopped" and states["c"] == "running"
    assert ctst.ok("start", "b") == "b\n"
    before = ctst.rows()["b"]["pid"]
    assert ctst.ok("restart", "b") == "b\n"
    assert ctst.rows()["b"]["pid"] != before


def test_only_starts_what_is_named_and_its_dependencies(ctst: Ctst) -> None:
    ctst.write(SMALL)
    ctst.ok("run", "-d", "--only", "a")
    assert set(ctst.rows()) == {"a", "b"}
    ctst.ok("run", "-d")
    assert set(ctst.rows()) == {"a", "b", "c"}


def test_exec(ctst: Ctst) -> None:
    ctst.write(SMALL)
    ctst.ok("run", "-d")
    assert ctst("exec", "a", "--", "sh", "-c", "echo out; echo err >&2; exit 5").status == 5
    assert ctst("exec", "a", "--", "/no/such").status == 127
    assert ctst("exec", "a", "--", "/etc/passwd").status == 126
    assert ctst("exec", "a", "--", "sh", "-c", "kill -9 $$").status == 137
    assert ctst("exec", "-i", "a", "--", "cat", input=b"given").out == "given"
    assert ctst.ok("exec", "-e", "X=1", "-w", "/etc", "-u", "5", "a", "--", "sh", "-c", "echo $X $PWD $(id -u)") == (
        "1 /etc 5\n"
    )
    done = ctst("exec", "nothing", "--", "true")
    assert done.status == 4 and "error[R005]" in done.err
    ctst.ok("stop")
    done = ctst("exec", "a", "--", "true")
    assert done.status != 0 and "error[R007]" in done.err


def test_a_failed_start_takes_back_what_it_made_and_nothing_else(ctst: Ctst) -> None:
    ctst.write(SMALL)
    ctst.ok("run", "-d", "--only", "a")
    before = {name: row["pid"] for name, row in ctst.rows().items()}
    ctst.write(SMALL + '\nCOMPONENT d FROM base {\n command = ["/no/such"]\n}\nCONNECT d -> c\n')
    done = ctst("run", "-d")
    assert done.status in (1, 127) and "error[R004]" in done.err, done
    assert {name: row["pid"] for name, row in ctst.rows().items()} == before
    assert ctst.ok("exec", "a", "--", "echo", "still") == "still\n"
    ctst.ok("stop")
    ctst.assert_clean()


def test_a_taken_port_is_told_before_anything_starts(counter: Ctst) -> None:
    server = subprocess.Popen(
        [
            "python3",
            "-c",
            "import socket,time; s=socket.create_server(('127.0.0.1',8080)); print(flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        preexec_fn=counter.enter,  # noqa: PLW1509  (no thread runs here)
        env={**os.environ, "PATH": "/usr/bin:/bin"},
    )
    assert server.stdout is not None
    try:
        server.stdout.readline()
        for words in (("run",), ("run", "-d")):
            done = counter(*words)
            assert done.status == 1 and "error[R011]" in done.err and "8080" in done.err and "help:" in done.err
            assert counter.rows() == {}
            counter.assert_clean()
        assert counter.events("started", "created") == []
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    counter.ok("run", "-d")


def test_two_runs_at_once_end_as_one(ctst: Ctst) -> None:
    ctst.write(SMALL)
    first, second = ctst.popen("run", "-d"), ctst.popen("run", "-d")
    for process in (first, second):
        _, err = process.communicate(timeout=60)
        assert b"Traceback" not in err
        assert process.returncode == 0, err
    rows = ctst.rows()
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys("abc", "running")
    ctst.ok("stop")
    ctst.assert_clean()
