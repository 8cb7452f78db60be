"""The default seccomp profile: what a container may ask of the kernel.

An allowlist. Everything a server, a shell, a compiler or a debugger does inside its own namespaces is in it;
what changes the machine, makes namespaces, or is a favourite way into the kernel is not. Forbidden calls give
EPERM, except where a libc has an older way and looks for it only after another error.

Decisions worth knowing:

- ``ptrace`` and ``process_vm_readv`` are allowed. Filters are checked after a tracer has changed a call
  (Linux 4.8), the PID and user namespaces keep other processes out of reach, and a debugger by ``exec`` is
  worth having.
- ``clone3`` gives ENOSYS: its flags are in memory, where a filter cannot see CLONE_NEWUSER. libcs fall back
  to clone.
- ``unshare`` without namespaces (CLONE_FS, CLONE_FILES) is allowed, a new namespace of any kind is not.
- Sockets are of the families programs use: unix, inet, inet6, netlink, and packet with NET_RAW. Others give
  EAFNOSUPPORT, as on a kernel without them: AF_ALG and AF_VSOCK among them, the second a way to the
  hypervisor's host.
- ``personality`` takes the values of ordinary programs: ADDR_NO_RANDOMIZE, which makes exploits easy, isn't
  one.
- ioctl refuses TIOCSTI and TIOCLINUX, which type on the terminal, and TIOCSETD, which loads line disciplines.
  The kernel looks at the low 32 bits of the request only, hence so do these rules (CVE-2019-10063).
- 32-bit calls end the process, unless the image is a 32-bit one: of the kernel's entries they are the least
  tested and the one that 64-bit programs don't use. ``socketcall`` hides its arguments, so for these images
  the socket families aren't filtered.
- modify_ldt, uselib, ustat, sysfs, keyctl, userfaultfd, io_uring, bpf, perf_event_open: denied, see
  :data:`GATED` for what a declared capability brings back.
"""

from __future__ import annotations

from errno import EAFNOSUPPORT, ENOSYS

from containust.core.capability import NAMES
from containust.core.seccomp import COMPAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FILES = """
    access chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
    fallocate fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync file_getattr file_setattr flock fstat
    fstatfs fsync ftruncate futimesat lchown link linkat lseek lstat memfd_create memfd_secret mknod mknodat
    name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv rename renameat renameat2 sendfile splice stat statfs
    statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs tee truncate umask unlink unlinkat
    utime utimensat utimes vmsplice write writev cachestat
"""
_DIRECTORIES = """
    chdir fchdir getcwd getdents getdents64 mkdir mkdirat rmdir listmount statmount
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch fanotify_mark
"""
_ATTRIBUTES = """
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
    lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
"""
_MEMORY = """
    brk get_mempolicy madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mprotect mremap
    mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages
"""
_PROCESSES = """
    arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu
    getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit
    getrusage getsid gettid getuid landlock_add_rule landlock_create_ruleset landlock_restrict_self
    lsm_get_self_attr lsm_list_modules pidfd_open prctl prlimit64 process_vm_readv process_vm_writev ptrace
    restart_syscall rseq seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid
    setgroups setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setuid sysinfo times
    uname uprobe uretprobe vfork wait4 waitid
"""
_SCHEDULING = """
    ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
    sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield futex futex_requeue futex_wait futex_waitv futex_wake
"""
_SIGNALS_AND_TIME = """
    kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4 tgkill tkill adjtimex alarm
    clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time
    timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime
    timerfd_settime
"""
_COMMUNICATION = """
    accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
    epoll_wait epoll_wait_old eventfd eventfd2 getpeername getrandom getsockname getsockopt io_cancel
    io_destroy io_getevents io_pgetevents io_setup io_submit listen mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd poll ppoll pselect6 recvfrom recvmmsg
    recvmsg select semctl semget semop semtimedop sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget
    shutdown
"""
# Calls that only the 32-bit tables have: the same things, under older names or with wider types.
_ONLY_32_BIT = """
    _llseek _newselect arm_fadvise64_64 breakpoint cacheflush chown32 clock_getres_time64 clock_gettime64
    clock_adjtime64 clock_nanosleep_time64 fadvise64_64 fchown32 fcntl64 fstat64 fstatat64 fstatfs64
    ftruncate64 futex_time64 get_tls getegid32 geteuid32 getgid32 getgroups32 getresgid32 getresuid32 getuid32
    io_pgetevents_time64 ipc lchown32 lstat64 mmap2 modify_ldt mq_timedreceive_time64 mq_timedsend_time64 nice
    olduname oldolduname ppoll_time64 pselect6_time64 readdir recv recvmmsg_time64 rt_sigtimedwait_time64
    sched_rr_get_interval_time64 semtimedop_time64 send sendfile64 set_tls setfsgid32 setfsuid32 setgid32
    setgroups32 setregid32 setresgid32 setresuid32 setreuid32 setuid32 sigaction signal sigpending sigprocmask
    sigreturn sigsuspend socketcall stat64 statfs64 timer_gettime64 timer_settime64 timerfd_gettime64
    timerfd_settime64 truncate64 ugetrlimit utimensat_time64 waitpid
"""

ALLOWED: tuple[str, ...] = tuple(
    (
        _FILES + _DIRECTORIES + _ATTRIBUTES + _MEMORY + _PROCESSES + _SCHEDULING + _SIGNALS_AND_TIME + _COMMUNICATION
    ).split()
)
"""Calls allowed whatever their arguments. A name that an architecture lacks is passed over."""

GATED: dict[str, str] = {
    "BPF": "bpf",
    "DAC_READ_SEARCH": "open_by_handle_at",
    "PERFMON": "perf_event_open",
    "SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick mount mount_setattr"
    " move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname"
    " sethostname setns syslog umount umount2 unshare",
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module finit_module init_module",
    "SYS_NICE": "mbind migrate_pages move_pages process_madvise set_mempolicy set_mempolicy_home_node",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd",
    "SYS_RAWIO": "ioperm iopl",
    "SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "SYS_TTY_CONFIG": "vhangup",
    "SYSLOG": "syslog",
}
"""What a declared capability adds: without the capability the kernel would refuse most of it anyway.

NET_RAW adds the socket family packet, NET_ADMIN adds TIOCSETD (for pppd and slattach).
"""

_PERSONALITIES = (
    0x0,
    0x8,
    0x20000,
    0x20008,
    0xFFFFFFFF,
)  # PER_LINUX, PER_LINUX32, each with UNAME26; "which one?"
_AF_PACKET = 17
_FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
_INT = 0xFFFFFFFF
# CLONE_NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET; for unshare also NEWTIME, which in clone is a
# signal's bit.
_NAMESPACES = 0x7E020000
_CLONE_NEWTIME = 0x80


def default_profile(machine: str, capabilities: int = 0, compat: bool = False) -> dict[str, Any]:
    """The default profile for ``machine`` as an OCI profile, widened by the ``capabilities`` mask.

    ``compat`` admits the 32-bit table: for images built for 386 or arm.
    """
    held = {name for number, name in enumerate(NAMES) if capabilities >> number & 1}
    allowed = list(ALLOWED)
    if compat:
        allowed += _ONLY_32_BIT.split()
    for capability, calls in GATED.items():
        if capability in held:
            allowed += calls.split()
    families = (*_FAMILIES, _AF_PACKET) if "NET_RAW" in held else _FAMILIES
    requests = (_TIOCSTI, _TIOCLINUX) if "NET_ADMIN" in held else (_TIOCSTI, _TIOCLINUX, _TIOCSETD)
    rules = [
        _allow(sorted(set(allowed))),
        _allow(["ioctl"]),
        *({**_allow(["personality"]), "args": [_masked(_INT, value)]} for value in _PERSONALITIES),
        *({**_allow(["socket", "socketpair"]), "args": [_masked(_INT, family)]} for family in families),
        {"names": ["socket", "socketpair"], "action": "SCMP_ACT_ERRNO", "errnoRet": EAFNOSUPPORT},
        *(
            {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": [_masked(_INT, request, 1)]}
            for request in requests
        ),
    ]
    if "SYS_ADMIN" not in held:
        rules += [
            {**_allow(["clone"]), "args": [_masked(_NAMESPACES, 0)]},
            {**_allow(["unshare"]), "args": [_masked(_NAMESPACES | _CLONE_NEWTIME, 0)]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
        ]
    architectures = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
    compats = {"i386": "SCMP_ARCH_X86", "arm": "SCMP_ARCH_ARM"}
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [architectures[machine], *([compats[COMPAT[machine]]] if compat else [])],
        "syscalls": rules,
    }


def _allow(names: list[str]) -> dict[str, Any]:
    return {"names": names, "action": "SCMP_ACT_ALLOW"}


def _masked(mask: int, value: int, index: int = 0) -> dict[str, Any]:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def shipped() -> dict[str, bytes]:
    """File name and content of every blob under ``core/data``."""
    from containust.core.seccomp import shipped_name
    from containust.core.seccomp_compile import compile

    return {
        shipped_name(machine, compat): compile(default_profile(machine, 0, compat), machine)
        for machine in COMPAT
        for compat in (False, True)
    }


def _write() -> None:
    import os

    directory = os.path.join(os.path.dirname(__file__), "data")
    for name, blob in shipped().items():
        with open(os.path.join(directory, name), "wb") as file:
            file.write(blob)


if __name__ == "__main__":  # python -m containust.core.seccomp_profile
    _write()
