"""How long the language takes: ``python bench/language.py [--rounds N]``.

Prints one JSON line a case. ``small`` is a 45-line file, fresh process against fresh process: the difference of a
start with ``load_stack`` and one without is what the language costs a command. The large cases show that the cost
grows with the input and no faster: ``times`` is the cost of the eightfold size over the size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from containust.compose.load import load_checked

SMALL = """\
// A shop: web, api, queue and database.
COMPONENT base {
    image = "oci://docker.io/library/alpine:3.21"
    memory = "64MiB"
    restart = "on-failure"
}

COMPONENT db {
    image = "oci://docker.io/library/postgres:16"
    port = 5432
    volume = "data:/var/lib/postgresql/data"
    env = {
        POSTGRES_DB = "shop"
        POSTGRES_PASSWORD = "${env.SHOP_PASSWORD:-none}"
    }
    healthcheck = {
        command = ["pg_isready"]
        interval = "5s"
    }
}

COMPONENT queue FROM base {
    port = 6379
    tmpfs = ["/scratch:size=16MiB"]
}

COMPONENT api FROM base {
    port = 8000
    command = ["serve", "--port=8000"]
    env = {
        DATABASE = "postgres://${db.host}:${db.port}/shop"
        LEVEL = "info"
    }
}

COMPONENT web FROM base {
    ports = [80, 443]
    cpus = "0.5"
}

CONNECT api -> db, queue
CONNECT web -> api

EXPOSE 8080:80 -> web
EXPOSE 8443:443 -> web
"""


def components(n: int) -> str:
    one = 'COMPONENT c{0} {{\n    image = "oci://docker.io/library/alpine:3.21"\n    port = 80\n'
    one += '    env = {{ A = "${{env.A:-x}}" }}\n}}\n'
    connects = "".join(f"CONNECT c{i} -> c{(i + 1) if i + 1 < n else i // 2}\n" for i in range(n - 1))
    return "".join(one.format(i) for i in range(n)) + connects + f"CONNECT c{n - 1} -> c0\n"


CASES: dict[str, tuple[int, Callable[[int], str]]] = {
    "components": (2000, components),
    "brackets": (100_000, lambda n: "COMPONENT a { x = " + "[" * n),
    "chain": (2000, lambda n: "".join(f"COMPONENT c{i} FROM c{i + 1} {{}}\n" for i in range(n))),
    "chain with env": (
        200,
        lambda n: "".join(f"COMPONENT c{i} FROM c{i + 1} {{ env = {{ K{i} = 1 }} }}\n" for i in range(n)),
    ),
    "errors": (5000, lambda n: "".join(f"CONNECT a{i} -> b{i}\n" for i in range(n))),
    "same port": (2000, lambda n: "".join(f"COMPONENT c{i} {{ port = 80 }}\nEXPOSE {i}:80\n" for i in range(n))),
    "open strings": (20_000, lambda n: '"\n' * n),
    "interpolations": (20_000, lambda n: 'COMPONENT a { x = "' + "${" * n),
}


def seconds(text: str, rounds: int) -> float:
    best = 1e9
    with tempfile.NamedTemporaryFile("w", suffix=".ctst") as file:
        file.write(text)
        file.flush()
        for _ in range(rounds):
            begin = time.process_time()
            load_checked(file.name, environ={}, offline=True)
            best = min(best, time.process_time() - begin)
    return best


def start(program: str, path: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", program, path], check=True)
    return time.perf_counter() - begin


def small(rounds: int) -> dict[str, object]:
    source = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src")
    bare = f"import sys, os; sys.path.insert(0, {source!r}); import containust.common.types"
    full = f"{bare}; from containust.compose.load import load_stack; load_stack(sys.argv[1])"
    with tempfile.NamedTemporaryFile("w", suffix=".ctst") as file:
        file.write(SMALL)
        file.flush()
        pairs = [(start(bare, file.name), start(full, file.name)) for _ in range(rounds * 5)]
        begin = time.perf_counter()
        for _ in range(50):
            load_checked(file.name, environ={})
        warm = (time.perf_counter() - begin) / 50
    without, with_it = min(a for a, _ in pairs), min(b for _, b in pairs)
    return {
        "case": "small",
        "lines": SMALL.count("\n"),
        "bare_ms": round(without * 1e3, 2),
        "load_ms": round((with_it - without) * 1e3, 2),
        "warm_ms": round(warm * 1e3, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(json.dumps(small(rounds)), flush=True)
    for name, (size, make) in CASES.items():
        one, eight = seconds(make(size), rounds), seconds(make(8 * size), rounds)
        row = {"case": name, "size": size, "s": round(one, 3), "s_8": round(eight, 3), "times": round(eight / one, 2)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
