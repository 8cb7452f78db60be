"""``user`` of a component, looked up in the image's own passwd and group files.

The files are read through the image's root descriptor, must be regular, and are read up to a bound: an image may ship
a FIFO or a link in their place (attacks.md, CVE-2024-9676).
"""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.core.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, S_IFREG, openat2

MAX_ID = 0xFFFF_FFFE
MAX_FILE = 1 << 20


class User:
    """Ids a process starts with, and its home directory."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def resolve(user: str | None, root_fd: int, limit: int = 65536) -> User:
    """The :class:`User` for ``uid[:gid]`` or names; None and the empty string mean root.

    ``limit`` is the number of ids that the container has. Raises ContainustError R004.
    """
    name, colon, group = (user or "0").partition(":")
    accounts = _table(root_fd, "etc/passwd")
    uid = _number(name, user)
    entry = _find(accounts, name, 0) if uid is None else _find(accounts, str(uid), 2)
    if uid is None:
        if entry is None or not entry[2].isdigit():
            raise _unknown(user, f"{name!r} is not in the image's /etc/passwd")
        uid = int(entry[2])
    gid = int(entry[3]) if entry and len(entry) > 3 and entry[3].isdigit() else 0
    home = entry[5] if entry and len(entry) > 5 and entry[5].startswith("/") else ("/root" if uid == 0 else "/")
    groups: list[int] = []
    if colon:
        if not group:
            raise _unknown(user, "the group after ':' is empty")
        number = _number(group, user)
        if number is None:
            row = _find(_table(root_fd, "etc/group"), group, 0)
            if row is None or not row[2].isdigit():
                raise _unknown(user, f"{group!r} is not in the image's /etc/group")
            number = int(row[2])
        gid = number
    elif entry:
        for row in _table(root_fd, "etc/group"):
            if len(row) > 3 and row[2].isdigit() and entry[0] in row[3].split(","):
                groups.append(int(row[2]))
    if uid >= limit or gid >= limit:
        raise _unknown(user, f"ids above {limit - 1} are not mapped into the container")
    return User(uid, gid, groups, home)


def _number(text: str, user: str | None) -> int | None:
    if not text:
        raise _unknown(user, "the user is empty")
    if not (text.isascii() and text.isdigit()):
        if text[0] in "+-" or text[0].isdigit():
            raise _unknown(user, f"{text!r} is neither a number nor a name")
        return None
    value = int(text) if len(text) <= 10 else MAX_ID + 1
    if value > MAX_ID:
        raise _unknown(user, f"{text} is too large")
    return value


def _unknown(user: str | None, why: str) -> ContainustError:
    return ContainustError("R004", f"user {user!r}: {why}", "`user` is uid[:gid] or names of the image")


def _find(table: list[list[str]], value: str, column: int) -> list[str] | None:
    for row in table:
        if len(row) > column and row[column] == value:
            return row
    return None


def _table(root_fd: int, path: str) -> list[list[str]]:
    try:
        fd = openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError:
        return []
    try:
        status = os.fstat(fd)
        if status.st_mode & 0o170000 != S_IFREG:
            return []
        text = os.read(fd, min(status.st_size, MAX_FILE))
    finally:
        os.close(fd)
    return [line.split(":") for line in text.decode(errors="surrogateescape").splitlines() if line]
