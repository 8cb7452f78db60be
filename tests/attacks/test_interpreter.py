"""The interpreter that ctst runs on is a file of the host, and a container's first process begins as it: the class of
CVE-2019-5736."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from containust.core import landlock
from harness import BOX, FROM_SOURCE, PYTHON, Ctst, eventually, marked, read

# A script whose interpreter is whatever executes it: the Python of ctst, in the container. It waits until nothing runs
# on that file any more (Text file busy) and then tries to open it for writing.
EVIL = """#!/proc/self/exe -S
import errno, os, time
fd = os.open("/proc/self/exe", os.O_RDONLY)
with open("/evil/found", "w") as file:
    file.write(os.readlink("/proc/self/exe"))
os.set_inheritable(fd, True)
os.execv("/usr/bin/python3", ["/usr/bin/python3", "-IS", "/evil/write", str(fd)])
"""
WRITE = """
import errno, os, sys, time
while True:
    try:
        os.close(os.open("/proc/self/fd/" + sys.argv[1], os.O_WRONLY))
        said = "open"
    except OSError as error:
        if error.errno == errno.ETXTBSY:
            time.sleep(0.01)
            continue
        said = errno.errorcode[error.errno]
    with open("/evil/said.part", "w") as file:
        file.write(said)
    os.rename("/evil/said.part", "/evil/said")
    time.sleep(600)
"""


def interpreter(directory: Path) -> Path:
    """A copy of this Python that nobody else runs on."""
    subprocess.run([sys.executable, "-m", "venv", "--copies", "--without-pip", str(directory)], check=True)
    return (directory / "bin/python3").resolve()


def libraries(program: Path) -> list[str]:
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    return [word for word in done.stdout.split() if word.startswith("/") and "libpython" in word]


@pytest.mark.skipif(landlock.abi() < 2, reason="the kernel has no Landlock of version 2")
@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ("", "EACCES"),  # the file's owner is not mapped
        ('userns = "host"', "EACCES"),  # Landlock
        ('userns = "host"\n    capabilities = ["DAC_OVERRIDE", "SYS_PTRACE"]', "open"),  # neither: not a boundary
    ],
)
def test_a_container_cannot_write_to_it(ctst: Ctst, tmp_path: Path, properties: str, expected: str) -> None:
    python = interpreter(tmp_path / "python")
    evil = ctst.directory / "evil"
    evil.mkdir(mode=0o777)
    (evil / "write").write_text(WRITE)
    script = evil / "start"
    script.write_text(EVIL)
    script.chmod(0o755)
    for library in libraries(python):
        shutil.copy(library, evil)
    env = json.dumps({"LD_LIBRARY_PATH": "/evil", "PYTHONHOME": "/usr"}).replace(":", " =")
    ctst.write(
        f'COMPONENT one {{\n    image = "{PYTHON}"\n    command = ["/evil/start"]\n    env = {env}\n'
        f'    volumes = ["./evil:/evil"]\n    {properties}\n}}\n'
    )
    ctst.ok("check", "containust.ctst")
    command = [str(python), "-IS", "-c", FROM_SOURCE, "run", "-d", "containust.ctst"]
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{os.getpid()}/fd/{ctst.network}", *command],
        cwd=ctst.directory,
        env=ctst.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr
    assert eventually(lambda: read(str(evil / "found"))) == str(python), "the attack ran on another file"
    for pid in marked(ctst.token):  # nothing runs on it any more once the supervisor is gone
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: read(str(evil / "said"))) == expected
    ctst.ok("rm", "--force", "one")


# What a hostile program of a container looks for in every process that enters it: a file that is not its own.
WATCH = """
import os, time
own = {os.stat("/").st_dev}
found = set()
mine = os.getpid()
end = time.monotonic() + 600
while not os.path.exists("/spy/stop"):
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (1, mine):
            continue
        base = f"/proc/{name}"
        try:
            link = os.readlink(f"{base}/exe")
            if "busybox" not in link and "deleted" not in link:
                found.add(("exe", link))
        except OSError:
            pass
        for what in ("exe", "mem", "cwd", "root"):
            try:
                fd = os.open(f"{base}/{what}", os.O_RDWR if what in ("exe", "mem") else os.O_PATH)
            except OSError:
                continue
            if what == "exe" or (what in ("cwd", "root") and os.fstat(fd).st_dev not in own):
                found.add((what, os.readlink(f"/proc/self/fd/{fd}")))
            os.close(fd)
        try:
            for number in os.listdir(f"{base}/fd"):
                link = os.readlink(f"{base}/fd/{number}")
                if int(number) > 2 and link.startswith("/") and "/spy" not in link:
                    found.add(("fd", link))
        except OSError:
            pass
with open("/spy/found.part", "w") as file:
    file.write(repr(sorted(found)))
os.rename("/spy/found.part", "/spy/found")
time.sleep(600)
"""


@pytest.mark.parametrize("properties", ["", 'userns = "host"'])
def test_a_racing_program_finds_nothing_of_the_host_in_what_joins_its_container(ctst: Ctst, properties: str) -> None:
    spy = ctst.directory / "spy"
    spy.mkdir(mode=0o777)
    argv = json.dumps(["/usr/bin/python3", "-c", WATCH])
    ctst.write(
        f'COMPONENT one {{\n    image = "{PYTHON},{BOX.removeprefix("host://")}"\n    command = {argv}\n'
        f'    volumes = ["./spy:/spy"]\n    {properties}\n}}\n'
    )
    ctst.ok("run", "-d", "containust.ctst")
    for _ in range(12):
        assert ctst("exec", "one", "--", "/bin/busybox", "true").status == 0
    (spy / "stop").write_text("")
    eventually((spy / "found").exists)
    assert (spy / "found").read_text() == "[]"
