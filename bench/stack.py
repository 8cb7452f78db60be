"""Ten sleeping services on a bridge: ``up -d`` and ``down``, from the command's start to its end.

python bench/stack.py [--runs N] [--services N] [--ctst PATH] [--only NAME,NAME] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

from peers import engines
from peers.place import Place, descendants, run
from peers.timing import Case, interleave, report

DAEMONS: list[engines.Dockerd] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--services", type=int, default=10)
    parser.add_argument("--ctst", help="path of the ctst to measure")
    parser.add_argument("--only", default="", help="of ctst, compose, podman-compose, separated by commas")
    parser.add_argument("--json", help="write the raw times to this file; up and down get their suffixes")
    options = parser.parse_args()
    with Place() as place:
        try:
            pairs = competitors(place, options.services, options.ctst, options.only)
            cases = [case for pair in pairs for case in pair]
            skip_together(pairs, options.services)
            interleave(cases, options.runs, 0.0, place.scratch)
        finally:
            for daemon in DAEMONS:
                daemon.stop()
        ups, downs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        title = f"{options.services} sleeping services on a bridge"
        base = "ctst" if any(case.times for case in ups if case.name == "ctst") else "compose"
        report(f"{title}, up -d", ups, base, options.json and f"{options.json}.up")
        report(f"{title}, down", downs, base, options.json and f"{options.json}.down")


def skip_together(pairs: list[tuple[Case, Case]], services: int) -> None:
    """No ``down`` for what did not come up: what ``up`` met is the reason of both."""

    def guard(up: Case) -> Callable[[], None]:
        def check() -> None:
            if up.skipped:
                raise OSError(up.skipped)

        return check

    def all_up() -> None:
        if not within(lambda: sleepers() == services):
            raise OSError(f"{sleepers()} of {services} services run after up")

    def all_down() -> None:
        if not within(lambda: not sleepers()):
            raise OSError(f"{sleepers()} services run after down")

    for up, down in pairs:
        up.after, down.before, down.after = all_up, guard(up), all_down


def within(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it comes true soon: docker's client returns before the program of its last container is executed."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def sleepers() -> int:
    """Services that run now; a figure of a stack that isn't up would be worthless."""
    count = 0
    for pid in descendants(os.getpid()):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                count += file.read() == b"/bin/sleep\x001000000\x00"
        except OSError:
            continue
    return count


def competitors(place: Place, services: int, program: str | None, only: str) -> list[tuple[Case, Case]]:
    wanted = set(only.split(",")) if only else {"ctst", "compose", "podman-compose"}
    pairs = []
    directory = f"{place.scratch}/stack"
    os.mkdir(directory)
    if "ctst" in wanted:
        command, environment, skipped = engines.ctst(place, program)
        engines.write_stack(f"{place.scratch}/ctst/containust.ctst", services, place.tar)
        note = "user namespaces, seccomp, an address each, hosts files, logs, one supervisor"
        up = Case("ctst", [*command, "run", "-d"], note, environment=environment, skipped=skipped)
        argv = [*command, "rm", "--force"]
        down = Case("ctst", argv, "stopped and removed", environment=environment, skipped=skipped)
        pairs.append((up, down))
    if "compose" in wanted:
        pairs.append(compose(place, directory, services))
    if "podman-compose" in wanted:
        pairs.append(podman_compose(place, directory, services))
    return pairs


def compose(place: Place, directory: str, services: int) -> tuple[Case, Case]:
    """The current docker compose against the benchmark's own dockerd, which runs already."""
    program = str(engines.HERE / ".venv/bin/docker-compose")
    skipped = engines.missing("docker", "dockerd", "iptables", program)
    environment = None
    try:
        if not skipped:
            DAEMONS.append(engines.Dockerd(place, bridge=True))
            environment = DAEMONS[-1].environment
    except OSError as error:
        skipped = str(error)
    path = f"{directory}/docker.yaml"
    write_compose(path, services, "bench")
    argv = [program, "-p", "bench", "-f", path]
    note = "docker compose 5, running dockerd; no user namespace"
    return (
        Case("compose", [*argv, "up", "-d"], note, environment=environment, skipped=skipped),
        Case("compose", [*argv, "down", "-t", "0"], "killed at once", environment=environment, skipped=skipped),
    )


def podman_compose(place: Place, directory: str, services: int) -> tuple[Case, Case]:
    skipped = engines.missing("podman", "podman-compose", "runc")
    try:
        if not skipped:
            engines.podman(place)
            # Made beforehand: the version in Debian asks for a DNS plugin that is not in Debian's CNI
            # package.
            run("podman", "network", "create", "--disable-dns", "bench", environment=place.environment)
    except OSError as error:
        skipped = str(error)
    path = f"{directory}/podman.yaml"
    write_compose(path, services, "localhost/bench", network="bench")
    argv = ["podman-compose", "-p", "bench", "-f", path]
    note = "podman-compose of Debian, CNI; no user namespace"
    return (
        Case("podman-compose", [*argv, "up", "-d"], note, environment=place.environment, skipped=skipped),
        Case(
            "podman-compose",
            [*argv, "down", "-t", "0"],
            "killed at once",
            environment=place.environment,
            skipped=skipped,
        ),
    )


def write_compose(path: str, services: int, image: str, network: str = "") -> None:
    with open(path, "w") as file:
        file.write("services:\n")
        for number in range(services):
            # pull_policy: the image is local, and there is no registry to ask.
            file.write(f"  s{number}:\n    image: {image}\n    command: [/bin/sleep, '1000000']\n")
            file.write("    pull_policy: never\n" if not network else f"    networks: [{network}]\n")
        if network:
            file.write(f"networks:\n  {network}:\n    external: true\n    name: {network}\n")


if __name__ == "__main__":
    main()
