"""What a container's processes can see and do, read from inside and from the host."""

from __future__ import annotations

import json
import os
import stat

import pytest

from harness import BOX, PYTHON, Ctst, read

FACTS = r"""
import json, os
def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return line.split(":", 1)[1].split()
def text(path):
    try:
        return open(path).read()
    except OSError as error:
        return repr(error)
def listed(path):
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        return repr(error)
facts = {
    "mountinfo": open("/proc/self/mountinfo").read().splitlines(),
    "uid_map": text("/proc/self/uid_map").split(),
    "caps": {name: status(name)[0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
    "nnp": status("NoNewPrivs"), "seccomp": status("Seccomp"),
    "fds": sorted(int(n) for n in os.listdir("/proc/self/fd") if os.path.lexists("/proc/self/fd/" + n)),
    "environ": dict(os.environ), "pid": os.getpid(), "sid": os.getsid(0), "cwd": os.getcwd(),
    "dev": {n: [os.lstat("/dev/" + n).st_mode, os.lstat("/dev/" + n).st_rdev] for n in os.listdir("/dev")},
    "hostname": os.uname().nodename, "etc_hostname": text("/etc/hostname"), "hosts": text("/etc/hosts"),
    "cgroup": text("/proc/self/cgroup"), "root": listed("/"), "proc": [n for n in listed("/proc") if n.isdigit()],
    "masked": {p: text(p) for p in ("/proc/kcore", "/proc/keys", "/proc/timer_list")},
    "acpi": listed("/proc/acpi"), "firmware": listed("/sys/firmware"),
    "net": sorted(n.split(":")[0].strip() for n in open("/proc/net/dev").read().splitlines()[2:]),
    "limits": text("/proc/self/limits"), "umask": status("Umask"), "groups": status("Groups"),
    "sigign": status("SigIgn"), "sigblk": status("SigBlk"),
}
def attempt(action):
    try:
        action()
        return None
    except OSError as error:
        return error.errno
def write(path, data):
    with open(path, "w") as file:
        file.write(data)
facts["attempts"] = {
    "write root": attempt(lambda: write("/file", "x")),
    "write etc": attempt(lambda: write("/etc/hosts", "x")),
    "write sysctl": attempt(lambda: write("/proc/sys/kernel/hostname", "x")),
    "write sysrq": attempt(lambda: write("/proc/sysrq-trigger", "x")),
    "write sys": attempt(lambda: write("/sys/kernel/mm/ksm/run", "0")),
    "mknod": attempt(lambda: os.mknod("/tmp/device", 0o020666, os.makedev(1, 5))),
    "write tmp": attempt(lambda: write("/tmp/file", "x")),
    "write shm": attempt(lambda: write("/dev/shm/file", "x")),
    "write null": attempt(lambda: write("/dev/null", "x")),
    "chroot": attempt(lambda: os.chroot("/tmp")),
    "sethostname": attempt(lambda: __import__("socket").sethostname("other")),
    "raw socket": attempt(lambda: __import__("socket").socket(2, 3, 1)),
}
print(json.dumps(facts))
"""
DEFAULT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 10}  # capabilities(7)


@pytest.fixture
def facts(ctst: Ctst) -> dict[str, object]:
    ctst.environ["OF_THE_HOST"] = "1"
    done = ctst("run", "--rm", "--name", "facts", "--image", PYTHON, "--", "/usr/bin/python3", "-c", FACTS)
    assert done.status == 0, done
    found: dict[str, object] = json.loads(done.out)
    return found


@pytest.mark.guest
def test_every_namespace_is_its_own(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "a", "--image", BOX, "--", "sleep", "1000")
    ctst.ok("run", "-d", "--name", "b", "--image", BOX, "--", "sleep", "1000")
    rows = ctst.rows()
    for kind in ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"):
        seen = {os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (os.getpid(), rows["a"]["pid"], rows["b"]["pid"])}
        assert len(seen) == 3, kind
    for name in ("a", "b"):
        one = read(f"/proc/{rows[name]['pid']}/uid_map").split()
        assert one[0] == "0" and int(one[1]) >= 65536 and int(one[2]) >= 65536
    for name in ("a", "b"):
        mountinfo = read(f"/proc/{rows[name]['pid']}/mountinfo")
        assert len(mountinfo.splitlines()) < 40
        own = {line.split()[4] for line in mountinfo.splitlines()}
        # The kernel names the files that its mounts are made of: the image's and /etc/hosts. Nothing else.
        rest = [line for line in mountinfo.splitlines() if not ("/images/" in line or "/.containust/run/" in line)]
        assert not any(str(ctst.home) in line for line in rest), rest
        assert "/work" not in own and "/home" not in own and "/root" not in own
        assert os.readlink(f"/proc/{rows[name]['pid']}/root") == "/"
        assert read(f"/proc/{rows[name]['pid']}/oom_score_adj").strip() >= read("/proc/self/oom_score_adj").strip()


@pytest.mark.parametrize("options", [(), ("--writable",), ("-v", "./data:/data")])
@pytest.mark.guest
def test_no_mount_of_the_host_is_seen(ctst: Ctst, options: tuple[str, ...]) -> None:
    (ctst.directory / "data").mkdir()
    done = ctst.shell("cat /proc/self/mountinfo; ls /", *options)
    assert done.status == 0, done
    targets = [line.split()[4] for line in done.out.splitlines() if len(line.split()) > 8]
    allowed = ("/proc", "/sys", "/dev", "/tmp", "/run", "/var/tmp", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
    for target in targets:
        assert target in ("/", "/data") or any(target == a or target.startswith(f"{a}/") for a in allowed), target
    assert targets.count("/") == 1, "the host's root is still below"
    assert len(set(targets)) == len(targets), "a mount hides another"


@pytest.mark.guest
def test_privileges_are_reduced(facts: dict[str, object]) -> None:
    caps = facts["caps"]
    assert isinstance(caps, dict)
    default = sum(1 << bit for bit in DEFAULT_CAPABILITIES)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(caps[name], 16) == default, name
    assert int(caps["CapAmb"], 16) == 0
    assert facts["nnp"] == ["1"] and facts["seccomp"] == ["2"]
    attempts = facts["attempts"]
    assert isinstance(attempts, dict)
    open_to_it = {"write tmp", "write shm", "write null"}
    assert {name for name, failed in attempts.items() if failed is None} == open_to_it, attempts


def test_nothing_of_the_host_leaks(facts: dict[str, object]) -> None:
    fds = facts["fds"]
    assert isinstance(fds, list)
    assert fds[:3] == [0, 1, 2] and len(fds) == 3, fds
    environ = facts["environ"]
    assert isinstance(environ, dict)
    assert "OF_THE_HOST" not in environ and "CONTAINUST_TEST_RUN" not in environ
    assert set(environ) <= {"PATH", "HOME", "HOSTNAME", "USER", "LC_CTYPE"}
    assert facts["pid"] == 1 and facts["sid"] == 1 and facts["proc"] == ["1"]
    assert facts["net"] == ["lo"]
    assert facts["cgroup"] and all(
        line.endswith(":/")
        for line in str(facts["cgroup"]).splitlines()
        if any(name in line for name in ("pids", "memory", "0::"))
    )
    assert facts["umask"] == ["0022"]
    assert facts["sigblk"] == ["0000000000000000"]


def test_proc_sys_and_dev(facts: dict[str, object]) -> None:
    masked = facts["masked"]
    assert isinstance(masked, dict)
    for path, content in masked.items():
        assert content == "" or "Error" in content, path
    assert facts["acpi"] == [] or "FileNotFound" in str(facts["acpi"])
    assert facts["firmware"] == [] or "FileNotFound" in str(facts["firmware"])
    dev = facts["dev"]
    assert isinstance(dev, dict)
    numbers = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
    for name, (major, minor) in numbers.items():
        mode, device = dev[name]
        assert stat.S_ISCHR(mode) and (os.major(device), os.minor(device)) == (major, minor), name
    assert stat.S_ISLNK(dev["fd"][0]) and stat.S_ISLNK(dev["stdin"][0]) and stat.S_ISDIR(dev["shm"][0])
    assert set(dev) <= {*numbers, "fd", "stdin", "stdout", "stderr", "shm", "mqueue", "pts", "ptmx", "core", "console"}


def test_names_are_its_own(facts: dict[str, object]) -> None:
    assert facts["hostname"] == "facts"
    assert str(facts["etc_hostname"]).strip() == "facts"
    assert "127.0.0.1" in str(facts["hosts"]) and "facts" in str(facts["hosts"])
    assert facts["hostname"] != os.uname().nodename


@pytest.mark.guest
def test_a_program_run_by_exec_is_as_confined(ctst: Ctst) -> None:
    ctst.ok(
        "run", "-d", "--name", "a", "--image", PYTHON, "--", "/usr/bin/python3", "-c", "import time; time.sleep(999)"
    )
    facts = json.loads(ctst.ok("exec", "a", "--", "/usr/bin/python3", "-c", FACTS))
    default = sum(1 << bit for bit in DEFAULT_CAPABILITIES)
    assert int(facts["caps"]["CapEff"], 16) == default and int(facts["caps"]["CapBnd"], 16) == default
    assert facts["nnp"] == ["1"] and facts["seccomp"] == ["2"]
    assert facts["fds"] == [0, 1, 2], facts["fds"]
    assert facts["hostname"] == "a" and "OF_THE_HOST" not in facts["environ"]
    assert int(facts["uid_map"][1]) >= 65536
    assert {name for name, failed in facts["attempts"].items() if failed is None} == {
        "write tmp",
        "write shm",
        "write null",
    }
    ctst.ok("stop", "--force", "a")
    ctst.assert_clean()
