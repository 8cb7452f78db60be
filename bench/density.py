"""What one more container costs: time to start it beside 0, 10, 50, 200 others, and the memory watching it.

    python bench/density.py [--steps 10,50,200] [--runs N] [--ctst PATH] [--only NAME,NAME] [--json FILE]
Time is the median of ``--runs`` starts at each step. Memory is RSS and PSS of the processes that supervise,
without the containers' own: the supervisor of Containust, the daemon, containerd and shims of Docker.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable

from peers import engines
from peers.place import Place, descendants, memory, run
from peers.timing import Failed, spawn

DAEMONS: list[engines.Dockerd] = []
SLEEP = ["/bin/sleep", "1000000"]
CTST: list[str] = []
CTST_ENVIRONMENT: dict[str, str] = {}


class Subject:
    """A runtime under load: ``start(n)`` is the command for container ``n``, ``watchers`` its supervisors."""

    def __init__(
        self,
        name: str,
        start: Callable[[int], list[str]],
        watchers: Callable[[], list[int]],
        env: dict[str, str],
    ) -> None:
        self.name = name
        self.start = start
        self.watchers = watchers
        self.environment = env


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", default="10,50,200")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ctst", help="path of the ctst to measure")
    parser.add_argument("--only", default="ctst,docker,runc")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    steps = [int(step) for step in options.steps.split(",")]
    makers = {"ctst": lambda place: ctst(place, options.ctst), "docker": docker, "runc": runc}
    rows: list[dict[str, object]] = []
    # One runtime after the other, each in a place of its own: two hundred containers of one are enough at a
    # time.
    for name in options.only.split(","):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = measure(name, makers[name], steps, options.runs, options.json)
            finally:
                os._exit(code)
        os.waitpid(child, 0)
        path = f"{options.json}.{name}"
        if options.json and os.path.exists(path):
            with open(path) as file:
                rows += json.load(file)
            os.remove(path)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"title": "density", "rows": rows}, file, indent=1)


def measure(name: str, make: Callable[[Place], Subject], steps: list[int], runs: int, path: str | None) -> int:
    rows = []
    with Place() as place:
        try:
            subject = make(place)
            count = 0
            for step in [0, *steps]:
                while count < step:
                    spawn(subject.start(count), subject.environment, f"{place.scratch}/output")
                    count += 1
                times = []
                for _ in range(runs):
                    times.append(spawn(subject.start(count), subject.environment, f"{place.scratch}/output"))
                    count += 1
                resident, proportional = memory(subject.watchers())
                row = {
                    "name": name,
                    "beside": count - runs,
                    "milliseconds": times,
                    "rss_kib": resident,
                    "pss_kib": proportional,
                    "containers": count,
                }
                rows.append(row)
                print(
                    f"{name:8} beside {count - runs:4}: start {statistics.median(times):6.1f} ms; memory "
                    f"{resident / 1024:.1f} MiB RSS, {proportional / 1024:.1f} MiB PSS for {count}",
                    flush=True,
                )
        except (Failed, OSError) as error:
            print(f"{name:8} cannot run: {error}", flush=True)
        finally:
            if CTST:
                run(*CTST, "rm", "--force", environment=CTST_ENVIRONMENT)
            for daemon in DAEMONS:
                running = daemon.call("ps", "-q").split()
                if running:
                    daemon.call("rm", "-f", *running)
                daemon.stop()
    if path:
        with open(f"{path}.{name}", "w") as file:
            json.dump(rows, file)
    return 0


def need(reason: str) -> None:
    if reason:
        raise OSError(reason)


def runc(place: Place) -> Subject:
    """No supervision at all: the floor of the memory column."""
    need(engines.missing("runc"))

    def start(number: int) -> list[str]:
        directory = engines.bundle(place, f"n{number}", SLEEP)
        # Detached, the container inherits standard output; the shell keeps it off the benchmark's file.
        command = ["runc", "--root", f"{place.scratch}/runc", "run", "-d", "-b", directory, f"bench{number}"]
        return ["sh", "-c", 'exec "$@" >/dev/null 2>&1', "sh", *command]

    return Subject("runc", start, list, place.environment)


def docker(place: Place) -> Subject:
    need(engines.missing("docker", "dockerd", "iptables"))
    daemon = engines.Dockerd(place, bridge=True)
    DAEMONS.append(daemon)
    return Subject(
        "docker",
        lambda number: ["docker", "run", "-d", f"--name=b{number}", "bench", *SLEEP],
        lambda: [*daemon.processes(), *engines.shims()],
        daemon.environment,
    )


def ctst(place: Place, program: str | None) -> Subject:
    command, environment, reason = engines.ctst(place, program)
    need(reason)
    CTST.extend(command)
    CTST_ENVIRONMENT.update(environment)

    def start(number: int) -> list[str]:
        # --network bridge, as docker: each container has its own address.
        return [*command, "run", "-d", "--name", f"b{number}", "--image", f"tar://{place.tar}", "--", *SLEEP]

    def watchers() -> list[int]:
        """Everything of ours that is alive in the host's PID namespace: supervisors, not the containers."""
        mine = os.readlink("/proc/self/ns/pid")
        return [pid for pid in descendants(os.getpid()) if _namespace(pid) == mine]

    return Subject("ctst", start, watchers, environment)


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


if __name__ == "__main__":
    main()
