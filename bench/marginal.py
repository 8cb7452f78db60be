"""What one more service of a stack costs: stacks of several sizes up in one command, against C and netlink.

    python bench/marginal.py [--steps 10,50,200] [--runs N] [--ctst PATH]

The cost is how much longer a larger stack takes, divided by how many services it has more. Beside it stand the two
things that no runtime can leave out: ``floor.c`` once a container, and a veth pair in a netlink batch of ``ip``.
Memory is that of the one supervisor.
"""

from __future__ import annotations

import argparse
import os
import statistics

from peers import engines
from peers.place import Place, descendants, memory, run
from peers.timing import spawn

VETHS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", default="10,50,200")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ctst", help="path of the ctst to measure")
    options = parser.parse_args()
    steps = [int(step) for step in options.steps.split(",")]
    with Place() as place:
        command, environment, skipped = engines.ctst(place, options.ctst)
        if skipped:
            raise SystemExit(skipped)
        floor, veth = needed(place, options.runs)
        print(f"C {floor:.2f} ms, veth {veth:.2f} ms: one more container needs {floor + veth:.2f} ms")
        before = (0, 0.0)
        for step in [1, *steps]:
            file = f"{place.scratch}/ctst/containust.ctst"
            engines.write_stack(file, step, place.tar)
            times, supervisor = [], (0, 0)
            for _ in range(options.runs + 1):  # the first does not count
                times.append(spawn([*command, "run", "-d"], environment, f"{place.scratch}/output"))
                supervisor = memory(supervisors())
                run(*command, "rm", "--force", environment=environment)
            up = statistics.median(times[1:])
            each = (up - before[1]) / (step - before[0])
            print(
                f"{step:4} services up in {up:7.1f} ms, {each:5.2f} ms for each more "
                f"({each / (floor + veth):.2f} x); supervisor {supervisor[0] / 1024:.1f} MiB RSS, "
                f"{supervisor[1] / 1024:.1f} MiB PSS",
                flush=True,
            )
            before = (step, up)


def needed(place: Place, runs: int) -> tuple[float, float]:
    """Milliseconds that the C floor takes, and a veth pair between a bridge and another network namespace."""
    os.mkdir(f"{place.scratch}/floor-scratch")
    argv = [engines.floor(place), place.rootfs, f"{place.scratch}/floor-scratch", "/bin/true"]
    floor = statistics.median(spawn(argv) for _ in range(runs * 5))
    run("ip", "netns", "add", "bench")
    batch = f"{place.scratch}/batch"
    empty = f"{place.scratch}/empty"
    with open(batch, "w") as file:
        for number in range(VETHS):
            file.write(f"link add v{number} master bench type veth peer name e{number} netns bench\n")
    with open(empty, "w"):
        pass
    run("ip", "link", "add", "bench", "type", "bridge")
    try:
        nothing = statistics.median(spawn(["ip", "-batch", empty]) for _ in range(runs))
        return floor, (spawn(["ip", "-batch", batch]) - nothing) / VETHS
    finally:
        run("ip", "link", "del", "bench")
        run("ip", "netns", "del", "bench")


def supervisors() -> list[int]:
    """Processes of ours in the host's PID namespace."""
    mine = os.readlink("/proc/self/ns/pid")
    found = []
    for pid in descendants(os.getpid()):
        try:
            if os.readlink(f"/proc/{pid}/ns/pid") == mine:
                found.append(pid)
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()
