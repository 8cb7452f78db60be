"""Attempts on namespaces, system calls and privileges."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import sys

from .frame import FACTS, NEWNS, NEWUSER, attack, call, denied, first, libc, read, refused, root, status, written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@attack("N1", "a namespace shared with the host")
def shared_namespaces() -> str:
    same = [name for name, link in FACTS["namespaces"].items() if os.readlink(f"/proc/self/ns/{name}") == link]
    return f"shared: {same}" if same else ""


@attack("N2", "a user namespace inside, for the capabilities it brings")
def nested_user_namespace() -> str:
    clone = call("clone", NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    if clone == 0:
        os._exit(0)
    arguments = (ctypes.c_uint64 * 8)(NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    clone3 = call("clone3", arguments, 64)
    if clone3 == 0:
        os._exit(0)
    found = [name for name, done in (("clone", clone), ("clone3", clone3)) if done >= 0]
    return f"made by {found}" if found else denied("unshare", NEWUSER)


@attack("N3", "leaving or changing a namespace by unshare and setns")
def change_namespaces() -> str:
    for flag in (NEWNS, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000, 0x80):
        if call("unshare", flag) == 0:
            return f"unshare({flag:#x}) succeeded"
    try:
        fd = os.open("/proc/1/ns/mnt", os.O_RDONLY)
    except OSError:
        fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    return denied("setns", fd, 0)


@attack("N4", "keys in the keyrings of the kernel")
def keyrings() -> str:
    return first(
        denied("keyctl", 0, -3, 0),
        denied("add_key", b"user", b"containust", b"x", 1, -3),
        denied("request_key", b"user", b"containust", None, 0),
    )


@attack("N5", "seeing, signalling or tracing processes of the host")
def host_processes() -> str:
    pid = FACTS["pid"]
    mine = read(f"/proc/{pid}/cmdline")
    if mine and mine == FACTS["cmdline"].encode():
        return f"/proc/{pid} is the host's"
    if status("NSpid").split()[:1] != [str(os.getpid())] and status("NSpid"):
        return "the host's pid namespace shows"
    if len([n for n in os.listdir("/proc") if n.isdigit()]) > 200:
        return "more processes than this container has"
    if not os.path.exists(f"/proc/{pid}"):
        return first(
            refused("kill", lambda: os.kill(pid, 0)),
            "" if call("ptrace", 16, pid, 0, 0) < 0 else "ptrace attached",
            "" if call("pidfd_open", pid, 0) < 0 else "pidfd_open succeeded",
        )
    return ""


def lower_oom_score() -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(fd, b"-1000")


@attack("N5", "priority, scheduler and memory of processes that are not its own")
def process_controls() -> str:
    return first(
        refused("a negative nice value", lambda: os.setpriority(os.PRIO_PROCESS, 0, -20)),
        refused("a real-time class", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))),
        refused("a lower OOM score", lower_oom_score),
        "" if call("prlimit64", 0, 7, (ctypes.c_uint64 * 2)(1 << 20, 1 << 30), 0) < 0 else "more open files",
    )


@attack("N6", "programs that the kernel starts on the host, and its switches")
def kernel_helpers() -> str:
    paths = (
        "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper", "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hotplug", "/proc/sysrq-trigger", "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/kernel/panic", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/poweroff_cmd",
        "/sys/kernel/debug/tracing/tracing_on", "/sys/power/state", "/proc/irq/0/smp_affinity",
    )  # fmt: skip
    ways = ("", "/proc/self/root", "/proc/1/root", "/proc/self/cwd")
    for path in paths:
        for way in ways:
            if os.path.exists(way + path):
                text = written(way + path)
                if text:
                    return text
    return ""


DENIED: dict[str, tuple[Any, ...]] = {
    "bpf": (0, 0, 0),
    "perf_event_open": (0, 0, -1, -1, 0),
    "userfaultfd": (1,),
    "io_uring_setup": (8, 0),
    "io_uring_enter": (-1, 0, 0, 0, 0, 0),
    "kexec_load": (0, 0, 0, 0),
    "kexec_file_load": (-1, -1, 0, 0, 0),
    "init_module": (0, 0, b""),
    "finit_module": (-1, b"", 0),
    "delete_module": (b"x", 0),
    "open_by_handle_at": (-100, 0, 0),
    "mount": (0, b"/tmp", b"tmpfs", 0, 0),
    "umount2": (b"/proc", 2),
    "pivot_root": (b"/", b"/"),
    "chroot": (b"/tmp",),
    "fsopen": (b"tmpfs", 0),
    "fsmount": (-1, 0, 0),
    "fspick": (-100, b"/", 0),
    "open_tree": (-100, b"/", 1),
    "move_mount": (-1, b"", -1, b"", 0),
    "mount_setattr": (-100, b"/", 0, 0, 0),
    "swapon": (b"/x", 0),
    "swapoff": (b"/x",),
    "acct": (0,),
    "reboot": (0, 0, 0, 0),
    "quotactl": (0, 0, 0, 0),
    "settimeofday": (0, 0),
    "clock_settime": (0, 0),
    "sethostname": (b"x", 1),
    "setdomainname": (b"x", 1),
    "syslog": (3, 0, 0),
    "fanotify_init": (0, 0),
    "lookup_dcookie": (0, 0, 0),
    "move_pages": (0, 0, 0, 0, 0, 0),
    "mbind": (0, 0, 0, 0, 0, 0),
    "set_mempolicy": (0, 0, 0),
    "kcmp": (1, 1, 0, 0, 0),
    "pidfd_getfd": (-1, 0, 0),
    "vhangup": (),
    "ioperm": (0, 1, 1),
    "iopl": (3,),
}


@attack("N7", "calls that reach the kernel's insides: bpf, perf, io_uring, modules, mounts and their kind")
def kernel_calls() -> str:
    return first(*(denied(name, *given) for name, given in DENIED.items() if name in FACTS["calls"]))


@attack("N8", "switching the randomisation of addresses off")
def personality() -> str:
    return denied("personality", 0x0040000)


@attack("N9", "the 32-bit system call table, which has other numbers")
def calls_of_32_bit() -> str:
    if os.uname().machine != "x86_64":
        return ""
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(bytes.fromhex("b820010000cd80c3"))  # mov eax, 288 (keyctl); int 0x80; ret
    done = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
    return "" if -done in (errno.EPERM, errno.ENOSYS) else f"int 0x80 gave {done}"


@attack("N9", "the x32 system call table")
def calls_of_x32() -> str:
    if os.uname().machine != "x86_64":
        return ""
    library = libc()
    allowed = library.syscall(ctypes.c_long(0x40000000 + 39)) != -1  # getpid
    return "an x32 call was served" if allowed else ""


@attack("N10", "losing the filter by executing another program")
def filter_after_exec() -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        program = "print([l for l in open('/proc/self/status') if l.startswith(('NoNewPrivs','Seccomp:'))])"
        os.execv(sys.executable, [sys.executable, "-ISc", program])
    os.close(writer)
    said = os.read(reader, 512).decode()
    os.waitpid(pid, 0)
    return "" if "NoNewPrivs:\\t1" in said and "Seccomp:\\t2" in said else f"after exec: {said}"


@attack("N11", "a capability beyond the declared list in any of the five sets")
def capabilities() -> str:
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        has = int(status(name), 16)
        if has != FACTS["capabilities"][name if root() else f"user {name}"]:
            return f"{name} is {has:#x}"
    return ""


@attack("N11", "capabilities by a file of one's own")
def file_capabilities() -> str:
    return refused(
        "setting security.capability",
        lambda: os.setxattr("/tmp", "security.capability", bytes.fromhex("0100000202000000000000000000000000000000")),
    )


@attack("N12", "processes until the host has none left")
def exhaust_processes() -> str:
    made: list[int] = []
    try:
        while len(made) < FACTS["pids"] + 50:
            pid = os.fork()
            if pid == 0:
                signal.pause()
                os._exit(0)
            made.append(pid)
    except OSError:
        return ""
    finally:
        for pid in made:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return f"{len(made)} processes"


@attack("N12", "descriptors, epoll instances and message queues without a bound")
def exhaust_descriptors() -> str:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard > 1 << 30:
        return "descriptors have no bound"
    queues = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]
    return "message queues have no bound" if queues == resource.RLIM_INFINITY else ""
