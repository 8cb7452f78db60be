"""Capabilities: names and numbers, and the five sets of a container's process (capabilities(7)).

A declared list is a mask: bit N is capability number N. Two steps apply it. :func:`prepare` runs before the
fork and does whatever costs; :func:`apply` adds to the calls of the container's init, and of every process that joins
the container.

What the program then has, with M the declared mask:

=================  ==================  ============================  =====================
set                user 0              another user                  ... with ``ambient`` A
=================  ==================  ============================  =====================
bounding           M                   M                             M
permitted          M                   empty                         A
effective          M                   empty                         A
inheritable        empty               empty                         A
ambient            empty               empty                         A
=================  ==================  ============================  =====================

User 0 of the container gets M back at each execve because the kernel grants root what the bounding set
leaves. For another user the second column is Docker's behaviour: execve clears what it had, and with
``no_new_privs`` no file capability brings it back. A composition that declares capabilities *and* a user
means something by it, so the engine may pass the declared list as ``ambient`` and the program keeps them.
Inheritable is never filled otherwise: a non-empty set there gave file capabilities to ordinary users in
several runtimes (CVE-2022-29162 and its siblings).
"""

from __future__ import annotations

from _struct import pack

from containust.core.syscalls import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    NR_capset,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from containust.core.calls import Calls

_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE
"""
NAMES: tuple[str, ...] = tuple(_NAMES.split())
"""Capability names without ``CAP_``; the index is the kernel's number (linux/capability.h)."""

DEFAULT: tuple[str, ...] = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "NET_BIND_SERVICE",
)
"""What a container has when it declares nothing (runtime.md, "Privileges")."""

DEFAULT_MASK = 0
for _name in DEFAULT:
    DEFAULT_MASK |= 1 << NAMES.index(_name)

_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two 32-bit words a set


class Prepared:
    """Capability sets ready for :func:`apply`. ``drop`` are the numbers that leave the bounding set."""

    __slots__ = ("ambient", "data", "data_ambient", "drop", "header", "raised")

    def __init__(self, mask: int, ambient: int, last: int) -> None:
        self.drop = [number for number in range(last + 1) if not mask >> number & 1]
        self.ambient = ambient
        self.raised = [number for number in range(last + 1) if ambient >> number & 1]
        self.header = pack("<Ii", _VERSION_3, 0)
        self.data = _sets(mask, 0)
        self.data_ambient = _sets(ambient, ambient)


def parse(names: Iterable[str]) -> int:
    """Mask of a declared list. A name is upper or lower case, with or without ``CAP_``; ``ALL`` is every one.

    Raises E006 for a name that is no capability.
    """
    mask = 0
    for name in names:
        bare = name.upper().removeprefix("CAP_")
        if bare == "ALL":
            mask |= (1 << len(NAMES)) - 1
        elif bare in NAMES:
            mask |= 1 << NAMES.index(bare)
        else:
            raise _unknown(name, bare)
    return mask


def names(mask: int) -> list[str]:
    """Names in ``mask``, without prefix, in the kernel's order; an unnamed bit shows as its number."""
    return [
        NAMES[number] if number < len(NAMES) else str(number)
        for number in range(mask.bit_length())
        if mask >> number & 1
    ]


def last_capability() -> int:
    """The highest capability number of the running kernel."""
    with open("/proc/sys/kernel/cap_last_cap", "rb", buffering=0) as file:
        return int(file.read(16))


def prepare(mask: int, ambient: int = 0, last: int | None = None) -> Prepared:
    """Sets for :func:`apply`; runs before the fork, while the host's ``/proc`` is there.

    ``ambient`` is what a user other than 0 keeps; it has to lie within ``mask``. Bits that the running kernel
    does not know are left out: nobody can have them. ``last`` is the kernel's last capability when the caller
    has it.
    """
    if last is None:
        last = last_capability()
    known = (1 << last + 1) - 1
    return Prepared(mask & known, ambient & mask & known, last)


def apply(calls: Calls, prepared: Prepared, uid: int) -> None:
    """Become user ``uid`` with exactly the prepared sets, and set ``no_new_privs``.

    For a process with all capabilities in its user namespace, its groups already set, between clone3 and execve. The
    order matters: the bounding set can only shrink while SETPCAP is effective, and the change of user clears the
    permitted set unless PR_SET_KEEPCAPS says otherwise (the kernel resets that at execve).
    """
    for number in prepared.drop:
        calls.prctl(PR_CAPBSET_DROP, number)
    calls.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    keep = uid != 0 and prepared.ambient != 0
    if keep:
        calls.prctl(PR_SET_KEEPCAPS, 1)
    calls.setresuid(uid)
    if keep:
        calls.add("capset", None, NR_capset, prepared.header, prepared.data_ambient)
        for number in prepared.raised:
            calls.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
    else:
        calls.add("capset", None, NR_capset, prepared.header, prepared.data if uid == 0 else _NOTHING)
    calls.prctl(PR_SET_NO_NEW_PRIVS, 1)


def _sets(mask: int, inheritable: int) -> bytes:
    """``struct __user_cap_data_struct[2]``: effective, permitted, inheritable, low words then high words."""
    low, high = mask & 0xFFFFFFFF, mask >> 32
    return pack("<6I", low, low, inheritable & 0xFFFFFFFF, high, high, inheritable >> 32)


_NOTHING = _sets(0, 0)


def _unknown(name: str, bare: str) -> Exception:
    from difflib import get_close_matches

    from containust.common.errors import ContainustError

    close = get_close_matches(bare, NAMES, 1)
    help = [f"did you mean {close[0]}?"] if close else ["the names are those of capabilities(7)"]
    return ContainustError("E006", f"unknown capability {name!r}", *help)
