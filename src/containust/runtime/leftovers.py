"""What projects left on this host that no command of theirs will remove: their directory is gone, or nothing runs.

Everything of a project carries its id (:func:`containust.runtime.project.project_id`), which is made of its
directory's path; the claims of id ranges in ``/run/containust/ranges`` name these directories.
"""

from __future__ import annotations

import os

from containust.common.types import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.doctor import Check

ROOT = "/sys/fs/cgroup"


class Remains(Record):
    """What one project has on the host: ``id`` (its first seven digits where only a bridge tells it), ``directory``
    ("" when no claim names it), names of bridges and tables, paths of cgroups, how many processes they hold."""

    __slots__ = ("bridges", "directory", "groups", "id", "processes", "tables")

    def __init__(self, id: str, directory: str = "") -> None:
        self.id = id
        self.directory = directory
        self.bridges: list[str] = []
        self.tables: list[str] = []
        self.groups: list[str] = []
        self.processes = 0


def checks() -> list[Check]:
    """The checks for ``ctst doctor``."""
    from containust.runtime.doctor import OK, WARN, Check

    result = []
    claimed = claims()
    for remains in survey(claimed):
        if remains.processes:
            continue
        things = [*remains.bridges, *(f"table {name}" for name in remains.tables), *remains.groups]
        if os.path.isdir(remains.directory):
            what, command = remains.directory, f"ctst -C {os.path.dirname(remains.directory)} ps --all"
        else:
            what, command = remains.directory or f"id {remains.id}", removal(remains)
        result.append(
            Check("leftovers", WARN, f"of the project {what}, without a process: {', '.join(things)}", command)
        )
    gone = sum(1 for directory in claimed.values() if not os.path.isdir(directory))
    if not result:
        result.append(Check("leftovers", OK, "no project left a bridge, a table or a cgroup behind"))
    detail = f"{len(claimed)} claimed"
    if gone:
        detail += f", {gone} of them by projects that are gone; these are handed out again when needed"
    result.append(Check("id ranges", OK, detail))
    return result


def claims() -> dict[int, str]:
    """First host id of each claimed range -> project directory."""
    from containust.runtime.ranges import DIRECTORY

    found = {}
    try:
        names = os.listdir(DIRECTORY)
    except OSError:
        return {}
    for name in names:
        try:
            found[int(name)] = os.readlink(f"{DIRECTORY}/{name}")
        except (OSError, ValueError):
            continue
    return found


def survey(claimed: dict[int, str]) -> list[Remains]:
    """All projects that have something on this host now."""
    from containust.core.cgroup import PARENT
    from containust.runtime.network.rules import BRIDGE_PREFIX, TABLE_PREFIX
    from containust.runtime.project import project_id

    directories = {project_id(os.path.realpath(directory)): directory for directory in claimed.values()}
    found: dict[str, Remains] = {}

    def of(id: str) -> Remains:
        # A bridge's name has room for seven digits only.
        key = id[:7]
        if key not in found:
            full = next((known for known in directories if known.startswith(id)), id)
            found[key] = Remains(full, directories.get(full, ""))
        return found[key]

    for parent in (ROOT, *(f"{ROOT}/{name}" for name in _names(ROOT))):
        for id in _names(f"{parent}/{PARENT}"):
            if len(id) == 10:
                remains = of(id)
                remains.id = id
                remains.groups.append(f"{parent}/{PARENT}/{id}")
                remains.processes += _processes(f"{parent}/{PARENT}/{id}")
    for name in _bridges():
        if name.startswith(BRIDGE_PREFIX):
            of(name[len(BRIDGE_PREFIX) : len(BRIDGE_PREFIX) + 7]).bridges.append(name)
    for name in _tables():
        if name.startswith(TABLE_PREFIX):
            of(name[len(TABLE_PREFIX) :]).tables.append(name)
    return list(found.values())


def removal(remains: Remains) -> str:
    """A command line for root that removes what a vanished project left."""
    commands = [f"nft delete table inet {name}" for name in remains.tables]
    if remains.bridges:
        # All links of a project are in one group, so that this takes the veth pairs with the bridges.
        commands.append(f"ip link delete group {int(remains.id[:7], 16) | 0x10000000}")
    commands += [f"find {path} -depth -type d -exec rmdir {{}} +" for path in remains.groups]
    return "; ".join(commands)


def _bridges() -> list[str]:
    # Asked of the kernel: a /sys of another network namespace would tell of other links.
    from containust.core import netlink, rtnetlink

    connection = netlink.Connection(netlink.NETLINK_ROUTE)
    try:
        return sorted(link.name for link in rtnetlink.links(connection) if link.kind == "bridge")
    finally:
        connection.close()


def _tables() -> list[str]:
    from containust.core import nftables

    try:
        connection = nftables.connect()
    except OSError:
        return []
    try:
        return [name for name, _ in nftables.tables(connection)]
    except OSError:
        return []
    finally:
        connection.close()


def _processes(group: str) -> int:
    count = 0
    for parent, _, _ in os.walk(group):
        try:
            with open(f"{parent}/cgroup.procs") as file:
                count += len(file.read().split())
        except OSError:
            continue
    return count


def _names(directory: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
