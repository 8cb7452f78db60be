"""Devices, disks and fork bombs: what control groups bound, seen in what happens."""

from __future__ import annotations

import errno
import glob
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from harness import BOX, COMMAND, PYTHON, Ctst, eventually, read

V1 = os.path.isdir("/sys/fs/cgroup/devices")
NODES = """
import os
for kind, major, minor in ((0o020000, 1, 1), (0o060000, 7, 0), (0o020000, 1, 3)):
    try:
        os.mknod("/dev/node", kind | 0o666, os.makedev(major, minor))
        print("made")
        os.unlink("/dev/node")
    except OSError as error:
        print(error.errno)
for path in ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/full"):
    os.close(os.open(path, os.O_RDONLY))
print("end")
"""


@pytest.mark.hybrid
def test_the_device_controller_alone_keeps_the_hosts_root_from_devices(ctst: Ctst) -> None:
    ctst.write(
        f'''
        COMPONENT one {{
            image = "{PYTHON}"
            command = {json.dumps(["/usr/bin/python3", "-c", NODES])}
            userns = "host"
            seccomp = "unconfined"
            capabilities = ["MKNOD", "SYS_ADMIN", "DAC_OVERRIDE"]
        }}
        '''
    )
    ctst.ok("run", "containust.ctst")
    refused = str(errno.EPERM)
    assert ctst.ok("logs", "one").split() == [refused, refused, refused, "end"]


def group(ctst: Ctst, name: str, controller: str) -> Path:
    path = json.loads(ctst.ok("inspect", name))["cgroup"]
    return Path(f"/sys/fs/cgroup/{controller}/{path}")


# In a mount namespace of its own, so that no process of another test has a copy of the mount when this one has ended.
ON_A_DISK_OF_ITS_OWN = """
set -e
mkdir disk
truncate -s 64M disk.img
mkfs.ext4 -q disk.img
mount -o loop disk.img disk
scheduler=/sys/dev/block/$(stat -c %Hd:%Ld disk)/queue/scheduler
ctst() {{ nsenter --net=/proc/{pid}/fd/{network} {ctst} "$@"; }}
echo none >$scheduler
ctst run -d light.ctst && exit 1
echo bfq >$scheduler
for name in light heavy; do
    ctst run -d $name.ctst >/dev/null
    cat /sys/fs/cgroup/blkio/$(ctst inspect $name | sed -n 's/.*"cgroup": "\\(.*\\)".*/\\1/p')/blkio.bfq.weight
done
ctst rm --force >/dev/null
"""


@pytest.mark.hybrid
@pytest.mark.skipif(not os.path.exists("/sys/fs/cgroup/blkio/blkio.bfq.io_serviced"), reason="no BFQ on cgroup v1 here")
def test_a_weight_of_disk_access_reaches_the_kernel_or_is_refused(ctst: Ctst) -> None:
    device = ctst.directory.stat().st_dev
    weighs = "[bfq]" in read(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/queue/scheduler")
    for name, weight in (("light", 50), ("heavy", 5000)):
        ctst.write(
            f"""
            COMPONENT {name} {{
                image = "{BOX}"
                command = ["sleep", "600"]
                volume = "./disk:/data"
                io_weight = {weight}
            }}
            """,
            f"{name}.ctst",
        )
    script = ON_A_DISK_OF_ITS_OWN.format(pid=os.getpid(), network=ctst.network, ctst=shlex.join(COMMAND))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script.replace("&& exit 1", "") if weighs else script],
        cwd=ctst.directory,
        env=ctst.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["50", "1000"], done
    assert weighs or ("error[R002]" in done.stderr and "queue/scheduler" in done.stderr), done


def test_a_fork_bomb_is_bounded_and_ends_with_its_container(ctst: Ctst) -> None:
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    argv = ("/usr/bin/python3", "-c", bomb)
    ctst.ok("run", "-d", "--name", "bomb", "--pids", "40", "--cpus", "0.2", "--image", PYTHON, "--", *argv)
    hierarchy = "pids" if V1 else ""
    current = group(ctst, "bomb", hierarchy) / "pids.current"
    eventually(lambda: int(read(str(current)) or 0) >= 40)
    assert int(read(str(current))) == 40
    ctst.ok("stop", "--force", "bomb")
    ctst.ok("rm", "bomb")
    ctst.assert_clean()


@pytest.mark.guest
def test_a_program_of_exec_ends_with_its_container(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "one", "--image", BOX, "--", "sleep", "600")
    inside = ctst.popen("exec", "one", "--", "sh", "-c", "echo up; sleep 600")
    assert inside.stdout is not None and inside.stdout.readline() == b"up\n"
    ctst.ok("stop", "--force", "one")
    assert inside.wait(20) == 137
    inside.communicate()
    ctst.ok("rm", "one")
    ctst.assert_clean()


def test_long_arguments_and_bytes_that_are_no_text_arrive_as_they_are(ctst: Ctst) -> None:
    long = "x" * 130_000  # below the kernel's 128 KiB for one string
    done = ctst(
        "run", "--rm", "-e", f"LONG={long}", "--image", BOX, "--", "sh", "-c", "echo ${#LONG} ${#1}", "sh", long
    )
    assert done.out.split() == ["130000", "130000"], done.err[:500]
    odd = os.fsdecode(b"\xff\xfe\x80")
    process = ctst.popen("run", "--rm", "--image", BOX, "--", "printf", "%s", odd)
    assert process.communicate(timeout=40)[0] == b"\xff\xfe\x80"


def test_two_projects_have_ranges_of_their_own_and_any_uid_below_65536_works(ctst: Ctst) -> None:
    other = ctst.home  # whose containers the fixture looks after, too
    bases = []
    for directory in (ctst.directory, other):
        (directory / "containust.ctst").write_text(
            f'COMPONENT one {{ image = "{BOX}"\n command = ["sleep", "600"] }}\n'
        )
        ctst.ok("run", "-d", cwd=directory)
        bases.append(json.loads(ctst.ok("inspect", "one", cwd=directory))["confinement"]["ids"])
        ctst.ok("rm", "--force", "one", cwd=directory)
    (first, size), (second, _) = bases
    assert size == 65536 and abs(first - second) >= 65536 and min(first, second) > 100_000
    data = ctst.directory / "data"
    data.mkdir()
    data.chmod(0o777)
    for uid in (0, 1000, 65534, 65535):
        script = f"touch /data/{uid}; id -u"
        done = ctst(
            "run", "--rm", "--user", f"{uid}:{uid}", "-v", "./data:/data", "--image", BOX, "--", "sh", "-c", script
        )
        assert done.out == f"{uid}\n", done
        made = os.stat(data / str(uid))
        assert (made.st_uid, made.st_gid) == (uid, uid), "files of volumes belong to who made them, with no shift"
    assert not glob.glob(f"{ctst.directory}/rootfs/*")
