"""Who has a port: read from /proc, for the text of an error only."""

from __future__ import annotations

import os

_TABLES = {"tcp": ("/proc/net/tcp", "/proc/net/tcp6"), "udp": ("/proc/net/udp", "/proc/net/udp6")}
_LISTEN = "0A"


def port_owner(address: str, port: int, protocol: str) -> str:
    """``"NAME (pid N)"`` of the process that has the port, or an empty string if it cannot be told.

    ``address`` only decides nothing here: whoever holds the port on any address is named.
    """
    inodes = _inodes(port, protocol)
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{descriptor}") in wanted:
                    return f"{_name(pid)} (pid {pid})"
        except OSError:
            continue
    return ""


def _inodes(port: int, protocol: str) -> list[str]:
    """Socket inodes bound to the port, listening ones first. A bound socket that does not listen is in no
    list."""
    found = []
    for path in _TABLES[protocol]:
        try:
            with open(path) as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        for row in rows:
            if int(row[1].rpartition(":")[2], 16) == port and (protocol == "udp" or row[3] == _LISTEN):
                found.append(row[9])
    return found


def _name(pid: str) -> str:
    with open(f"/proc/{pid}/comm") as comm:
        return comm.read().strip()
