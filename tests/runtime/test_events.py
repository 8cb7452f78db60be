"""The life-cycle log is bounded: it rotates, and neither a replay nor a follower misses or doubles an event by that."""

from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from containust.runtime import events, history
from containust.runtime.project import Project
from harness import FULL, Ctst

WRITERS = 4


class Stopped(Exception):
    """Where a test lets a process die."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(str(tmp_path))


def numbers(found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(event["container"], event["number"]) for event in found]


def write(project: Project, first: int, count: int) -> None:
    """``count`` events of each of several processes at once."""
    children = []
    for writer in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            for number in range(first, first + count):
                events.emit(project, "started", f"w{writer}", number=number)
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0


def test_a_follower_sees_each_event_once_through_rotation(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, count = (400 if FULL else 40), 60
    size = len(b'{"time":"2026-01-31T12:00:00.000000000Z","event":"started","container":"w0","number":10000}\n')
    monkeypatch.setattr(events, "MAX_SIZE", 2 * WRITERS * count * size)
    events.emit(project, "created", "first", number=-1)
    follower = history.read(project, follow=True)
    assert numbers([next(follower)]) == [("first", -1)]
    inodes = set()
    for at in range(rounds):
        write(project, at * count, count)
        seen = numbers(list(islice(follower, WRITERS * count)))
        for writer in range(WRITERS):
            own = [number for name, number in seen if name == f"w{writer}"]
            assert own == list(range(at * count, at * count + count))
        replayed = numbers(list(history.read(project)))
        assert set(seen) <= set(replayed) and len(set(replayed)) == len(replayed)
        if os.path.exists(project.events):
            inodes.add(os.stat(project.events).st_ino)
    assert len(inodes) > 1, "it was to be rotated"
    assert sorted(path.name for path in tmp_path.glob("events*")) in (
        ["events.jsonl", "events.jsonl.1"],
        ["events.jsonl.1"],
    )
    for path in tmp_path.glob("events*"):
        assert path.stat().st_size < 1.5 * events.MAX_SIZE  # others write on while one is about to rotate


@pytest.mark.parametrize("done", [False, True])
def test_a_kill_in_the_middle_of_a_rotation_loses_nothing(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    monkeypatch.setattr(events, "MAX_SIZE", 1000)
    rename = os.rename

    def dying(source: str, target: str) -> None:
        if done:
            rename(source, target)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", dying)
        with pytest.raises(Stopped):
            for number in range(100):
                events.emit(project, "started", "a", number=number)
    count = number + 1
    assert count < 20
    assert numbers(list(history.read(project))) == [("a", number) for number in range(count)]
    events.emit(project, "started", "a", number=count)
    assert numbers(list(history.read(project))) == [("a", number) for number in range(count + 1)]
    assert (tmp_path / "events.jsonl.1").exists()


def test_what_lies_in_the_way_of_a_rotation_is_replaced_and_not_written_to(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_SIZE", 1000)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "events.jsonl.1").symlink_to(precious)
    for number in range(12):
        events.emit(project, "started", "a", number=number)
    assert numbers(list(history.read(project))) == [("a", number) for number in range(12)]
    assert precious.read_text() == "precious"
    assert not (tmp_path / "events.jsonl.1").is_symlink()


def test_the_command_replays_and_follows_over_both_files(ctst: Ctst) -> None:
    ctst.write('COMPONENT a {\n image = "host:///bin/busybox"\n network = "none"\n command = ["sleep", "1000"]\n}\n')
    ctst.ok("run", "-d")
    log = ctst.directory / ".containust/events.jsonl"
    own = log.read_bytes()
    assert own.count(b"\n") == 2
    past = b'{"time":"2001-01-01T00:00:00.000000000Z","event":"started","container":"past","note":"%s"}\n' % (
        b"x" * 900
    )
    log.write_bytes(past * (events.MAX_SIZE // len(past)) + own)  # one event more is too many
    follower = ctst.popen("events", "-f", "--json", "--since", "1h")
    assert follower.stdout is not None
    kinds = [json.loads(follower.stdout.readline())["event"] for _ in range(2)]
    for words in (("stop",), ("start",), ("rm", "--force")):
        ctst.ok(*words)
    kinds += [json.loads(follower.stdout.readline())["event"] for _ in range(4)]
    follower.terminate()
    follower.communicate()
    assert kinds == ["created", "started", "stopped", "started", "stopped", "removed"]
    assert Path(f"{log}.1").stat().st_size > log.stat().st_size > 0
    assert [kind for kind, name in ctst.events() if name == "a"] == kinds
    recent = json.loads(ctst.ok("events", "--json", "--since", "1h"))["events"]
    assert [event["event"] for event in recent] == kinds
