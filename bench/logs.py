"""How fast output is logged, and what that costs the program that writes it.

    python bench/logs.py [--megabytes N] [--runs N] [--follow] [--ctst PATH] [--json FILE]

A program in a container writes lines of 100 bytes, 64 KiB at a time: to a file of a volume, and to its standard output,
which the supervisor logs. Once as fast as it can (what is sustained), and once at about 200 MB/s by computing between
two writes (whether it is slowed). Times are the program's own, from its first write to its last.

Nobody reads the log meanwhile, as nobody reads the file. With ``--follow``, ``ctst logs -f`` does: one process more,
which on two processors takes its time from the program's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

PROGRAM = """
import os, sys, time
target, megabytes, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
fd = 1 if target == "stdout" else os.open("/out/data", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
block = (b"x" * 99 + b"\\n") * 655
count = megabytes * 1000000 // len(block)
spin = len(block) / (rate * 1e6) if rate else 0.0
clock = time.perf_counter
begin = clock()
for _ in range(count):
    if spin:
        # A fixed amount of work, not until a fixed time: waiting for the reader is not made up for.
        until = time.thread_time() + spin
        while time.thread_time() < until:
            pass
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view):]
seconds = clock() - begin
with open("/out/unfinished", "w") as file:
    file.write(str(seconds))
os.rename("/out/unfinished", "/out/result")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--follow", action="store_true", help="have the log followed meanwhile")
    parser.add_argument("--ctst", default=shutil.which("ctst"), help="path of the ctst to measure")
    parser.add_argument("--json", help="write the raw times to this file")
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        out = f"{directory}/out"
        os.mkdir(out, 0o777)
        os.chmod(out, 0o777)
        for _ in range(options.runs):
            for rate in (0, 200):
                for target in ("file", "stdout"):
                    seconds = once(options, directory, target, rate)
                    times.setdefault(f"{target} {rate or 'unbounded'}", []).append(seconds)
    for name, values in times.items():
        median, best = (options.megabytes / seconds for seconds in (statistics.median(values), min(values)))
        print(f"{name:18} {median:8.0f} MB/s   median of {len(values)}, best {best:.0f}")
    for what, of in (("median", statistics.median), ("best", min)):
        for speed in ("unbounded", "200"):
            ratio = of(times[f"stdout {speed}"]) / of(times[f"file {speed}"])
            print(f"stdout against file, {speed}, {what}: {100 * (ratio - 1):+.1f} % time")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"title": "logs", "megabytes": options.megabytes, "seconds": times}, file, indent=1)


def once(options: argparse.Namespace, directory: str, target: str, rate: float) -> float:
    """Seconds that the program took."""
    name = f"writer-{os.urandom(4).hex()}"  # the one before may not be forgotten yet
    environ = {**os.environ, "HOME": directory}
    subprocess.run(
        [options.ctst, "run", "-d", "--rm", "--name", name, "-v", f"{directory}/out:/out", "--image",
         f"host://{os.path.realpath(sys.executable)}", "--", os.path.realpath(sys.executable), "-c", PROGRAM,
         target, str(options.megabytes), str(rate)],
        check=True, stdout=subprocess.DEVNULL, env=environ,
    )  # fmt: skip
    if options.follow:
        subprocess.run([options.ctst, "logs", "-f", "--tail", "0", name], check=False, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, env=environ)  # fmt: skip
    result = f"{directory}/out/result"
    while not os.path.exists(result):
        time.sleep(0.02)
    with open(result) as file:
        seconds = float(file.read())
    os.unlink(result)
    listing = [options.ctst, "ps", "--all"]
    while name in subprocess.run(listing, check=True, capture_output=True, text=True, env=environ).stdout:
        time.sleep(0.05)  # its end is not to be the next one's burden
    return seconds


if __name__ == "__main__":
    main()
