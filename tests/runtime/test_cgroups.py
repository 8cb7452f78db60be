"""Limits measured by what containers get done, through whichever cgroup version the host has.

On a hybrid host this goes through v1; tests/guest runs the same in a machine that has the unified hierarchy only.
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
# Counts while it runs; the count of a second of it is the work done.
COUNT = "import time\nn = 0\nend = time.monotonic() + 3\nwhile time.monotonic() < end: n += 1\nprint(n, flush=True)"


def group(ctst: Ctst, name: str, controller: str) -> Path:
    """The directory of a container's group, of ``controller`` where each has its own hierarchy."""
    path: str = json.loads(ctst.ok("inspect", name))["cgroup"]
    return ROOT / path if VERSION == 2 else ROOT / controller / path


def stats(ctst: Ctst, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ctst.ok("inspect", name))["stats"]
    return found


@pytest.mark.skipif(VERSION != 2, reason="the unified hierarchy only")
def test_controllers_are_enabled_all_the_way_down(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "a", "--network", "none", "--image", BOX, "--", "sleep", "1000")
    directory = group(ctst, "a", "")
    assert {"cpu", "io", "memory", "pids"} <= set((directory / "cgroup.controllers").read_text().split())
    while directory != ROOT:
        directory = directory.parent
        assert {"cpu", "io", "memory", "pids"} <= set((directory / "cgroup.subtree_control").read_text().split())


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


def test_shares_divide_a_busy_cpu(ctst: Ctst) -> None:
    component = """
        COMPONENT {name} {{
            image = "{image}"
            command = ["/usr/bin/python3", "-c", "import os; os.sched_setaffinity(0, [0]); exec(os.environ['CODE'])"]
            env = {{ CODE = {code} }}
            network = "none"
            cpu = {shares}
        }}
    """
    code = json.dumps(COUNT)
    ctst.write(
        component.format(name="much", image=PYTHON, code=code, shares=4096)
        + component.format(name="little", image=PYTHON, code=code, shares=256)
    )
    ctst.ok("run", str(ctst.directory / "containust.ctst"), cwd=ctst.directory)
    done = {name: int(ctst.ok("logs", name, cwd=ctst.directory).split()[-1]) for name in ("much", "little")}
    # 16 to 1 in shares; start and end are not shared, and the machine does other things too.
    assert done["much"] > 2 * done["little"], done


def test_written_bytes_are_accounted(ctst: Ctst) -> None:
    mounted = Path("/mnt/disk")  # a block device of its own in the guest
    directory = mounted if mounted.is_mount() else ctst.directory
    script = (
        "import mmap, os, time\n"
        "f = os.open('/data/f', os.O_WRONLY | os.O_CREAT | os.O_DIRECT)\n"
        "for _ in range(16): os.write(f, mmap.mmap(-1, 1 << 20))\n"
        "os.fsync(f)\nprint('written', flush=True)\ntime.sleep(1000)"
    )
    (directory / "data").mkdir(exist_ok=True)
    ctst.write(f"""
        COMPONENT a {{
            image = "{PYTHON}"
            command = ["/usr/bin/python3", "-c", {json.dumps(script)}]
            volume = "{directory}/data:/data"
            network = "none"
            io_weight = 200
        }}
    """)
    done = ctst("run", "-d", str(ctst.directory / "containust.ctst"), cwd=ctst.directory)
    if done.status and "R002" in done.err:  # no proportional weight in this kernel: refused, never ignored
        ctst.write((ctst.directory / "containust.ctst").read_text().replace("io_weight = 200", ""))
        ctst.ok("run", "-d", str(ctst.directory / "containust.ctst"), cwd=ctst.directory)
    else:
        assert done.status == 0, done
        files = [group(ctst, "a", "blkio") / name for name in ("io.weight", "io.bfq.weight", "blkio.bfq.weight")]
        assert any("200" in file.read_text() or "20" in file.read_text() for file in files if file.exists())
    assert eventually(lambda: "written" in ctst.ok("logs", "a", cwd=ctst.directory))
    io_write = stats(ctst, "a")["io_write"]
    if VERSION == 2:
        assert 16 << 20 <= io_write < 20 << 20
        ctst.ok("rm", "--force", cwd=ctst.directory)
        (directory / "data/f").unlink()


def test_pressure_is_reported_where_the_kernel_accounts_it(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "a", "--network", "none", "--image", BOX, "--", "sleep", "1000")
    row = ctst.rows()["a"]
    accounted = VERSION == 2 and Path("/proc/pressure/cpu").exists()
    for resource in ("cpu", "memory", "io"):
        value = row[f"{resource}_pressure"]
        assert (value is not None and 0 <= value <= 100) if accounted else value is None


@pytest.mark.skipif(VERSION != 2, reason="the unified hierarchy only: containers join no v1 freezer")
def test_a_frozen_container_can_be_killed(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "a", "--network", "none", "--image", BOX, "--", "sleep", "1000")
    pid, directory = ctst.rows()["a"]["pid"], group(ctst, "a", "")
    (directory / "cgroup.freeze").write_text("1")
    assert eventually(lambda: "frozen 1" in (directory / "cgroup.events").read_text())
    ctst.ok("stop", "--force", "a")
    assert not Path(f"/proc/{pid}").exists()
    ctst.assert_clean()


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


@pytest.mark.skipif(VERSION != 2, reason="the unified hierarchy only: on v1 the devices controller is not used")
def test_a_device_off_the_list_cannot_be_used_even_by_the_host_s_root(ctst: Ctst) -> None:
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
            capabilities = ["MKNOD"]
            seccomp = "unconfined"
        }}
    """)
    ctst.ok("run", str(ctst.directory / "containust.ctst"), cwd=ctst.directory)
    said = ctst.ok("logs", "a", cwd=ctst.directory)
    assert "null made" in said and "kmsg mknod 1" in said and "vda mknod 1" in said, said
