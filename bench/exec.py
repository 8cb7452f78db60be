"""``true`` executed in a container that runs already, from the command's start to its end.

python bench/exec.py [--runs N] [--ctst PATH] [--only NAME,NAME] [--json FILE]
"""

from __future__ import annotations

import argparse

from peers import engines
from peers.place import Place, run
from peers.timing import Case, interleave, report

DAEMONS: list[engines.Dockerd] = []
SLEEP, TRUE = ["/bin/sleep", "1000000"], ["/bin/true"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--ctst", help="path of the ctst to measure")
    parser.add_argument("--only", default="", help="names, separated by commas: runc, podman, docker, ctst")
    parser.add_argument("--json", help="write the raw times to this file")
    options = parser.parse_args()
    wanted = set(options.only.split(",")) if options.only else {"runc", "podman", "docker", "ctst"}
    with Place() as place:
        try:
            cases = []
            if "runc" in wanted:
                cases.append(runc(place))
            if "podman" in wanted:
                cases.append(podman(place))
            if "docker" in wanted:
                cases.append(docker(place))
            if "ctst" in wanted:
                cases.append(ctst(place, options.ctst))
            interleave(cases, options.runs, 0.0, place.scratch)
            for case in cases:
                if case.name == "ctst" and case.argv and not case.skipped:
                    remove = [*case.argv[: case.argv.index("exec")], "rm", "--force"]
                    run(*remove, environment=case.environment)
        finally:
            for daemon in DAEMONS:
                daemon.call("kill", "bench")
                daemon.stop()
            if "runc" in wanted and not engines.missing("runc"):
                run("runc", "--root", f"{place.scratch}/runc", "delete", "-f", "bench")
            if "podman" in wanted and not engines.missing("podman"):
                run("podman", "rm", "-f", "-t", "0", "--ignore", "bench", environment=place.environment)
        report("exec /bin/true in a running container", cases, "runc", options.json)


def prepared(name: str, argv: list[str], note: str, environment: dict[str, str], *start: str) -> Case:
    """The case, after its container is started by ``start``."""
    try:
        run(*start, environment=environment)
        skipped = ""
    except OSError as error:
        skipped = str(error)
    return Case(name, argv, note, environment=environment, skipped=skipped)


def runc(place: Place) -> Case:
    if skipped := engines.missing("runc"):
        return Case("runc", [], "", skipped=skipped)
    command = ["runc", "--root", f"{place.scratch}/runc"]
    directory = engines.bundle(place, "exec", SLEEP)
    # Its output is inherited by the container: a pipe would not close.
    start = [
        "sh",
        "-c",
        'exec "$@" </dev/null >/dev/null 2>&1',
        "sh",
        *command,
        "run",
        "-d",
        "-b",
        directory,
        "bench",
    ]
    return prepared("runc", [*command, "exec", "bench", *TRUE], "seccomp, capabilities", place.environment, *start)


def podman(place: Place) -> Case:
    if skipped := engines.missing("podman", "runc"):
        return Case("podman", [], "", skipped=skipped)
    try:
        engines.podman(place)
    except OSError as error:
        return Case("podman", [], "", skipped=str(error))
    start = ["podman", "run", "-d", "--name=bench", "--network=none", "localhost/bench", *SLEEP]
    return prepared("podman", ["podman", "exec", "bench", *TRUE], "through conmon and runc", place.environment, *start)


def docker(place: Place) -> Case:
    if skipped := engines.missing("docker", "dockerd"):
        return Case("docker", [], "", skipped=skipped)
    try:
        DAEMONS.append(engines.Dockerd(place, bridge=False))
    except OSError as error:
        return Case("docker", [], "", skipped=str(error))
    start = ["docker", "run", "-d", "--name=bench", "--network=none", "bench", *SLEEP]
    argv = ["docker", "exec", "bench", *TRUE]
    return prepared("docker", argv, "by its running daemon", DAEMONS[-1].environment, *start)


def ctst(place: Place, program: str | None) -> Case:
    command, environment, skipped = engines.ctst(place, program)
    if skipped:
        return Case("ctst", [], "", skipped=skipped)
    image = f"tar://{place.tar}"
    # A file, so that exec finds the container in the directory's own project.
    with open(f"{place.scratch}/ctst/containust.ctst", "w") as file:
        file.write(f'COMPONENT bench {{\n    image = "{image}"\n    command = ["/bin/sleep", "1000000"]\n')
        file.write('    network = "none"\n    stop_timeout = "0s"\n}\n')
    start = ["sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", *command, "run", "-d"]
    note = "user namespace, seccomp, capabilities, cgroup"
    return prepared("ctst", [*command, "exec", "bench", "--", *TRUE], note, environment, *start)


if __name__ == "__main__":
    main()
