"""Hostile images, targets that change while a container starts, working directories and users that lead astray."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import BOX, Ctst

BUSYBOX = Path("/bin/busybox")


@pytest.fixture
def image(ctst: Ctst) -> Path:
    """A root file system with busybox that a test may spoil, and a directory of the host called ``victim``."""
    root: Path = ctst.directory / "rootfs"
    for name in ("bin", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy2(BUSYBOX, root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    (ctst.directory / "victim").mkdir()
    (ctst.directory / "victim/file").write_text("of the host")
    return root


def unharmed(ctst: Ctst) -> bool:
    victim = ctst.directory / "victim"
    return [p.name for p in victim.iterdir()] == ["file"] and (victim / "file").read_text() == "of the host"


TARGETS = ("proc", "sys", "dev", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/passwd", "run", "var/tmp")


@pytest.mark.parametrize("kind", ["absolute link", "relative link", "fifo", "file or directory", "loop"])
@pytest.mark.parametrize("writable", [False, True])
def test_targets_of_the_runtime_that_an_image_has_spoilt(ctst: Ctst, image: Path, kind: str, writable: bool) -> None:
    victim = ctst.directory / "victim"
    for target in TARGETS:
        path = image / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "absolute link":
            path.symlink_to(victim if "." not in target and "etc/" not in target else victim / "file")
        elif kind == "relative link":
            path.symlink_to("../" * 20 + str(victim).lstrip("/"))
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "loop":
            path.symlink_to(path.name)
        elif "etc/" in target:
            path.mkdir()
        else:
            path.write_text("a file")
    options = ("--writable",) if writable else ()
    script = "/bin/busybox cat /proc/kcore | /bin/busybox head -c 9; /bin/busybox ls /dev; echo x > /dev/null"
    done = ctst("run", "--rm", *options, "--image", f"file://{image}", "--", "/bin/sh", "-c", script)
    assert unharmed(ctst), "something of the host was written"
    assert done.status == 0 or "error[" in done.err, done
    assert "ELF" not in done.out
    if done.status == 0:
        assert {"null", "zero", "pts"} <= set(done.out.split()), done


@pytest.mark.guest
def test_devices_of_the_image_are_not_those_that_hide_and_are_opened(ctst: Ctst, image: Path) -> None:
    """CVE-2025-31133: an image whose /dev/null is a link would have that mounted over what has to be hidden."""
    (image / "dev").mkdir()
    (image / "dev/null").symlink_to("/proc/sysrq-trigger")
    (image / "dev/console").symlink_to("/proc/sysrq-trigger")
    (image / "dev/pts").symlink_to("/proc/sys/kernel")
    script = (
        "cd /bin; ./busybox stat -c %t:%T /dev/null; ./busybox cat /proc/kcore /proc/timer_list /proc/keys | "
        "./busybox wc -c; ./busybox test -L /dev/null; echo $?; echo x > /proc/sysrq-trigger || echo refused"
    )
    done = ctst("run", "--rm", "--image", f"file://{image}", "--", "/bin/sh", "-c", script)
    assert done.out.split() == ["1:3", "0", "1", "refused"], done


@pytest.fixture
def swapping(ctst: Ctst, image: Path) -> Iterator[Path]:
    """A directory whose entry ``x`` is now a directory, now a link to the victim, all the time."""
    shared = ctst.directory / "shared"
    shared.mkdir(mode=0o777)
    (shared / "x").mkdir()
    (shared / "y").symlink_to("../" * 20 + str(ctst.directory / "victim").lstrip("/"))
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for old, new in (("x", "z"), ("y", "x"), ("x", "y"), ("z", "x")):
                try:
                    os.rename(shared / old, shared / new)
                except OSError:
                    pass

    thread = threading.Thread(target=swap)
    thread.start()
    yield shared
    stop.set()
    thread.join()


def test_a_mount_target_that_is_swapped_during_the_start(ctst: Ctst, swapping: Path, image: Path) -> None:
    ctst.write(
        f'''
        COMPONENT one {{
            image = "{BOX}"
            command = ["sh", "-c", "echo x > /data/x/mine; cat /proc/self/mountinfo"]
            volumes = ["{swapping}:/data"]
            tmpfs = ["/data/x"]
        }}
        '''
    )
    outcomes = set()
    for _ in range(8):
        done = ctst("run", "containust.ctst")
        assert unharmed(ctst)
        assert "Traceback" not in done.err
        outcomes.add(done.status)
        ctst("rm", "--force", "one")
    assert outcomes <= {0, 1, 2}, outcomes


@pytest.mark.guest
def test_a_read_only_volume_is_read_only_below_its_mounts_too(ctst: Ctst, image: Path) -> None:
    data = ctst.directory / "data"
    (data / "below").mkdir(parents=True)
    data.chmod(0o777)
    script = (
        f"mount -t tmpfs -o mode=777 tmpfs {data}/below && cd {ctst.directory} && exec "
        f"nsenter --net=/proc/{os.getpid()}/fd/{ctst.network} "
    )
    from harness import COMMAND

    words = [*COMMAND, "run", "--rm", "-v", f"{data}:/data:ro", "--image", BOX, "--"]
    inside = "touch /data/file; touch /data/below/file; mount -o remount,rw /data/below; echo done"
    import shlex

    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script + shlex.join([*words, "sh", "-c", inside])],
        env=ctst.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.stdout == "done\n", done
    assert done.stderr.count("Read-only file system") == 2, done.stderr


@pytest.mark.parametrize("source", ["a/../../b", "../../etc", "a/b", "..", "-rf", "a\nb"])
def test_a_managed_volume_lies_in_its_directory(ctst: Ctst, source: str) -> None:
    ctst.write(
        f'COMPONENT one {{ image = "{BOX}"\n command = ["ls", "/t"]\n volumes = [{json.dumps(source + ":/t")}] }}\n'
    )
    done = ctst("run", "containust.ctst")
    volumes = ctst.directory / ".containust/volumes"
    if done.status == 0:
        made = [str(p) for p in volumes.rglob("*")] if volumes.exists() else []
        assert all(os.path.realpath(p).startswith(str(volumes)) for p in made)
        assert source.startswith((".", "-")) or made, done
    assert not (ctst.directory / "b").exists()


@pytest.mark.parametrize("how", ["run", "exec"])
def test_no_descriptor_of_the_runtime_is_a_working_directory(ctst: Ctst, how: str) -> None:
    """CVE-2024-21626."""
    (ctst.directory / "marker").write_text("the host")
    look = f"cat ./{'../' * 12}{str(ctst.directory).lstrip('/')}/marker /{'../' * 12}{ctst.directory}/marker; echo end"
    if how == "exec":
        ctst.ok("run", "-d", "--name", "one", "--image", BOX, "--", "sleep", "600")
    for number in range(3, 40, 2 if how == "exec" else 4):
        workdir = f"/proc/self/fd/{number}/../.."
        if how == "run":
            done = ctst("run", "--rm", "-w", workdir, "--image", BOX, "--", "sh", "-c", look)
        else:
            done = ctst("exec", "-w", workdir, "one", "--", "sh", "-c", look)
        assert "the host" not in done.out, (workdir, done)
        assert done.out == "end\n" or "working directory" in done.err, done


# Half a number, a number too large, a digit of another script.
NO_USERS = ["1000:", ":1000", "+1", "-1", "0x0", "4294967295", "4294967296", "1:2:3", "0:-1", "1e3", chr(0x660)]


def test_a_user_that_is_none_is_refused_by_run_and_exec(ctst: Ctst) -> None:
    """CVE-2026-30892: a string that is half a number must not become user 0."""
    ctst.ok("run", "-d", "--name", "one", "--image", BOX, "--", "sleep", "600")
    for user in [*NO_USERS, " 0"]:
        assert ctst("exec", "--user", user, "one", "--", "id", "-u").status not in (0, 127), user
    for user in NO_USERS[:4]:
        assert ctst("run", "--rm", "--user", user, "--image", BOX, "--", "id", "-u").status not in (0, 127), user
