"""Fixtures of every test that runs the command, and the proof that a test run leaves nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from containust.runtime.project import project_id
from guest import plugin as guest
from harness import Ctst, groups, loops, marked, mounts, pids, read

# Who starts the tests in the background of a script has them ignore Ctrl+C, and with them all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_made: list[tuple[str, str]] = []  # (directory, token) of every Ctst of this worker


@pytest.fixture
def ctst(tmp_path: Path) -> Iterator[Ctst]:
    token = f"{os.getpid()}-{len(_made)}"
    one = Ctst(tmp_path / "project", tmp_path / "home", token)
    _made.extend((str(base), token) for base in (one.directory, one.home))
    yield one
    one.close()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Everything below this worker's own base directory is its own: nothing of it may outlive the session."""
    base = os.path.realpath(tmp_path_factory.getbasetemp())

    def links() -> set[str]:
        return {n for n in os.listdir("/sys/class/net") if n.startswith("ct")}

    before = set(mounts(base)), links()
    yield
    left = [line for line in mounts(base) if line not in before[0]] + loops(base)
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        left += sorted(links() - before[1])
    for directory, token in _made:
        left += groups(project_id(os.path.realpath(f"{directory}/.containust")))
        left += [f"process {pid}" for pid in marked(token)]
    for pid in pids():
        if pid != os.getpid():
            try:
                where = os.readlink(f"/proc/{pid}/cwd")
            except OSError:
                continue
            if where.startswith(base):
                left.append(f"process {pid} in {where}: {read(f'/proc/{pid}/cmdline')!r}")
    assert not left, "left at the end of the session:\n" + "\n".join(left)


# What may be skipped where CI=true, by the beginning of its reason; anything else that is skipped fails the run.
ALLOWED_SKIPS: tuple[str, ...] = ()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """The plugin that runs tests in another machine."""
    config.pluginmanager.register(guest, "guest")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a CI run that skipped something it should not have."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return
    reasons = [str(report.longrepr[2]).removeprefix("Skipped: ") for report in reporter.stats.get("skipped", [])]
    forbidden = [reason for reason in reasons if not reason.startswith(ALLOWED_SKIPS)]
    if forbidden and session.exitstatus == 0:
        reporter.write_line(f"skipped on CI without being allowed to: {'; '.join(forbidden)}", red=True)
        session.exitstatus = 1
