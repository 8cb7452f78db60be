"""Landlock: a second wall behind the capability sets and the seccomp filter (landlock(7)).

A domain that this module makes denies three things to the program and everything it executes, even with every
capability: making device nodes, changing any mount, reaching abstract unix sockets outside. The last is for
a container that shares the host's network: containerd's was once reached this way (CVE-2020-15257).

Paths below ``/proc/sys`` and ``/sys`` are not its business: a rule for ``/`` holds for everything below it and a
ruleset cannot take a directory out again. Read-only mounts do that.

Its price: a process that joins a container is in a domain of its own, so it cannot trace the container's
first processes, nor read their ``/proc/PID/environ`` and ``fd``. A container that declares SYS_PTRACE or SYS_ADMIN
goes without.
"""

from __future__ import annotations

import os
from struct import pack

from containust.core.syscalls import check, syscall

_NR_CREATE_RULESET, _NR_ADD_RULE, _NR_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
ACCESS_FS_MAKE_CHAR = 1 << 6
ACCESS_FS_MAKE_BLOCK = 1 << 11
ACCESS_FS_REFER = 1 << 13
SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
_BEYOND = 1 << 19 | 1 << 21  # SYS_PTRACE, SYS_ADMIN: declared for what a domain forbids


def abi() -> int:
    """Version of the kernel's Landlock, from 1; 0 where there is none or it is switched off."""
    return max(0, syscall(_NR_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION))


def walls(capabilities: int, host_network: bool) -> tuple[str, ...]:
    """What :func:`ruleset` forbids a container with the capability mask: ``device nodes``, ``mounts`` and
    ``abstract sockets of the host``; empty where it forbids nothing."""
    version = abi()
    if version < 2 or capabilities & _BEYOND:
        return ()
    scoped = ("abstract sockets of the host",) if host_network and version >= 6 else ()
    return ("device nodes", "mounts", *scoped)


def ruleset(capabilities: int, host_network: bool) -> int:
    """Descriptor of a container's ruleset for :func:`apply`, -1 for a container that goes without.

    Abstract sockets belong to a network namespace, so only a container on the host's network has to be kept from any.
    """
    if capabilities & _BEYOND:
        return -1
    return prepare(abi(), SCOPE_ABSTRACT_UNIX_SOCKET if host_network else 0)


def prepare(version: int, scoped: int = 0) -> int:
    """Descriptor of a ruleset for :func:`apply`, or -1 where Landlock is too old (below 2, Linux 5.19).

    ``version`` is :func:`abi`'s. ``scoped`` is SCOPE_ABSTRACT_UNIX_SOCKET or 0; before version 6 (Linux 6.12)
    it is left out. Runs before the fork; the descriptor is closed on exec.
    """
    if version < 2:
        # Version 1 cannot allow renames between directories, which programs need.
        return -1
    handled = ACCESS_FS_MAKE_CHAR | ACCESS_FS_MAKE_BLOCK | ACCESS_FS_REFER
    attribute = pack("<3Q", handled, 0, scoped) if version >= 6 else pack("<Q", handled)
    return check(syscall(_NR_CREATE_RULESET, attribute, len(attribute), 0), "landlock_create_ruleset")


def apply(ruleset: int) -> None:
    """Enter the domain; ``/`` is the container's by now. For the child between fork and exec.

    ``no_new_privs`` has to be set, and the seccomp filter may follow. -1 does nothing. Raises OSError.
    """
    if ruleset < 0:
        return
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    # A ruleset denies renames between directories unless a rule allows them; nothing else is given back.
    rule = pack("<Qi", ACCESS_FS_REFER, root)
    check(syscall(_NR_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0), "landlock_add_rule")
    check(syscall(_NR_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(root)
