"""What an ELF file says that it needs: the ``readelf -ld`` of the distroless analysis (elf(5)).

Only the program headers and the dynamic section are read, never section headers, as the loader does it.
"""

from __future__ import annotations

import os
from struct import Struct, error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PT_LOAD = 1
PT_DYNAMIC = 2
PT_INTERP = 3
DT_NEEDED = 1
DT_STRTAB = 5
DT_STRSZ = 10
DT_SONAME = 14
DT_RPATH = 15
DT_RUNPATH = 29
DT_FLAGS_1 = 0x6FFFFFFB
DF_1_NODEFLIB = 0x800
EM_386 = 3
EM_ARM = 40
EM_X86_64 = 62
EM_AARCH64 = 183
EM_RISCV = 243
DYNAMIC_MAX = 1 << 20
STRINGS_MAX = 64 << 20
# Functions whose use means that a program needs more than its headers say.
STARTING = ("execve", "execv", "execvp", "posix_spawn", "system", "popen")
TELLING = ("dlopen", "dlmopen", "iconv_open", "setlocale", *STARTING)


class Elf:
    """One ELF file. ``bits`` is 32 or 64, ``machine`` the e_machine number, ``interpreter`` the loader's
    path or empty.

    ``needed`` are the DT_NEEDED names; ``rpath`` and ``runpath`` are lists of directories as written; ``calls`` are
    those names of :data:`TELLING` that are among its dynamic symbols.
    """

    __slots__ = ("bits", "calls", "interpreter", "machine", "needed", "nodeflib", "rpath", "runpath", "soname")

    def __init__(self, bits: int, machine: int) -> None:
        self.bits = bits
        self.machine = machine
        self.interpreter = ""
        self.needed: list[str] = []
        self.calls: tuple[str, ...] = ()
        self.rpath: list[str] = []
        self.runpath: list[str] = []
        self.soname = ""
        self.nodeflib = False

    def same_architecture(self, other: Elf) -> bool:
        """Whether the loader would take ``other`` for a library of this file."""
        return self.bits == other.bits and self.machine == other.machine


def read_elf(path: str | bytes) -> Elf | None:
    """The file's needs, or None when it is no ELF file (or too damaged to be one). Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        head = os.pread(fd, 64, 0)
        if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
            return None
        try:
            return _read(fd, head)
        except (error, ValueError, OverflowError):
            return None
    finally:
        os.close(fd)


def _read(fd: int, head: bytes) -> Elf:
    order = "<" if head[5] == 1 else ">"
    wide = head[4] == 2
    machine = Struct(order + "H").unpack_from(head, 18)[0]
    elf = Elf(64 if wide else 32, machine)
    if wide:
        (offset,) = Struct(order + "Q").unpack_from(head, 32)
        size, count = Struct(order + "HH").unpack_from(head, 54)
    else:
        (offset,) = Struct(order + "I").unpack_from(head, 28)
        size, count = Struct(order + "HH").unpack_from(head, 42)
    if size < (56 if wide else 32):
        return elf
    table = os.pread(fd, size * count, offset)
    loads = []
    dynamic = None
    for kind, start, address, length in _segments(table, size, order, wide):
        if kind == PT_LOAD:
            loads.append((address, start, length))
        elif kind == PT_DYNAMIC:
            dynamic = (start, min(length, DYNAMIC_MAX))
        elif kind == PT_INTERP:
            elf.interpreter = os.fsdecode(os.pread(fd, min(length, 4096), start).partition(b"\0")[0])
    if dynamic is None:
        return elf
    entry = Struct(order + ("QQ" if wide else "II"))
    data = os.pread(fd, dynamic[1], dynamic[0])
    tags: list[tuple[int, int]] = []
    for tag, value in entry.iter_unpack(data[: len(data) // entry.size * entry.size]):
        if tag == 0:
            break
        tags.append((tag, value))
    values = dict(tags)
    strings_at = next(
        (
            start + values[DT_STRTAB] - address
            for address, start, length in loads
            if DT_STRTAB in values and address <= values[DT_STRTAB] < address + length
        ),
        None,
    )
    if strings_at is None:
        return elf
    strings = os.pread(fd, min(values.get(DT_STRSZ, 0), STRINGS_MAX), strings_at)

    def string(at: int) -> str:
        return os.fsdecode(strings[at : strings.index(b"\0", at)])

    elf.calls = tuple(name for name in TELLING if f"\0{name}\0".encode() in strings)
    elf.needed = [string(value) for tag, value in tags if tag == DT_NEEDED]
    if DT_SONAME in values:
        elf.soname = string(values[DT_SONAME])
    if DT_RUNPATH in values:
        elf.runpath = string(values[DT_RUNPATH]).split(":")
    elif DT_RPATH in values:
        elf.rpath = string(values[DT_RPATH]).split(":")
    elf.nodeflib = bool(values.get(DT_FLAGS_1, 0) & DF_1_NODEFLIB)
    return elf


def _segments(table: bytes, size: int, order: str, wide: bool) -> Iterator[tuple[int, int, int, int]]:
    """(type, file offset, address, file size) of each program header."""
    header = Struct(order + ("IIQQQQ" if wide else "IIIII"))
    for at in range(0, len(table) - size + 1, size):
        fields = header.unpack_from(table, at)
        if wide:
            yield fields[0], fields[2], fields[3], fields[5]
        else:
            yield fields[0], fields[1], fields[2], fields[4]
