"""Health probes, restarts and the reaper, seen from outside."""

from __future__ import annotations

import json
import os
import signal
import time

from harness import Ctst, eventually, pids, project_id, read

ONE = 'COMPONENT {name} {{\n image = "host:///bin/busybox"\n command = ["sh", "-c", "{script}"]\n {more}\n}}\n'


def component(name: str, script: str, more: str = "") -> str:
    return ONE.format(name=name, script=script, more=more)


def check(script: str, **settings: str) -> str:
    given = "".join(f", {key} = {value}" for key, value in settings.items())
    return f'healthcheck = {{ command = ["sh", "-c", "{script}"]{given} }}'


def processes(ctst: Ctst) -> dict[int, str]:
    """Every process in the project's groups, by pid, zombies too; how each looks in /proc/PID/stat."""
    own = f"containust/{project_id(os.path.realpath(ctst.directory / '.containust'))}/"
    found = {pid: read(f"/proc/{pid}/stat") for pid in pids() if own in read(f"/proc/{pid}/cgroup")}
    return {pid: stat for pid, stat in found.items() if stat}


def zombies(ctst: Ctst) -> list[str]:
    return [stat for stat in processes(ctst).values() if stat.rpartition(")")[2].split()[0] == "Z"]


def test_a_probe_that_takes_too_long_dies_with_all_that_it_started(ctst: Ctst) -> None:
    first = "test -e /tmp/n || exec touch /tmp/n; "
    script = first + "echo >> /tmp/n; (setsid sh -c 'sleep 777 & sleep 777' &); sleep 777"
    ctst.write(component("a", "sleep 1000", check(script, interval='"100ms"', timeout='"100ms"', retries="2")))
    ctst.ok("run", "-d")
    eventually(lambda: ctst.rows()["a"]["health"] == "unhealthy")
    count = int(ctst.ok("exec", "a", "--", "sh", "-c", "wc -l < /tmp/n"))
    assert count >= 2
    # Never more than those of the probe that runs now: three sleeps and two shells.
    assert sum("sleep 777" in read(f"/proc/{pid}/cmdline").replace("\0", " ") for pid in processes(ctst)) <= 5
    ctst.ok("stop", "--force")
    ctst.assert_clean()


def test_a_probe_leaves_nothing_behind_when_it_succeeds(ctst: Ctst) -> None:
    script = "setsid sleep 778 & echo >> /tmp/n"
    ctst.write(component("a", "sleep 1000", "init = true\n" + check(script, interval='"50ms"')))
    ctst.ok("run", "-d")

    def probed() -> int:
        return int(ctst.ok("exec", "a", "--", "sh", "-c", "wc -l < /tmp/n"))

    def those_of_probes() -> set[int]:
        return {pid for pid in processes(ctst) if "778" in read(f"/proc/{pid}/cmdline")}

    eventually(lambda: probed() >= 5)
    before, count = those_of_probes(), probed()
    eventually(lambda: probed() >= count + 3)
    # A probe that runs now has processes of its own; those of one that is over are gone.
    assert not before & those_of_probes()
    ctst.ok("stop", "--force")
    ctst.assert_clean()


def test_a_probe_that_hangs_does_not_hold_up_the_supervisor(ctst: Ctst) -> None:
    ctst.write(
        component("a", "sleep 1000", check("sleep 1000", timeout='"60s"'))
        + component("b", "sleep 0.1; exit 1", 'restart = "always"')
    )
    process = ctst.popen("run")
    eventually(lambda: ctst.rows().get("b", {}).get("restarts", 0) >= 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    ctst.assert_clean()


def test_a_reaper_is_pid_1_where_it_is_asked_for(ctst: Ctst) -> None:
    script = "for i in 1 2 3 4 5; do (sleep 0.05 &); done; sleep 0.2; echo ready; sleep 1000"
    ctst.write(
        component("with", script, "init = true\n" + check("(sleep 0.01 &); true", interval='"50ms"'))
        + component("shell", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done", "init = true")
    )
    ctst.ok("run", "-d")
    eventually(lambda: ctst.ok("logs", "with", "shell").count("ready") == 2)
    for _ in range(5):
        ctst.ok("exec", "with", "--", "sh", "-c", "(sleep 0.02 &); true")
    listing = ctst.ok("exec", "with", "--", "ps", "-o", "pid,args").splitlines()
    assert [line.split()[2] for line in listing if line.split()[0] == "1"] == ["init"], listing
    eventually(lambda: zombies(ctst) == [])
    rows = ctst.rows()
    assert all("memfd:init" in os.readlink(f"/proc/{row['pid']}/exe") for row in rows.values())
    ctst.ok("stop")  # the signal is passed on: nothing waits for the end of stop_timeout
    assert ctst.rows()["shell"]["exit_code"] == 7
    assert ctst.rows()["with"]["exit_code"] == 128 + signal.SIGTERM
    ctst.assert_clean()


def test_orphans_of_probes_and_exec_are_reaped_where_pid_1_waits_for_nobody(ctst: Ctst) -> None:
    """The program of the container is PID 1 and never calls wait, as most do: a place for a zombie a probe would be
    full in a day."""
    probe = "(sleep 0.01 &); (setsid sleep 0.02 &); echo >> /tmp/n"
    slow = "test -e /tmp/n || exec touch /tmp/n; (sleep 5 &); sleep 5"
    ctst.write(
        component("quick", "exec sleep 1000", check(probe, interval='"30ms"'))
        + component("slow", "exec sleep 1000", check(slow, interval='"30ms"', timeout='"60ms"'))
        + component("left", "exec sleep 1000", check("sleep 5 & (setsid sleep 5 &); echo >> /tmp/n", interval='"30ms"'))
    )
    ctst.ok("run", "-d", "--timeout", "60")
    for _ in range(5):
        ctst.ok("exec", "slow", "--", "sh", "-c", "(sleep 0.02 &); true")
    killed = [ctst.popen("exec", "slow", "--", "sh", "-c", "(sleep 6 &); sleep 6") for _ in range(3)]
    eventually(lambda: sum("sleep\0006" in read(f"/proc/{pid}/cmdline") for pid in processes(ctst)) >= 6)
    for client in killed:
        client.kill()
        client.communicate()
    for name in ("quick", "left"):
        eventually(lambda name=name: int(ctst.ok("exec", name, "--", "sh", "-c", "wc -l < /tmp/n")) >= 20, 60)
    eventually(lambda: ctst.rows()["slow"]["health"] == "unhealthy", 60)
    eventually(lambda: not any("sleep\0006" in read(f"/proc/{pid}/cmdline") for pid in processes(ctst)))
    # What runs now may be on its way; what has piled up stays.
    fewest = min(len(zombies(ctst)) for _ in range(20))
    assert fewest <= 1, zombies(ctst)
    assert len(processes(ctst)) < 40
    ctst.ok("stop", "--force")
    ctst.assert_clean()


def test_what_the_reaper_cannot_start_is_told_as_without_it(ctst: Ctst) -> None:
    for program, status in (("nonono", 127), ("/etc/hostname", 126)):
        ctst.write(f'COMPONENT a {{\n image = "host:///bin/busybox"\n init = true\n command = ["{program}"]\n}}\n')
        done = ctst("run")
        assert done.status == status and "error[R004]" in done.err, done
        ctst.assert_clean()


def test_dependents_start_at_the_moment_of_health_and_no_sooner(ctst: Ctst) -> None:
    """By the events' own times; 150 ms is the promise, a loaded test machine gets ten times that."""
    ctst.write(
        component("db", "sleep 0.4; touch /tmp/up; sleep 1000", check("test -e /tmp/up"))
        + component("web", "sleep 1000")
        + "CONNECT web -> db\n"
    )
    ctst.ok("run", "-d")
    events = {(e["event"], e["container"]): e["time"] for e in json.loads(ctst.ok("events", "--json"))["events"]}
    healthy, started = events["healthy", "db"], events["started", "web"]
    assert healthy < started
    assert nanoseconds(started) - nanoseconds(healthy) < 1_500_000_000
    ctst.ok("stop", "--force")


def nanoseconds(stamp: str) -> int:
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return int(time.mktime(time.strptime(seconds, "%Y-%m-%dT%H:%M:%S"))) * 10**9 + int(fraction.ljust(9, "0"))


def test_a_start_that_ends_unhealthy_has_failed(ctst: Ctst) -> None:
    """What nobody depends on too: status 0 would say that all is well."""
    bad = component("a", "echo why not; sleep 1000", check("false", interval='"50ms"', retries="2"))
    good = component("b", "sleep 1000")
    ctst.write(good)
    ctst.ok("run", "-d")
    before = ctst.rows()["b"]["pid"]
    ctst.write(good + bad)
    for words in (("run", "-d"), ("run",)):
        done = ctst(*words)
        assert done.status == 1 and "error[R014]: a is unhealthy" in done.err and "why not" in done.out + done.err, done
        assert {name: row["pid"] for name, row in ctst.rows().items()} == {"b": before}
    ctst.ok("rm", "--force")
    ctst.assert_clean()
    # Once it was up it is no start any more: it goes on, and `start` tells.
    ctst.write(
        bad.replace('"false"', '"test -e /data/up"').replace("healthcheck", 'volume = "data:/data"\n healthcheck')
    )
    (ctst.directory / ".containust/volumes/data").mkdir(parents=True)
    (ctst.directory / ".containust/volumes/data/up").touch()
    ctst.ok("run", "-d")
    (ctst.directory / ".containust/volumes/data/up").unlink()
    eventually(lambda: ctst.rows()["a"]["health"] == "unhealthy")
    ctst.ok("stop", "--force")
    done = ctst("start")
    assert done.status == 1 and "error[R014]" in done.err, done
    assert ctst.rows()["a"]["state"] == "running"
    ctst.ok("rm", "--force", "--volumes")


def test_a_dependency_that_is_started_again_is_waited_for(ctst: Ctst) -> None:
    script = "echo >> /data/n; test $(wc -l < /data/n) -ge 3 || exit 1; touch /tmp/up; sleep 1000"
    more = 'restart = "on-failure:5"\n volume = "data:/data"\n'
    ctst.write(
        component("db", script, more + check("test -e /tmp/up"))
        + component("web", "sleep 1000")
        + "CONNECT web -> db\n"
    )
    ctst.ok("run", "-d")
    assert ctst.rows()["db"]["restarts"] == 2
    assert {row["state"] for row in ctst.rows().values()} == {"running"}
    ctst.ok("rm", "--force", "--volumes")
    ctst.write(
        component("db", "exit 4", 'restart = "on-failure:2"\n' + check("true"))
        + component("web", "sleep 1000")
        + "CONNECT web -> db\n"
    )
    done = ctst("run", "-d")
    assert done.status == 1 and "error[R015]" in done.err and "exit status 4" in done.err, done
    assert ctst.rows() == {}
    ctst.assert_clean()


def test_a_limit_of_restarts_counts_from_the_last_start_by_hand(ctst: Ctst) -> None:
    ctst.write(component("a", "exit 3", 'restart = "on-failure:1"'))
    assert ctst("run").status == 3
    ctst.ok("start")
    eventually(lambda: ctst.rows()["a"]["state"] == "failed" and len(ctst.events("restarted")) == 2)
    ctst.assert_clean()


def test_how_a_container_ended_is_told_as_it_was(ctst: Ctst) -> None:
    ctst.write(
        component("code", "exit 9")
        + component("signal", "sleep 1000")
        + component("memory", "sh -c 'exec tail /dev/zero'; sleep 0.1; exit 1", 'memory = "16MiB"')
    )
    ctst.ok("run", "-d")
    eventually(lambda: ctst.rows()["memory"]["state"] == "failed" and ctst.rows()["code"]["state"] == "failed")
    os.kill(ctst.rows()["signal"]["pid"], signal.SIGKILL)
    eventually(lambda: ctst.rows()["signal"]["state"] == "failed")
    rows = ctst.rows()
    assert (rows["code"]["exit_code"], rows["code"]["signal"], rows["code"]["oom_killed"]) == (9, None, False)
    assert (rows["signal"]["exit_code"], rows["signal"]["signal"]) == (137, 9)
    assert rows["memory"]["oom_killed"] is True
    assert ("oom", "memory") in ctst.events("oom")
    ctst.assert_clean()
