"""Limits of an ordinary user's containers: in the part of the cgroup v2 hierarchy that is delegated to the user.

That is the topmost group above this process that the user may make groups in (cgroups(7), "Delegation"): systemd
delegates ``user@UID.service`` so. There is none on cgroup v1, nor for a login session's own scope.
"""

from __future__ import annotations

from containust.common import os
from containust.common.types import DEFAULT_PIDS
from containust.core.cgroup import Limits, read_text, write_control
from containust.core.cgroup.none import NoManager, declared, refuse
from containust.core.cgroup.v2 import V2Cgroup, V2Manager
from containust.runtime import project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.core.cgroup import Manager

ROOT = "/sys/fs/cgroup"
OURS = "ctst"  # where processes of a delegated group go that is to have groups below it
CONTROLLERS = {
    "memory": "memory",
    "cpus": "cpu",
    "cpu_shares": "cpu",
    "io_weight": "io",
    "io_max": "io",
    "pids": "pids",
}
SYSTEMD = "run it as `systemd-run --user --scope -p Delegate=yes ctst …`, which delegates a control group"
VERSION1 = "boot with systemd.unified_cgroup_hierarchy=1: only cgroup v2 can be delegated to a user"
NOBODY = "let the system's manager delegate a cgroup v2 subtree to you (its directory, cgroup.procs and "
NOBODY += "cgroup.subtree_control belong to you, and your session is in it)"


def detect() -> Manager:
    """The manager of the delegated subtree, or one that refuses limits where there is none."""
    if not os.path.exists(f"{ROOT}/cgroup.controllers"):
        return NoManager(VERSION1)
    root = delegated(own())
    if root is None:
        return NoManager(SYSTEMD if os.path.isdir("/run/systemd/system") else NOBODY)
    return DelegatedManager(root)


def own() -> str:
    """The calling process's group in the unified hierarchy."""
    for line in (read_text("/proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


def delegated(path: str) -> str | None:
    """The topmost directory at or above the group ``path`` that groups may be made in; None without one."""
    found = None
    while path not in ("", "/"):
        directory = f"{ROOT}{path}"
        files = (directory, f"{directory}/cgroup.procs", f"{directory}/cgroup.subtree_control")
        if all(os.access(file, os.W_OK, effective_ids=True) for file in files):
            found = directory
        elif found:
            break
        path = path.rpartition("/")[0]
    return found


def offered(root: str) -> list[str]:
    """The controllers that are delegated at ``root``."""
    return (read_text(f"{root}/cgroup.controllers") or "").split()


def delegation_remedy(controllers: list[str]) -> str:
    """What delegates more controllers."""
    user = os.geteuid() or project.rootless_user
    return (
        f"as root: systemctl set-property user@{user}.service Delegate=yes, or write +{' +'.join(controllers)} into "
        "cgroup.subtree_control of the groups above"
    )


class DelegatedManager(V2Manager):
    """Groups below a directory that belongs to the user. No device filter: nobody there can make device nodes."""

    def create(self, path: str, limits: Limits) -> V2Cgroup:
        there = offered(self.root)
        lacking = [name for name in declared(limits) if CONTROLLERS[name] not in there]
        if limits.pids == DEFAULT_PIDS and "pids" in lacking:
            lacking.remove("pids")
            limits.pids = None  # RLIMIT_NPROC does for it
        missing = list(dict.fromkeys(CONTROLLERS[name] for name in lacking))
        why = f"the controller {' and '.join(missing)} is not delegated to you in {self.root}"
        refuse(lacking, why, delegation_remedy(missing))
        self._make_room()
        return super().create(path, limits)

    def _make_room(self) -> None:
        """Processes and groups do not go together in one group: move those that are directly in the root below it."""
        present = (read_text(f"{self.root}/cgroup.procs") or "").split()
        if present:
            try:
                os.mkdir(f"{self.root}/{OURS}")
            except FileExistsError:
                pass
            for pid in present:
                try:
                    write_control(f"{self.root}/{OURS}/cgroup.procs", pid)
                except OSError:
                    pass  # it has ended; what cannot be moved makes the limits fail, and that is said

    def _filter_devices(self, directory: str) -> None:
        pass
