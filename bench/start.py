"""One container that runs ``/bin/true``, from the command's start to its end.

    python bench/start.py [--runs N] [--ctst PATH] [--only NAME,NAME] [--json FILE]

Interleaved, everybody in the same network and mount namespace, the image imported beforehand.
"""

from __future__ import annotations

import argparse
import os
import sys

from peers import engines
from peers.place import Place
from peers.timing import Case, interleave, report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between runs")
    parser.add_argument("--ctst", help="path of the ctst to measure")
    parser.add_argument("--only", default="", help="names, separated by commas")
    parser.add_argument("--json", help="write the raw times to this file")
    options = parser.parse_args()
    with Place() as place:
        cases = competitors(place, options.ctst, options.only)
        try:
            interleave(cases, options.runs, options.pause, place.scratch)
        finally:
            for daemon in DAEMONS:
                daemon.stop()
        report("one container, /bin/true, to its end", cases, "runc", options.json)


DAEMONS: list[engines.Dockerd] = []
TRUE = ["/bin/true"]


def competitors(place: Place, program: str | None, only: str) -> list[Case]:
    wanted = set(only.split(",")) if only else None

    def on(name: str) -> bool:
        return wanted is None or name in wanted

    cases: list[Case] = []
    if on("floor"):
        skipped = engines.missing("gcc")
        os.mkdir(f"{place.scratch}/floor-scratch")
        argv = [] if skipped else [engines.floor(place), place.rootfs, f"{place.scratch}/floor-scratch", *TRUE]
        note = "5 namespaces with network, overlay, proc; no user namespace, seccomp, capabilities, cgroup"
        cases.append(Case("floor", argv, note, skipped=skipped))
    if on("python"):
        cases.append(Case("python", [sys.executable, "-I", "-S", "-c", "pass"], "bare interpreter, no container"))
    if on("bwrap"):
        argv = ["bwrap", "--unshare-all", "--ro-bind", place.rootfs, "/", "--proc", "/proc", "--dev", "/dev"]
        note = "all namespaces, bind root; no seccomp, cgroup limits, id range"
        cases.append(Case("bwrap", [*argv, *TRUE], note, skipped=engines.missing("bwrap")))
    for runtime in ("runc", "crun"):
        if on(runtime):
            skipped = engines.missing(runtime)
            directory = "" if skipped else engines.bundle(place, runtime, TRUE, runtime)
            argv = [
                runtime,
                "--root",
                f"{place.scratch}/{runtime}",
                "run",
                "-b",
                directory,
                f"bench-{runtime}",
            ]
            note = "network, cgroup, seccomp, capabilities; no user namespace, no overlay, no address"
            cases.append(Case(runtime, argv, note, skipped=skipped))
    if on("podman"):
        skipped = engines.missing("podman", "runc")
        try:
            if not skipped:
                engines.podman(place)
        except OSError as error:
            skipped = str(error)
        argv = ["podman", "run", "--rm", "--network=none", "localhost/bench", *TRUE]
        note = "network namespace without address, seccomp; no user namespace"
        cases.append(Case("podman none", argv, note, environment=place.environment, skipped=skipped))
        argv = ["podman", "run", "--rm", "--network=podman", "localhost/bench", *TRUE]
        cases.append(
            Case("podman bridge", argv, "the same on a bridge", environment=place.environment, skipped=skipped)
        )
    if on("docker"):
        cases += docker(place)
    if on("ctst"):
        command, environment, skipped = engines.ctst(place, program)
        for network in ("none", "bridge"):
            argv = [
                *command,
                "run",
                "--rm",
                "--network",
                network,
                "--image",
                f"tar://{place.tar}",
                "--",
                *TRUE,
            ]
            note = f"everything on: user namespace, seccomp, capabilities, cgroup; network {network}"
            cases.append(Case(f"ctst {network}", argv, note, environment=environment, skipped=skipped))
    return cases


def docker(place: Place) -> list[Case]:
    skipped = engines.missing("docker", "dockerd", "iptables")
    environment = None
    try:
        if not skipped:
            DAEMONS.append(engines.Dockerd(place, bridge=True))
            environment = DAEMONS[-1].environment
    except OSError as error:
        skipped = str(error)
    cases = []
    for network in ("none", "bridge"):
        argv = ["docker", "run", "--rm", f"--network={network}", "bench", *TRUE]
        note = f"by its running daemon; seccomp; no user namespace; network {network}"
        cases.append(Case(f"docker {network}", argv, note, environment=environment, skipped=skipped))
    return cases


if __name__ == "__main__":
    main()
