"""``ctst`` as a user runs it, in a project and on a host of the test's own; and the proof that nothing is left of it.

The host's network is played by a network namespace that each test makes, so tests run at the same time and none touches
the machine's own. Everything else is real: mounts, namespaces, cgroups, processes.
"""

from __future__ import annotations

import glob
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from containust.core import syscalls as sc
from containust.runtime.process import start_ticks
from containust.runtime.project import project_id

FULL = bool(os.environ.get("CONTAINUST_FULL"))
MARK = "CONTAINUST_TEST_RUN"  # in the environment of every `ctst` of a test; a container never has it
SOURCE = str(Path(__file__).resolve().parent.parent / "src")
BOX = "host:///bin/busybox"
PYTHON = os.environ.get("CONTAINUST_TEST_PYTHON", "host:///usr/bin/python3")
IMAGES = os.environ.get("CONTAINUST_TEST_IMAGES")  # a store that each project begins with
PATIENCE = float(os.environ.get("CONTAINUST_TEST_PATIENCE", "1"))  # longer waits for what an emulated processor does

INSTALLED = os.path.join(os.path.dirname(sys.executable), "ctst")
FROM_SOURCE = f"import sys; sys.path.insert(0, {SOURCE!r})\nfrom containust.cli.main import run\nrun()"
COMMAND = [INSTALLED] if os.access(INSTALLED, os.X_OK) else [sys.executable, "-IS", "-c", FROM_SOURCE]


def eventually(condition: Callable[[], object], seconds: float = 15.0) -> Any:
    """Wait for what another process brings about; its truth."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def marked(token: str) -> list[int]:
    """Processes of `ctst` that carry ``token`` in their environment, zombies left out."""
    wanted = f"{MARK}={token}"
    return [pid for pid in pids() if wanted in read(f"/proc/{pid}/environ").split("\0")]


def kill(pids: list[int]) -> None:
    """SIGKILL, and wait until they have ended: a process holds its locks for longer than `marked` sees it."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(map(start_ticks, pids)))


def supervisors(token: str) -> list[int]:
    """Those of them without what they have just made: a probe that has not executed its program yet."""
    found = marked(token)
    parents = {pid: read(f"/proc/{pid}/status").partition("PPid:")[2].split()[:1] for pid in found}
    return [pid for pid, parent in parents.items() if parent and int(parent[0]) not in found]


def mounts(directory: str) -> list[str]:
    return [line for line in read("/proc/mounts").splitlines() if directory in line]


def loops(directory: str) -> list[str]:
    return [p for p in glob.glob("/sys/block/loop*/loop/backing_file") if directory in read(p)]


def groups(project: str) -> list[str]:
    return [
        path
        for pattern in ("/sys/fs/cgroup/containust", "/sys/fs/cgroup/*/containust")
        for path in glob.glob(f"{pattern}/{project}/**/", recursive=True)
    ]


class Done:
    """A command that has ended."""

    def __init__(self, words: tuple[str, ...], status: int, out: str, err: str) -> None:
        self.words, self.status, self.out, self.err = words, status, out, err

    def __repr__(self) -> str:
        return f"ctst {' '.join(self.words)}: {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"


def outcome(process: subprocess.Popen[bytes], words: tuple[str, ...], input: bytes | None, seconds: float) -> Done:
    """How a command ends, which it has to do in time and without a mistake of its own."""
    try:
        out, err = process.communicate(input, seconds * PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"no end after {seconds} s: {Done(words, -9, out.decode(), err.decode())!r}")
    done = Done(words, process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
    assert "Traceback" not in done.out + done.err, done
    assert "mistake of its own" not in done.err, done
    return done


class Ctst:
    """The command in one project directory. Calling it gives a :class:`Done`; ``ok`` also expects status 0."""

    def __init__(self, directory: Path, home: Path, token: str) -> None:
        self.directory, self.home, self.token = directory, home, token
        for base in (directory, home):
            base.mkdir(exist_ok=True)
            if IMAGES:
                (base / ".containust").mkdir(mode=0o700)
                subprocess.run(["cp", "-al", IMAGES, base / ".containust/images"], check=True)
        host = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "ip link set lo up; echo; exec sleep 600"], stdout=subprocess.PIPE
        )
        assert host.stdout is not None
        host.stdout.readline()
        self.network = os.open(f"/proc/{host.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        host.kill()
        host.wait()
        host.stdout.close()
        self.environ = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(home),
            MARK: token,
        }

    def enter(self) -> None:
        """Make the calling process one of this host's network."""
        sc.setns(self.network, sc.CLONE_NEWNET)

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        given: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": self.directory,
            "env": self.environ,
            "preexec_fn": self.enter,
            **options,
        }
        return subprocess.Popen([*COMMAND, *words], **given)

    def __call__(self, *words: str, input: bytes | None = None, seconds: float = 40, **options: Any) -> Done:
        if input is not None:
            options["stdin"] = subprocess.PIPE
        process = self.popen(*words, **options)
        return outcome(process, words, input, seconds)

    def ok(self, *words: str, **options: Any) -> str:
        done = self(*words, **options)
        assert done.status == 0, done
        return done.out

    def box(self, *command: str, options: tuple[str, ...] = (), **given: Any) -> Done:
        """``run --rm --image`` of busybox."""
        return self("run", "--rm", *options, "--image", BOX, "--", *command, **given)

    def shell(self, script: str, *options: str, **given: Any) -> Done:
        """A script for the shell of a busybox container."""
        return self.box("sh", "-c", script, options=options, **given)

    def on_host(self, *command: str) -> str:
        """Output of a program in the network namespace that plays the host."""
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=self.enter, check=False, timeout=20)
        return done.stdout

    def write(self, text: str, name: str = "containust.ctst") -> Path:
        path = self.directory / name
        path.write_text(textwrap.dedent(text))
        return path

    def rows(self, *words: str) -> dict[str, dict[str, Any]]:
        """``ps -a --json`` by name."""
        return {row["name"]: row for row in json.loads(self.ok("ps", "-a", "--json", *words))["containers"]}

    def events(self, *kinds: str) -> list[tuple[str, str]]:
        found = json.loads(self.ok("events", "--json"))["events"]
        return [(e["event"], e["container"]) for e in found if not kinds or e["event"] in kinds]

    def leftovers(self) -> list[str]:
        """What is on this host of the test's projects that only a running container may have."""
        found = []
        for base in (self.directory, self.home):
            project = os.path.realpath(base / ".containust")
            found += groups(project_id(project))
            found += mounts(project) + loops(project)
            found += [str(p) for p in (base / ".containust" / "run").rglob("*")]
        found += [f"process {pid}: {read(f'/proc/{pid}/cmdline')!r}" for pid in marked(self.token)]
        found += [line for line in self.on_host("ip", "-o", "link").splitlines() if ": ct" in line]
        found += [line for line in self.on_host("nft", "list", "tables").splitlines() if "containust" in line]
        return found

    def clean(self) -> bool:
        """Whether nothing is left; the kernel's own end of things may take a moment."""
        deadline = time.monotonic() + 5 * PATIENCE
        while self.leftovers():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def assert_clean(self) -> None:
        assert self.clean(), "\n".join(self.leftovers())

    def close(self) -> None:
        """Remove every container the test made, by our own command, and see that nothing is left."""
        try:
            for base in (self.directory, self.home):
                if (base / ".containust").exists() and {p.name for p in (base / ".containust").iterdir()} - {"images"}:
                    done = self("rm", "--force", cwd=base)
                    assert done.status == 0, done
            clean = self.clean()
            left = self.leftovers()
        finally:
            for pid in marked(self.token):
                os.kill(pid, signal.SIGKILL)
            for base in (self.directory, self.home):
                for group in groups(project_id(os.path.realpath(base / ".containust"))):
                    for word in read(f"{group}/cgroup.procs").split():
                        os.kill(int(word), signal.SIGKILL)
            os.close(self.network)
        assert clean, "left on the host:\n" + "\n".join(left)
