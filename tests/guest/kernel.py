"""Debian's kernel for the guest: downloaded once, kept in the user's cache as QEMU boots it fastest.

What is kept is the ELF image out of the compressed one (its decompression would cost three seconds a boot under
emulation) and the modules that containers need. An initramfs makes the host's root file system the guest's.
"""

from __future__ import annotations

import fcntl
import gzip
import lzma
import os
import platform
import shutil
import stat
import struct
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "linux-image-amd64"
FORM = "1"  # of what is kept; another number makes it anew
# Below /lib/modules/VERSION/kernel: what containers, their networks and the guest's own disks need.
KEPT = (
    "arch/x86/crypto", "block", "crypto", "drivers/block/loop.ko", "drivers/block/virtio_blk.ko", "drivers/char",
    "drivers/net/dummy.ko", "drivers/net/tun.ko", "drivers/net/veth.ko", "drivers/virtio", "fs", "lib", "net",
)  # fmt: skip
BOOT = ("virtio_pci", "9pnet_virtio", "9p", "overlay")  # modules with which the root is mounted

# Runs from the initramfs. The host's root is read over 9p and written to a tmpfs.
INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro root /lower
mount -t tmpfs -o size=1g,mode=755 tmpfs /cow
mkdir -p /cow/upper /cow/work
mount -t overlay -o lowerdir=/lower,upperdir=/cow/upper,workdir=/cow/work,xino=off overlay /root
mkdir -p /root/run /root/tmp /root/lib/modules /root/mnt/share
ln -s $(sed 's/.* modules=\\([^ ]*\\).*/\\1/' /proc/cmdline) /root/lib/modules/$(uname -r)
mount -t tmpfs -o mode=755 tmpfs /root/run
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=none share /root/mnt/share
for place in proc sys dev; do mount --move /$place /root/$place; done
exec switch_root /root /bin/sh /mnt/share/run.sh
"""


class Missing(Exception):
    """Why there can be no guest on this machine."""


class Kernel:
    """Paths of the image that QEMU boots, and of the directory that is ``/lib/modules/VERSION`` in the guest."""

    def __init__(self, directory: Path) -> None:
        self.image = directory / "vmlinux"
        self.modules = directory / "modules"


def obtain() -> Kernel:
    """The kernel that this machine's package archive offers. Raises :class:`Missing`."""
    if platform.machine() != "x86_64":
        raise Missing(f"the guest is for x86_64 only, this is {platform.machine()}")
    for program in ("qemu-system-x86_64", "apt-get", "dpkg-deb", "depmod", "mkfs.ext4", "busybox"):
        if not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            raise Missing(f"no {program} here")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "containust-tests"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        package = _package()
        directory = cache / f"{package}-{FORM}"
        if not directory.exists():
            with tempfile.TemporaryDirectory(dir=cache) as work:
                made = Path(work, "made")
                made.mkdir()
                _make(_download(package, Path(work)), made)
                made.rename(directory)
    return Kernel(directory)


def _package() -> str:
    """The real package behind the name that is always there."""
    for command in (["true"], ["apt-get", "update"]):  # a fresh machine has no list of packages
        subprocess.run(command, capture_output=True, check=False)
        done = subprocess.run(["apt-cache", "depends", PACKAGE], capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            kind, _, name = line.strip().partition(": ")
            if kind == "Depends" and name.startswith("linux-image-"):
                return name
    raise Missing(f"apt knows no {PACKAGE}")


def _download(package: str, directory: Path) -> Path:
    done = subprocess.run(["apt-get", "download", package], cwd=directory, capture_output=True, text=True, check=False)
    found = list(directory.glob("*.deb"))
    if done.returncode or not found:
        raise Missing(f"apt-get download {package}: {done.stderr.strip()}")
    return found[0]


def _make(package: Path, directory: Path) -> None:
    version = ""
    unpacked = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    with tarfile.open(fileobj=unpacked.stdout, mode="r|") as archive:
        for entry in archive:
            name = entry.name.removeprefix("./").removeprefix("usr/")
            if not entry.isfile():
                continue
            file = archive.extractfile(entry)
            assert file is not None
            if name.startswith("boot/vmlinuz-"):
                (directory / "vmlinux").write_bytes(elf(file.read()))
            elif name.startswith("lib/modules/"):
                _, _, version, rest = name.split("/", 3)
                below = rest.removeprefix("kernel/")
                if below == rest or below.startswith(KEPT):
                    path = directory / "tree/lib/modules" / version / rest
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(file.read())
    if unpacked.wait():
        raise Missing(f"dpkg-deb cannot read {package.name}")
    subprocess.run(["depmod", "-b", directory / "tree", version], check=True, env={"PATH": "/usr/sbin:/sbin"})
    (directory / "tree/lib/modules" / version).rename(directory / "modules")
    shutil.rmtree(directory / "tree")


def elf(image: bytes) -> bytes:
    """The ELF file in a bzImage, or the image itself where its compression is another (QEMU boots that too).

    Offsets are those of the setup header (Documentation/arch/x86/boot.rst of the kernel).
    """
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload)  # what follows is the size that it unpacks to
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload[:-4])
    return image


def initramfs(modules: Path) -> bytes:
    """What mounts the root: a cpio archive (newc; buffer-format.rst of the kernel's documentation)."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    if b"ld-linux" in busybox[:4096]:
        raise Missing("busybox is not the static one (package busybox-static)")
    archive = bytearray()
    for name in ("bin", "cow", "dev", "lower", "modules", "proc", "root", "sys"):
        archive += _entry(name, stat.S_IFDIR | 0o755, b"")
    archive += _entry("bin/busybox", stat.S_IFREG | 0o755, busybox)
    archive += _entry("init", stat.S_IFREG | 0o755, INIT.encode())
    order = _order(modules)
    for path in order:
        archive += _entry(f"modules/{_plain(path)}", stat.S_IFREG | 0o644, _unpacked(modules / path))
    archive += _entry("modules/order", stat.S_IFREG | 0o644, "\n".join(map(_plain, order)).encode())
    return bytes(archive + _entry("TRAILER!!!", 0, b""))


def _order(modules: Path) -> list[str]:
    """Paths of the modules of BOOT with all that they need, those that others need first."""
    needed: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, dependencies = line.partition(":")
        needed[path] = dependencies.split()
    order: list[str] = []
    for wanted in BOOT:
        for path in needed:  # one that is not among them is built in
            if _plain(path) == f"{wanted}.ko":
                order += [each for each in [*reversed(needed[path]), path] if each not in order]
    return order


def _plain(path: str) -> str:
    """``dir/name.ko.xz`` as ``name.ko``."""
    return path.rpartition("/")[2].partition(".ko")[0] + ".ko"


def _unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _entry(name: str, mode: int, data: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
