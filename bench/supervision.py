"""What the figures of supervision are: health to dependent, stop of ten, ps of two hundred, ps --watch.

    python bench/supervision.py [--runs N] [--containers N] [--ctst PATH] [--json FILE]

Each is that of the commands a user runs, from their start to their end; the time from a dependency's health to its
dependent's start is that between the two events. CPU time is given beside: a machine with other work moves it less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

OBEYS = """["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"]"""
HEALTH = """
COMPONENT db {
    image       = "host:///bin/busybox"
    command     = ["sh", "-c", "sleep 0.3; touch /tmp/up; exec sleep 1000"]
    healthcheck = { command = ["test", "-e", "/tmp/up"] }
}
COMPONENT web {
    image   = "host:///bin/busybox"
    command = ["sleep", "1000"]
}
CONNECT web -> db
"""
WATCHED = 10.0  # seconds
OWN_NETWORK = "CONTAINUST_BENCH_NETWORK"


class Bench:
    """The command in a project of its own, and the figures so far: unit and values by name."""

    def __init__(self, ctst: str, directory: str) -> None:
        self.ctst = ctst
        self.directory = directory
        self.figures: dict[str, tuple[str, list[float]]] = {}

    def run(self, *words: str) -> str:
        done = subprocess.run([self.ctst, *words], cwd=self.directory, check=True, capture_output=True, text=True)
        return done.stdout

    def timed(self, name: str, *words: str) -> None:
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        self.run(*words)
        wall = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self.add(name, "ms", wall * 1000)
        self.add(f"{name}, CPU time", "ms", cpu * 1000)

    def add(self, name: str, unit: str, value: float) -> None:
        self.figures.setdefault(name, (unit, []))[1].append(value)

    def write(self, text: str) -> None:
        Path(self.directory, "containust.ctst").write_text(text)

    def report(self) -> None:
        for name, (unit, values) in self.figures.items():
            print(f"{name:40} best {min(values):7.1f}  median {statistics.median(values):7.1f} {unit}  ({len(values)})")


def stack(count: int, command: str) -> str:
    """Independent services without network."""
    body = f' image = "host:///bin/busybox"\n network = "none"\n command = {command}\n'
    return "".join(f"COMPONENT s{number} {{\n{body}}}\n" for number in range(count))


def health(bench: Bench) -> None:
    bench.write(HEALTH)
    known = len(json.loads(bench.run("events", "--json"))["events"])
    bench.run("run", "-d")
    events = json.loads(bench.run("events", "--json"))["events"][known:]
    times = {(e["event"], e["container"]): datetime.fromisoformat(e["time"][:26]) for e in events}
    delay = times["started", "web"] - times["healthy", "db"]
    bench.add("from healthy to the dependent's start", "ms", delay.total_seconds() * 1000)
    bench.run("rm", "--force")


def stop(bench: Bench) -> None:
    bench.run("run", "-d")
    time.sleep(0.3)
    bench.timed("stop of ten that obey", "stop")


def watch(bench: Bench, name: str) -> None:
    watcher = subprocess.Popen([bench.ctst, "ps", "--watch"], cwd=bench.directory, stdout=subprocess.DEVNULL)
    time.sleep(1)
    before, begin = cpu_seconds(watcher.pid), time.monotonic()
    time.sleep(WATCHED)
    share = (cpu_seconds(watcher.pid) - before) / (time.monotonic() - begin)
    watcher.terminate()
    watcher.wait()
    bench.add(name, "% of a core", 100 * share)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--containers", type=int, default=200, help="how many ps lists")
    parser.add_argument("--ctst", default=shutil.which("ctst"), help="path of the ctst to measure")
    parser.add_argument("--json", help="write the raw figures to this file")
    options = parser.parse_args()
    if OWN_NETWORK not in os.environ:  # no link or rule of the host's is touched
        os.environ[OWN_NETWORK] = "1"
        inside = ["sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, *sys.argv]
        os.execvp("unshare", ["unshare", "-n", *inside])
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        bench = Bench(os.path.abspath(options.ctst), directory)
        try:
            for _ in range(options.runs):
                health(bench)
            bench.write(stack(10, OBEYS))
            for _ in range(options.runs):
                stop(bench)
            bench.run("run", "-d")
            watch(bench, "ps --watch of 10")
            bench.run("rm", "--force")
            bench.write(stack(options.containers, '["sleep", "1000000"]'))
            bench.run("run", "-d")
            for _ in range(options.runs):
                bench.timed(f"ps of {options.containers}", "ps")
            watch(bench, f"ps --watch of {options.containers}")
        finally:
            bench.run("rm", "--force")
        bench.report()
        if options.json:
            Path(options.json).write_text(json.dumps({"title": "supervision", "figures": bench.figures}, indent=1))


if __name__ == "__main__":
    main()
