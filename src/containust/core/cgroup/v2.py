"""The unified hierarchy (Documentation/admin-guide/cgroup-v2.rst of the kernel)."""

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
from containust.core.syscalls import EEXIST, ENOENT

WANTED = ("cpu", "memory", "pids", "io")


class V2Manager:
    """Groups below ``/sys/fs/cgroup/containust``, with controllers enabled all the way down."""

    version = 2
    controllers: tuple[str, ...] = ()

    def __init__(self, root: str) -> None:
        self.root = root

    def create(self, path: str, limits: Limits) -> V2Cgroup:
        directory = f"{self.root}/{path}"
        try:
            self._make_parents(path.rpartition("/")[0])
            try:
                os.mkdir(directory)
            except FileExistsError:
                pass
            for name, value in settings(limits, directory):
                write_control(f"{directory}/{name}", value)
            self._filter_devices(directory)
        except ContainustError:
            self.prune(path)
            raise
        except OSError as error:
            self.prune(path)
            raise ContainustError(
                "R002",
                f"cannot set a limit in {error.filename}: {error.strerror}",
                "`ctst doctor` shows which controllers this host offers and delegates",
            ) from None
        group = V2Cgroup(self.root, path)
        group.open_join()
        return group

    def _filter_devices(self, directory: str) -> None:
        _filter_devices(directory)

    def find(self, path: str) -> V2Cgroup:
        return V2Cgroup(self.root, path)

    def control_files(self, path: str, limits: Limits) -> list[tuple[str, str]]:
        directory = f"{self.root}/{path}"
        return [(f"{directory}/{name}", value) for name, value in settings(limits, directory)]

    def prune(self, path: str) -> None:
        while path:
            try:
                os.rmdir(f"{self.root}/{path}")
            except OSError as error:
                if error.errno != ENOENT:
                    return
            path = path.rpartition("/")[0]

    def _make_parents(self, path: str) -> None:
        directory = self.root
        for part in ["", *path.split("/")]:
            if part:
                directory = f"{directory}/{part}"
                try:
                    os.mkdir(directory)
                except OSError as error:
                    if error.errno != EEXIST:
                        raise
            enabled = (read_text(f"{directory}/cgroup.subtree_control") or "").split()
            offered = (read_text(f"{directory}/cgroup.controllers") or "").split()
            missing = [name for name in WANTED if name in offered and name not in enabled]
            if missing:
                write_control(f"{directory}/cgroup.subtree_control", " ".join(f"+{name}" for name in missing))


class V2Cgroup:
    """One container's group."""

    def __init__(self, root: str, path: str) -> None:
        self.root = root
        self.path = path
        self.clone_fd = -1
        self.join_fds: list[int] = []

    def open_join(self) -> None:
        """Open the directory for CLONE_INTO_CGROUP."""
        self.clone_fd = os.open(f"{self.root}/{self.path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        if self.clone_fd >= 0:
            os.close(self.clone_fd)
            self.clone_fd = -1

    def processes(self) -> list[int]:
        """Pids in the group."""
        return [int(word) for word in (read_text(f"{self.root}/{self.path}/cgroup.procs") or "").split()]

    def kill(self) -> None:
        try:
            write_control(f"{self.root}/{self.path}/cgroup.kill", "1")
        except FileNotFoundError:
            from containust.core.cgroup.killing import kill_members

            kill_members(self.processes(), self.path)

    def thaw(self) -> None:
        """Nothing to do: SIGKILL ends what the freezer of v2 holds."""

    def stats(self) -> Stats:
        stats = Stats()
        directory = f"{self.root}/{self.path}"
        stats.memory = read_number(f"{directory}/memory.current")
        stats.memory_peak = read_number(f"{directory}/memory.peak")
        stats.memory_limit = read_number(f"{directory}/memory.max")
        stats.oom_kills = read_keyed(f"{directory}/memory.events").get("oom_kill")
        stats.pids = read_number(f"{directory}/pids.current")
        cpu = read_keyed(f"{directory}/cpu.stat")
        stats.cpu_ns = cpu["usage_usec"] * 1000 if "usage_usec" in cpu else None
        stats.throttled_periods = cpu.get("nr_throttled")
        read = written = 0
        for line in (read_text(f"{directory}/io.stat") or "").splitlines():
            for field in line.split()[1:]:
                key, _, value = field.partition("=")
                if key == "rbytes":
                    read += int(value)
                elif key == "wbytes":
                    written += int(value)
        stats.io_read, stats.io_write = read, written
        stats.cpu_pressure = pressure(f"{directory}/cpu.pressure")
        stats.memory_pressure = pressure(f"{directory}/memory.pressure")
        stats.io_pressure = pressure(f"{directory}/io.pressure")
        return stats

    def oom_kills(self) -> int:
        """How many processes of the group the kernel has killed for memory."""
        return read_keyed(f"{self.root}/{self.path}/memory.events").get("oom_kill", 0)

    def remove(self) -> bool:
        return remove_group(f"{self.root}/{self.path}")


def _filter_devices(directory: str) -> None:
    from containust.core.cgroup.devices import attach

    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attach(group)
    except OSError as error:
        error.filename = f"the device filter of {directory}"
        raise
    finally:
        os.close(group)


def settings(limits: Limits, directory: str) -> list[tuple[str, str]]:
    """The control files of ``limits`` in ``directory`` with their values, in the order in which they are written."""
    files = []
    if limits.memory is not None:
        files.append(("memory.max", str(limits.memory)))
        if os.path.exists(f"{directory}/memory.swap.max"):  # also where there is no swap yet
            files.append(("memory.swap.max", "0"))
        files.append(("memory.oom.group", "1"))
    if limits.cpu_shares is not None:
        files.append(("cpu.weight", str(cpu_weight(limits.cpu_shares))))
    if limits.cpu_quota is not None:
        files.append(("cpu.max", f"{limits.cpu_quota} {CPU_PERIOD}"))
    if limits.io_weight is not None:
        files += _io_weight(limits.io_weight, directory)
    if limits.io_max is not None:
        from containust.core.cgroup.disks import bounds_v2

        files += bounds_v2(limits)
    if limits.pids is not None:
        files.append(("pids.max", str(limits.pids)))
    return files


def _io_weight(weight: int, directory: str) -> list[tuple[str, str]]:
    """Two schedulers weigh, each by a file of its own: blk-iocost, and BFQ, whose weights end at 1000."""
    files = {"io.weight": weight, "io.bfq.weight": min(1000, weight)}
    present = [(name, f"default {value}") for name, value in files.items() if os.path.exists(f"{directory}/{name}")]
    if present:
        return present
    raise ContainustError(
        "R002",
        "this kernel has no proportional I/O weight (io.weight or io.bfq.weight)",
        "remove `io_weight`, or boot a kernel with CONFIG_BLK_CGROUP_IOCOST or the BFQ scheduler",
    )


def pressure(path: str) -> float | None:
    """Percent of the last ten seconds in which some process waited for the resource (Documentation/accounting/psi.rst);
    None where the kernel does not account it."""
    for field in (read_text(path) or "").split():
        if field.startswith("avg10="):
            return float(field[6:])
    return None


def cpu_weight(shares: int) -> int:
    """``cpu.weight`` (1-10000, normal 100) for v1 shares (2-262144, normal 1024).

    The quadratic in log2 that passes through (2, 1), (1024, 100) and (262144, 10000), as OCI runtimes use since 2025.
    """
    import math

    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    exponent = math.log2(shares)
    return max(1, min(10000, math.ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))))
