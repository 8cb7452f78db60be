"""Limits measured by what containers get done, through whichever cgroup version the host has.

On a hybrid host this goes through v1; tests/guest runs the same in a machine that has the unified hierarchy only, where
what is marked ``unified`` runs too.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from containust.core.cgroup import detect
from harness import BOX, PYTHON, Ctst, eventually

VERSION = detect().version
ROOT = Path("/sys/fs/cgroup")
SLOW = Path("/mnt/slow")  # a disk of the guest that weighs (BFQ) and is slow enough for it to matter
# Waits for the other one, then counts for a while: the count is the work done beside it.
COUNT = """
import os, time
os.sched_setaffinity(0, [0])
open('/meet/' + os.environ['NAME'], 'w').close()
while len(os.listdir('/meet')) < 2: time.sleep(0.01)
n, end = 0, time.monotonic() + 3
while time.monotonic() < end: n += 1
print(n, flush=True)
"""


def group(ctst: Ctst, name: str, controller: str) -> Path:
    """The directory of a container's group, of ``controller`` where each has its own hierarchy."""
    path: str = json.loads(ctst.ok("inspect", name))["cgroup"]
    return ROOT / path if VERSION == 2 else ROOT / controller / path


def stats(ctst: Ctst, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ctst.ok("inspect", name))["stats"]
    return found


@pytest.mark.unified
def test_controllers_are_enabled_all_the_way_down(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "a", "--network", "none", "--image", BOX, "--", "sleep", "1000")
    directory = group(ctst, "a", "")
    assert {"cpu", "io", "memory", "pids"} <= set((directory / "cgroup.controllers").read_text().split())
    while directory != ROOT:
        directory = directory.parent
        assert {"cpu", "io", "memory", "pids"} <= set((directory / "cgroup.subtree_control").read_text().split())


@pytest.mark.guest
def test_every_limit_stands_in_its_file(ctst: Ctst) -> None:
    ctst.write(f"""
        COMPONENT a {{
            image = "{BOX}"
            command = ["sleep", "1000"]
            network = "none"
            memory = "64MiB"
            cpus = "1.5"
            cpu = 512
            pids = 20
        }}
    """)
    ctst.ok("run", "-d", str(ctst.directory / "containust.ctst"), cwd=ctst.directory)
    expected = {
        2: [
            ("memory", "memory.max", str(64 << 20)),
            ("memory", "memory.swap.max", "0"),
            ("memory", "memory.oom.group", "1"),
            ("cpu", "cpu.max", "150000 100000"),
            ("cpu", "cpu.weight", "59"),
            ("pids", "pids.max", "20"),
        ],
        1: [
            ("memory", "memory.limit_in_bytes", str(64 << 20)),
            ("cpu", "cpu.cfs_quota_us", "150000"),
            ("cpu", "cpu.cfs_period_us", "100000"),
            ("cpu", "cpu.shares", "512"),
            ("pids", "pids.max", "20"),
        ],
    }[VERSION]
    found = [(c, name, (group(ctst, "a", c) / name).read_text().strip()) for c, name, _ in expected]
    assert found == expected


@pytest.mark.guest
def test_a_quota_bounds_the_cpu_time_used(ctst: Ctst) -> None:
    ctst.ok(
        *("run", "-d", "--name", "a", "--network", "none", "--cpus", "0.2", "--image", BOX, "--"),
        *("sh", "-c", "while :; do :; done"),
    )
    before, start = stats(ctst, "a")["cpu_ns"], time.monotonic_ns()
    time.sleep(2)
    used, passed = stats(ctst, "a")["cpu_ns"] - before, time.monotonic_ns() - start
    # At most the quota, with a period's slack at either end; more than nothing, on however busy a machine.
    assert 0 < used <= 0.2 * passed + 2 * 0.2 * 100e6
    ctst.ok("rm", "--force", "a")


@pytest.mark.guest
def test_shares_divide_a_busy_cpu(ctst: Ctst) -> None:
    for name, shares in (("much", 4096), ("little", 256)):
        with open(ctst.directory / "containust.ctst", "a") as file:
            file.write(f"""
                COMPONENT {name} {{
                    image = "{PYTHON}"
                    command = ["/usr/bin/python3", "-c", {json.dumps(COUNT)}]
                    env = {{ NAME = "{name}" }}
                    volume = "meeting:/meet"
                    network = "none"
                    cpu = {shares}
                }}
            """)
    ctst.ok("run", str(ctst.directory / "containust.ctst"), cwd=ctst.directory)
    done = {name: int(ctst.ok("logs", name, cwd=ctst.directory).split()[-1]) for name in ("much", "little")}
    # 16 to 1 in shares; start and end are not shared, and the machine does other things too.
    assert done["much"] > 2 * done["little"], done


def test_written_bytes_are_accounted(ctst: Ctst) -> None:
    script = (
        "import mmap, os, time\n"
        "f = os.open('/data/f', os.O_WRONLY | os.O_CREAT | os.O_DIRECT)\n"
        "for _ in range(16): os.write(f, mmap.mmap(-1, 1 << 20))\n"
        "os.fsync(f)\nprint('written', flush=True)\ntime.sleep(1000)"
    )
    ctst.write(f"""
        COMPONENT a {{
            image = "{PYTHON}"
            command = ["/usr/bin/python3", "-c", {json.dumps(script)}]
            volume = "data:/data"
            network = "none"
        }}
    """)
    ctst.ok("run", "-d", str(ctst.directory / "containust.ctst"), cwd=ctst.directory)
    assert eventually(lambda: "written" in ctst.ok("logs", "a", cwd=ctst.directory))
    if VERSION == 2:
        assert 16 << 20 <= stats(ctst, "a")["io_write"] < 20 << 20


@pytest.mark.unified
def test_a_weight_divides_a_busy_disk(ctst: Ctst) -> None:
    """Bytes that two containers write side by side."""
    if not SLOW.is_mount():
        pytest.skip("no disk that weighs")
    script = """
import mmap, os, time
name, page = os.environ['NAME'], mmap.mmap(-1, 1 << 17)
f = os.open('/data/' + name, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
for n in range(4): os.pwrite(f, page, n << 17)
open('/data/ready ' + name, 'w').close()
while len(os.listdir('/data')) < 4: time.sleep(0.01)
reader, writer = os.pipe()
for n in range(4):  # several at once, so that the disk always has something of it to do
    if os.fork() == 0:
        done, end = 0, time.monotonic() + 5
        while time.monotonic() < end: done += os.pwrite(f, page, n << 17)
        os.write(writer, b'%d ' % done)
        os._exit(0)
os.close(writer)
for n in range(4): os.wait()
print(sum(map(int, os.read(reader, 100).split())), flush=True)
time.sleep(1000)
"""
    data = SLOW / "data"
    data.mkdir()
    for name, weight in (("much", 1000), ("little", 50)):
        with open(ctst.directory / "containust.ctst", "a") as file:
            file.write(f"""
                COMPONENT {name} {{
                    image = "{PYTHON}"
                    command = ["/usr/bin/python3", "-c", {json.dumps(script)}]
                    env = {{ NAME = "{name}" }}
                    volume = "{data}:/data"
                    network = "none"
                    io_weight = {weight}
                }}
            """)
    data.chmod(0o777)
    ctst.ok("run", "-d", str(ctst.directory / "containust.ctst"), cwd=ctst.directory)
    for name, weight in (("much", 1000), ("little", 50)):
        held = {file: (group(ctst, name, "") / file).read_text() for file in ("io.weight", "io.bfq.weight")}
        assert held == dict.fromkeys(held, f"default {weight}\n")

    names = ("much", "little")
    said = eventually(lambda: all(map(str.strip, said := [ctst.ok("logs", name) for name in names])) and said)
    done = {name: int(text) for name, text in zip(names, said, strict=True)}
    assert done["much"] > 2 * done["little"] > 0, done
    for name in names:  # and the group has been charged with it
        assert done[name] <= stats(ctst, name)["io_write"] < done[name] + (4 << 20)
    ctst.ok("rm", "--force")


@pytest.mark.guest
def test_a_bound_of_disk_access_holds_for_the_bytes_written(ctst: Ctst) -> None:
    script = """
import mmap, os, time
page = mmap.mmap(-1, 1 << 18)
f = os.open('/data/f', os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
start = time.monotonic()
done = 0
while time.monotonic() < start + 3: done += os.pwrite(f, page, 0)
print(done, time.monotonic() - start, flush=True)
time.sleep(1000)
"""
    ctst.write(f"""
        COMPONENT a {{
            image = "{PYTHON}"
            command = ["/usr/bin/python3", "-c", {json.dumps(script)}]
            volume = "data:/data"
            network = "none"
            io_max = "4MiB"
        }}
    """)
    ctst.ok("run", "-d")
    names = ["io.max"] if VERSION == 2 else [f"blkio.throttle.{way}_bps_device" for way in ("read", "write")]
    for name in names:
        assert str(4 << 20) in (group(ctst, "a", "blkio") / name).read_text()
    said = eventually(lambda: ctst.ok("logs", "a")).split()
    # With what the kernel lets through at once; programs are read under the same bound.
    assert 0 < int(said[0]) <= (4 << 20) * (float(said[1]) + 1), said
    assert ctst.ok("plan").count("drift") == 0
    ctst.ok("rm", "--force")


@pytest.mark.guest
def test_pressure_is_reported_where_the_kernel_accounts_it(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "a", "--network", "none", "--image", BOX, "--", "sleep", "1000")
    row = ctst.rows()["a"]
    accounted = VERSION == 2 and Path("/proc/pressure/cpu").exists()
    for resource in ("cpu", "memory", "io"):
        value = row[f"{resource}_pressure"]
        assert (value is not None and 0 <= value <= 100) if accounted else value is None


@pytest.mark.unified
def test_a_frozen_container_can_be_killed(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "a", "--network", "none", "--image", BOX, "--", "sleep", "1000")
    pid, directory = ctst.rows()["a"]["pid"], group(ctst, "a", "")
    (directory / "cgroup.freeze").write_text("1")
    assert eventually(lambda: "frozen 1" in (directory / "cgroup.events").read_text())
    ctst.ok("stop", "--force", "a")
    assert not Path(f"/proc/{pid}").exists()
    ctst.assert_clean()


@pytest.mark.guest
def test_a_fork_bomb_that_ignores_signals_ends_at_once(ctst: Ctst) -> None:
    bomb = "import os, signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    ctst.ok(
        *("run", "-d", "--name", "a", "--network", "none", "--pids", "40", "--image", PYTHON, "--"),
        *("/usr/bin/python3", "-c", bomb),
    )
    assert eventually(lambda: (stats(ctst, "a")["pids"] or 0) > 5)
    ctst.ok("stop", "--timeout", "0.2", "a")
    ctst.ok("rm", "a")
    ctst.assert_clean()


@pytest.mark.unified
def test_a_device_off_the_list_cannot_be_used_even_by_the_hosts_root(ctst: Ctst) -> None:
    """The filter alone: SYS_PTRACE goes without Landlock, which would forbid making nodes."""
    script = """
import os, stat
nodes = ("null", stat.S_IFCHR, (1, 3)), ("kmsg", stat.S_IFCHR, (1, 11)), ("vda", stat.S_IFBLK, (254, 0))
for name, kind, device in nodes:
    try:
        os.mknod(f"/tmp/{name}", kind | 0o600, os.makedev(*device))
    except OSError as error:
        print(name, "mknod", error.errno)
    else:
        print(name, "made")
"""
    ctst.write(f"""
        COMPONENT a {{
            image = "{PYTHON}"
            command = ["/usr/bin/python3", "-c", {json.dumps(script)}]
            network = "none"
            userns = "host"
            capabilities = ["MKNOD", "SYS_PTRACE"]
            seccomp = "unconfined"
        }}
    """)
    ctst.ok("run", str(ctst.directory / "containust.ctst"), cwd=ctst.directory)
    said = ctst.ok("logs", "a", cwd=ctst.directory)
    assert "null made" in said and "kmsg mknod 1" in said and "vda mknod 1" in said, said
