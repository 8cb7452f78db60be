"""What `ps` and `inspect` say a container uses is what the kernel says, read by hand under known load."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from containust.sdk.project import Project
from harness import PYTHON, Ctst, eventually, read

V1 = os.path.isdir("/sys/fs/cgroup/pids")
LOAD = """
import os, socket, threading, time
held = bytearray(48 << 20)
for at in range(0, len(held), 4096):
    held[at] = 1
for number in range(6):
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
receiver, sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(2000):
    sender.sendto(bytes(1000), (os.environ["PEER_HOST"], 9))
print("ready", flush=True)
while not os.path.exists("/tmp/over"):
    sum(range(10000))
print("over", flush=True)
time.sleep(1000)
"""
FILES = {  # of v1 and of v2
    "memory": ("memory/{}/memory.usage_in_bytes", "{}/memory.current"),
    "memory_peak": ("memory/{}/memory.max_usage_in_bytes", "{}/memory.peak"),
    "memory_limit": ("memory/{}/memory.limit_in_bytes", "{}/memory.max"),
    "pids": ("pids/{}/pids.current", "{}/pids.current"),
}


def by_hand(group: str, figure: str) -> int:
    return int(read("/sys/fs/cgroup/" + FILES[figure][0 if V1 else 1].format(group)))


def cpu_ns(group: str) -> int:
    if V1:
        return int(read(f"/sys/fs/cgroup/cpuacct/{group}/cpuacct.usage"))
    return int(read(f"/sys/fs/cgroup/{group}/cpu.stat").split()[1]) * 1000


@pytest.fixture
def loaded(ctst: Ctst) -> Ctst:
    """A container that holds memory, threads and a CPU, and has sent two megabytes."""
    program = json.dumps(["/usr/bin/python3", "-c", LOAD])
    ctst.write(f"""
        COMPONENT load {{
            image   = "{PYTHON}"
            memory  = "128MiB"
            command = {program}
        }}
        COMPONENT peer {{
            image   = "host:///bin/busybox"
            port    = 9
            command = ["sleep", "1000"]
        }}
        CONNECT load -> peer
    """)
    ctst.ok("run", "-d")
    eventually(lambda: "ready" in ctst.ok("logs", "load"), 60)
    return ctst


def test_cpu_of_a_busy_container_since_its_start_and_between_two_looks(loaded: Ctst) -> None:
    group = json.loads(loaded.ok("inspect", "load"))["cgroup"]
    project = Project.current(str(loaded.directory))
    ticks = json.loads(loaded.ok("inspect", "load"))["start_ticks"]
    begin = ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))

    def look() -> tuple[tuple[int, int], float, tuple[int, int]]:
        """Time and CPU time before it, what it says, time and CPU time after it."""
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME), cpu_ns(group)
        row: dict[str, Any] = next(row for row in project.ps() if row["name"] == "load")
        return before, row["cpu_percent"], (time.clock_gettime_ns(time.CLOCK_BOOTTIME), cpu_ns(group))

    first = look()
    time.sleep(1)
    second = look()
    assert first[0][1] / (first[2][0] - begin) * 95 <= first[1] <= first[2][1] / (first[0][0] - begin) * 105
    least = (second[0][1] - first[2][1]) / (second[2][0] - first[0][0])
    most = (second[2][1] - first[0][1]) / (second[0][0] - first[2][0])
    assert least * 95 <= second[1] <= most * 105
    assert second[1] > 1, "the load is one"


def test_memory_pids_and_network_of_a_container_at_rest(loaded: Ctst) -> None:
    loaded.ok("exec", "load", "--", "/usr/bin/python3", "-c", "open('/tmp/over', 'w')")
    eventually(lambda: "over" in loaded.ok("logs", "load"))
    group = json.loads(loaded.ok("inspect", "load"))["cgroup"]
    # `ps` in a network namespace of the test's own, where the host's ends of the interfaces are.
    row = loaded.rows()["load"]
    for figure in FILES:
        held = by_hand(group, figure)
        assert abs(row[figure] - held) <= held * 0.05, (figure, row[figure], held)
    assert row["memory"] > 48 << 20 and row["pids"] == 7
    script = "print(open('/proc/net/dev').read())"
    lines = loaded.ok("exec", "load", "--", "/usr/bin/python3", "-c", script).splitlines()
    (interface,) = [
        line.split() for line in lines if ":" in line and "lo:" not in line and not line.startswith("Inter")
    ]
    received, sent = int(interface[1]), int(interface[9])
    assert sent > 2_000_000
    assert abs(row["net_sent"] - sent) <= sent * 0.05
    assert abs(row["net_received"] - received) <= max(received * 0.05, 500)
    stats = json.loads(loaded.ok("inspect", "load"))["stats"]
    used = cpu_ns(group)
    assert abs(stats["cpu_ns"] - used) <= used * 0.05
    assert Path("/proc", str(row["pid"])).exists()


def test_events_replay_from_any_time(ctst: Ctst) -> None:
    ctst.write('COMPONENT a {\n image = "host:///bin/busybox"\n network = "none"\n command = ["sleep", "1000"]\n}\n')
    for words in (("run", "-d"), ("stop",), ("start",), ("restart",), ("rm", "--force")):
        ctst.ok(*words)
    events = json.loads(ctst.ok("events", "--json"))["events"]
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
    kinds = [event["event"] for event in events]
    assert kinds == ["created", "started", "stopped", "started", "stopped", "started", "stopped", "removed"]
    for number, event in enumerate(events):
        replayed = json.loads(ctst.ok("events", "--json", "--since", event["time"]))["events"]
        assert replayed == events[number:]
    follower = ctst.popen("events", "-f", "--json", "--since", events[2]["time"])
    assert follower.stdout is not None
    assert [json.loads(follower.stdout.readline()) for _ in events[2:]] == events[2:]
    ctst.ok("run", "-d")
    assert [json.loads(follower.stdout.readline())["event"] for _ in range(2)] == ["created", "started"]
    follower.terminate()
    follower.communicate()
