"""How long the language takes: ``python bench/language.py [--rounds N]``.

Prints one JSON line a case. ``small`` is a 45-line file, fresh process against fresh process: the difference of a
start with ``load_stack`` and one without is what the language costs a command. The large cases show that the cost
grows with the input and no faster: ``times`` is the CPU time of the eightfold size over that of the size, each in a
process of its own, for what ``check`` and ``fmt`` do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from containust.common.errors import ContainustError
from containust.compose.diagnostics import render
from containust.compose.formatter import format_source
from containust.compose.load import load_checked
from containust.compose.tree import Source

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


def heirs(n: int, name: str, entry: str) -> str:
    """As many components as their template has entries."""
    entries = ", ".join(entry.replace("#", str(i)) for i in range(n))
    template = f'COMPONENT t {{ image = "preset://busybox" template = true {name} = [{entries}] }}\n'
    return template + "".join(f"COMPONENT c{i} FROM t {{}}\n" for i in range(n))


def one(properties: str) -> str:
    return f'COMPONENT a {{ image = "preset://busybox" {properties} }}\n'


def numbered(n: int, entry: str, between: str = ", ") -> str:
    return between.join(entry.replace("#", str(i)) for i in range(n))


def imports(n: int) -> str:
    for i in range(n):
        with open(f"lib{i}.ctst", "w") as file:
            file.write(f'COMPONENT t{i} {{ image = "preset://busybox" }}\n')
    return numbered(n, 'IMPORT "lib#.ctst"\n', "") + numbered(n, "COMPONENT c# FROM t# {}\n", "")


def env_file(n: int) -> str:
    with open("vars.env", "w") as file:
        file.write('A="' + "x\n" * n + '"\n' + numbered(min(n, 4000), "K#=v\n", ""))
    return one('env_file = "vars.env"')


CASES: dict[str, tuple[int, Callable[[int], str]]] = {
    "components": (16_000, components),
    "brackets": (100_000, lambda n: "COMPONENT a { x = " + "[" * n),
    "chain of FROM": (4000, lambda n: "".join(f"COMPONENT c{i} FROM c{i + 1} {{}}\n" for i in range(n))),
    "chain with env": (
        500,
        lambda n: "".join(f"COMPONENT c{i} FROM c{i + 1} {{ env = {{ K{i} = 1 }} }}\n" for i in range(n)),
    ),
    "references": (4000, lambda n: components(n) + one(f"command = [{numbered(n, chr(34) + '${c#.host}' + chr(34))}]")),
    "inherited references": (1000, lambda n: components(n) + heirs(n, "command", '"${c#.host}"').replace("T c", "T h")),
    "inherited mounts": (2000, lambda n: heirs(n, "volumes", '"v#:/v#"')),
    "imports": (400, imports),
    "templates not there": (4000, lambda n: numbered(n, "COMPONENT c# FROM x# {}\n", "")),
    "errors": (10_000, lambda n: numbered(n, "CONNECT a# -> b#\n", "")),
    "duplicates": (10_000, lambda n: one("env = { " + "A = 1 " * n + "}")),
    "exposes": (4000, lambda n: one("port = 80") + numbered(n, "EXPOSE #:80\n", "")),
    "one port": (4000, lambda n: numbered(n, "COMPONENT c# { port = 80 }\nEXPOSE #:80\n", "")),
    "map": (20_000, lambda n: one(f"labels = {{ {numbered(n, 'K# = 1')} }}")),
    "list": (40_000, lambda n: one(f"command = [{numbered(n, chr(34) + '#' + chr(34))}]")),
    "string": (2_000_000, lambda n: one(f'command = ["{"a" * n}"]')),
    "escapes": (100_000, lambda n: one('command = ["' + "\\n" * n + '"]')),
    "comments": (50_000, lambda n: "// a\n" * n),
    "env file": (100_000, env_file),
    "open strings": (20_000, lambda n: '"\n' * n),
    "interpolations": (20_000, lambda n: 'COMPONENT a { x = "' + "${" * n),
    "unreadable": (20_000, lambda n: "'a @ => -1 /**/ " * n),
}


def measured(text: str, read: Callable[[str], object]) -> float:
    """Seconds of CPU time of ``read`` in a process that has done nothing before, as a command is one."""
    with open("main.ctst", "w") as file:
        file.write(text)
    channel, other = os.pipe()
    child = os.fork()
    if child == 0:
        begin = time.process_time()
        read("main.ctst")
        os.write(other, repr(time.process_time() - begin).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(other)
    with open(channel) as pipe:
        return float(pipe.read())


def check(path: str) -> None:
    """What ``ctst check --json`` does."""
    _, found = load_checked(path, environ={}, offline=True)
    json.dumps([one.as_dict() for one in found])
    render(found)


def layout(path: str) -> None:
    """What ``ctst fmt`` does."""
    with open(path) as file, contextlib.suppress(ContainustError):
        format_source(Source(path, file.read(), "."))


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
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="these cases alone")
    options = parser.parse_args()
    rounds = options.rounds
    only = set(filter(None, options.only.split(",")))
    print(json.dumps(small(rounds)), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-language-") as directory:
        os.chdir(directory)
        for name, (size, make) in CASES.items():
            if only and name not in only:
                continue
            for command in (check, layout):
                small_one, large = make(size), make(8 * size)
                make(size)  # the files beside it
                one_time = min(measured(small_one, command) for _ in range(rounds))
                make(8 * size)
                eight = min(measured(large, command) for _ in range(rounds))
                row: dict[str, object] = {"case": name, "command": command.__name__, "size": size}
                row |= {"s": round(one_time, 3), "s_8": round(eight, 3), "times": round(eight / one_time, 2)}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
