"""Processes that will not go, arguments that do not fit, and what may not reach a container from its starter."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from containust.core import syscalls
from harness import BOX, PYTHON, Ctst, eventually, marked, read

NR_ADD_KEY = 248 if syscalls.MACHINE == "x86_64" else 217
KEYCTL_SEARCH, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING = 10, 6, -3

# Zombies, a process that is stopped, one of a session of its own that no signal ends: whatever a stop has to cope with.
LITTER = """
import os, signal, time
for number in range(60):
    if os.fork() == 0:
        os._exit(0)
if os.fork() == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in set(range(1, 65)) - {9, 19, 32, 33}:
            signal.signal(number, signal.SIG_IGN)
        open('/tmp/detached', 'w').close()
        while True: time.sleep(600)
    os._exit(0)
while not os.path.exists('/tmp/detached'): time.sleep(0.01)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('littered', flush=True)
while True: time.sleep(600)
"""


@pytest.mark.parametrize("init", ["false", "true"])
def test_zombies_and_processes_that_are_stopped_or_detached_end_with_their_container(ctst: Ctst, init: str) -> None:
    ctst.write(
        f'''
        COMPONENT one {{
            image = "{PYTHON}"
            command = {json.dumps(["/usr/bin/python3", "-c", LITTER])}
            init = {init}
            stop_timeout = "300ms"
            pids = 200
        }}
        '''
    )
    ctst.ok("run", "-d", "containust.ctst")
    assert eventually(lambda: "littered" in ctst.ok("logs", "one"))
    assert ctst.rows()["one"]["pids"] >= 3
    ctst.ok("stop", "one")
    ctst.assert_clean()
    assert ctst.rows()["one"]["state"] in ("stopped", "failed")


@pytest.mark.parametrize("words", [["x" * 200_000], ["x" * 100_000] * 30])
def test_arguments_that_the_kernel_does_not_take_are_an_error(ctst: Ctst, words: list[str]) -> None:
    """Longer than 128 KiB, or than all of a stack together."""
    ctst.write(f'COMPONENT one {{\n    image = "{BOX}"\n    command = {json.dumps(["true", *words])}\n}}\n')
    done = ctst("run", "containust.ctst")
    assert done.status == 126 and "error[R004]" in done.err and "Argument list too long" in done.err, done.err[:2000]
    ctst.assert_clean()


def test_nothing_of_the_current_directory_or_of_pythons_settings_is_executed(ctst: Ctst) -> None:
    """Each file would leave a mark; the names are those that Python or ctst look for at some time."""
    names = ("sitecustomize.py", "usercustomize.py", "json.py", "os.py", "site.py", "marshal.py", "encodings.py")
    for place in (ctst.directory, ctst.directory / "lib", ctst.directory / "lib/containust"):
        place.mkdir(exist_ok=True)
        for name in (*names, "__init__.py", "start.py"):
            (place / name).write_text(f"open({str(ctst.directory / 'ran')!r}, 'a').write(__file__)")
    ctst.environ |= {
        "PYTHONPATH": f"{ctst.directory / 'lib'}:{ctst.directory}",
        "PYTHONSTARTUP": str(ctst.directory / "start.py"),
        "PYTHONHOME": str(ctst.directory / "lib"),
        "PYTHONUSERBASE": str(ctst.directory / "lib"),
        "PYTHONINSPECT": "1",
        "PYTHONBREAKPOINT": "start.nothing",
    }
    ctst.write(f'COMPONENT one {{\n    image = "{BOX}"\n    command = ["sleep", "600"]\n}}\n')
    ctst.ok("run", "-d", "containust.ctst")
    assert ctst.ok("exec", "one", "--", "env").count("PYTHON") == 0
    for words in (("ps",), ("logs", "one"), ("plan",), ("inspect", "one"), ("stop",), ("rm",)):
        ctst.ok(*words)
    assert not (ctst.directory / "ran").exists()


def test_the_keys_of_whoever_starts_a_container_are_not_the_containers(ctst: Ctst) -> None:
    """Its session keyring is a new one, which matters once a profile admits the calls."""
    number = bytearray(8)

    def enter() -> None:
        ctst.enter()
        syscalls.syscall(syscalls.NR_keyctl, syscalls.KEYCTL_JOIN_SESSION_KEYRING, None)
        number[:] = syscalls.syscall(NR_ADD_KEY, b"user", b"containust", b"x", 1, KEY_SPEC_SESSION_KEYRING).to_bytes(8)
        (ctst.directory / "key").write_bytes(number)

    search = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"key = int.from_bytes(open('/data/key', 'rb').read())\n"
        f"found = libc.syscall({syscalls.NR_keyctl}, {KEYCTL_SEARCH}, {KEY_SPEC_SESSION_KEYRING}, b'user', "
        "b'containust', 0)\nprint(key > 0, found, ctypes.get_errno())\n"
        f"print(libc.syscall({syscalls.NR_keyctl}, {KEYCTL_DESCRIBE}, key, None, 0))"
    )
    ctst.write(
        f'''
        COMPONENT one {{
            image = "{PYTHON}"
            command = {json.dumps(["/usr/bin/python3", "-c", search])}
            seccomp = "unconfined"
            volume = "./:/data"
        }}
        '''
    )
    assert ctst("run", "containust.ctst", preexec_fn=enter).status == 0
    first, second = ctst.ok("logs", "one").splitlines()
    assert first.split()[:2] == ["True", "-1"] and second == "-1", (first, second)


def test_files_in_memory_count_as_memory(ctst: Ctst) -> None:
    """A container's tmpfs and shared memory are no way around its limit."""
    for place in ("/tmp", "/dev/shm"):
        done = ctst.shell(f"dd if=/dev/zero of={place}/file bs=1M count=60", "--memory", "24MiB")
        assert done.status == 137, done
    ctst.assert_clean()


def test_the_starters_descriptors_and_environment_end_at_ctst(ctst: Ctst) -> None:
    """P1 and P4 from the other side: the program that starts ctst leaves files open and variables set."""
    secret = ctst.directory / "secret"
    secret.write_text("of the starter")
    fd = os.open(secret, os.O_RDONLY)
    os.dup2(fd, 77)
    ctst.environ |= {"AWS_SECRET_ACCESS_KEY": "of-the-starter", "LD_BIND_NOW": "1", "http_proxy": "http://127.0.0.1:1"}
    command = json.dumps(["sh", "-c", "ls -l /proc/self/fd; env; sleep 600"])
    ctst.write(f'COMPONENT one {{\n    image = "{BOX}"\n    command = {command}\n}}\n')
    try:
        ctst.ok("run", "-d", "containust.ctst", pass_fds=(fd, 77))
    finally:
        os.close(77)
        os.close(fd)
    inside = ctst.ok("logs", "one") + ctst.ok("exec", "one", "--", "sh", "-c", "ls -l /proc/self/fd; env")
    assert "secret" not in inside and "AWS" not in inside and "LD_" not in inside and "proxy" not in inside
    for pid in marked(ctst.token):  # and its supervisor holds no file that was left open by chance
        for name in Path(f"/proc/{pid}/fd").iterdir():
            assert os.path.realpath(name) != str(secret), read(f"/proc/{pid}/cmdline")
