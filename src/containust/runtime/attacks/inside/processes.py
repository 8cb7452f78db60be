"""Attempts on processes, control groups, devices and the network."""

from __future__ import annotations

import errno
import os
import socket
import sys
import termios

from .frame import FACTS, attack, call, first, libc, made, mountinfo, read, refused, written


@attack("P1", "a descriptor that was left open")
def leaked_descriptors() -> str:
    return str(FACTS["leaked"])  # listed before anything else was opened


@attack("P2", "overwriting the program that runs the container (/proc/self/exe)")
def own_executable() -> str:
    for pid in ("self", "1"):
        for flags in (os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
            try:
                os.close(os.open(f"/proc/{pid}/exe", flags))
                return f"/proc/{pid}/exe was opened for writing"
            except OSError:
                continue
    mine = os.stat("/proc/self/exe")
    here = os.stat(os.path.realpath(sys.executable))
    return "" if (mine.st_dev, mine.st_ino) == (here.st_dev, here.st_ino) else "the program is not the image's"


@attack("P3", "the host's tree through the working directory or the root of a process")
def way_out() -> str:
    for start in ("/proc/self/cwd", "/proc/1/cwd", "/proc/self/root", "/proc/1/root", "."):
        path = start + "/.." * 12
        if os.path.exists(path + FACTS["file"]):
            return f"{path} is the host's root"
    inside = os.stat("/")
    try:
        up = os.stat("/..")
    except OSError:
        return ""
    return "" if (inside.st_dev, inside.st_ino) == (up.st_dev, up.st_ino) else "/.. is not /"


@attack("P4", "variables of the host's environment")
def environment() -> str:
    found = [name for name in os.environ if name in FACTS["environment"] or name.startswith(("LD_", "PYTHON"))]
    found += [name for name in os.environ if name.lower().endswith("_proxy")]
    return f"inherited: {found}" if found else ""


@attack("P5", "typing on the terminal of whoever looks on (TIOCSTI, TIOCLINUX)")
def type_on_terminal() -> str:
    for request in (termios.TIOCSTI, 0x541C, 0x5412 | 1 << 32):
        done = call("ioctl", 0, request, b"x")
        if -done not in (errno.EPERM, errno.EACCES):
            return f"ioctl {request:#x} gave {done}"
    return ""


@attack("C1", "writing to control groups")
def write_cgroups() -> str:
    for parent, _, names in os.walk("/sys/fs/cgroup"):
        for name in names:
            if name.startswith(("cgroup.procs", "tasks", "memory.limit", "memory.max", "pids.max", "devices.allow")):
                text = written(f"{parent}/{name}")
                if text:
                    return text
        text = made(f"{parent}/x")
        if text:
            return text
    return ""


@attack("C2", "a release agent, which the kernel starts as the host's root")
def release_agent() -> str:
    os.makedirs("/tmp/cgroup", exist_ok=True)
    for kind, options in ((b"cgroup", b"pids"), (b"cgroup", b"rdma"), (b"cgroup", b"none,name=x"), (b"cgroup2", b"")):
        if libc().mount(b"x", b"/tmp/cgroup", kind, 0, options) == 0:
            return f"{kind.decode()} {options.decode()} was mounted"
    for parent, _, names in os.walk("/sys/fs/cgroup"):
        for name in names:
            if name in ("release_agent", "notify_on_release"):
                text = written(f"{parent}/{name}")
                if text:
                    return text
    return ""


@attack("C3", "the control groups above its own")
def parent_cgroups() -> str:
    for line in read("/proc/self/cgroup").decode().splitlines():
        controllers, path = line.split(":", 2)[1:]
        if {"pids", "memory", "cpuacct"} & set(controllers.split(",")) and ("/.." in path or "containust" in path):
            return f"the path outside shows: {line}"
    return first(*(f"{m[4]} starts at {m[3]}" for m in mountinfo() if "cgroup" in m[-3:] and m[3].startswith("/..")))


@attack("C5", "devices of the host")
def devices() -> str:
    disks = ((0o060000, 8, 0), (0o060000, 254, 0), (0o060000, 259, 0), (0o060000, 7, 0))
    for kind, major, minor in (*disks, (0o020000, 1, 1), (0o020000, 10, 229)):  # /dev/mem, /dev/fuse
        try:
            os.mknod("/tmp/node", kind | 0o666, os.makedev(major, minor))
            os.close(os.open("/tmp/node", os.O_RDONLY))
            return f"device {major}:{minor} was made and opened"
        except OSError:
            pass
    allowed = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)}
    for parent, _, names in os.walk("/dev"):
        for name in names:
            found = os.lstat(f"{parent}/{name}")
            number = os.major(found.st_rdev), os.minor(found.st_rdev)
            if found.st_rdev and number not in allowed and number[0] != 136:
                return f"{parent}/{name} is device {number}"
    return ""


@attack("W3", "raw and packet sockets, with which to forge packets")
def raw_sockets() -> str:
    return first(
        refused("a packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)),
        refused("a raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    )


@attack("W4", "services on the loopback interface of the host")
def host_loopback() -> str:
    with socket.socket() as client:
        client.settimeout(2)
        return refused("connecting", lambda: client.connect(("127.0.0.1", FACTS["port"]))) if FACTS["port"] else ""


@attack("W7", "abstract sockets of the host")
def abstract_sockets() -> str:
    with socket.socket(socket.AF_UNIX) as client:
        return refused("connecting", lambda: client.connect("\0" + FACTS["socket"])) if FACTS["socket"] else ""
