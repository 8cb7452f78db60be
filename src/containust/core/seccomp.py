"""Seccomp filters: the bytes of the right one, and loading it (seccomp(2)).

A filter here is its *blob*: an array of ``struct sock_filter`` as the kernel takes it, eight bytes an
instruction. The default profile ships compiled, so a container's start reads one small file and makes one
system call. Anything else (a default that declared capabilities widen, a profile file in the OCI format) is
compiled once by :mod:`containust.core.seccomp_compile` and kept under a name made of everything that went
into it.
"""

from __future__ import annotations

from _struct import pack

from containust.common import os
from containust.core.syscalls import MACHINE, NR_seccomp, address_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.core.calls import Calls

_SECCOMP_SET_MODE_FILTER = 1
_INSTRUCTION = 8

# Capabilities that widen the default profile (seccomp_profile.GATED says with what); the test keeps the two
# equal. DAC_READ_SEARCH NET_ADMIN NET_RAW SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
# SYS_BOOT SYS_NICE SYS_TIME SYS_TTY_CONFIG SYSLOG PERFMON BPF
WIDENING = 0xC406FF3004

COMPAT = {"x86_64": "i386", "aarch64": "arm"}
"""The 32-bit system call table that each architecture's kernel also serves."""


class Filter:
    """A blob in the form that :func:`load` hands to the kernel. It keeps the memory that the kernel reads."""

    __slots__ = ("memory", "program")

    def __init__(self, blob: bytes) -> None:
        self.memory = bytearray(blob)
        # struct sock_fprog: the number of instructions, padding, a pointer to them.
        self.program = pack("<H6xQ", len(blob) // _INSTRUCTION, address_of(self.memory))


def prepare(blob: bytes) -> Filter | None:
    """The filter for :func:`load`, made before the fork; None for the empty blob of ``"unconfined"``."""
    return Filter(blob) if blob else None


def load(calls: Calls, filter: Filter | None) -> None:
    """Install ``filter`` in the process that makes the calls: one call, the last but execve.

    ``no_new_privs`` has to be set (:func:`containust.core.capability.apply` does). None installs nothing.
    """
    if filter is not None:
        calls.add("seccomp", None, NR_seccomp, _SECCOMP_SET_MODE_FILTER, 0, filter.program)


def blob(profile: str, capabilities: int, cache: str, compat: bool = False) -> bytes:
    """The compiled filter for a container; empty for ``"unconfined"``.

    ``profile`` is ``"default"``, ``"unconfined"`` or the path of a profile in the OCI format (runtime-spec,
    config-linux.md, "Seccomp"), where Docker's ``archMap``, ``includes`` and ``excludes`` are understood as
    well. ``capabilities`` is the declared mask. ``cache`` is a directory that only this user can write; it is
    made when first needed. ``compat`` admits 32-bit calls, for images built for 386 or arm; it concerns the
    default profile only, a profile file says so itself in ``architectures``.

    Raises E006 for a profile file that is missing, unreadable or wrong.
    """
    if profile == "unconfined":
        return b""
    widened = capabilities & WIDENING
    if profile == "default":
        source = _shipped(compat)
        if not widened:
            return source
    else:
        source = _read_profile(profile)
    kept = f"{cache}/{_digest(source, profile == 'default', capabilities)}.bpf"
    try:
        compiled = _read(kept)
    except FileNotFoundError:
        compiled = b""
    if not compiled or len(compiled) % _INSTRUCTION:
        compiled = _compile(profile, source, capabilities, compat)
        _keep(cache, kept, compiled)
    return compiled


def shipped_name(machine: str, compat: bool) -> str:
    """File name, in ``core/data``, of the default profile's blob."""
    return f"seccomp-{machine}-{COMPAT[machine]}.bpf" if compat else f"seccomp-{machine}.bpf"


def _shipped(compat: bool) -> bytes:
    return _read(f"{os.path.dirname(__file__)}/data/{shipped_name(MACHINE, compat)}")


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A filter has at most 4096 instructions (BPF_MAXINSNS).
        return os.read(fd, 4097 * _INSTRUCTION)
    finally:
        os.close(fd)


def _read_profile(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        from containust.common.errors import ContainustError

        raise ContainustError(
            "E006",
            f"seccomp profile {path}: {error.strerror}",
            'give "default", "unconfined" or the path of a profile in the OCI format',
        ) from None


def _digest(source: bytes, default: bool, capabilities: int) -> str:
    """Name of a compiled filter: what went into it; the shipped blob stands for the compiler's version."""
    try:
        from _sha2 import sha256
    except ImportError:  # Python 3.11
        from _sha256 import sha256

    hash = sha256(b"" if default else _shipped(False))
    hash.update(b"%d:%x:%s:%d:" % (default, capabilities, MACHINE.encode(), len(source)))
    hash.update(source)
    return str(hash.hexdigest())


def _compile(profile: str, source: bytes, capabilities: int, compat: bool) -> bytes:
    from containust.core.seccomp_compile import compile, parse

    tree: dict[str, Any]
    if profile == "default":
        from containust.core.seccomp_profile import default_profile

        tree = default_profile(MACHINE, capabilities, compat)
    else:
        tree = parse(source, profile)
    return compile(tree, MACHINE, capabilities, profile)


def _keep(cache: str, path: str, compiled: bytes) -> None:
    """Store for the next start; a cache that cannot be written is no reason not to start."""
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(cache, 0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, compiled)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        return
