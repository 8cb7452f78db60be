"""How containers end and begin again while a supervisor watches."""

from __future__ import annotations

import os
import pty
import signal

from harness import BOX, Ctst, eventually

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
    assert ctst.rows()["a"]["state"] == "stopped"


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
