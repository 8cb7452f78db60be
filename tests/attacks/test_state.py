"""Hostile and failing state: what others lay in the way, disks that fail, clocks that jump, programs of other names."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from containust.core import syscalls as sc
from containust.runtime import events, history
from containust.runtime.project import Project
from harness import BOX, COMMAND, Ctst, eventually, marked, supervisors

ONE = """
COMPONENT a {
    image   = "host:///bin/busybox"
    network = "none"
    command = ["sh", "-c", "trap 'exit 0' TERM; while :; do echo line; sleep 0.05; done"]
    restart = "always"
}
"""
COMMANDS = (("ps",), ("stop",), ("start",), ("restart",), ("run", "-d"), ("exec", "a", "--", "true"), ("rm", "--force"))


@pytest.fixture
def up(ctst: Ctst) -> Iterator[tuple[Ctst, Path]]:
    """A stack that runs, and its state file; good again at the end."""
    ctst.write(ONE)
    ctst.ok("run", "-d")
    path = ctst.directory / ".containust/state/state.json"
    good = path.read_bytes()
    yield ctst, path
    path.unlink(missing_ok=True)
    path.write_bytes(good)
    path.parent.chmod(0o700)
    os.chown(path.parent, 0, 0)


def refused(ctst: Ctst, code: str, pid: int, *commands: tuple[str, ...]) -> None:
    for words in commands:
        done = ctst(*words)
        assert done.status in (1, 3) and f"error[{code}]" in done.err, done
        assert os.path.exists(f"/proc/{pid}"), f"{words} has ended the container"


# -- S2: state that somebody else has written -------------------------------------------------------------------------


def test_state_of_another_user_or_that_everybody_can_write_is_not_acted_on(up: tuple[Ctst, Path]) -> None:
    ctst, path = up
    content, pid = path.read_bytes(), ctst.rows()["a"]["pid"]
    os.chown(path, 12345, 12345)
    refused(ctst, "S003", pid, *COMMANDS)
    os.chown(path, 0, 0)
    path.chmod(0o666)
    refused(ctst, "S003", pid, *COMMANDS)
    path.chmod(0o600)
    path.parent.chmod(0o777)
    refused(ctst, "S003", pid, *COMMANDS)
    path.parent.chmod(0o700)
    os.chown(path.parent, 12345, 12345)
    refused(ctst, "S003", pid, *COMMANDS)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"id": "{id}"', '"id": ".."'),
        ('"id": "{id}"', '"id": "../../../../{id}"'),
        ('"kind": "managed", "source": "data"', '"kind": "managed", "source": "../../precious"'),
        ('"kind": "managed", "source": "data"', '"kind": "managed", "source": ".."'),
    ],
)
def test_names_in_the_state_lead_nowhere_else(ctst: Ctst, old: str, new: str) -> None:
    ctst.write(ONE.replace("restart", 'volume = "data:/data"\n    restart'))
    ctst.ok("run", "-d")
    ctst.ok("stop")
    precious = ctst.directory / "precious"
    precious.mkdir()
    path = ctst.directory / ".containust/state/state.json"
    good = path.read_text()
    container = json.loads(good)["containers"][0]["id"]
    volume = json.loads(good)["containers"][0]["spec"]["volumes"][0]
    assert volume["kind"] == "managed" and volume["source"] == "data"
    document = json.loads(good)
    if "volumes" in new or "kind" in new:
        document["containers"][0]["spec"]["volumes"][0]["source"] = json.loads("{" + new + "}")["source"]
    else:
        document["containers"][0]["id"] = json.loads("{" + new.replace("{id}", container) + "}")["id"]
    assert old
    bad = json.dumps(document)
    path.write_text(bad)
    for words in (("rm", "--force", "--volumes"), ("run", "-d"), ("stop",), ("start",)):
        done = ctst(*words)
        assert done.status == 1 and "error[S001]" in done.err, done
    assert path.read_text() == bad
    assert precious.is_dir() and (ctst.directory / ".containust/volumes/data").is_dir()
    path.write_text(good)


def test_links_in_the_way_of_what_is_written_are_not_followed(ctst: Ctst, tmp_path: Path) -> None:
    """Laid there by one who can write to the directory: of the lock, the temporary file, the events, the logs."""
    target = tmp_path / "target"
    target.write_text("precious")
    ctst.write(ONE)
    base = ctst.directory / ".containust"
    (base / "state").mkdir(parents=True)
    lock = base / "state/state.json.lock"
    lock.symlink_to(target)
    done = ctst("run", "-d")
    assert done.status == 3 and "error[S003]" in done.err, done
    lock.unlink()
    (base / "state/state.json.new").symlink_to(target)
    (base / "events.jsonl").symlink_to(target)
    ctst.ok("run", "-d")
    assert not (base / "state/state.json").is_symlink()
    container = ctst.rows()["a"]["id"]
    (base / f"logs/{container}.log.new").symlink_to(target)
    ctst.ok("restart")
    ctst.ok("rm", "--force")
    assert target.read_text() == "precious"


def test_a_stranger_s_start_time_in_the_state_is_not_enough_to_signal_it(ctst: Ctst) -> None:
    """Pid reuse at its worst: the same number, started at the same clock tick. It is the init of no container."""
    ctst.write(ONE)
    ctst.ok("run", "-d")
    path = ctst.directory / ".containust/state/state.json"
    namespace = json.loads(path.read_text())["containers"][0]["pid_namespace"]
    assert namespace == os.stat(f"/proc/{ctst.rows()['a']['pid']}/ns/pid").st_ino
    ctst.ok("stop")
    good = path.read_text()
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        ticks = int(Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19])
        document = json.loads(good)
        recorded = document["containers"][0]
        recorded.update(state="running", wanted="running", pid=stranger.pid, start_ticks=ticks, pid_namespace=namespace)
        recorded["boot_id"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        for words in (("stop", "--force"), ("restart", "-t", "0"), ("rm", "--force"), ("run", "-d"), ("ps",)):
            path.write_text(json.dumps(document))
            ctst(*words)
            assert stranger.poll() is None, words
            ctst("stop", "--force")
        path.write_text(json.dumps(document))
        assert "error[R007]" in ctst("exec", "a", "--", "true").err
        assert stranger.poll() is None
        path.write_text(good)
    finally:
        stranger.kill()
        stranger.wait()


# -- S5: disks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(ctst: Ctst) -> Iterator[Path]:
    """A project directory on a small file system of its own."""
    base = ctst.directory / ".containust"
    base.mkdir(0o700)
    sc.mount("tmpfs", str(base), "tmpfs", 0, "size=4m,mode=700")
    try:
        yield base
        (base / "fill").unlink(missing_ok=True)
        ctst.ok("rm", "--force")
    finally:
        sc.umount2(str(base), sc.MNT_DETACH)


def fill(base: Path) -> Path:
    """A file that takes what room there is left."""
    path = base / "fill"
    with open(path, "wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                pass
    return path


def test_a_full_disk_stops_no_container_and_loses_no_supervisor(ctst: Ctst, small: Path) -> None:
    ctst.write(ONE)
    ctst.ok("run", "-d")
    pid = ctst.rows()["a"]["pid"]
    filled = fill(small)
    changes: list[tuple[str, ...]] = [("stop",), ("restart",), ("rm", "--force"), ("run", "-d")]
    for words in changes:
        done = ctst(*words)
        assert done.status == 3 and "error[S003]" in done.err and "No space left" in done.err, done
    assert ctst.rows()["a"]["pid"] == pid
    looks: list[tuple[str, ...]] = [("logs", "--tail", "1"), ("events",), ("exec", "a", "--", "true"), ("plan",)]
    for words in looks:
        ctst.ok(*words)
    assert len(marked(ctst.token)) == 1, "a command that failed has cost the stack its supervisor"
    os.kill(pid, signal.SIGKILL)
    time.sleep(1)
    assert len(marked(ctst.token)) == 1
    filled.unlink()
    eventually(lambda: ctst.rows()["a"]["state"] == "running" and ctst.rows()["a"]["pid"] not in (pid, None))
    eventually(lambda: ctst.ok("logs", "--tail", "1") == "line\n")
    ctst.ok("stop")
    assert ctst.events("stopped") == [("stopped", "a")]


def test_an_event_that_was_cut_short_takes_no_other_along(tmp_path: Path) -> None:
    project = Project(str(tmp_path))
    events.emit(project, "created", "a")
    whole = Path(project.events).read_bytes()
    Path(project.events).write_bytes(whole + whole[: len(whole) // 2])
    events.emit(project, "started", "b", note='{"time": "no beginning"}')
    assert [(e["event"], e["container"]) for e in history.read(project)] == [("created", "a"), ("started", "b")]


FAILING = [
    ("write", "ENOSPC", "state.json.new"),
    ("write", "EIO", "state.json.new"),
    ("fsync", "EIO", "state.json.new"),
    ("rename", "EROFS", "state.json.new"),
    ("openat", "EDQUOT", "state.json.new"),
    ("openat", "EACCES", "state.json.lock"),
    ("read", "EIO", "state.json"),
    ("openat", "EIO", "state.json"),
]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("call", "error", "name"), FAILING)
def test_a_disk_that_fails_is_told_and_the_state_stays(up: tuple[Ctst, Path], call: str, error: str, name: str) -> None:
    """Any system call on the state file fails, by strace's fault injection."""
    ctst, path = up
    before = path.read_bytes()
    for words in (("stop",), ("rm", "--force"), ("restart",)):
        done = subprocess.run(
            ["strace", "-qq", "-o", "/dev/null", "-P", str(path.parent / name), "-e", f"trace={call}",
             "-e", f"inject={call}:error={error}", *COMMAND, *words],
            cwd=ctst.directory, env=ctst.environ, preexec_fn=ctst.enter, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        code = "S001" if name == "state.json" else "S003"
        assert done.returncode in (1, 3) and f"error[{code}]" in done.stderr, (words, done)
        assert "Traceback" not in done.stderr
        assert path.read_bytes() == before
    assert ctst.rows()["a"]["state"] == "running"
    assert sorted(os.listdir(path.parent)) == ["state.json", "state.json.lock"]


# -- S6: time ----------------------------------------------------------------------------------------------------------


def test_a_supervisor_that_was_suspended_makes_up_for_what_it_missed(ctst: Ctst) -> None:
    """As with a machine that sleeps: deadlines are over and containers have ended when it wakes up."""
    ctst.write(
        f"""
        COMPONENT quick {{
            image   = "{BOX}"
            network = "none"
            command = ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done; exit 4"]
        }}
        COMPONENT long {{
            image   = "{BOX}"
            network = "none"
            command = ["sleep", "1000"]
            healthcheck = {{ command = ["true"], interval = "100ms", timeout = "100ms", retries = 1 }}
        }}
        """
    )
    ctst.ok("run", "-d")
    (supervisor,) = supervisors(ctst.token)
    os.kill(supervisor, signal.SIGSTOP)
    try:
        time.sleep(1.5)
        assert ctst.rows()["quick"]["state"] == "failed", "what has ended is not shown as running"
    finally:
        os.kill(supervisor, signal.SIGCONT)
    eventually(lambda: ctst.rows()["quick"]["exit_code"] == 4)
    assert ctst.ok("logs", "quick") == "1\n2\n3\n"
    eventually(lambda: ctst.rows()["long"]["health"] == "healthy")
    assert ctst.events("unhealthy") == []
    ctst.ok("stop")


# -- S9: programs and modules of other names ---------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_of_the_directory_or_the_environment_is_executed(ctst: Ctst, tmp_path: Path) -> None:
    """No hook, no plugin, no helper: only ourselves and what the file names, whatever lies about and PATH says."""
    trap = tmp_path / "trap"
    trap.mkdir()
    sprung = tmp_path / "sprung"
    for name in ("nft", "ip", "iptables", "mount", "newuidmap", "modprobe", "fuser", "sh", "env", "runc"):
        (trap / name).write_text(f"#!/bin/sh\necho {name} >> {sprung}\n")
        (trap / name).chmod(0o755)
    for name in ("sitecustomize", "usercustomize", "containust", "json", "os", "posix", "encodings"):
        (trap / f"{name}.py").write_text(f"open({str(sprung)!r}, 'a').write({name!r})\n")
        shutil.copy(trap / f"{name}.py", ctst.directory)
    (trap / "start.pth").write_text(f"import os; open({str(sprung)!r}, 'a')\n")
    hostile = {
        **ctst.environ,
        "PATH": f"{trap}:{ctst.environ['PATH']}",
        "PYTHONPATH": str(trap),
        "PYTHONSTARTUP": str(trap / "os.py"),
        "PYTHONUSERBASE": str(trap),
        "PYTHONINSPECT": "1",
        "LD_LIBRARY_PATH": str(trap),
        "BASH_ENV": str(trap / "sh"),
        "ENV": str(trap / "sh"),
    }
    ctst.write(
        f"""
        COMPONENT a {{
            image   = "{BOX}"
            port    = 80
            command = ["sleep", "1000"]
            healthcheck = {{ command = ["true"] }}
        }}
        EXPOSE 8093:80 -> a
        """
    )
    trace = tmp_path / "trace"
    out = (tmp_path / "out").open("wb")
    traced: list[subprocess.Popen[bytes]] = []
    for words in (("check",), ("plan",), ("run", "-d"), ("ps",), ("exec", "a", "--", "true"), ("logs",),
                  ("restart", "-t", "0"), ("inspect", "a"), ("doctor",), ("rm", "--force")):  # fmt: skip
        # strace goes on as long as what the command has left in the background, so nobody waits for it.
        mark = tmp_path / f"done-{len(traced)}"
        ended = ["sh", "-c", f'"$@"; echo $? > {mark}.new; mv {mark}.new {mark}', "sh"]
        tracer = ["strace", "-f", "-qq", "-e", "trace=execve,execveat", "-e", "signal=none", "-A", "-o", str(trace)]
        traced.append(
            subprocess.Popen(
                [*tracer, "--", "/bin/" + ended[0], *ended[1:], *COMMAND, *words],
                cwd=ctst.directory, env=hostile, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                preexec_fn=ctst.enter,  # noqa: PLW1509 - no threads here
            )
        )  # fmt: skip
        eventually(mark.exists, 60)
        assert mark.read_text() == "0\n", (words, (tmp_path / "out").read_text())
    out.close()
    for one in traced:
        one.wait(20)
    assert not sprung.exists(), sprung.read_text()
    executed = [line.partition('"')[2].partition('"')[0] for line in trace.read_text().splitlines() if " = 0" in line]
    # The reaper above probes and programs of exec has no name: it is executed from a sealed memory file.
    ours = {COMMAND[0], os.path.join(os.path.dirname(COMMAND[0]), "python3")}
    inside = {"", "/bin/busybox", "/usr/bin/busybox", "/bin/sleep", "/bin/true", "/usr/bin/sleep", "/usr/bin/true"}
    assert len(executed) > 10 and "sleep" in " ".join(executed)
    assert set(executed) - ours - inside - {"/bin/sh", "/usr/bin/mv", "/bin/mv"} == set()
