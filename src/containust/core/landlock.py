"""Landlock: a second wall behind the capability sets and the seccomp filter (landlock(7)).

A domain that this module makes denies four things to the program and all that it executes, even with every capability:

- writing to a file, and making or removing one, that does not lie below the container's root. A descriptor, a working
  directory or a link of ``/proc`` that leads to a file of the host, such as the interpreter that ctst itself runs on
  (``/proc/self/exe``, CVE-2019-5736), is of no use for that. Standard input, output and error are excepted: they may be
  opened again as ``/dev/stdout``;
- making device nodes, changing any mount;
- reaching abstract unix sockets outside, for a container that shares the host's network: containerd's was once reached
  this way (CVE-2020-15257).

Paths below ``/proc/sys`` and ``/sys`` are not its business: a rule for ``/`` holds for everything below it and a
ruleset cannot take a directory out again. Read-only mounts do that.

Its price: a process that joins a container is in a domain of its own, so it cannot trace the container's
first processes, nor read their ``/proc/PID/environ`` and ``fd``. A container that declares SYS_PTRACE or SYS_ADMIN
goes without.
"""

from __future__ import annotations

from _struct import pack

from containust.common import os
from containust.core.calls import ANY
from containust.core.syscalls import AT_FDCWD, check, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.core.calls import Calls

_NR_CREATE_RULESET, _NR_ADD_RULE, _NR_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
ACCESS_FS_WRITE_FILE = 1 << 1
ACCESS_FS_MAKE_CHAR = 1 << 6
ACCESS_FS_MAKE_BLOCK = 1 << 11
ACCESS_FS_REFER = 1 << 13
ACCESS_FS_TRUNCATE = 1 << 14  # from version 3 on
# Removing and making files of every other kind, and moving them between directories, which a ruleset always denies.
_IN_DIRECTORIES = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12 | ACCESS_FS_REFER
SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
_BEYOND = 1 << 19 | 1 << 21  # SYS_PTRACE, SYS_ADMIN: declared for what a domain forbids


class Ruleset:
    """A ruleset for :func:`apply`: its descriptor, what it allows below the root and to the standard streams."""

    __slots__ = ("fd", "files", "tree")

    def __init__(self, fd: int, tree: int, files: int) -> None:
        self.fd = fd
        self.tree = tree
        self.files = files


def abi() -> int:
    """Version of the kernel's Landlock, from 1; 0 where there is none or it is switched off."""
    return max(0, syscall(_NR_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION))


def walls(capabilities: int, host_network: bool) -> tuple[str, ...]:
    """What :func:`ruleset` forbids a container with the capability mask: ``writing outside its root``, ``device
    nodes``, ``mounts`` and ``abstract sockets of the host``; empty where it forbids nothing."""
    version = abi()
    if version < 2 or capabilities & _BEYOND:
        return ()
    scoped = ("abstract sockets of the host",) if host_network and version >= 6 else ()
    return ("writing outside its root", "device nodes", "mounts", *scoped)


def ruleset(capabilities: int, host_network: bool) -> Ruleset | None:
    """A container's ruleset for :func:`apply`, None for one that goes without.

    Abstract sockets belong to a network namespace, so only a container on the host's network has to be kept from any.
    """
    if capabilities & _BEYOND:
        return None
    return prepare(abi(), SCOPE_ABSTRACT_UNIX_SOCKET if host_network else 0)


def prepare(version: int, scoped: int = 0) -> Ruleset | None:
    """A ruleset for :func:`apply`, or None where Landlock is too old (below 2, Linux 5.19).

    ``version`` is :func:`abi`'s. ``scoped`` is SCOPE_ABSTRACT_UNIX_SOCKET or 0; before version 6 (Linux 6.12)
    it is left out. Runs before the fork; the descriptor is closed on exec.
    """
    if version < 2:
        # Version 1 cannot allow renames between directories, which programs need.
        return None
    files = ACCESS_FS_WRITE_FILE | ACCESS_FS_TRUNCATE if version >= 3 else ACCESS_FS_WRITE_FILE
    tree = files | _IN_DIRECTORIES
    handled = tree | ACCESS_FS_MAKE_CHAR | ACCESS_FS_MAKE_BLOCK
    attribute = pack("<3Q", handled, 0, scoped) if version >= 6 else pack("<Q", handled)
    fd = check(syscall(_NR_CREATE_RULESET, attribute, len(attribute), 0), "landlock_create_ruleset")
    return Ruleset(fd, tree, files)


def apply(calls: Calls, ruleset: Ruleset | None) -> None:
    """Enter the domain; ``/`` is the container's by then. For the calls between clone3 and execve.

    ``no_new_privs`` has to be set, and the seccomp filter may follow. None does nothing.
    """
    if ruleset is None:
        return
    root = calls.openat(AT_FDCWD, "/", os.O_PATH)
    rule = calls.scratch
    access = pack("<Q", ruleset.tree)
    calls.store(rule, int.from_bytes(access[:4], "little"))
    calls.store(rule + 4, int.from_bytes(access[4:], "little"))
    calls.store(rule + 8, root)
    calls.add("landlock_add_rule", "/", _NR_ADD_RULE, ruleset.fd, _RULE_PATH_BENEATH, rule, 0)
    for stream in (0, 1, 2):
        # Fails for pipes and sockets, which have no path and are always allowed.
        allowed = pack("<Qi", ruleset.files, stream)
        calls.add("landlock_add_rule", stream, _NR_ADD_RULE, ruleset.fd, _RULE_PATH_BENEATH, allowed, forgiven=ANY)
    calls.add("landlock_restrict_self", None, _NR_RESTRICT_SELF, ruleset.fd, 0)
