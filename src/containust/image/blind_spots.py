"""What the static analysis of a distroless root cannot see, named file by file.

Headers say which libraries a program is linked to. What it opens by a name made at run time they do not say: plugins,
name service modules, character sets, locales, modules of interpreters, other programs. The symbols that a file imports
tell which of these it may do, and its strings often tell the names.
"""

from __future__ import annotations

import os

from containust.image.elf import STARTING
from containust.image.libraries import Loaded
from containust.image.programs import is_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from containust.image.distroless import Collection
    from containust.image.elf import Elf

READ_MAX = 64 << 20
NAMES_MAX = 12  # of what one file may open, as many as a person reads
SHELLS = ("sh", "dash", "bash", "busybox", "ash", "ksh", "zsh")
KEPT_SERVICES = ("files", "dns", "db", "compat", "myhostname")
# A C library is what the others load by; its own symbols tell nothing.
C_LIBRARIES = ("libc.so", "ld-linux", "ld-musl", "libdl.so", "libpthread.so")


def blind_spots(collection: Collection, programs: Sequence[str]) -> list[dict[str, Any]]:
    """One ``{"kind", "file", "names"}`` each: what may be needed at run time and is not in the collection by analysis.

    Kinds: ``dlopen`` (names are libraries it mentions that were not kept), ``nss``, ``gconv``, ``locale``, ``modules``
    (of an interpreter), ``commands`` (programs that a program starts).
    """
    spots: list[dict[str, Any]] = []

    def spot(kind: str, file: str, names: Sequence[str] = ()) -> None:
        spots.append({"kind": kind, "file": file, "names": sorted(names)[:NAMES_MAX]})

    kept = {os.path.basename(path) for path in collection.members}
    known = collection.libraries.known()
    elves = [
        (path, elf)
        for path, elf in known.items()
        if path in collection.members and not os.path.basename(path).startswith(C_LIBRARIES)
    ]
    direct = {real for real in map(collection.root.real, programs) if real is not None}
    for path, elf in elves:
        if "dlopen" in elf.calls or "dlmopen" in elf.calls:
            names = _mentioned(collection, path, elf) - kept
            if names or path in direct:
                spot("dlopen", path, sorted(names))
    callers = {call: [path for path, elf in elves if call in elf.calls] for call in ("iconv_open", "setlocale")}
    if callers["iconv_open"] and "gconv-modules" not in kept and "gconv-modules.cache" not in kept:
        spot("gconv", callers["iconv_open"][0])
    if callers["setlocale"] and not any(path.startswith("/usr/lib/locale/") for path in collection.members):
        spot("locale", callers["setlocale"][0])
    services = _services(collection) - kept
    if services:
        spot("nss", "/etc/nsswitch.conf", sorted(services))
    starters = {path for path, elf in elves if set(STARTING).intersection(elf.calls)}
    # Modules of an interpreter aside, a library starts programs for the program that is linked to it.
    starters = {path for path in starters if path in direct or (".so" in path and "/python3" not in path)}
    shells = {path for path in direct if os.path.basename(path) in SHELLS}
    for path in sorted(starters | shells | set(collection.scripts)):
        spot("commands", path)
    for path in sorted(collection.members):
        name = os.path.basename(path)
        if (
            is_python(name) or name.rstrip("0123456789.") in ("perl", "ruby", "node", "lua", "php")
        ) and "/bin/" in path:
            spot("modules", path)
    return spots


def describe(spot: dict[str, Any]) -> str:
    """One line for a person."""
    file = spot["file"]
    names = ", ".join(spot["names"])
    kind = spot["kind"]
    if kind == "dlopen":
        return f"{file} opens libraries while it runs" + (f"; it mentions {names}" if names else "")
    if kind == "nss":
        return f"{file} asks for name services that were not kept: {names}"
    if kind == "gconv":
        return f"{file} may convert character sets: include /usr/lib/*/gconv"
    if kind == "locale":
        return f"{file} may ask for a locale other than C: include /usr/lib/locale"
    if kind == "modules":
        return f"{file} imports modules by name: include those that do not come with it"
    return f"{file} may start other programs: include them"


def _mentioned(collection: Collection, path: str, elf: Elf) -> set[str]:
    """Library names among the strings of the file that exist in the root, those it is linked to left out."""
    from re import findall

    try:
        data = collection.root.read(path, READ_MAX)
    except OSError:
        return set()
    found = set()
    for raw in set(findall(rb"\0((?:/[\w./+-]*/)?[\w+-][\w.+-]*\.so(?:\.\d+)*)(?=\0)", data)):
        name = os.path.basename(raw.decode())
        if name in elf.needed or name == elf.soname:
            continue
        by = Loaded(path, elf)
        if raw.startswith(b"/") or collection.libraries.find(name, by, "ld-musl" in elf.interpreter) is not None:
            found.add(name)
    return found


def _services(collection: Collection) -> set[str]:
    """The libraries of the name services that the root's own nsswitch.conf asks for, beyond those always kept."""
    try:
        text = collection.root.read("/etc/nsswitch.conf", 1 << 16).decode(errors="replace")
    except OSError:
        return set()
    if "/etc/nsswitch.conf" in collection.texts:
        return set()
    words = {
        word
        for line in text.splitlines()
        for word in line.partition("#")[0].partition(":")[2].split()
        if not word.startswith("[") and not word.endswith("]")
    }
    names = {f"libnss_{word}.so.2" for word in words if word not in KEPT_SERVICES}
    return {
        name
        for name in names
        if any(collection.root.glob(f"/usr/lib/*/{name}") or collection.root.glob(f"/lib/*/{name}"))
    }
