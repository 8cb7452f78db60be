"""One boot of the guest: ``python machine.py DIRECTORY FILE...`` runs the marked tests of FILEs in it.

The guest has the host's root file system (read over 9p, written to memory), Debian's kernel, one emulated processor,
the unified cgroup hierarchy alone, and two disks: one for the tests' projects, a slow one for limits of disk access.

DIRECTORY is shared with it, and has afterwards: ``console`` (what the kernel said), ``out`` (what pytest said) and
``junit.xml``; or ``missing`` with the reason, where there can be no guest.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from kernel import Kernel, Missing, initramfs, obtain

PYTHON = "host:///usr/bin/python3"
UNUSED = (
    "usr/share/zoneinfo",
    *(
        f"usr/lib/python3*/{name}"
        for name in (
            *("asyncio", "config-*", "curses", "dbm", "dist-packages", "distutils", "email", "html", "http", "lib2to3"),
            *("logging", "multiprocessing", "pydoc_data", "sqlite3", "unittest", "urllib", "wsgiref", "xml", "xmlrpc"),
        )
    ),
)
# A project whose images every test of the guest begins with: to make them in each would be most of the work.
SEED = """
COMPONENT a { image = "file:///mnt/tests/python" }
COMPONENT b { image = "host:///bin/busybox" }
"""
SIZE = 2 << 30
SECONDS = 1200  # after which a guest is given up; it takes an eighth of it on an idle machine
SLOW = 8 << 20  # bytes a second of the slow disk
KERNEL_ARGUMENTS = "console=ttyS0 loglevel=4 panic=-1 cryptomgr.notests mitigations=off nokaslr 8250.nr_uarts=1"

# Runs as the guest's PID 1, in the host's root.
SCRIPT = """
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts 2>/dev/null || {{
    mkdir -p /dev/pts; mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts; }}
mount -t securityfs none /sys/kernel/security
mkdir -p /dev/shm /dev/mqueue /mnt/tests /mnt/slow
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t cgroup2 none /sys/fs/cgroup
hostname guest
ip link set lo up
modprobe -a virtio_blk ext4 bfq crc32c_generic tun
mkdir -p /dev/net
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200  # but no loop-control: images are used without loop devices here
mount -o noatime /dev/vda /mnt/tests
mount -o noatime /dev/vdb /mnt/slow
echo bfq >/sys/block/vdb/queue/scheduler
for place in /usr/share/zoneinfo /usr/lib/python3*/lib2to3 /usr/lib/python3*/distutils; do
    [ ! -d $place ] || mount -t tmpfs tmpfs $place  # less to make an image of
done
cd /mnt/tests/seed
{ctst} build >/mnt/share/out 2>&1
cd {repository}
{command} >/mnt/share/out 2>&1
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


def boot(kernel: Kernel, directory: Path, script: str) -> None:
    """Run ``script`` as PID 1 of a guest, and wait for its end."""
    (directory / "run.sh").write_text(script)
    (directory / "initramfs").write_bytes(initramfs(kernel.modules))
    disks = [directory / "tests.img", directory / "slow.img"]
    _format(disks[0], _content(directory / "content"))
    (directory / "empty").mkdir()
    _format(disks[1], directory / "empty")
    command = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", "-accel", "tcg", "-m", "2048", "-smp", "1"),
        *("-kernel", str(kernel.image), "-initrd", f"{directory}/initramfs"),
        *("-append", f"{KERNEL_ARGUMENTS} modules={kernel.modules}"),
        *("-serial", f"file:{directory}/console"),
        *_share("root", "/", "readonly=on,multidevs=remap"),
        *_share("share", str(directory), "multidevs=remap"),
        *_disk("tests", disks[0], ""),
        *_disk("slow", disks[1], f",throttling.bps-total={SLOW}"),
    ]
    try:
        subprocess.run(command, check=False, timeout=SECONDS, preexec_fn=die_with_parent, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        pass
    finally:
        for disk in disks:
            disk.unlink()


def _content(directory: Path) -> Path:
    """What the tests' disk has from the start: ``python``, an image's root that would take the guest long to make."""
    project = directory.parent / "project"
    project.mkdir()
    options = ["--rm", "--network", "none", "--image", PYTHON]
    subprocess.run(
        [Path(sys.executable).with_name("ctst"), "run", *options, "--", "/usr/bin/python3", "-c", "pass"],
        env={"HOME": str(project), "CONTAINUST_IMAGE_MOUNT": "extract", "PATH": os.environ["PATH"]},
        cwd=project,
        check=True,
    )
    directory.mkdir()
    (tree,) = project.glob(".containust/images/roots/*/tree")
    tree.rename(directory / "python")
    shutil.rmtree(project)
    for pattern in UNUSED:
        for path in directory.glob(f"python/{pattern}"):
            shutil.rmtree(path)
    (directory / "seed").mkdir()
    (directory / "seed/containust.ctst").write_text(SEED)
    return directory


def _format(disk: Path, content: Path) -> None:
    """An ext4 file system with ``content``, whose place it takes."""
    with open(disk, "wb") as file:
        file.truncate(SIZE)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", content, disk], check=True)
    shutil.rmtree(content)


def die_with_parent() -> None:
    """SIGKILL this process when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _share(tag: str, path: str, options: str) -> tuple[str, ...]:
    return (
        *("-fsdev", f"local,id={tag},path={path},security_model=none,{options}"),
        *("-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
    )


def _disk(name: str, path: Path, options: str) -> tuple[str, ...]:
    return (
        *("-drive", f"file={path},format=raw,if=none,id={name},cache=unsafe{options}"),
        *("-device", f"virtio-blk-pci,drive={name},serial={name}"),
    )


def tests(files: list[str]) -> str:
    """The command that runs the marked tests of ``files``."""
    plugins = ["-p", "pytest_timeout", "-p", "no:cacheprovider"]
    options = [
        *("-m", "guest or unified", "-v", "--tb=short", "--timeout=600"),
        *("--basetemp=/mnt/tests/run", "--junitxml=/mnt/share/junit.xml"),
    ]
    environment = [
        *("env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", "CONTAINUST_IN_GUEST=1", "CONTAINUST_TEST_PATIENCE=6"),
        *("CONTAINUST_TEST_PYTHON=file:///mnt/tests/python", "TMPDIR=/mnt/tests"),
        "CONTAINUST_TEST_IMAGES=/mnt/tests/seed/.containust/images",
    ]
    if debian := os.environ.get("CONTAINUST_TEST_DEBIAN"):
        environment.append(f"CONTAINUST_TEST_DEBIAN={debian}")
    return shlex.join([*environment, sys.executable, "-m", "pytest", *plugins, *options, *files])


def main() -> None:
    directory, files = Path(sys.argv[1]), sys.argv[2:]
    die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        kernel = obtain()
    except Missing as reason:
        (directory / "missing").write_text(str(reason))
        return
    repository = Path(__file__).resolve().parent.parent.parent
    ctst = Path(sys.executable).with_name("ctst")
    boot(kernel, directory, SCRIPT.format(repository=repository, ctst=ctst, command=tests(files)))


if __name__ == "__main__":
    main()
