"""What an attacker inside a container is told of the host."""

from __future__ import annotations

import os

from containust.core import capability
from containust.core.seccomp_numbers import NUMBERS
from containust.core.syscalls import MACHINE
from containust.runtime.confinement import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def prepare(directory: str, pids: int, facts: dict[str, Any]) -> str:
    """The directory that the containers see as ``/attack``: the program, and what it may know of the host."""
    import shutil

    from containust.runtime.attacks import inside

    volume = f"{directory}/attack"
    os.mkdir(volume)
    os.chmod(volume, 0o777)  # another user of a container writes there; above it, the directory is closed
    shutil.copytree(os.path.dirname(inside.__file__), f"{volume}/inside", ignore=lambda *_: ["__pycache__"])
    write(volume, pids, facts)
    return volume


def write(volume: str, pids: int, facts: dict[str, Any]) -> None:
    """``facts.json`` in ``volume``: ``facts`` (the port of a listener on 127.0.0.1, the name of an abstract socket) and
    what is read from the calling process, which stands for the host."""
    import json

    with open("/proc/self/cmdline", "rb") as file:
        cmdline = file.read().decode(errors="replace")
    default = capability.DEFAULT_MASK
    sets = {"CapInh": 0, "CapPrm": default, "CapEff": default, "CapBnd": default, "CapAmb": 0}
    known = {
        "calls": NUMBERS[MACHINE],
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES},
        "pid": os.getpid(),
        "cmdline": cmdline,
        "pids": pids,
        "file": volume,
        "environment": sorted({*os.environ} - {"PATH", "HOME", "TERM", "LANG", "HOSTNAME", "USER"}),
        "capabilities": {**sets, **{f"user {name}": default * (name == "CapBnd") for name in sets}},
    }
    with open(f"{volume}/facts.json", "w", encoding="utf-8") as file:
        file.write(json.dumps(known | facts))
