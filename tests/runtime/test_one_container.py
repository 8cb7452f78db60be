"""``ctst run --image``: one container, its streams, its options and its end."""

from __future__ import annotations

import os
import pty
import signal
from pathlib import Path

import pytest

from harness import BOX, PYTHON, Ctst, eventually, read


def test_output_and_errors_go_where_the_programs_do(ctst: Ctst) -> None:
    done = ctst.shell("echo out; echo err >&2")
    assert (done.status, done.out, done.err) == (0, "out\n", "err\n")
    ctst.assert_clean()


def test_output_is_passed_byte_for_byte(ctst: Ctst) -> None:
    process = ctst.popen(
        "run",
        "--rm",
        "--image",
        PYTHON,
        "--",
        "python3",
        "-c",
        "import os\nfor _ in range(64): os.write(1, bytes(range(256)) * 256)",
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out == bytes(range(256)) * 256 * 64


@pytest.mark.parametrize("status", [0, 1, 42, 125, 255])
def test_the_exit_status_is_the_containers(ctst: Ctst, status: int) -> None:
    assert ctst.shell(f"exit {status}").status == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_program_that_a_signal_ends_gives_128_plus_its_number(ctst: Ctst, number: signal.Signals) -> None:
    # The init of a PID namespace is immune to its own signals, so a child takes it and the shell reports it.
    done = ctst.shell(f"sh -c 'kill -{int(number)} $$'; exit $?")
    assert done.status == 128 + number, done


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_ctst_stops_the_container(ctst: Ctst, number: signal.Signals) -> None:
    process = ctst.popen("run", "--rm", "--image", BOX, "--", "sh", "-c", "echo up; sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert b"Traceback" not in err
    ctst.assert_clean()


def test_a_program_that_handles_its_stop_signal_ends_by_itself(ctst: Ctst) -> None:
    process = ctst.popen(
        "run",
        "--rm",
        "--image",
        BOX,
        "--",
        "sh",
        "-c",
        "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == (b"bye\n", 7), err


def test_a_program_that_is_not_there_is_127(ctst: Ctst) -> None:
    done = ctst.box("/no/such/program")
    assert (done.status, done.out) == (127, ""), done
    assert "error[R004]" in done.err and "help:" in done.err
    ctst.assert_clean()


def test_a_file_that_cannot_be_executed_is_126(ctst: Ctst) -> None:
    done = ctst.box("/etc/passwd")
    assert done.status == 126, done
    assert "error[R004]" in done.err
    ctst.assert_clean()


def test_standard_input_comes_with_i_only(ctst: Ctst) -> None:
    assert ctst.box("cat", options=("-i",), input=b"hello\0world").out == "hello\0world"
    assert ctst.box("cat", input=b"hello").out == ""


def test_much_input_is_passed_whole(ctst: Ctst) -> None:
    done = ctst.box("wc", "-c", options=("-i",), input=b"x" * 3_000_000)
    assert done.out.split() == ["3000000"], done


def test_a_terminal(ctst: Ctst) -> None:
    master, slave = pty.openpty()
    process = ctst.popen(
        "run",
        "--rm",
        "-it",
        "--image",
        BOX,
        "--",
        "sh",
        "-c",
        "test -t 0 && test -t 1 && test -t 2 && tty && stty size; read line; echo got:$line; exit 9",
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    text = b""
    sent = False
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        if not data:
            break
        text += data
        if b"/dev/" in text and not sent:
            os.write(master, b"word\r")
            sent = True
    assert process.wait(20) == 9, text
    os.close(master)
    assert b"/dev/console" in text or b"/dev/pts/0" in text
    assert text.count(b"got:word") == 1  # once: what the terminal shows is not echoed besides
    ctst.assert_clean()


def test_rm_leaves_no_record(ctst: Ctst) -> None:
    ctst.shell("echo x")
    assert ctst.rows() == {}
    home = ctst.home / ".containust"
    assert not list((home / "logs").iterdir())
    assert not (home / "rootfs").exists()


def test_without_rm_the_record_and_the_log_stay(ctst: Ctst) -> None:
    assert ctst("run", "--name", "one", "--image", BOX, "--", "sh", "-c", "echo kept; exit 3").status == 3
    row = ctst.rows()["one"]
    assert (row["state"], row["exit_code"], row["pid"]) == ("failed", 3, None)
    assert ctst.ok("logs", "one") == "kept\n"
    ctst.assert_clean()
    assert ctst.ok("rm", "one") == "one\n"
    assert ctst.rows() == {}


def test_environment_is_the_containers_alone(ctst: Ctst) -> None:
    ctst.environ["SECRET_OF_THE_HOST"] = "1"
    done = ctst.box("env", options=("-e", "A=1", "-e", "B=x=y", "-e", "SECRET_OF_THE_HOST"))
    values = dict(line.split("=", 1) for line in done.out.splitlines())
    assert values["A"] == "1" and values["B"] == "x=y" and values["SECRET_OF_THE_HOST"] == "1"
    done = ctst.box("env")
    assert set(dict(line.split("=", 1) for line in done.out.splitlines())) <= {"PATH", "HOME", "HOSTNAME", "USER"}


@pytest.mark.guest
def test_volumes_are_mounted_with_their_owners(ctst: Ctst) -> None:
    data = ctst.directory / "data"
    data.mkdir()
    (data / "in").write_text("from the host")
    done = ctst.shell("cat /d/in; echo made > /d/out; stat -c %u /d/in", "-v", "./data:/d")
    assert done.out == "from the host0\n", done
    assert (data / "out").read_text() == "made\n"
    assert (data / "out").stat().st_uid == 0
    done = ctst.shell("echo no > /d/in", "-v", "./data:/d:ro")
    assert done.status != 0 and "Read-only" in done.err
    assert (data / "in").read_text() == "from the host"
    done = ctst.shell("echo 1", "-v", "./missing:/d")
    assert done.status == 1 and "error[R003]" in done.err and "missing" in done.err, done
    ctst.assert_clean()


def test_workdir_and_user(ctst: Ctst) -> None:
    assert ctst.shell("pwd", "-w", "/etc").out == "/etc\n"
    assert ctst.shell("id -u; id -g", "-u", "1234:4321").out == "1234\n4321\n"
    done = ctst.shell("pwd", "-w", "/nowhere")
    assert done.status not in (0, 126, 127) and "error[R004]" in done.err, done
    done = ctst.shell("id", "-u", "nobodyknows")
    assert done.status == 1 and "error[" in done.err, done


@pytest.mark.guest
def test_the_root_is_read_only_unless_writable(ctst: Ctst) -> None:
    done = ctst.shell("echo x > /file")
    assert done.status != 0 and "Read-only" in done.err
    assert ctst.shell("echo x > /tmp/file && cat /tmp/file").out == "x\n"
    assert ctst.shell("echo x > /file && cat /file", "--writable").out == "x\n"


def test_limits_reach_the_kernel(ctst: Ctst) -> None:
    ctst.ok(
        "run",
        "-d",
        "--name",
        "a",
        "--memory",
        "32MiB",
        "--pids",
        "7",
        "--cpus",
        "0.5",
        "--image",
        BOX,
        "--",
        "sleep",
        "1000",
    )
    row = ctst.rows()["a"]
    assert row["memory_limit"] == 32 * 1024 * 1024
    lines = read(f"/proc/{row['pid']}/cgroup").splitlines()
    of = {name: path for _, names, path in (line.split(":", 2) for line in lines) for name in names.split(",")}
    root = "/sys/fs/cgroup"
    if "pids" in of:
        assert read(f"{root}/pids{of['pids']}/pids.max") == "7\n"
        assert read(f"{root}/cpu{of['cpu']}/cpu.cfs_quota_us") == "50000\n"
        assert read(f"{root}/memory{of['memory']}/memory.limit_in_bytes") == f"{32 * 1024 * 1024}\n"
    else:
        assert read(f"{root}{of['']}/pids.max") == "7\n"
        assert read(f"{root}{of['']}/cpu.max") == "50000 100000\n"
    ctst.ok("stop", "a")
    ctst.assert_clean()


def test_several_at_once_do_not_disturb_each_other(ctst: Ctst) -> None:
    started = [ctst.popen("run", "--rm", "--image", BOX, "--", "sh", "-c", f"echo {n}; exit {n}") for n in range(8)]
    for number, process in enumerate(started):
        out, err = process.communicate(timeout=60)
        assert (out, process.returncode) == (f"{number}\n".encode(), number), err
    ctst.assert_clean()
    assert ctst.rows() == {}


@pytest.mark.guest
def test_several_in_the_background_are_stopped_together(ctst: Ctst) -> None:
    for name in ("a", "b", "c"):
        assert ctst.ok("run", "-d", "--name", name, "--image", BOX, "--", "sleep", "1000") == f"{name}\n"
    rows = ctst.rows()
    assert {row["state"] for row in rows.values()} == {"running"}
    assert len({row["pid"] for row in rows.values()}) == 3
    assert sorted(ctst.ok("stop").split()) == ["a", "b", "c"]
    ctst.assert_clean()
    assert {row["state"] for row in ctst.rows().values()} == {"stopped"}


def test_a_name_is_taken_once(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "a", "--image", BOX, "--", "sleep", "1000")
    before = ctst.rows()["a"]["pid"]
    done = ctst("run", "-d", "--name", "a", "--image", BOX, "--", "sleep", "1000")
    assert done.status == 1 and "error[R009]" in done.err, done
    assert ctst.rows()["a"]["pid"] == before


def test_a_reader_that_goes_away_is_no_failure_of_the_container(ctst: Ctst) -> None:
    process = ctst.popen(
        "run",
        "--name",
        "a",
        "--image",
        BOX,
        "--",
        "sh",
        "-c",
        "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done",
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 0, process.stderr
    assert ctst.ok("logs", "a").count("\n") == 3000


@pytest.mark.guest
def test_a_published_port_answers_on_the_host(ctst: Ctst, tmp_path: Path) -> None:
    (ctst.directory / "index.html").write_text("hello from inside")
    ctst.ok(
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "8081:80",
        "-v",
        "./index.html:/www/index.html:ro",
        "--image",
        BOX,
        "--",
        "busybox",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/www",
    )
    assert eventually(lambda: ctst.on_host("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8081/"))
    assert ctst.on_host("busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8081/") == "hello from inside"
    ctst.ok("stop", "web")
    ctst.assert_clean()


def test_the_supervisor_of_a_background_container_holds_no_terminal(ctst: Ctst) -> None:
    process = ctst.popen("run", "-d", "--name", "a", "--image", BOX, "--", "sleep", "1000")
    out, _ = process.communicate(timeout=30)  # ends only when no one else has the pipes open
    assert out == b"a\n"
