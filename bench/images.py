"""Images against the tools that unpack them, in one run: import, start, re-verification.

    python bench/images.py [--files 30000] [--megabytes 500] [--rounds 2] [--ctst PATH] [--only GROUP,GROUP]

Groups: plain, gzip, zstd, save (an archive of `docker save`), file, start. Needs root. Every import goes to a fresh
ext4 in a file, mounted in a mount namespace of this process alone: an ext4 on which many files were deleted creates new
ones ten times slower, which would flatter us. Tools that are not installed are left out and named.

Two columns a line: seconds on the clock, and seconds of CPU of the process and its children (docker's daemon is one).
Nobody but us waits for the disk, so GNU tar is measured with `sync` behind it, too. Imports happen in this process:
what its interpreter reads gzip and zstd with is named in the first line.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from containust.core import syscalls
from containust.image import mounting
from containust.image.store import Image, ImageStore

GROUPS = ("plain", "gzip", "zstd", "save", "file", "start")
PACKERS = {"gzip": ("gzip", "-1k"), "zstd": ("zstd", "-1qk")}


def make_tree(root: Path, count: int, total: int) -> None:
    """``count`` files of together ``total`` bytes, ten a directory, that compress about as programs do."""
    generator = random.Random(1)
    words = [generator.randbytes(8) for _ in range(4096)]
    text = b"".join(generator.choice(words) for _ in range(1 << 17))
    for number in range(count):
        directory = root / f"usr/{number // 1000}/{number // 10}"
        directory.mkdir(parents=True, exist_ok=True)
        size = min(int(generator.expovariate(count / total)), 8 << 20)
        start = generator.randrange(len(text) // 2)
        piece = text[start : start + size]
        (directory / f"file-{number}").write_bytes(piece + generator.randbytes(max(0, size - len(piece)) // 3))
    (root / "bin").mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    (root / "bin/true").symlink_to("busybox")


def save_archive(layer: Path, path: Path) -> None:
    """What ``docker save`` writes of an image whose one layer is the tar ``layer``."""
    with open(layer, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers"}}
    config["rootfs"] = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    parts = {
        "config.json": json.dumps(config),
        "manifest.json": json.dumps([{"Config": "config.json", "RepoTags": ["bench:1"], "Layers": ["layer.tar"]}]),
    }
    with tempfile.TemporaryDirectory() as place, tarfile.open(path, "w") as archive:
        for name, text in parts.items():
            Path(place, name).write_text(text)
            archive.add(f"{place}/{name}", name)
        archive.add(layer, "layer.tar")


class Disks:
    """Fresh ext4 file systems, one after another, at one place."""

    def __init__(self, directory: Path) -> None:
        self.image = directory / "disk.img"
        self.path = directory / "disk"

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Path]:
        with open(self.image, "wb") as file:
            file.truncate(6 << 30)
        quietly("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        self.path.mkdir(exist_ok=True)
        quietly("mount", "-o", "loop", self.image, self.path)
        try:
            yield self.path
        finally:
            quietly("umount", self.path)
            self.image.unlink()


class Times:
    """What was measured: label to (seconds on the clock, seconds of CPU)."""

    def __init__(self) -> None:
        self.found: dict[str, list[tuple[float, float]]] = {}

    def measure(self, label: str, action: Callable[..., object], *arguments: object) -> None:
        start, used = time.perf_counter(), cpu()
        action(*arguments)
        took = time.perf_counter() - start, cpu() - used
        self.found.setdefault(label, []).append(took)
        print(f"  {label:40} {took[0]:8.3f} s {took[1]:8.3f} s CPU", flush=True)

    def median(self, label: str, column: int = 0) -> float:
        return statistics.median(values[column] for values in self.found[label])

    def ratio(self, ours: str, theirs: str) -> None:
        if ours in self.found and theirs in self.found:
            clock, used = (self.median(ours, c) / max(self.median(theirs, c), 1e-9) for c in (0, 1))
            print(f"{ours + ' / ' + theirs:64} {clock:6.2f} {used:6.2f} CPU")

    def report(self) -> None:
        print("\nmedians" + " " * 37 + "clock        CPU     best clock")
        for label, values in sorted(self.found.items()):
            best = min(clock for clock, _ in values)
            clock, used = self.median(label), self.median(label, 1)
            print(f"{label:40} {clock:9.4f} s {used:9.4f} s {best:9.4f} s  n={len(values)}")


def cpu() -> float:
    """Seconds of CPU of this process and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def quietly(*command: object, env: dict[str, str] | None = None) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.returncode}\n{done.stdout}")


def unpack(archive: Path, target: Path, *more: str) -> None:
    """GNU tar; with ``sync``, until it is on the disk."""
    quietly("tar", "-C", target, "-xf", archive)
    if more:
        quietly(*more, "-f", target)


def imports(times: Times, disks: Disks, form: str, archive: Path) -> None:
    """One archive of a root file system: GNU tar, ours, ours again under another name."""
    with disks.fresh() as disk:
        times.measure(f"{form}: GNU tar -x", unpack, archive, disk)
    with disks.fresh() as disk:
        times.measure(f"{form}: GNU tar -x, sync", unpack, archive, disk, "sync")
    with disks.fresh() as disk:
        store = ImageStore(str(disk / "images"))
        times.measure(f"{form}: containust import", store.ensure, f"tar://{archive}")
        kept = sorted(disk.rglob("*"))
        again = archive.with_name(f"again-{archive.name}")
        os.link(archive, again)
        wrote = []

        def counted(uri: str) -> None:
            before = written()
            store.ensure(uri)
            wrote.append(written() - before)

        times.measure(f"{form}: containust, same content", counted, f"tar://{again}")
        times.measure(f"{form}: containust, same reference", counted, f"tar://{again}")
        print(f"  {form}: bytes written for the same content under another name, under the same one: {wrote}")
        again.unlink()
        assert len(sorted(disk.rglob("*"))) == len(kept) + 1  # a catalog entry


def readers() -> str:
    """What this interpreter has to read compressed archives with."""
    found = []
    for name in ("isal", "compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            found.append(name)
    return ", ".join(found) or "zlib and libzstd"


def written() -> int:
    """Bytes that this process has handed to write(2) and the like."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["wchar"])


def saved(times: Times, disks: Disks, archive: Path, layer: Path, work: Path) -> None:
    """An image of one layer: ours, umoci, podman, docker."""
    with disks.fresh() as disk:
        store = ImageStore(str(disk / "images"))
        times.measure("save: containust import", store.ensure, f"tar://{archive}")
    if shutil.which("umoci"):
        layout = work / "layout"
        quietly("umoci", "init", "--layout", layout)
        quietly("umoci", "new", "--image", f"{layout}:a")
        quietly("umoci", "raw", "add-layer", "--image", f"{layout}:a", layer)
        with disks.fresh() as disk:
            words = ("umoci", "unpack", "--image", f"{layout}:a", disk / "bundle")
            times.measure("save: umoci unpack", quietly, *words)
        shutil.rmtree(layout)
    if shutil.which("podman"):
        with disks.fresh() as disk:
            storage = ["--root", disk / "root", "--runroot", work / "run", "--storage-driver", "overlay"]
            (disk / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
            policy = ("--signature-policy", disk / "policy.json")
            env = {**os.environ, "HOME": str(disk)}
            command = ("podman", *storage, "load", "-q", *policy, "-i", archive)
            times.measure("save: podman load", lambda: quietly(*command, env=env))
    if shutil.which("dockerd"):
        with disks.fresh() as disk, dockerd(disk) as env:
            times.measure("save: docker load", lambda: quietly("docker", "load", "-q", "-i", archive, env=env))


@contextlib.contextmanager
def dockerd(disk: Path) -> Iterator[dict[str, str]]:
    """A daemon of our own on this disk, without networks; the environment that leads to it."""
    short = tempfile.mkdtemp(prefix="ctst-")
    env = {**os.environ, "HOME": str(disk), "DOCKER_HOST": f"unix://{short}/socket"}
    options = ["--iptables=false", "--ip6tables=false", "--bridge=none", "-H", env["DOCKER_HOST"]]
    places = [f"--data-root={disk}/data", f"--exec-root={short}", f"--pidfile={short}/pid"]
    with open(f"{short}/log", "wb") as log:
        daemon = subprocess.Popen(["dockerd", *places, *options], stdout=log, stderr=log, env=env)
    try:
        for _ in range(900):
            if subprocess.run(["docker", "version"], env=env, capture_output=True, check=False).returncode == 0:
                break
            if daemon.poll() is not None:
                sys.exit(f"dockerd: {Path(short, 'log').read_text()}")
            time.sleep(0.1)
        yield env
    finally:
        daemon.terminate()
        daemon.wait()
        shutil.rmtree(short)


def directory(times: Times, disks: Disks, tree: Path) -> None:
    """A directory: packed, and known again."""
    with disks.fresh() as disk:
        store = ImageStore(str(disk / "images"))
        times.measure("file: containust import", store.ensure, f"file://{tree}")
        for _ in range(5):
            times.measure("file: unchanged tree found", store.find, f"file://{tree}")


def starts(times: Times, disks: Disks, archive: Path, ctst: str) -> None:
    """A start from the image where it lies, and from a tree that was extracted from it; the mount alone, and all of
    `ctst run --rm`."""
    with disks.fresh() as disk:
        store = ImageStore(str(disk / "images"))
        image = store.ensure(f"tar://{archive}")
        start_with("extract", store, image)
        for _ in range(20):
            times.measure("start: mount, EROFS over the tar", start_with, "erofs-file", store, image)
            times.measure("start: mount, extracted tree", start_with, "extract", store, image)
        if not ctst:
            return
        run = (ctst, "-C", disk, "run", "--rm", "--image", f"tar://{archive}", "--", "/bin/true")
        for rung in ("erofs-file", "extract"):
            quietly(*run, env={**os.environ, "HOME": str(disk), "CONTAINUST_IMAGE_MOUNT": rung})
        for _ in range(10):
            for label, rung in (("EROFS over the tar", "erofs-file"), ("extracted tree", "extract")):
                env = {**os.environ, "HOME": str(disk), "CONTAINUST_IMAGE_MOUNT": rung}
                times.measure(f"start: ctst run, {label}", lambda env=env: quietly(*run, env=env))


def start_with(rung: str, store: ImageStore, image: Image) -> None:
    """Mount the image by one rung of the ladder and start a program in it."""
    os.environ["CONTAINUST_IMAGE_MOUNT"] = rung
    fd = mounting.open_root(store, image)
    pid = os.fork()
    if pid == 0:
        os.fchdir(fd)
        os.chroot(".")
        os.execv("/bin/true", ["true"])
    os.waitpid(pid, 0)
    os.close(fd)
    del os.environ["CONTAINUST_IMAGE_MOUNT"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=30_000)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ctst", default=shutil.which("ctst") or "")
    parser.add_argument("--only", default=",".join(GROUPS))
    given = parser.parse_args()
    groups = given.only.split(",")
    if not set(groups) <= set(GROUPS):
        parser.error(f"--only takes {', '.join(GROUPS)}")
    absent = [name for name in ("umoci", "podman", "dockerd", "zstd") if not shutil.which(name)]
    print(
        f"not installed: {', '.join(absent) or 'nothing'}; ctst: {given.ctst or 'not found'}; archives by {readers()}"
    )
    syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    quietly("ip", "link", "set", "lo", "up")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        work = Path(name)
        tree = work / "tree"
        tree.mkdir()
        make_tree(tree, given.files, given.megabytes << 20)
        plain = work / "a.tar"
        quietly("tar", "-C", tree, "-cf", plain, ".")
        times, disks = Times(), Disks(work)
        forms = {"plain": plain, "gzip": work / "a.tar.gz", "zstd": work / "a.tar.zst"}
        for form in [form for form in PACKERS if form in groups]:
            quietly(*PACKERS[form], plain)
        archive = work / "save.tar"
        if "save" in groups:
            save_archive(plain, archive)
        for turn in range(given.rounds):
            print(f"round {turn + 1} of {given.rounds}")
            for form in [form for form in forms if form in groups]:
                imports(times, disks, form, forms[form])
            if "save" in groups:
                saved(times, disks, archive, plain, work)
            if "file" in groups:
                directory(times, disks, tree)
            if "start" in groups:
                starts(times, disks, plain, given.ctst)
        times.report()
        print("\nratios of the medians")
        for form in forms:
            times.ratio(f"{form}: containust import", f"{form}: GNU tar -x")
            times.ratio(f"{form}: containust import", f"{form}: GNU tar -x, sync")
        for tool in ("umoci unpack", "podman load", "docker load"):
            times.ratio("save: containust import", f"save: {tool}")
        for how in ("mount", "ctst run"):
            times.ratio(f"start: {how}, EROFS over the tar", f"start: {how}, extracted tree")
        if "file" in groups:
            found = [times.median("file: unchanged tree found", column) / given.files * 1e6 for column in (0, 1)]
            print(f"re-verification of an unchanged tree: {found[0]:.1f} µs a file, {found[1]:.1f} µs of CPU")


if __name__ == "__main__":
    main()
