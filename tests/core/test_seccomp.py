"""The default filter in real processes: what is denied, what is not, and by which way in."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from containust.common.errors import ContainustError
from containust.core import capability, seccomp, syscalls
from containust.core.calls import at_once
from containust.core.seccomp_numbers import NUMBERS

TABLE = NUMBERS[syscalls.MACHINE]
DEFAULT = capability.DEFAULT_MASK
ON_X86 = pytest.mark.skipif(syscalls.MACHINE != "x86_64", reason="x86_64 machine code")


def confined(blob: bytes, action: Callable[[], object]) -> tuple[int, str]:
    """``(wait status, what action returned, as text)`` of a child under the filter."""
    reader, writer = os.pipe()
    filter = seccomp.prepare(blob)
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            at_once(seccomp.load, filter)
            os.write(writer, str(action()).encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    return os.waitpid(pid, 0)[1], text


def call(name: str, *arguments: int) -> str:
    """Name of the error that a raw call gives, or ``"ok"``."""
    if syscalls.syscall(TABLE[name], *arguments) >= 0:
        return "ok"
    return errno.errorcode[syscalls.last_error()]


@pytest.fixture(scope="module")
def blob(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return seccomp.blob("default", DEFAULT, str(tmp_path_factory.mktemp("cache")))


# Arguments are harmless should the filter fail: bad addresses, bad descriptors, unknown flags.
DENIED = [
    ("mount", "EPERM"),
    ("umount2", "EPERM"),
    ("pivot_root", "EPERM"),
    ("open_tree", "EPERM"),
    ("move_mount", "EPERM"),
    ("fsopen", "EPERM"),
    ("fsconfig", "EPERM"),
    ("fsmount", "EPERM"),
    ("mount_setattr", "EPERM"),
    ("setns", "EPERM"),
    ("keyctl", "EPERM"),
    ("add_key", "EPERM"),
    ("request_key", "EPERM"),
    ("bpf", "EPERM"),
    ("perf_event_open", "EPERM"),
    ("io_uring_setup", "EPERM"),
    ("io_uring_enter", "EPERM"),
    ("io_uring_register", "EPERM"),
    ("userfaultfd", "EPERM"),
    ("kexec_load", "EPERM"),
    ("kexec_file_load", "EPERM"),
    ("init_module", "EPERM"),
    ("finit_module", "EPERM"),
    ("delete_module", "EPERM"),
    ("open_by_handle_at", "EPERM"),
    ("swapon", "EPERM"),
    ("acct", "EPERM"),
    ("reboot", "EPERM"),
    ("quotactl", "EPERM"),
    ("syslog", "EPERM"),
    ("kcmp", "EPERM"),
    ("pidfd_getfd", "EPERM"),
    ("clone3", "ENOSYS"),
]
if syscalls.MACHINE == "x86_64":
    DENIED += [("iopl", "EPERM"), ("ioperm", "EPERM"), ("modify_ldt", "EPERM"), ("uselib", "EPERM")]


@pytest.mark.guest
def test_dangerous_calls_are_denied(blob: bytes) -> None:
    def tries() -> str:
        return json.dumps({name: call(name, -1, -1, -1, -1, -1, -1) for name, _ in DENIED})

    status, text = confined(blob, tries)
    assert status == 0
    assert json.loads(text) == dict(DENIED)


@pytest.mark.parametrize("flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
@pytest.mark.guest
def test_no_new_namespace_by_clone_or_unshare(blob: bytes, flag: int) -> None:
    def tries() -> str:
        return f"{call('clone', flag | signal.SIGCHLD, 0, 0, 0, 0)} {call('unshare', flag)}"

    assert confined(blob, tries) == (0, "EPERM EPERM")


def test_threads_forks_and_plain_unshare_work(blob: bytes) -> None:
    def tries() -> str:
        import threading

        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        return f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])} {call('unshare', 0x200)}"

    assert confined(blob, tries) == (0, "3 ok")


def test_personality_values(blob: bytes) -> None:
    values = {0: "ok", 8: "ok", 0x20000: "ok", 0xFFFFFFFF: "ok", 0x40000: "EPERM", 0x400000: "EPERM"}

    def tries() -> str:
        return json.dumps([call("personality", value) for value in values])

    text = confined(blob, tries)[1]
    assert json.loads(text) == list(values.values())


@pytest.mark.parametrize("request_", [0x5412, 0x541C, 0x5423, 1 << 32 | 0x5412, 0xFFFF << 48 | 0x541C])
@pytest.mark.guest
def test_typing_on_the_terminal_is_denied(blob: bytes, request_: int) -> None:
    controller, terminal = pty.openpty()
    try:
        character = ctypes.create_string_buffer(b"x")
        address = ctypes.addressof(character)
        assert confined(blob, lambda: call("ioctl", terminal, request_, address)) == (0, "EPERM")
        assert confined(blob, lambda: call("ioctl", terminal, 0x5413, address + 0))[1] in ("ok", "EFAULT")
    finally:
        os.close(controller)
        os.close(terminal)


def test_socket_families(blob: bytes) -> None:
    families = {
        socket.AF_UNIX: "ok",
        socket.AF_INET: "ok",
        socket.AF_INET6: "ok",
        socket.AF_NETLINK: "ok",
        38: "EAFNOSUPPORT",  # AF_ALG
        40: "EAFNOSUPPORT",  # AF_VSOCK
        17: "EAFNOSUPPORT",  # AF_PACKET
        1 << 32 | 40: "EAFNOSUPPORT",
    }
    kinds = {socket.AF_NETLINK: socket.SOCK_RAW}

    def tries() -> str:
        return json.dumps([call("socket", f, kinds.get(f, socket.SOCK_STREAM), 0) for f in families])  # type: ignore[call-overload]

    text = confined(blob, tries)[1]
    assert json.loads(text) == list(families.values())


def test_declared_capabilities_widen_the_filter(tmp_path: Path) -> None:
    admin = seccomp.blob("default", capability.parse(["SYS_ADMIN"]), str(tmp_path / "cache"))
    # EBADF, EFAULT, EINVAL: the kernel itself answers now.
    _, text = confined(admin, lambda: f"{call('setns', -1, 0)} {call('umount2', -1, -1)} {call('keyctl')}")
    assert text.split()[0] == "EBADF"
    assert text.split()[1] != "EPERM"
    assert text.split()[2] == "EPERM"


@pytest.mark.guest
def test_the_filter_is_loaded_and_inherited_through_exec(blob: bytes) -> None:
    program = "import os;print([l for l in open('/proc/self/status') if l.startswith(('Secc', 'NoNew'))]);"
    program += "\ntry: os.open_by_handle_at\nexcept AttributeError: pass\nimport ctypes;"
    program += f"c=ctypes.CDLL(None,use_errno=True);print(c.syscall({TABLE['bpf']},-1,0,0),ctypes.get_errno())"

    def install() -> None:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        at_once(seccomp.load, seccomp.prepare(blob))

    done = subprocess.run(
        [sys.executable, "-c", program], preexec_fn=install, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "NoNewPrivs:\\t1" in done.stdout
    assert "Seccomp:\\t2" in done.stdout
    assert done.stdout.splitlines()[-1] == f"-1 {errno.EPERM}"


def test_loading_needs_no_new_privs_or_it_fails(blob: bytes) -> None:
    filter = seccomp.prepare(blob)
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.syscall(syscalls.NR_capset, capability.prepare(0).header, capability.prepare(0).data)
            at_once(seccomp.load, filter)
        except OSError as error:
            os._exit(error.errno or 0)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EACCES


MAPPED: list[mmap.mmap] = []


def machine_code(code: bytes) -> Callable[[], int]:
    memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    MAPPED.append(memory)  # lives as long as the function can be called
    return lambda: int(function())


INT80_GETPID = bytes.fromhex("b814000000cd80c3")  # mov eax, 20; int 0x80; ret


@ON_X86
@pytest.mark.guest
def test_32_bit_calls_end_the_process(blob: bytes) -> None:
    getpid = machine_code(INT80_GETPID)
    # Calls with arguments too: mount is 21 there, and keyctl 288.
    assert confined(b"", lambda: getpid() in (os.getpid(), -errno.ENOSYS)) == (0, "True")
    status, text = confined(blob, getpid)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS
    assert text == ""


@ON_X86
def test_32_bit_images_get_a_filtered_32_bit_table(tmp_path: Path) -> None:
    compat = seccomp.blob("default", DEFAULT, str(tmp_path), compat=True)
    getpid = machine_code(INT80_GETPID)
    keyctl = machine_code(bytes.fromhex("b820010000cd80c3"))  # 288
    if confined(b"", getpid)[1] == str(-errno.ENOSYS):
        pytest.skip("this kernel has no 32-bit calls")
    assert confined(compat, lambda: getpid() == os.getpid()) == (0, "True")
    assert confined(compat, lambda: keyctl() & 0xFFFFFFFF) == (0, str((-errno.EPERM) & 0xFFFFFFFF))


@ON_X86
@pytest.mark.guest
def test_x32_calls_are_as_on_a_kernel_without_x32(blob: bytes) -> None:
    def tries() -> str:
        return errno.errorcode[syscalls.last_error()] if syscalls.syscall(0x40000027) < 0 else "ok"

    assert confined(blob, tries) == (0, "ENOSYS")


def test_an_ordinary_program_runs(blob: bytes) -> None:
    """A shell pipeline, sockets, a compiler's worth of file work: nothing ordinary is denied."""

    def install() -> None:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        at_once(seccomp.load, seccomp.prepare(blob))

    script = "ls /usr | sort -r | head -3 | wc -l; echo $((6*7)); cat /proc/self/comm"
    done = subprocess.run(["sh", "-c", script], preexec_fn=install, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["3", "42", "cat"])
    program = "import asyncio,sqlite3,tempfile,threading,multiprocessing as m,ssl;"
    program += "asyncio.run(asyncio.sleep(0));sqlite3.connect(':memory:').execute('select 1')\nm.Queue();"
    program += "print('fine')"
    done = subprocess.run(
        [sys.executable, "-c", program], preexec_fn=install, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


def test_unconfined_is_no_filter(tmp_path: Path) -> None:
    assert seccomp.blob("unconfined", DEFAULT, str(tmp_path)) == b""
    assert seccomp.prepare(b"") is None
    at_once(seccomp.load, None)


def test_a_profile_file_is_compiled_once(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    rule = {"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    cache = tmp_path / "cache"
    first = seccomp.blob(str(profile), DEFAULT, str(cache))
    assert confined(first, lambda: call("getpgid", 0)) == (0, "EXDEV")
    [kept] = cache.iterdir()
    assert kept.read_bytes() == first
    stamp = kept.stat().st_mtime_ns
    assert seccomp.blob(str(profile), DEFAULT, str(cache)) == first
    assert kept.stat().st_mtime_ns == stamp
    kept.write_bytes(first[:-3])
    assert seccomp.blob(str(profile), DEFAULT, str(cache)) == first
    profile.write_text(profile.read_text().replace("getpgid", "getsid"))
    assert seccomp.blob(str(profile), DEFAULT, str(cache)) != first
    assert len(list(cache.iterdir())) == 2


def test_the_default_needs_no_cache() -> None:
    assert seccomp.blob("default", DEFAULT, "/nonexistent/cache")
    assert seccomp.blob("default", capability.parse(["SYS_ADMIN"]), "/proc/nonexistent")


def test_a_missing_profile_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ContainustError) as caught:
        seccomp.blob(str(tmp_path / "none.json"), DEFAULT, str(tmp_path))
    assert caught.value.code == "E006"
