"""One container's start with each wall on and off, beside runc.

    python bench/walls.py [--runs N] [--pause SECONDS] [--json FILE]

Every case of ours is started alike, by this interpreter from the sources beside this script; what a wall costs is the
difference from the line "all on". "off" replaces the wall's system calls by nothing, which no file can do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys

from peers import engines
from peers.place import Place
from peers.timing import Case, interleave, report

SOURCE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src")
START = """
import gc, sys
gc.disable()
sys.path.insert(0, {source!r})
from containust.cli.main import run
from containust.common import types
from containust.core import capability, landlock, seccomp, syscalls
from containust.core.filesystem import rootfs
{patch}
run()
"""
USER = """
def apply(prepared, uid):
    capability.check(capability.syscall(capability._NR_SETRESUID, uid, uid, uid), "setresuid", uid)
    capability.prctl(capability.PR_SET_NO_NEW_PRIVS, 1)
capability.apply = apply
"""
CGROUP = """
from containust.core.cgroup import v1
v1.ALWAYS = ()
v1.V1Manager.controllers = property(lambda self: (), lambda self, value: None)
"""
WALLS = {
    "userns": 'types.COMPONENT_DEFAULTS["userns"] = "host"',
    "seccomp": "seccomp.load = lambda filter: None",
    "landlock": "landlock.ruleset = lambda *given: None",
    "capabilities": USER,
    "cgroup": CGROUP,
    "masks": "rootfs.mask = lambda *given: None",
}
TRUE = ["/bin/true"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between runs")
    parser.add_argument("--json", help="write the raw times to this file")
    options = parser.parse_args()
    with Place() as place:
        patches = {"all on": "", **{f"without {name}": patch for name, patch in WALLS.items()}}
        patches["all off"] = "\n".join(WALLS.values())
        cases = [case(place, name, patch) for name, patch in patches.items()]
        skipped = engines.missing("runc")
        bundle = "" if skipped else engines.bundle(place, "runc", TRUE, "runc")
        argv = ["runc", "--root", f"{place.scratch}/runc", "run", "-b", bundle, "bench-runc"]
        cases.append(Case("runc", argv, "no user namespace, no overlay, no address, no Landlock", skipped=skipped))
        interleave(cases, options.runs, options.pause, place.scratch)
        report("one container, /bin/true, by walls", cases, "runc", options.json)
        differences(cases)


def case(place: Place, name: str, patch: str) -> Case:
    directory = f"{place.scratch}/ctst"
    os.makedirs(directory, exist_ok=True)
    program = START.format(source=SOURCE, patch=patch)
    words = ["-C", directory, "run", "--rm", "--image", f"tar://{place.tar}", "--", *TRUE]
    return Case(
        name, [sys.executable, "-IS", "-c", program, *words], "no bundle of bytecode", environment=place.environment
    )


def differences(cases: list[Case]) -> None:
    """What each wall adds, in milliseconds of the medians."""
    whole = next(case for case in cases if case.name == "all on")
    if not whole.times:
        return
    print("\nwhat each wall adds to a start, ms (difference of the medians)\n")
    for one in cases:
        if one.name.startswith(("without", "all off")) and one.times:
            added = statistics.median(whole.times) - statistics.median(one.times)
            print(f"{one.name.removeprefix('without '):14} {added:7.2f}")


if __name__ == "__main__":
    main()
