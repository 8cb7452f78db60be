"""cgroup v1 and hybrid hosts: one directory a controller (Documentation/admin-guide/cgroup-v1 of the kernel)."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.core.cgroup import (
    CPU_PERIOD,
    Limits,
    Stats,
    read_keyed,
    read_number,
    read_text,
    remove_group,
    write_control,
)
from containust.core.syscalls import EBUSY, EEXIST, ENOENT

# Always joined: what `ps` shows and what bounds a fork bomb. Others only for a declared limit: each costs a directory.
ALWAYS = ("pids", "memory", "cpuacct")
ALL = ("pids", "memory", "cpuacct", "cpu", "blkio", "devices")

# What a group with ``Limits.devices`` may open: the nodes of core/filesystem/devices.py, terminals, nothing to be made.
DEVICES = (*(f"c 1:{minor} rw" for minor in (3, 5, 7, 8, 9)), "c 5:0 rw", "c 5:2 rw", "c 136:* rw")


class V1Manager:
    """Groups below ``/sys/fs/cgroup/<controller>/containust``."""

    version = 1

    def __init__(self, root: str) -> None:
        self.root = root
        self.controllers = tuple(name for name in ALWAYS if os.path.isdir(f"{root}/{name}"))
        self._made: dict[str, list[str]] = {}  # path -> controllers of the groups that this process has made

    def create(self, path: str, limits: Limits) -> V1Cgroup:
        group = V1Cgroup(self.root, path, [])
        try:
            for controller, files in self._settings(limits).items():
                group.add(controller)
                directory = f"{self.root}/{controller}/{path}"
                for name, value in files:
                    write_control(f"{directory}/{name}", value)
        except OSError as error:
            group.close()
            group.remove()
            self.prune(path)
            raise ContainustError(
                "R002",
                f"cannot set a limit in {error.filename}: {error.strerror}",
                "`ctst doctor` shows which controllers this host offers",
            ) from None
        self._made[path] = group.controllers
        return group

    def find(self, path: str) -> V1Cgroup:
        made = self._made.get(path)
        present = made if made else [name for name in ALL if os.path.isdir(f"{self.root}/{name}/{path}")]
        return V1Cgroup(self.root, path, list(present))

    def control_files(self, path: str, limits: Limits) -> list[tuple[str, str]]:
        return [
            (f"{self.root}/{controller}/{path}/{name}", value)
            for controller, files in self._settings(limits).items()
            for name, value in files
        ]

    def prune(self, path: str) -> None:
        while path:
            for controller in ALL:
                try:
                    os.rmdir(f"{self.root}/{controller}/{path}")
                except OSError as error:
                    if error.errno == EBUSY:
                        return  # others are in it; all of this goes with the last of them
            path = path.rpartition("/")[0]

    def _settings(self, limits: Limits) -> dict[str, list[tuple[str, str]]]:
        settings: dict[str, list[tuple[str, str]]] = {name: [] for name in self.controllers}
        if limits.pids is not None:
            settings.setdefault("pids", []).append(("pids.max", str(limits.pids)))
        if limits.memory is not None:
            files = settings.setdefault("memory", [])
            files.append(("memory.limit_in_bytes", str(limits.memory)))
            # memory plus swap; the file is absent where swap is not accounted, and then there is nothing to bound
            if os.path.exists(f"{self.root}/memory/memory.memsw.limit_in_bytes"):
                files.append(("memory.memsw.limit_in_bytes", str(limits.memory)))
        if limits.cpu_shares is not None:
            settings.setdefault("cpu", []).append(("cpu.shares", str(max(2, limits.cpu_shares))))
        if limits.cpu_quota is not None:
            files = settings.setdefault("cpu", [])
            files.append(("cpu.cfs_period_us", str(CPU_PERIOD)))
            files.append(("cpu.cfs_quota_us", str(limits.cpu_quota)))
        if limits.io_weight is not None:
            settings.setdefault("blkio", []).append(self._io_weight(limits.io_weight))
        if limits.io_max is not None:
            from containust.core.cgroup.disks import bounds_v1

            settings.setdefault("blkio", []).extend(bounds_v1(limits))
        if limits.devices:
            files = settings.setdefault("devices", [])
            files += [("devices.deny", "a"), *(("devices.allow", device) for device in DEVICES)]
        return settings

    def _io_weight(self, weight: int) -> tuple[str, str]:
        # Only groups below the root have a weight; the root shows by BFQ's other files that they will. Both count from
        # a default of 100, and BFQ's ends at 1000.
        if os.path.exists(f"{self.root}/blkio/blkio.bfq.io_serviced"):
            return "blkio.bfq.weight", str(min(1000, weight))
        raise ContainustError(
            "R002",
            "this kernel has no proportional I/O weight (blkio.bfq.weight)",
            "remove `io_weight`, or boot a kernel with the BFQ scheduler",
        )


class V1Cgroup:
    """One container's directories in the v1 hierarchies."""

    clone_fd = -1

    def __init__(self, root: str, path: str, controllers: list[str]) -> None:
        self.root = root
        self.path = path
        self.controllers = controllers
        self.join_fds: list[int] = []

    def add(self, controller: str) -> None:
        """Make the directory of ``controller`` and open the file by which a new process joins it."""
        self.controllers.append(controller)
        directory = f"{self.root}/{controller}/{self.path}"
        _make(directory)
        self.join_fds.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))

    def open_join(self) -> None:
        """Open the join files of an existing group."""
        for controller in self.controllers:
            self.join_fds.append(os.open(f"{self.root}/{controller}/{self.path}/tasks", os.O_WRONLY | os.O_CLOEXEC))

    def close(self) -> None:
        for fd in self.join_fds:
            os.close(fd)
        self.join_fds = []

    def processes(self) -> list[int]:
        """Pids in the group. The groups of probes and programs of exec are below it in the first hierarchy only."""
        for controller in reversed(self.controllers):
            text = read_text(f"{self.root}/{controller}/{self.path}/cgroup.procs")
            if text is not None:
                return [int(word) for word in text.split()]
        return []

    def kill(self) -> None:
        for _ in range(100):
            pids = self.processes()
            if not pids:
                return
            import time

            from containust.core.cgroup.killing import kill_members

            kill_members(pids, self.path, self.root)
            time.sleep(0.002)

    def thaw(self) -> None:
        from containust.core.cgroup.killing import thaw_members

        thaw_members(self.processes(), self.path, self.root)

    def stats(self) -> Stats:
        stats = Stats()
        memory = f"{self.root}/memory/{self.path}"
        stats.memory = read_number(f"{memory}/memory.usage_in_bytes")
        stats.memory_peak = read_number(f"{memory}/memory.max_usage_in_bytes")
        limit = read_number(f"{memory}/memory.limit_in_bytes")
        stats.memory_limit = limit if limit is not None and limit < 1 << 60 else None
        stats.oom_kills = read_keyed(f"{memory}/memory.oom_control").get("oom_kill")
        stats.pids = read_number(f"{self.root}/pids/{self.path}/pids.current")
        stats.cpu_ns = read_number(f"{self.root}/cpuacct/{self.path}/cpuacct.usage")
        if "cpu" in self.controllers:
            stats.throttled_periods = read_keyed(f"{self.root}/cpu/{self.path}/cpu.stat").get("nr_throttled")
        if "blkio" in self.controllers:
            stats.io_read, stats.io_write = self._io_bytes()
        return stats

    def _io_bytes(self) -> tuple[int, int]:
        """Bytes read and written, over all devices (``major:minor Read|Write|... bytes`` a line)."""
        totals = {"Read": 0, "Write": 0}
        path = f"{self.root}/blkio/{self.path}/blkio.throttle.io_service_bytes_recursive"
        for line in (read_text(path) or "").splitlines():
            fields = line.split()
            if len(fields) == 3 and fields[1] in totals:
                totals[fields[1]] += int(fields[2])
        return totals["Read"], totals["Write"]

    def oom_kills(self) -> int:
        """How many processes of the group the kernel has killed for memory."""
        return read_keyed(f"{self.root}/memory/{self.path}/memory.oom_control").get("oom_kill", 0)

    def remove(self) -> bool:
        gone = True
        for controller in self.controllers:
            gone = remove_group(f"{self.root}/{controller}/{self.path}") and gone
        return gone


def _make(directory: str) -> None:
    try:
        os.mkdir(directory)
    except OSError as error:
        if error.errno == EEXIST:
            return
        if error.errno != ENOENT:
            raise
        _make(directory.rpartition("/")[0])
        _make(directory)
