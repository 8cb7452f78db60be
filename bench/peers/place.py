"""A place for a benchmark: namespaces of its own, a scratch tmpfs, and nothing left when it ends.
The benchmark process moves into a new network and a new mount namespace before it starts anything. Bridges,
veths, firewall rules and mounts of every runtime are made there and vanish with it; the host's are never
touched. Orphans (shims, monitors, supervisors) are re-parented to the benchmark and ended by pid. Cgroups are
the one thing outside: those that appeared meanwhile under a name of the runtimes' are removed when empty.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
PR_SET_CHILD_SUBREAPER = 36
BUSYBOX = "/bin/busybox"
# Not Containust's: it removes its own, and those of other projects may come and go meanwhile.
_OURS = ("ctst-bench", "docker", "libpod_parent", "buildkit")


class Place:
    """A directory ``scratch``, an unpacked busybox image ``rootfs``, the same as an archive ``tar``.

    ``environment`` is what the runtimes are called with: their configuration is found below ``scratch``.
    """

    def __init__(self) -> None:
        if os.geteuid():
            sys.exit("this benchmark makes namespaces and cgroups: run it as root")
        libc = ctypes.CDLL(None, use_errno=True)
        self.cgroups = _cgroups()
        if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) or libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
        run("mount", "--make-rprivate", "/")
        run("ip", "link", "set", "lo", "up")
        self.scratch = tempfile.mkdtemp(prefix="ctst-bench-", dir="/var/tmp")
        # Where images lie on a host: on a disk. EROFS reads no files of a tmpfs, and would go by loop devices.
        self.disk = tempfile.mkdtemp(prefix="ctst-bench-images-", dir="/var/tmp")
        run("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", self.scratch)
        # What the runtimes keep under /run is ours, too.
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        self.rootfs, self.tar = f"{self.scratch}/rootfs", f"{self.scratch}/busybox.tar"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": f"{self.scratch}/home",
            "CONTAINERS_CONF": f"{self.scratch}/home/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self.scratch}/home/storage.conf",
        }
        os.mkdir(self.environment["HOME"])
        self._image()

    def _image(self) -> None:
        for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "run", "var/tmp"):
            os.makedirs(f"{self.rootfs}/{name}")
        shutil.copy2(BUSYBOX, f"{self.rootfs}/bin/busybox")
        for applet in ("sh", "true", "sleep", "cat", "echo"):
            os.symlink("busybox", f"{self.rootfs}/bin/{applet}")
        Path(f"{self.rootfs}/etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
        run("tar", "-C", self.rootfs, "-cf", self.tar, ".")

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_children()
        subprocess.run(["umount", "-l", self.scratch], check=False)
        os.rmdir(self.scratch)
        shutil.rmtree(self.disk)
        self._remove_cgroups()

    def end_children(self) -> None:
        """SIGTERM, then SIGKILL, to every process that came from this one; then reap them."""
        for number, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
            limit = time.monotonic() + patience
            for pid in descendants(os.getpid()):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            while time.monotonic() < limit:
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        time.sleep(0.02)
                except ChildProcessError:
                    return
        left = descendants(os.getpid())
        if left:
            print(f"warning: processes left: {left}", file=sys.stderr)

    def _remove_cgroups(self) -> None:
        for path in sorted(_cgroups() - self.cgroups, key=len, reverse=True):
            if any(part.startswith(_OURS) for part in path.split("/")):
                for _ in range(50):
                    try:
                        os.rmdir(path)
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        time.sleep(0.02)
        left = sorted(path for path in _cgroups() - self.cgroups if any(p.startswith(_OURS) for p in path.split("/")))
        if left:
            print(f"warning: cgroups left: {left[:5]}", file=sys.stderr)


def run(*argv: str, environment: dict[str, str] | None = None, seconds: float = 120) -> str:
    """Output of a command that has to succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=seconds, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(argv[:5])}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


def descendants(root: int) -> list[int]:
    """Pids that come from ``root``, children before grandchildren."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parents.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(int(name))
            except OSError:
                continue
    found, queue = [], [root]
    while queue:
        children = parents.get(queue.pop(0), [])
        found += children
        queue += children
    return found


def _cgroups() -> set[str]:
    found: set[str] = set()
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found.update(f"{directory}/{name}" for name in names)
    return found


def memory(pids: list[int]) -> tuple[int, int]:
    """``(RSS, PSS)`` of processes together, in KiB."""
    resident = proportional = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                for line in file:
                    if line.startswith("Rss:"):
                        resident += int(line.split()[1])
                    elif line.startswith("Pss:"):
                        proportional += int(line.split()[1])
        except OSError:
            continue
    return resident, proportional
