"""Limits of an ordinary user's containers in a control group that is delegated to the user, as systemd does it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ordinary_user import User

from harness import BOX, eventually

pytestmark = pytest.mark.unified
ROOT = Path("/sys/fs/cgroup")


@pytest.fixture
def session(user: User) -> Iterator[Callable[[], None]]:
    """What makes a new process one of the user's, in a group of the user's own."""
    above, group = ROOT / f"containust-test-{user.uid}", ROOT / f"containust-test-{user.uid}/session"
    group.mkdir(parents=True)
    for directory in (ROOT, above):
        (directory / "cgroup.subtree_control").write_text("+cpu +memory +pids")
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        os.chown(path, user.uid, user.uid)

    def become() -> None:
        # Where the first command moves the user's shell to, since groups with limits lie beside it.
        shell = group / "ctst" if (group / "ctst").exists() else group
        (shell / "cgroup.procs").write_text(str(os.getpid()))
        user.become()

    yield become
    for place, _, _ in os.walk(above, topdown=False):
        eventually(lambda here=Path(place): not (here / "cgroup.procs").read_text())
        os.rmdir(place)


def test_limits_hold_there(user: User, session: Callable[[], None]) -> None:
    def box(*words: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        done = user("run", "--rm", *options, "--image", BOX, "--", "sh", "-c", *words, preexec_fn=session)
        return done.status, done.out + done.err

    assert box("tail /dev/zero", options=("--memory", "24MiB"))[0] == 137
    status, said = box("for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait", options=("--pids", "5"))
    assert status != 0 and "fork" in said, said
    assert box("cat /sys/fs/cgroup/cpu.max", options=("--cpus", "0.5")) == (0, "50000 100000\n")
    user.clean()


def test_a_controller_that_is_not_delegated_is_named(user: User, session: Callable[[], None]) -> None:
    user.write(f'COMPONENT a {{ image = "{BOX}"\n command = ["true"]\n io_max = "1MiB" }}')
    done = user("run", preexec_fn=session)
    assert done.status == 1 and "error[R002]" in done.err and "io_max" in done.err, done
    user.clean()
