"""Control groups on the hierarchies of this host, and the files that a v2 host would get."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from containust.common.errors import ContainustError
from containust.core import cgroup
from containust.core.cgroup import Limits, disks, v2

PROJECT = f"{cgroup.PARENT}/test-{os.getpid()}"


@pytest.fixture
def manager() -> Iterator[cgroup.Manager]:
    one = cgroup.detect()
    yield one
    group = one.find(f"{PROJECT}/a")
    group.kill()
    group.remove()
    one.prune(PROJECT)
    assert not any(PROJECT.rpartition("/")[2] in names for _, names, _ in os.walk("/sys/fs/cgroup"))


def member(group: cgroup.Cgroup, *command: str) -> subprocess.Popen[bytes]:
    """A process that joins ``group`` the way a container's init does on a host without CLONE_INTO_CGROUP."""

    def join() -> None:
        if group.clone_fd >= 0:
            fd = os.open("cgroup.procs", os.O_WRONLY, dir_fd=group.clone_fd)
            os.write(fd, b"0")
        for fd in group.join_fds:
            os.write(fd, b"0")

    return subprocess.Popen(command, preexec_fn=join)  # noqa: PLW1509  (no thread runs here)


@pytest.mark.guest
def test_a_process_is_accounted_killed_and_its_group_removed(manager: cgroup.Manager) -> None:
    group = manager.create(f"{PROJECT}/a", Limits(memory=64 << 20, pids=9))
    process = member(group, "sleep", "100")
    group.close()
    found = manager.find(f"{PROJECT}/a")
    stats = found.stats()
    assert stats.pids == 1 and stats.memory_limit == 64 << 20 and stats.oom_kills == 0
    assert stats.memory is not None and stats.cpu_ns is not None
    assert not found.remove(), "a group that has a process cannot go"
    found.kill()
    assert process.wait(10) == -9
    assert found.remove()
    assert found.remove(), "what is gone counts as removed"


@pytest.mark.guest
def test_a_second_process_joins_an_existing_group(manager: cgroup.Manager) -> None:
    manager.create(f"{PROJECT}/a", Limits()).close()
    group = manager.find(f"{PROJECT}/a")
    group.open_join()
    process = member(group, "sleep", "100")
    group.close()
    assert group.stats().pids == 1
    process.kill()
    process.wait()


@pytest.mark.guest
def test_the_limit_of_processes_holds(manager: cgroup.Manager) -> None:
    group = manager.create(f"{PROJECT}/a", Limits(pids=1))
    process = member(group, "busybox", "sh", "-c", "busybox true & wait $!")
    group.close()
    assert process.wait(10) != 0


@pytest.mark.guest
def test_a_limit_that_the_kernel_refuses_is_an_error_and_leaves_nothing(manager: cgroup.Manager) -> None:
    with pytest.raises(ContainustError) as caught:
        manager.create(f"{PROJECT}/a", Limits(pids=-5))
    assert caught.value.code == "R002"
    assert manager.find(f"{PROJECT}/a").stats().pids is None


@pytest.mark.guest
def test_prune_spares_what_is_in_use(manager: cgroup.Manager) -> None:
    manager.create(f"{PROJECT}/a", Limits()).close()
    manager.prune(PROJECT)
    assert manager.find(f"{PROJECT}/a").stats().pids == 0


@pytest.mark.parametrize(
    ("limits", "files"),
    [
        (Limits(), []),
        (Limits(pids=7), [("pids.max", "7")]),
        (Limits(cpu_quota=50_000), [("cpu.max", "50000 100000")]),
        (Limits(cpu_shares=1024), [("cpu.weight", "100")]),
    ],
)
def test_the_files_of_v2(limits: Limits, files: list[tuple[str, str]]) -> None:
    assert v2.settings(limits, "") == files


@pytest.mark.parametrize(
    ("present", "files"),
    [
        (["io.weight"], [("io.weight", "default 5000")]),
        (["io.bfq.weight"], [("io.bfq.weight", "default 1000")]),
        (["io.weight", "io.bfq.weight"], [("io.weight", "default 5000"), ("io.bfq.weight", "default 1000")]),
    ],
)
def test_a_weight_goes_to_every_scheduler_that_weighs(
    tmp_path: Path, present: list[str], files: list[tuple[str, str]]
) -> None:
    for name in present:
        (tmp_path / name).touch()
    assert v2.settings(Limits(io_weight=5000), str(tmp_path)) == files


def test_a_bound_of_disk_access_is_a_line_a_disk() -> None:
    limits = Limits(io_max=1 << 20, disks=["8:0", "254:0"])
    assert v2.settings(limits, "") == [
        ("io.max", "8:0 rbps=1048576 wbps=1048576"),
        ("io.max", "254:0 rbps=1048576 wbps=1048576"),
    ]


def test_a_path_on_no_disk_cannot_be_bounded() -> None:
    with pytest.raises(ContainustError) as caught:
        disks.under(["/proc"], "io_max")
    assert caught.value.code == "R002" and "/proc" in caught.value.message


def test_a_weight_that_nothing_heeds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContainustError) as caught:
        v2.settings(Limits(io_weight=100), str(tmp_path))
    assert caught.value.code == "R002"


def test_memory_on_v2_is_a_limit_without_swap_for_the_whole_group() -> None:
    files = dict(v2.settings(Limits(memory=1 << 20), ""))
    assert files["memory.max"] == str(1 << 20) and files["memory.oom.group"] == "1"
    assert files.get("memory.swap.max", "0") == "0"


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000), (1, 1), (1 << 30, 10000)])
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert v2.cpu_weight(shares) == weight


def test_more_shares_are_never_less_weight() -> None:
    weights = [v2.cpu_weight(shares) for shares in range(2, 262144, 997)]
    assert weights == sorted(weights)
