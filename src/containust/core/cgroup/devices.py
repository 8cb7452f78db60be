"""The device filter of a v2 group: an eBPF program of type CGROUP_DEVICE (Documentation/admin-guide/cgroup-v2.rst).

Containers have no power to make device nodes in their user namespace, and no mount of theirs heeds one. This is the
wall behind that, and the only one for ``userns = "host"``: any node outside the list cannot be opened or made.
"""

from __future__ import annotations

import os
from struct import pack

from containust.core import syscalls

# (major, minor) of character devices, minor None for all: what /dev of a container has (null, zero, full, random,
# urandom, tty, console, ptmx) and its pseudo-terminals.
ALLOWED: tuple[tuple[int, int | None], ...] = (
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 1),
    (5, 2),
    (136, None),
)
BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
PROG_TYPE_CGROUP_DEVICE = 15
CGROUP_DEVICE = 6
ALLOW_MULTI = 2
DEVICE_CHAR = 2


def program() -> bytes:
    """The program, of 8-byte instructions (bpf(2)); it returns 1 for a device that may be used.

    Its argument is ``struct bpf_cgroup_dev_ctx``: u32 access << 16 | type, u32 major, u32 minor.
    """
    code = [
        _load(2, 0),
        pack("<BBhi", 0x57, 2, 0, 0xFFFF),  # r2 &= 0xffff
        _load(3, 4),
        _load(4, 8),
    ]
    deny = [pack("<BBhi", 0xB7, 0, 0, 0), pack("<BBhi", 0x95, 0, 0, 0)]  # r0 = 0; exit
    allow = [pack("<BBhi", 0xB7, 0, 0, 1), pack("<BBhi", 0x95, 0, 0, 0)]
    code += [_equal(2, DEVICE_CHAR, len(deny)), *deny]
    for major, minor in ALLOWED:
        test = [_unequal(3, major, len(allow) + (minor is not None))]
        if minor is not None:
            test.append(_unequal(4, minor, len(allow)))
        code += [*test, *allow]
    return b"".join([*code, *deny])


def attach(group: int) -> None:
    """Put the filter in force for the group behind descriptor ``group``, and all below it. Raises OSError."""
    code, license = bytearray(program()), bytearray(b"Apache-2.0\0")
    # union bpf_attr: prog_type, insn_cnt, insns, license; then target_fd, attach_bpf_fd, attach_type, attach_flags
    load = pack(
        "<IIQQIIQ",
        PROG_TYPE_CGROUP_DEVICE,
        len(code) // 8,
        syscalls.address_of(code),
        syscalls.address_of(license),
        *(0, 0, 0),
    )
    loaded = _bpf(BPF_PROG_LOAD, load)
    try:
        _bpf(BPF_PROG_ATTACH, pack("<IIII", group, loaded, CGROUP_DEVICE, ALLOW_MULTI))
    finally:
        os.close(loaded)


def _bpf(command: int, attributes: bytes) -> int:
    result = syscalls.syscall(syscalls.NR_bpf, command, attributes, len(attributes))
    return syscalls.check(result, "bpf")


def _load(register: int, offset: int) -> bytes:
    """register = *(u32 *)(r1 + offset)"""
    return pack("<BBhi", 0x61, 0x10 | register, offset, 0)


def _equal(register: int, value: int, skip: int) -> bytes:
    """if register == value: skip instructions"""
    return pack("<BBhi", 0x15, register, skip, value)


def _unequal(register: int, value: int, skip: int) -> bytes:
    return pack("<BBhi", 0x55, register, skip, value)
