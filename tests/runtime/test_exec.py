"""exec: another program in a container, as confined as its own, and gone when its client is."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from containust.runtime.project import project_id
from harness import BOX, FULL, Ctst, eventually, groups, marked

SELF = ("sh", "-c", "cat /proc/self/status; for n in /proc/self/ns/*; do readlink $n; done; cat /proc/self/limits")


@pytest.fixture
def box(ctst: Ctst) -> Ctst:
    """A project with a running container called ``w``."""
    ctst.ok("run", "-d", "--name", "w", "--image", BOX, "--", "sleep", "1000")
    return ctst


def names_in(ctst: Ctst) -> list[str]:
    """Command lines of what lives in ``w``; zombies have none."""
    script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done"
    return [line.strip() for line in ctst.ok("exec", "w", "--", "sh", "-c", script).splitlines() if line.strip()]


@pytest.mark.parametrize("options", [(), ("-u", "1000:1000", "--memory", "64M", "--pids", "20")])
def test_what_is_executed_is_confined_as_the_container_s_own_program(ctst: Ctst, options: tuple[str, ...]) -> None:
    script = " ".join(SELF[2:]) + "; exec sleep 1000"
    ctst.ok("run", "-d", "--name", "w", *options, "--image", BOX, "--", "sh", "-c", script)
    eventually(lambda: "realtime timeout" in ctst.ok("logs", "w"))
    own = ctst.ok("logs", "w")
    entered = ctst.ok("exec", "w", "--", *SELF)

    def facts(text: str) -> list[str]:
        fields = ("Cap", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups", "Max ")
        return [line for line in text.splitlines() if line.startswith(fields) or ":[" in line]

    assert len([line for line in facts(own) if line.startswith("Cap")]) == 5
    assert len([line for line in facts(own) if ":[" in line]) >= 8
    assert facts(entered) == facts(own)
    assert ctst.ok("exec", "w", "--", "sh", "-c", "ls /proc/self/fd | wc -l").strip() == "4"  # ls's own is the fourth


def test_it_counts_for_the_container_s_limits(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "w", "--pids", "8", "--image", BOX, "--", "sleep", "1000")
    done = ctst("exec", "w", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait")
    assert "fork" in done.err


def test_statuses_options_and_streams(box: Ctst) -> None:
    assert box("exec", "w", "--", "sh", "-c", "exit 7").status == 7
    assert box("exec", "w", "--", "sh", "-c", "kill -9 $$").status == 137
    assert box("exec", "w", "--", "nothing").status == 127
    assert box("exec", "w", "--", "/etc/hosts").status == 126
    assert box("exec", "nobody", "--", "true").status == 4
    assert "cannot change to the working directory" in box("exec", "-w", "/none", "w", "--", "true").err
    assert box.ok("exec", "-u", "12:3456", "-w", "/proc", "-e", "A=b c", "w", "--", "sh", "-c", "id; pwd; echo $A") == (
        "uid=12 gid=3456\n/proc\nb c\n"
    )
    assert box.ok("exec", "w", "--", "cat", input=b"unread") == ""
    assert box("exec", "-i", "w", "--", "cat", input=b"\0binary\xff\n").out == "\0binary�\n"
    for user in ("1000:", "+1", "-1", str(1 << 32), "nobody-there"):
        assert box("exec", "-u", user, "w", "--", "true").status != 0, user
    project = project_id(os.path.realpath(box.home / ".containust"))
    assert not [name for name in groups(project) if "exec-" in name], "the group of each exec goes with it"
    box.ok("stop", "-t", "0")
    done = box("exec", "w", "--", "true")
    assert "R007" in done.err


def test_signals_reach_the_program(box: Ctst) -> None:
    script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    client = box.popen("exec", "w", "--", "sh", "-c", script)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.send_signal(signal.SIGTERM)
    assert client.communicate(timeout=10)[0] == b"got\n"
    assert client.returncode == 5


@pytest.mark.parametrize("supervised", [True, False])
def test_a_killed_client_leaves_nothing_behind_in_the_container(ctst: Ctst, supervised: bool) -> None:
    ctst.write(f"""
        COMPONENT w {{
            image = "{BOX}"
            command = ["sleep", "1000"]
        }}
    """)
    ctst.ok("run", "-d")
    (holder,) = marked(ctst.token)
    script = "sleep 7771 & (setsid sleep 7772 &) ; (trap '' TERM HUP; sleep 7773); true"
    client = ctst.popen("exec", "w", "--", "sh", "-c", script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: len([name for name in names_in(ctst) if "sleep 777" in name]) >= 4)
    if not supervised:
        os.kill(holder, signal.SIGKILL)
    client.kill()
    client.wait()
    if not supervised:
        ctst.ok("run", "-d")  # whoever takes over sees to it
    eventually(lambda: not [name for name in names_in(ctst) if "sleep 777" in name])
    assert "sleep 1000" in names_in(ctst)


def test_what_is_left_in_the_background_holds_up_nobody_who_reads_the_output(box: Ctst) -> None:
    assert box.ok("exec", "w", "--", "sh", "-c", "sleep 7775 >/dev/null 2>&1 & echo out; exit 0") == "out\n"
    assert box("exec", "w", "--", "sh", "-c", "sleep 7776 >/dev/null 2>&1 & exit 9").status == 9
    names = names_in(box)
    assert "sleep 7775" in names and "sleep 7776" in names


def test_what_is_no_program_is_told(box: Ctst) -> None:
    box.ok("exec", "w", "--", "sh", "-c", "printf 'no program' > /dev/shm/x; chmod 755 /dev/shm/x")
    done = box("exec", "w", "--", "/dev/shm/x")
    assert done.status == 126 and "error[R004]" in done.err, done


def test_what_runs_on_in_the_background_outlives_a_client_that_ends(box: Ctst) -> None:
    box.ok("exec", "w", "--", "sh", "-c", "sleep 7774 >/dev/null 2>&1 &")
    time.sleep(0.2)
    assert "sleep 7774" in names_in(box)


def test_a_terminal_has_the_size_of_the_user_s_and_follows_it(box: Ctst) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    script = "stty size; trap 'stty size; exit 3' WINCH; tty; while :; do sleep 0.05; done"

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        box.enter()

    client = box.popen(
        "exec", "-it", "w", "--", "sh", "-c", script, stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal
    )
    os.close(slave)
    shown = b""
    while b"/dev/pts/" not in shown:
        shown += os.read(master, 1024)
    assert shown.startswith(b"33 99")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 120, 0, 0))
    while b"44 120" not in shown:
        shown += os.read(master, 1024)
    assert client.wait(10) == 3
    os.close(master)


def test_a_container_that_stops_ends_what_is_executed_in_it(box: Ctst) -> None:
    """A container that is stopping: the program is killed with it, or the error says that it is gone."""
    client = box.popen("exec", "w", "--", "sh", "-c", "echo in; sleep 100")
    assert client.stdout is not None
    client.stdout.readline()
    racing = [box.popen("exec", "w", "--", "sleep", "100") for _ in range(4)]
    box.ok("stop", "-t", "0")
    for process in (client, *racing):
        _, err = process.communicate(timeout=20)
        assert process.returncode == 137 or b"R007" in err or b"R008" in err, (process.returncode, err)


def test_many_at_once(box: Ctst) -> None:
    count = 300 if FULL else 24
    clients = [box.popen("exec", "w", "--", "sh", "-c", f"echo {n}; exit {n % 50}") for n in range(count)]
    for number, client in enumerate(clients):
        out, err = client.communicate(timeout=120)
        assert (client.returncode, out) == (number % 50, f"{number}\n".encode()), err
    assert names_in(box).count("sleep 1000") == 1
    assert not list(Path(box.home, ".containust/run").rglob("exec-*"))
