"""Attempts on file systems and mounts."""

from __future__ import annotations

import ctypes
import os
import sys

from .frame import attack, call, denied, first, libc, mountinfo, read, refused, root


@attack("F5", "a mount of the container that propagates to the host, or back")
def propagation() -> str:
    shared = [m[4] for m in mountinfo() if any(o.startswith(("shared:", "master:")) for o in m[6 : m.index("-")])]
    return f"mounts in a peer group: {shared}" if shared else ""


@attack("F7", "remounting a read-only mount for writing")
def remount() -> str:
    for target in (b"/proc/sys", b"/sys", b"/", b"/etc/hosts"):
        if libc().mount(None, target, None, 32 | 4096, None) == 0:  # MS_REMOUNT | MS_BIND
            return f"{target.decode()} was remounted"
    attributes = (ctypes.c_uint64 * 4)(0, 1, 0, 0)  # clear MOUNT_ATTR_RDONLY
    return denied("mount_setattr", -100, b"/proc/sys", 0, attributes, 32)


@attack("F8", "what /proc and /sys tell of the host, by every way to it")
def masked_paths() -> str:
    names = ("kcore", "keys", "key-users", "timer_list", "kmsg", "vmallocinfo", "sched_debug", "config.gz")
    roots = ("/proc", "/proc/1/root/proc", "/proc/self/root/proc", f"/proc/self/task/{os.getpid()}/root/proc")
    for way in roots:
        for name in names:
            if read(f"{way}/{name}", 64):
                return f"{way}/{name} was read"
    for directory in ("/sys/firmware", "/proc/scsi", "/proc/acpi", "/sys/devices/virtual/powercap"):
        if os.path.isdir(directory) and os.listdir(directory):
            return f"{directory} was listed"
    return ""


@attack("F8", "a procfs of one's own, without masks")
def second_proc() -> str:
    os.makedirs("/tmp/proc", exist_ok=True)
    if libc().mount(b"proc", b"/tmp/proc", b"proc", 0, None) == 0:
        return "a second procfs was mounted"
    return denied("fsopen", b"proc", 0)


@attack("F8", "uncovering a masked path by unmounting or moving what hides it")
def unmask() -> str:
    if libc().umount2(b"/proc/kcore", 2) == 0 or libc().umount2(b"/sys/firmware", 2) == 0:
        return "a mask was taken off"
    return first(
        refused("rename of /proc/kcore", lambda: os.rename("/proc/kcore", "/proc/other")),
        denied("move_mount", -100, b"/proc/kcore", -100, b"/tmp", 0),
    )


@attack("F9", "the directories that the overlay is made of")
def overlay_directories() -> str:
    for mount in mountinfo():
        for option in mount[-1].split(","):
            key, _, path = option.partition("=")
            if key.rstrip("+") not in ("upperdir", "workdir", "lowerdir") or path[:1] != "/":
                continue
            if path != "/" and os.path.exists(path):
                return f"{option} is reachable"
    return ""


@attack("F10", "a set-user-id program, copied and started by another user")
def setuid_copy() -> str:
    if not root():
        return ""
    source, suid = os.path.realpath(sys.executable), f"/tmp/suid-{os.getpid()}"
    with open(source, "rb") as old, open(suid, "wb") as new:
        new.write(old.read())
    os.chmod(suid, 0o6755)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        os.dup2(writer, 1)
        os.execv(suid, [suid, "-ISc", "import os; print(os.geteuid(), os.getegid())"])
    os.close(writer)
    said = os.read(reader, 64).decode().split()
    os.waitpid(pid, 0)
    os.unlink(suid)
    return f"it ran as {said}" if "0" in said else ""


@attack("F12", "filling the shared memory of the container")
def fill_shm() -> str:
    fd = os.open("/dev/shm/fill", os.O_CREAT | os.O_WRONLY)
    try:
        os.posix_fallocate(fd, 0, 1 << 34)
    except OSError:
        return ""
    finally:
        os.close(fd)
        os.unlink("/dev/shm/fill")
    return "16 GiB of /dev/shm were taken"


@attack("F13", "every inotify instance of the host; any fanotify group")
def notification_groups() -> str:
    made: list[int] = []
    try:
        while len(made) < 4096:
            fd = call("inotify_init1", 0)
            if fd < 0:
                return denied("fanotify_init", 0, 0)
            made.append(fd)
    finally:
        for fd in made:
            os.close(fd)
    return "there is no bound"
