"""Images against the tools that unpack them, in one run: import, start, re-verification.

    python bench/images.py [--files 30000] [--megabytes 500] [--rounds 2]

Needs root. Everything happens on a fresh ext4 file system in a file, mounted in a mount namespace of this process
alone (an ext4 on which many files were deleted creates new ones ten times slower, which would flatter us). Tools that
are not installed are left out. Times are medians in seconds; nobody but us syncs to the disk.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from containust.core import syscalls
from containust.image import mounting
from containust.image.store import Image, ImageStore


def make_tree(root: Path, count: int, total: int) -> None:
    """``count`` files of together ``total`` bytes that compress about as programs do."""
    generator = random.Random(1)
    words = [generator.randbytes(8) for _ in range(4096)]
    text = b"".join(generator.choice(words) for _ in range(1 << 17))
    for number in range(count):
        directory = root / f"usr/{number % 37}/{number % 1009}"
        directory.mkdir(parents=True, exist_ok=True)
        size = min(int(generator.expovariate(count / total)), 8 << 20)
        start = generator.randrange(len(text) // 2)
        piece = text[start : start + size]
        (directory / f"file-{number}").write_bytes(piece + generator.randbytes(max(0, size - len(piece)) // 3))
    (root / "bin").mkdir()
    shutil.copy("/bin/busybox" if os.path.exists("/bin/busybox") else "/bin/true", root / "bin/true")


class Disk:
    """A fresh ext4 at ``path``, as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.image = directory / "disk.img"
        self.path = directory / "disk"

    def __enter__(self) -> Path:
        with open(self.image, "wb") as file:
            file.truncate(4 << 30)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self.path.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.path], check=True)
        return self.path

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self.path], check=True)
        self.image.unlink()


def seconds(action: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


def quietly(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start(root_fd: int) -> None:
    """What starting costs on top of the mount: enter the root, run one program."""
    pid = os.fork()
    if pid == 0:
        os.fchdir(root_fd)
        os.chroot(".")
        os.execv("/bin/true", ["true"])
    os.waitpid(pid, 0)


def start_with(rung: str, store: ImageStore, image: Image) -> None:
    """Mount the image by one rung of the ladder and start a program in it."""
    os.environ["CONTAINUST_IMAGE_MOUNT"] = rung
    fd = mounting.open_root(store, image)
    start(fd)
    os.close(fd)
    del os.environ["CONTAINUST_IMAGE_MOUNT"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=30_000)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        tree = work / "tree"
        tree.mkdir()
        make_tree(tree, given.files, given.megabytes << 20)
        archives = {"plain": work / "a.tar", "gzip": work / "a.tar.gz", "zstd": work / "a.tar.zst"}
        quietly("tar", "-C", tree, "-cf", archives["plain"], ".")
        quietly("gzip", "-1k", archives["plain"])
        quietly("zstd", "-1qk", archives["plain"])
        results: dict[str, list[float]] = {}

        def measure(label: str, action: Callable[..., object], *arguments: object) -> None:
            results.setdefault(label, []).append(seconds(action, *arguments))

        for _ in range(given.rounds):
            for form, archive in archives.items():
                with Disk(work) as disk:
                    target = disk / "extracted"
                    target.mkdir()
                    measure(f"{form}: GNU tar -x", quietly, "tar", "-C", target, "-xf", archive)
                with Disk(work) as disk:
                    store = ImageStore(str(disk / "images"))
                    measure(f"{form}: containust import", store.ensure, f"tar://{archive}")
                    written = sorted(disk.rglob("*"))
                    copy = work / f"again-{archive.name}"
                    os.link(archive, copy)
                    measure(f"{form}: second import", store.ensure, f"tar://{copy}")
                    copy.unlink()
                    assert len(sorted(disk.rglob("*"))) == len(written) + 1  # a catalog entry
                if shutil.which("umoci"):
                    layout = work / "layout"
                    quietly("umoci", "init", "--layout", layout)
                    quietly("umoci", "new", "--image", f"{layout}:a")
                    quietly("umoci", "raw", "add-layer", "--image", f"{layout}:a", archives["plain"])
                    with Disk(work) as disk:
                        bundle = disk / "bundle"
                        measure("umoci unpack", quietly, "umoci", "unpack", "--image", f"{layout}:a", bundle)
                    shutil.rmtree(layout)
            with Disk(work) as disk:
                store = ImageStore(str(disk / "images"))
                measure("file://: first import", store.ensure, f"file://{tree}")
                measure("file://: unchanged tree found", store.find, f"file://{tree}")
                image = store.ensure(f"file://{tree}")

                start_with("extract", store, image)
                for _ in range(20):
                    measure("start: EROFS over the tar", start_with, "erofs-file", store, image)
                    measure("start: extracted tree", start_with, "extract", store, image)
        for label, values in sorted(results.items()):
            print(f"{label:36} {statistics.median(values):9.4f} s   (best {min(values):.4f}, n={len(values)})")
        found = statistics.median(results["file://: unchanged tree found"]) / given.files
        print(f"re-verification                      {found * 1e6:9.2f} µs a file")
        for form in archives:
            ratio = statistics.median(results[f"{form}: containust import"]) / statistics.median(
                results[f"{form}: GNU tar -x"]
            )
            print(f"{form}: import / GNU tar             {ratio:9.2f}")


if __name__ == "__main__":
    main()
