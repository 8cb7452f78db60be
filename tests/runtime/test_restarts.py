"""Restart policies: when a container that has ended begins again, and which does so after a kill or a reboot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from containust.common.types import Component
from containust.runtime import loop, recorder, restarts, supervisor
from containust.runtime.container import Handle, Job
from containust.runtime.process import pid_namespace, start_ticks
from containust.runtime.project import Project, project_id
from containust.runtime.state import Container, Update
from containust.runtime.supervisor import Supervisor, Unit
from harness import BOX, Ctst, eventually, groups, kill, supervisors


class Clock:
    """Time that passes only while the supervisor waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Poll:
    """An epoll whose descriptors are ready at times that are set, and which need not be waited for."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ready: dict[int, float] = {}

    def register(self, fd: int, events: int) -> None:
        pass

    def unregister(self, fd: int) -> None:
        self.ready.pop(fd, None)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        first = min(self.ready.values(), default=None)
        assert timeout >= 0 or first is not None, "nothing would ever happen"
        if first is None or 0 <= timeout < first - self.clock.now:
            self.clock.now += timeout
            return []
        self.clock.now = max(self.clock.now, first)
        return [(fd, 1) for fd, at in self.ready.items() if at <= self.clock.now]


class Backend:
    """Containers that run for as long as they are told and then fail."""

    def __init__(self, clock: Clock, poll: Poll, lives: list[float]) -> None:
        self.clock, self.poll, self.lives = clock, poll, lives
        self.starts: list[float] = []
        self.ends: list[float] = []

    def create(self, job: Container) -> Handle:
        return Handle(job, 1, os.open("/dev/null", os.O_RDONLY))

    def start(self, handles: list[Handle]) -> dict[str, Exception]:
        (handle,) = handles
        self.starts.append(self.clock.now)
        self.poll.ready[handle.pidfd] = self.clock.now + self.lives[len(self.starts) - 1]
        return {}

    def wait(self, handle: Handle) -> int:
        self.ends.append(self.clock.now)
        return 3 << 8

    def arrivals(self, container: Container) -> int:
        return -1

    def remove(self, container: Container) -> None:
        pass

    def oom_killed(self, container: Container) -> bool:
        return False


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_pauses_between_restarts_double_up_to_thirty_seconds_and_begin_anew_after_ten_seconds_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    clock = Clock()
    for module in (loop, recorder, restarts, supervisor):
        monkeypatch.setattr(module, "time", clock)
    project = Project(str(tmp_path))
    container = Container(str(uuid.uuid4()), "one", spec={"restart": {"policy": policy, "limit": None}})
    project.create()
    with Update(project) as state:
        state.containers[container.id] = container
    lives = [0.5] * 12 + [9.9, 10.0, 0.0, 9.9, 25.0, 1.0, 1.0]
    poll = Poll(clock)
    backend = Backend(clock, poll, lives)

    def job() -> Job:
        return container  # type: ignore[return-value]

    one: Any = Supervisor(project, backend)  # type: ignore[arg-type]
    one._poll.close()
    one._poll = poll
    one.add(Unit(container, Component("one", image=BOX), job))
    one.start()
    one.run(lambda: len(backend.starts) == len(lives))
    pauses = [begun - ended for ended, begun in zip(backend.ends, backend.starts[1:], strict=True)]
    doubling = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]
    assert pauses == pytest.approx([*doubling, 30, 30, 30, 30, 0.1, 0.2, 0.4, 0.1, 0.2])
    assert container.restarts == len(lives) - 1


def seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp[:26] + "+00:00").timestamp()


def test_a_restart_comes_no_earlier_than_its_pause_is_over(ctst: Ctst) -> None:
    ctst.write(stack(("a", "exit 1", "on-failure:4")))
    assert ctst("run").status == 1
    events = json.loads(ctst.ok("events", "--json"))["events"]
    times = [seconds(event["time"]) for event in events if event["event"] in ("died", "restarted")]
    pauses = [after - before for before, after in zip(times[0::2], times[1::2], strict=False)]
    assert len(pauses) == 4
    for number, pause in enumerate(pauses):
        assert pause > 0.1 * 2**number - 0.01, pauses


def stack(*components: tuple[str, str, str]) -> str:
    return "".join(
        f'COMPONENT {name} {{\n image = "{BOX}"\n command = ["sh", "-c", "{script}"]\n restart = "{policy}"\n}}\n'
        for name, script, policy in components
    )


RUNS = "sleep 1000"
RANGES = Path("/run/containust/ranges")
POLICIES = ("never", "on-failure", "always", "unless-stopped")


@pytest.fixture
def up(ctst: Ctst) -> Ctst:
    """A stack with two containers of each policy, of which the user has stopped one."""
    ctst.write(stack(*((f"{end}-{policy}", RUNS, policy) for policy in POLICIES for end in ("runs", "stopped"))))
    ctst.ok("run", "-d")
    ctst.ok("stop", *(f"stopped-{policy}" for policy in POLICIES))
    return ctst


def running(ctst: Ctst) -> set[str]:
    return {name for name, row in ctst.rows().items() if row["state"] == "running"}


def ended(ctst: Ctst, *names: str) -> None:
    """Kill supervisors first and then containers, so that nobody has seen how these ended."""
    kill(supervisors(ctst.token))
    kill([row["pid"] for name, row in ctst.rows().items() if name in names and row["pid"]])


def test_what_the_user_has_stopped_stays_stopped_whoever_supervises(up: Ctst) -> None:
    before = {name: row["pid"] for name, row in up.rows().items()}
    kept = {f"runs-{policy}" for policy in POLICIES}
    up.write(stack(("other", RUNS, "never")), "other.ctst")
    for words in (
        ("stop", "stopped-always"),
        ("start", "runs-never"),
        ("run", "-d", "other.ctst"),
        ("rm", "-f", "other"),
    ):
        kill(supervisors(up.token))
        up.ok(*words)
        assert running(up) - {"other"} == kept, words
    assert {name: row["pid"] for name, row in up.rows().items()} == before
    assert up.events("restarted") == []
    up.ok("start", "stopped-unless-stopped")
    assert running(up) == {*kept, "stopped-unless-stopped"}


def test_one_that_died_while_nobody_supervised_is_started_again_by_who_supervises_next(up: Ctst) -> None:
    ended(up, "runs-on-failure", "runs-always", "runs-unless-stopped")
    rows = up.rows()
    for policy in POLICIES[1:]:
        row = rows[f"runs-{policy}"]
        assert (row["state"], row["exit_code"], row["signal"], row["pid"]) == ("failed", None, None, None)
    up.ok("stop", "runs-on-failure")  # which is stopped, and so it does not come back
    expected = {"runs-never", "runs-always", "runs-unless-stopped"}
    eventually(lambda: running(up) == expected)
    assert {name for _, name in up.events("restarted")} == {"runs-always", "runs-unless-stopped"}
    assert up.rows()["runs-always"]["restarts"] == 1
    # Neither does a hand-over in the pause before a restart end them.
    for _ in range(3):
        os.kill(up.rows()["runs-always"]["pid"], signal.SIGKILL)
        up.ok("start", "runs-on-failure")
        eventually(lambda: running(up) == {*expected, "runs-on-failure"})
        up.ok("stop", "runs-on-failure")


def test_one_that_is_done_or_has_no_try_left_does_not_come_back_by_itself(ctst: Ctst) -> None:
    ctst.write(stack(("done", "exit 0", "on-failure"), ("spent", "exit 4", "on-failure:1"), ("runs", RUNS, "never")))
    ctst.ok("run", "-d")
    eventually(lambda: sorted(name for _, name in ctst.events("died")) == ["done", "spent", "spent"])
    eventually(lambda: ctst.rows()["spent"]["state"] == "failed")
    known = len(ctst.events())
    kill(supervisors(ctst.token))
    ctst.ok("start", "runs")
    ctst.ok("stop", "runs")
    ctst.assert_clean()
    assert ctst.events()[known:] == [("stopped", "runs")]


def test_one_whose_start_has_failed_is_not_tried_again_behind_the_back_of_who_was_told(ctst: Ctst) -> None:
    source = ctst.directory / "data"
    source.mkdir()
    text = stack(("bad", RUNS, "always"), ("good", RUNS, "always"), ("other", RUNS, "never"))
    ctst.write(text.replace("}", 'volume = "./data:/data"\n}', 1))
    ctst.ok("run", "-d")
    ctst.ok("stop", "bad")
    source.rmdir()
    assert ctst("start", "bad").status != 0
    ended(ctst, "good")
    source.mkdir()
    ctst.ok("start", "other")
    eventually(lambda: running(ctst) >= {"good", "other"})
    assert ctst.events("restarted") == [("restarted", "good")]
    assert ctst.rows()["bad"]["state"] == "failed"


def test_a_start_that_fails_starts_nothing_else(ctst: Ctst) -> None:
    source = ctst.directory / "data"
    source.mkdir()
    text = stack(("bad", RUNS, "always"), ("good", RUNS, "always"))
    ctst.write(text.replace("}", 'volume = "./data:/data"\n}', 1))
    ctst.ok("run", "-d")
    ended(ctst, "bad", "good")
    source.rmdir()
    assert ctst("start", "bad").status != 0
    ctst.assert_clean()
    assert ctst.events("restarted") == []
    source.mkdir()
    ctst.ok("start", "bad")
    eventually(lambda: running(ctst) == {"bad", "good"})


def test_one_that_a_failed_run_has_started_and_stopped_again_stays_stopped(ctst: Ctst) -> None:
    text = stack(("back", RUNS, "always"), ("good", RUNS, "always"), ("other", RUNS, "never"))
    ctst.write(text)
    ctst.ok("run", "-d")
    ctst.ok("stop", "back")
    ctst.write(text + f'COMPONENT bad {{\n image = "{BOX}"\n command = ["/nowhere"]\n}}\n')
    assert ctst("run", "-d").status != 0
    ended(ctst, "good")
    ctst.ok("start", "other")
    eventually(lambda: running(ctst) >= {"good", "other"})
    assert ctst.events("restarted") == [("restarted", "good")]
    assert ctst.rows()["back"]["state"] == "stopped"


def reboot(ctst: Ctst, everything: bool = True, taken: bool = True) -> subprocess.Popen[bytes]:
    """What a reboot leaves: files, no process, no cgroup, no network, another boot's id.

    With ``everything`` no run-time directory either; with ``taken`` another project has claimed its ids first after
    it. A process of the new boot has the pid of a container, and even its start time.
    """
    project = ctst.directory / ".containust"
    ended(ctst, *ctst.rows())
    for group in sorted(groups(project_id(os.path.realpath(project))), key=len, reverse=True):
        eventually(lambda group=group: not Path(group, "cgroup.procs").read_text())
        os.rmdir(group)
    host = subprocess.Popen(["unshare", "-n", "sh", "-c", "ip link set lo up; echo; exec sleep 600"], stdout=-1)
    assert host.stdout is not None
    host.stdout.readline()
    os.close(ctst.network)
    ctst.network = os.open(f"/proc/{host.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    host.kill()
    host.communicate()
    for claim in RANGES.iterdir():
        with suppress(FileNotFoundError):  # other tests claim and release there
            if os.readlink(claim) == os.path.realpath(project):
                claim.unlink()
                if taken:
                    claim.symlink_to(ctst.home)
    if everything:
        subprocess.run(["rm", "-rf", project / "run"], check=True)
        (project / "run").mkdir(mode=0o700)
    stranger = subprocess.Popen(["sleep", "1000"])
    path = project / "state/state.json"
    document = json.loads(path.read_text())
    boot = str(uuid.uuid4())
    for recorded in document["containers"]:
        recorded["boot_id"] = boot
        if recorded["pid"]:
            recorded["pid"], recorded["start_ticks"] = stranger.pid, start_ticks(stranger.pid)
            recorded["pid_namespace"] = pid_namespace(stranger.pid)
    path.write_text(json.dumps(document))
    return stranger


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("words", [("start", "runs-never"), ("start",), ("run", "-d")])
def test_after_a_reboot_ps_says_that_nothing_runs_and_the_next_start_brings_it_up(
    up: Ctst, words: tuple[str, ...], everything: bool
) -> None:
    logged = up.ok("logs", "-t")
    ids = {json.loads(up.ok("inspect", name))["id_base"] for name in up.rows()}
    stranger = reboot(up, everything)
    try:
        assert json.loads(up.ok("ps", "--json"))["containers"] == []
        rows = up.rows()
        for policy in POLICIES:
            assert rows[f"runs-{policy}"]["state"] == "failed"
            assert rows[f"runs-{policy}"]["exit_code"] is None, "nobody has seen how it ended"
            assert rows[f"stopped-{policy}"]["state"] == "stopped"
        assert {row["pid"] for row in rows.values()} == {None}
        assert supervisors(up.token) == []
        assert up.ok("logs", "-t") == logged
        up.ok("stop", "stopped-never")  # a command that is not about starting starts nothing
        assert running(up) == set() and supervisors(up.token) == []
        up.ok(*words)
        expected = set(rows)
        if words == ("start", "runs-never"):
            # Its stack is supervised again, and the policies of the others hold again.
            expected = {f"runs-{policy}" for policy in POLICIES}
        eventually(lambda: running(up) == expected)
        for name in expected:
            base = json.loads(up.ok("inspect", name))["id_base"]
            assert base not in ids, "another project has these ids now"
            assert os.readlink(RANGES / str(base)) == os.path.realpath(up.directory / ".containust")
        up.ok("stop")
        assert running(up) == set()
        assert stranger.poll() is None, "a process of the new boot was taken for a container"
    finally:
        for base in ids:
            (RANGES / str(base)).unlink()
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("taken", [False, True])
def test_a_root_that_was_written_to_has_its_owners_after_a_reboot_or_is_not_started(ctst: Ctst, taken: bool) -> None:
    script = "[ -e /own ] || { echo > /own; chown 7:8 /own; }; stat -c %u:%g /own; exec sleep 1000"
    ctst.write(stack(("a", script, "never")).replace(" restart", " readonly = false\n restart"))
    ctst.ok("run", "-d")
    eventually(lambda: ctst.ok("logs") == "7:8\n")
    base = json.loads(ctst.ok("inspect", "a"))["id_base"]
    stranger = reboot(ctst, taken=taken)
    stranger.kill()
    stranger.wait()
    if taken:
        for words in (("start",), ("run", "-d")):
            assert "error[R001]" in ctst(*words).err
        ctst.ok("rm", "a")
        ctst.ok("run", "-d")
        eventually(lambda: ctst.ok("logs") == "7:8\n")
        (RANGES / str(base)).unlink()
    else:
        ctst.ok("start")
        eventually(lambda: ctst.ok("logs") == "7:8\n7:8\n")
    assert (json.loads(ctst.ok("inspect", "a"))["id_base"] == base) is not taken
