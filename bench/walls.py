"""One container's start with each wall on and off, beside runc.

    python bench/walls.py [--ctst PATH] [--runs N] [--pause SECONDS] [--json FILE]

The first line is the installed command; the others are the same code with its bundle of bytecode, started by hand so
that a wall can be taken away: "off" leaves out the wall's system calls, which no file can do. What a wall costs is the
difference from the line "all on".
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess

from peers import engines
from peers.place import Place
from peers.timing import Case, interleave, report

START = """
import gc, marshal, posix, sys
gc.disable()
packages = {packages!r}
sys.path.append(packages)
file = posix.open(f"{{packages}}/containust/__pycache__/run-image.{{sys.implementation.cache_tag}}.bundle", 0)
linker, extensions, modules = marshal.loads(posix.read(file, posix.fstat(file).st_size))
posix.close(file)
exec(linker)
assert link(extensions, modules, packages)
from containust.cli.main import run
from containust.common import types
from containust.core import capability, landlock, seccomp, syscalls
from containust.core.filesystem import rootfs
{patch}
run()
"""
USER = """
def apply(calls, prepared, uid):
    calls.setresuid(uid)
    calls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
capability.apply = apply
"""
CGROUP = """
from containust.core.cgroup import v1
v1.ALWAYS = ()
v1.V1Manager.controllers = property(lambda self: (), lambda self, value: None)
"""
WALLS = {
    "userns": 'types.COMPONENT_DEFAULTS["userns"] = "host"',
    "seccomp": "seccomp.load = lambda *given: None",
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
    parser.add_argument("--ctst", help="path of the ctst to measure")
    options = parser.parse_args()
    with Place() as place:
        command, environment, skipped = engines.ctst(place, options.ctst)
        if skipped:
            parser.error(skipped)
        image = ["run", "--rm", "--image", f"tar://{place.tar}", "--", *TRUE]
        subprocess.run([*command, *image], check=True, env=environment)  # imports it, and writes the bundle
        subprocess.run([*command, *image], check=True, env=environment)
        installed = Case("ctst", [*command, *image], "all on, as installed", environment=environment)
        patches = {"all on": "", **{f"without {name}": patch for name, patch in WALLS.items()}}
        patches["all off"] = "\n".join(WALLS.values())
        programs = {name: program(command[0], patch) for name, patch in patches.items()}
        cases = [installed]
        for name, words in programs.items():
            cases.append(Case(name, [*words, *command[1:], *image], "", environment=environment))
        skipped = engines.missing("runc")
        bundle = "" if skipped else engines.bundle(place, "runc", TRUE, "runc")
        argv = ["runc", "--root", f"{place.scratch}/runc", "run", "-b", bundle, "bench-runc"]
        cases.append(Case("runc", argv, "no user namespace, no overlay, no address, no Landlock", skipped=skipped))
        interleave(cases, options.runs, options.pause, place.scratch)
        report("one container, /bin/true, by walls", cases, "runc", options.json)
        differences(cases)


def program(ctst: str, patch: str) -> list[str]:
    """The interpreter of the installed ``ctst``, with its code but for what ``patch`` takes away."""
    place = os.path.dirname(os.path.dirname(os.path.realpath(ctst)))
    python = f"{place}/bin/python3"
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return [python, "-IS", "-c", START.format(packages=found.stdout.strip(), patch=patch)]


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
