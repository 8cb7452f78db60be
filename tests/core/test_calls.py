"""Prepared sequences of system calls, made by the machine code as it is shipped and as its source gives it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from errno import EACCES, EEXIST, EINVAL, ENOENT
from pathlib import Path

import pytest

from containust.core import calls as subject
from containust.core import syscalls
from containust.core.calls import ANY, CLONE_VM, Calls, NR_getcwd, at_once

SOURCE = Path(subject.__file__).parent / "data" / "calls.c"
BUILD = (
    "-Os -nostdlib -ffreestanding -fpie -fno-stack-protector -fno-asynchronous-unwind-tables -fno-jump-tables "
    "-static -Wl,--build-id=none,-z,noexecstack,-Ttext=0 -Wall -Wextra -Werror"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The machine code, from its source by the compiler of this machine."""
    place = tmp_path_factory.mktemp("calls")
    subprocess.run(["gcc", *BUILD.split(), "-o", place / "elf", SOURCE], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", place / "elf", place / "code"], check=True)
    return place / "code"


@pytest.fixture(params=["shipped", "built"], autouse=True)
def code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test runs with what is shipped and with what the source gives."""
    if request.param == "built":
        if shutil.which("gcc") is None:
            pytest.skip("gcc is not installed")
        monkeypatch.setattr(subject, "_mapped", [])
        monkeypatch.setattr(subject, "CODE", str(request.getfixturevalue("built")))
    yield


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def contents(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_calls_are_made_in_order_with_results_of_earlier_ones(tmp_path: Path) -> None:
    calls = Calls()
    here = calls.openat(syscalls.AT_FDCWD, str(tmp_path), os.O_PATH)
    calls.mkdirat(here, "a", 0o755)
    inside = calls.openat(here, "a", os.O_PATH)
    calls.mkdirat(inside, "b", 0o755)
    calls.close(inside)
    calls.close(here)
    before = set(os.listdir("/proc/self/fd"))
    calls.run()
    assert (tmp_path / "a/b").is_dir()
    assert set(os.listdir("/proc/self/fd")) == before


def test_the_first_failure_ends_it_and_says_what_failed(tmp_path: Path) -> None:
    calls = Calls()
    calls.mkdirat(syscalls.AT_FDCWD, str(tmp_path / "made"), 0o755)
    calls.mkdirat(syscalls.AT_FDCWD, str(tmp_path / "no/such"), 0o755)
    calls.mkdirat(syscalls.AT_FDCWD, str(tmp_path / "never"), 0o755)
    with pytest.raises(FileNotFoundError) as caught:
        calls.run()
    assert caught.value.errno == ENOENT
    assert caught.value.strerror == "mkdir: No such file or directory"
    assert caught.value.filename == str(tmp_path / "no/such")
    assert contents(tmp_path) == {"made"}


def test_what_a_file_system_says_of_its_options_is_told() -> None:
    with pytest.raises(OSError, match="size") as caught:
        at_once(lambda calls: calls.new_mount("tmpfs", {"size": "much"}))
    assert caught.value.errno == EINVAL


def test_a_forgiven_error_passes_over_what_depends_on_the_call(tmp_path: Path) -> None:
    for present in (False, True):
        if present:
            (tmp_path / "file").touch()
        calls = Calls()
        found = calls.openat(syscalls.AT_FDCWD, str(tmp_path / "file"), os.O_PATH, forgiven=ENOENT)
        there = calls.if_there()
        calls.mkdirat(syscalls.AT_FDCWD, str(tmp_path / "only-then"), 0o755)
        calls.close(found)
        calls.end_if(there)
        calls.mkdirat(syscalls.AT_FDCWD, str(tmp_path / "always"), 0o755, forgiven=EEXIST)
        calls.run()
        assert contents(tmp_path) == ({"file", "only-then", "always"} if present else {"always"})


def test_another_error_than_the_forgiven_one_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    calls = Calls()
    calls.openat(syscalls.AT_FDCWD, str(tmp_path / "file/below"), os.O_PATH, forgiven=ENOENT)
    with pytest.raises(NotADirectoryError):
        calls.run()


def test_memory_is_written_and_compared() -> None:
    calls = Calls()
    calls.chdir(b"/usr")
    calls.add("getcwd", None, NR_getcwd, calls.scratch, 4096)
    calls.compare(calls.scratch, ord("/"), ENOENT, "getcwd", None)
    calls.store(calls.scratch, -EACCES)
    calls.load(calls.scratch, "answer", "a netlink request")
    before = os.getcwd()
    try:
        with pytest.raises(PermissionError, match="answer") as caught:
            calls.run()
    finally:
        os.chdir(before)
    assert caught.value.filename == "a netlink request"
    calls = Calls()
    calls.store(calls.scratch, ord("x"))
    calls.compare(calls.scratch, ord("/"), ENOENT, "getcwd", None)
    with pytest.raises(FileNotFoundError):
        calls.run()


def test_a_child_executes_the_first_candidate_that_is_there(pipe: tuple[int, int], tmp_path: Path) -> None:
    reader, writer = pipe
    (tmp_path / "not-executable").touch()
    for shares in (0, CLONE_VM):
        calls = Calls()
        calls.dup3(writer, 1, 0)
        paths = [os.fsencode(tmp_path / "not-executable"), b"/no/sh", b"/bin/sh", b"/bin/false"]
        calls.execute(paths, [b"sh", b"-c", b"echo $A"], [b"A=there"])
        pid, pidfd = calls.clone(shares, writer)
        assert os.waitpid(pid, 0)[1] == 0
        os.close(pidfd)
        assert os.read(reader, 100) == b"there\n"


@pytest.mark.parametrize("shares", [0, CLONE_VM])
def test_a_child_that_cannot_reports_the_most_telling_error(pipe: tuple[int, int], tmp_path: Path, shares: int) -> None:
    reader, writer = pipe
    (tmp_path / "not-executable").touch()
    for paths, number in (([b"/no/sh"], ENOENT), ([os.fsencode(tmp_path / "not-executable"), b"/no/sh"], EACCES)):
        calls = Calls()
        calls.step = "exec"
        calls.execute(paths, [b"sh"], [])
        pid, pidfd = calls.clone(shares, writer)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 125
        os.close(pidfd)
        report = os.read(reader, 4096)
        assert subject.is_report(report) and not subject.is_report(b"exec\0002\0")
        assert calls.failed(report)[:2] == ("exec", number)


def test_a_child_that_shares_memory_goes_on_with_what_it_is_handed(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    alive, held = os.pipe()
    go = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)
    calls = Calls()
    calls.wait(go, alive)
    pid, pidfd = calls.clone(CLONE_VM, writer)
    calls.step = "later"
    calls.write(writer, b"hello ")
    calls.chdir(b"/no/such")
    calls.hand_over()
    os.eventfd_write(go, 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 125
    said = os.read(reader, 4096)
    assert said[:6] == b"hello "
    assert calls.failed(said[6:])[:2] == ("later", ENOENT)
    for fd in (alive, held, go, pidfd):
        os.close(fd)


def test_a_child_does_not_wait_for_a_dead_parent(pipe: tuple[int, int]) -> None:
    alive, held = os.pipe()
    go = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK)
    calls = Calls()
    calls.close(held)
    calls.wait(go, alive)
    pid, pidfd = calls.clone(0, pipe[1])
    os.close(held)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 125
    for fd in (alive, go, pidfd):
        os.close(fd)


def test_a_failed_clone_is_an_error() -> None:
    calls = Calls()
    with pytest.raises(OSError, match="clone3") as caught:
        calls.clone(syscalls.CLONE_NEWUSER | 0x200, -1)  # CLONE_FS does not go with a user namespace
    assert caught.value.errno == EINVAL


def test_any_error_can_be_forgiven() -> None:
    at_once(lambda calls: calls.add("close", None, subject.NR_close, 1 << 20, forgiven=ANY))
