"""Interleaved runs of whole commands, their medians and ratios, and the table they end in."""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable


class Failed(Exception):
    """A command that did not end with status 0, with what it said."""


class Case:
    """One competitor: ``before`` and ``after`` are not timed, ``argv`` is, from spawn to its end.

    ``note`` says what it does and what it leaves out. ``skipped`` is the reason when it cannot run.
    """

    def __init__(
        self,
        name: str,
        argv: list[str],
        note: str,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
        skipped: str = "",
    ) -> None:
        self.name = name
        self.argv = argv
        self.note = note
        self.before = before
        self.after = after
        self.environment = environment
        self.skipped = skipped
        self.times: list[float] = []


def spawn(argv: list[str], environment: dict[str, str] | None = None, output: str = os.devnull) -> float:
    """Milliseconds from posix_spawn to the end of ``argv``; standard output and error go to ``output``."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    begin = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, os.environ if environment is None else environment, file_actions=actions)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    elapsed = (time.perf_counter() - begin) * 1000
    if status:
        said = ""
        if output != os.devnull:
            with open(output, errors="replace") as file:
                said = file.read()[-600:].strip()
        raise Failed(f"{' '.join(argv[:4])}… ended with {status}: {said}")
    return elapsed


def interleave(cases: list[Case], runs: int, pause: float, scratch: str) -> None:
    """One warm-up round, then ``runs`` rounds of all cases. A case that fails is skipped from there on.

    Each round has an order of its own: what the kernel still tears down of one case is the next one's burden.
    """
    orders = random.Random(1)
    for number in range(runs + 1):
        for case in orders.sample(cases, len(cases)):
            if case.skipped:
                continue
            try:
                if case.before:
                    case.before()
                elapsed = spawn(case.argv, case.environment, f"{scratch}/output")
                if case.after:
                    case.after()
            except (Failed, OSError) as error:
                case.skipped = str(error)
                continue
            if number:
                case.times.append(elapsed)
            time.sleep(pause)


def report(title: str, cases: list[Case], base: str, path: str | None, extra: object = None) -> None:
    """Table on standard output: minimum, median, 90th percentile, ratio of medians to ``base``."""
    medians = {case.name: statistics.median(case.times) for case in cases if case.times}
    print(f"\n{title}")
    print(f"{'':18} {'min':>9} {'median':>9} {'p90':>9}  ratio   what it does")
    for case in cases:
        if not case.times:
            print(f"{case.name:18} {'-':>9} {'-':>9} {'-':>9}      -   cannot run: {case.skipped}")
            continue
        ordered = sorted(case.times)
        ratio = medians[case.name] / medians[base] if base in medians else float("nan")
        print(
            f"{case.name:18} {ordered[0]:6.1f} ms {medians[case.name]:6.1f} ms "
            f"{ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)]:6.1f} ms {ratio:6.2f}   {case.note}"
        )
        if case.skipped:
            print(f"{'':18} stopped after {len(case.times)} runs: {case.skipped}")
    sys.stdout.flush()
    if path:
        document = {
            "title": title,
            "base": base,
            "host": {"kernel": os.uname().release, "machine": os.uname().machine, "cpus": os.cpu_count()},
            "cases": [{"name": c.name, "note": c.note, "milliseconds": c.times, "skipped": c.skipped} for c in cases],
            "extra": extra,
        }
        with open(path, "w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
