"""Which file a library name means, in the order in which the dynamic loaders look (ld.so(8), musl's
dynlink.c).
"""

from __future__ import annotations

import os

from containust.image.elf import EM_386, EM_AARCH64, EM_ARM, EM_RISCV, EM_X86_64, Elf, read_elf
from containust.image.rooted import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LD_SO_CACHE = "/etc/ld.so.cache"
CACHE_MAGIC = b"glibc-ld.so.cache1.1"
TRIPLETS = {
    EM_X86_64: "x86_64-linux-gnu",
    EM_AARCH64: "aarch64-linux-gnu",
    EM_386: "i386-linux-gnu",
    EM_ARM: "arm-linux-gnueabihf",
    EM_RISCV: "riscv64-linux-gnu",
}
PLATFORMS = {EM_X86_64: "x86_64", EM_AARCH64: "aarch64", EM_386: "i686", EM_ARM: "v7l", EM_RISCV: "riscv64"}


class Loaded:
    """A library or program on the way: its path as found, its needs, and who loaded it."""

    __slots__ = ("elf", "parent", "path")

    def __init__(self, path: str, elf: Elf, parent: Loaded | None = None) -> None:
        self.path = path
        self.elf = elf
        self.parent = parent


class Libraries:
    """Finds libraries below ``root``; ``cached`` turns True once one was found by ld.so.cache alone."""

    def __init__(self, root: Root | None = None) -> None:
        self._root = root or Root()
        self._cache: dict[str, list[str]] | None = None
        self._elves: dict[str, Elf | None] = {}
        self.cached = False

    def elf(self, path: str) -> Elf | None:
        """The ELF file at ``path``, None when it is none or cannot be read; read once."""
        if path not in self._elves:
            try:
                self._elves[path] = read_elf(self._root.host(self._root.walk(path)))
            except OSError:
                self._elves[path] = None
        return self._elves[path]

    def known(self) -> dict[str, Elf]:
        """The ELF files that the search has read, by their real paths."""
        found = {self._root.real(path) or path: elf for path, elf in self._elves.items() if elf is not None}
        return dict(sorted(found.items()))

    def find(self, name: str, by: Loaded, musl: bool) -> Loaded | None:
        """The library ``name`` that ``by`` needs."""
        if "/" in name:
            candidates: Iterator[str] = self._expand(name, by)
        else:
            candidates = self._candidates(name, by, musl)
        for path in candidates:
            if path.startswith("/") and self._root.real(path) is not None:
                elf = self.elf(path)
                if elf is not None and by.elf.same_architecture(elf):
                    return Loaded(path, elf, by)
        return None

    def _candidates(self, name: str, by: Loaded, musl: bool) -> Iterator[str]:
        above: Loaded | None = by
        if musl or not by.elf.runpath:
            while above is not None:
                # musl treats both tags alike; glibc ignores DT_RPATH beside DT_RUNPATH.
                for directory in above.elf.rpath or (above.elf.runpath if musl else ()):
                    for expanded in self._expand(directory, above):
                        yield f"{expanded}/{name}"
                above = above.parent
        if not musl:
            for directory in by.elf.runpath:
                for expanded in self._expand(directory, by):
                    yield f"{expanded}/{name}"
        if musl:
            for directory in musl_directories(by.elf.machine, self._root):
                yield f"{directory}/{name}"
            return
        if by.elf.nodeflib:
            return
        defaults = default_directories(by.elf)
        for path in self._from_cache(name):
            if os.path.dirname(path) not in defaults:
                self.cached = True
            yield path
        for directory in defaults:
            yield f"{directory}/{name}"

    def _expand(self, text: str, by: Loaded) -> Iterator[str]:
        """``text`` with $ORIGIN, $LIB and $PLATFORM replaced; $LIB may mean several directories."""
        if "$" not in text:
            yield text
            return
        triplet = TRIPLETS.get(by.elf.machine, "")
        origin = os.path.dirname(self._root.real(by.path) or by.path)
        for lib in (f"lib/{triplet}", "lib64" if by.elf.bits == 64 else "lib", "lib"):
            values = (("ORIGIN", origin), ("PLATFORM", PLATFORMS.get(by.elf.machine, "")), ("LIB", lib))
            out = text
            for key, value in values:
                out = out.replace("${" + key + "}", value).replace("$" + key, value)
            yield out
            if "LIB" not in text:
                return

    def _from_cache(self, name: str) -> list[str]:
        if self._cache is None:
            self._cache = read_cache(self._root.host(self._root.real(LD_SO_CACHE) or LD_SO_CACHE))
        return self._cache.get(name, [])


def default_directories(elf: Elf) -> list[str]:
    """Where glibc's loader looks at last: the directories of the multiarch, lib64 and plain layouts."""
    triplet = TRIPLETS.get(elf.machine)
    found = [f"/lib/{triplet}", f"/usr/lib/{triplet}"] if triplet else []
    if elf.bits == 64:
        found += ["/lib64", "/usr/lib64"]
    return [*found, "/lib", "/usr/lib"]


def musl_directories(machine: int, root: Root) -> list[str]:
    """musl's search path: its file in /etc, else the built-in one."""
    try:
        text = os.fsdecode(root.read(f"/etc/ld-musl-{PLATFORMS.get(machine, '')}.path", 1 << 16))
        return [directory for directory in text.replace("\n", ":").split(":") if directory]
    except OSError:
        return ["/lib", "/usr/local/lib", "/usr/lib"]


def read_cache(path: str) -> dict[str, list[str]]:
    """ld.so.cache: library name to paths, those for every processor before those for newer ones. {} when
    unreadable.
    """
    from struct import unpack_from

    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return {}
    start = data.find(CACHE_MAGIC)
    if start < 0:
        return {}
    data = data[start:]
    (count,) = unpack_from("<I", data, 20)
    plain: dict[str, list[str]] = {}
    special: dict[str, list[str]] = {}
    for at in range(48, min(48 + 24 * count, len(data) - 23), 24):
        _, key, value, _, hwcap = unpack_from("<iIIIQ", data, at)
        if key >= len(data) or value >= len(data):
            continue
        name = os.fsdecode(data[key : data.find(b"\0", key)])
        target = os.fsdecode(data[value : data.find(b"\0", value)])
        (special if hwcap else plain).setdefault(name, []).append(target)
    for name, paths in special.items():
        plain.setdefault(name, []).extend(paths)
    return plain
