"""Each wall alone: what holds when the others have been taken away by the file."""

from __future__ import annotations

import errno
import json
import os

import pytest

from containust.core import landlock
from harness import BOX, PYTHON, Ctst

OPEN = 'userns = "host"\n    seccomp = "unconfined"'
TRY = "import os\ntry: {0}\nexcept OSError as error: print(error.errno)\nelse: print(0)"


def component(ctst: Ctst, properties: str, program: str) -> str:
    """What ``program`` printed in a container of those properties."""
    argv = json.dumps(["/usr/bin/python3", "-c", program])
    ctst.write(f'COMPONENT one {{\n    image = "{PYTHON}"\n    {properties}\n    command = {argv}\n}}\n')
    ctst.ok("run", "containust.ctst", "--no-color")
    said: str = ctst.ok("logs", "one")
    return said


@pytest.mark.skipif(landlock.abi() < 2, reason="the kernel has no Landlock of version 2")
@pytest.mark.parametrize("kind", [0o020666, 0o060666])
def test_landlock_alone_keeps_the_hosts_root_from_making_devices(ctst: Ctst, kind: int) -> None:
    program = TRY.format(f"os.mknod('/tmp/d', {kind}, os.makedev(1, 3))")
    said = component(ctst, f'{OPEN}\n    capabilities = ["MKNOD"]', program)
    assert str(errno.EACCES) in said.split(), said


@pytest.mark.skipif(landlock.abi() < 6, reason="scopes came with version 6")
def test_landlock_keeps_a_container_on_the_hosts_network_from_its_abstract_sockets(ctst: Ctst) -> None:
    import socket

    from containust.core import syscalls

    # The socket has to lie in the network namespace that plays the host.
    reader, writer = os.pipe()
    release, held = os.pipe()
    name = f"containust-test-{os.getpid()}"
    pid = os.fork()
    if pid == 0:
        try:
            os.close(held)
            syscalls.setns(ctst.network, syscalls.CLONE_NEWNET)
            server = socket.socket(socket.AF_UNIX)
            server.bind(f"\0{name}")
            server.listen()
            os.write(writer, b"r")
            os.read(release, 1)
        finally:
            os._exit(0)
    try:
        assert os.read(reader, 1) == b"r"
        program = TRY.format(f"__import__('socket').socket(1).connect('\\0{name}')")
        argv = ("/usr/bin/python3", "-c", program)
        done = ctst("run", "--rm", "--network", "host", "--image", PYTHON, "--", *argv)
        assert done.out.split() == [str(errno.EPERM)], done
    finally:
        for fd in (held, release, reader, writer):
            os.close(fd)
        os.waitpid(pid, 0)


def test_a_file_that_weakens_a_component_is_told_by_plan_and_inspect(ctst: Ctst) -> None:
    ctst.write(
        f'''
        COMPONENT weak {{
            image = "{BOX}"
            command = ["sleep", "600"]
            {OPEN}
            capabilities = ["SYS_ADMIN"]
        }}
        COMPONENT usual {{
            image = "{BOX}"
            command = ["sleep", "600"]
        }}
        '''
    )
    plan = ctst.ok("plan", "containust.ctst")
    assert 'userns = "host"' in plan and 'seccomp = "unconfined"' in plan and "no Landlock" in plan
    steps = {step["name"]: step["weaker"] for step in json.loads(ctst.ok("plan", "--json", "containust.ctst"))["steps"]}
    assert len(steps["weak"]) == 3 and steps["usual"] == []
    ctst.ok("run", "-d", "containust.ctst")
    weak = json.loads(ctst.ok("inspect", "weak"))["confinement"]
    usual = json.loads(ctst.ok("inspect", "usual"))["confinement"]
    assert weak["ids"] == "host" and weak["seccomp"] == "none" and weak["capabilities"] == ["SYS_ADMIN"]
    assert weak["landlock"] == [] and "user" not in weak["namespaces"] and weak["no_new_privileges"]
    assert usual["ids"][1] == 65536 and usual["seccomp"] == "filter" and "user" in usual["namespaces"]
    assert usual["landlock"] == (["writing outside its root", "device nodes", "mounts"] if landlock.abi() >= 2 else [])


@pytest.mark.skipif(landlock.abi() < 2, reason="the kernel has no Landlock of version 2")
@pytest.mark.parametrize(("declared", "status"), [("", 1), ('capabilities = ["SYS_PTRACE"]', 0)])
def test_a_joining_process_traces_the_first_only_with_the_capability(ctst: Ctst, declared: str, status: int) -> None:
    ctst.write(f'COMPONENT one {{\n    image = "{BOX}"\n    command = ["sleep", "600"]\n    {declared}\n}}\n')
    ctst.ok("run", "-d", "containust.ctst")
    assert ctst("exec", "one", "--", "cat", "/proc/1/environ").status == status
    assert ctst("exec", "one", "--", "cat", "/proc/1/cmdline").status == 0
    assert ctst("exec", "one", "--", "kill", "-0", "1").status == 0


SETS = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("0", {"CapInh": 0, "CapPrm": 0x2040, "CapEff": 0x2040, "CapBnd": 0x2040, "CapAmb": 0}),
        ("1000:1000", dict.fromkeys(SETS, 0x2040)),  # declared for another user: it keeps them over exec
    ],
)
@pytest.mark.guest
def test_declared_capabilities_are_the_sets_of_program_probe_and_exec(
    ctst: Ctst, user: str, expected: dict[str, int]
) -> None:
    (ctst.directory / "out").mkdir()
    (ctst.directory / "out").chmod(0o777)
    ctst.write(
        f'''
        COMPONENT one {{
            image = "{BOX}"
            command = ["sh", "-c", "grep Cap /proc/self/status > /out/program; sleep 600"]
            healthcheck = {{ command = ["sh", "-c", "grep Cap /proc/self/status > /out/probe"] }}
            capabilities = ["SETGID", "NET_RAW"]
            user = "{user}"
            volumes = ["./out:/out"]
        }}
        COMPONENT after {{
            image = "{BOX}"
            command = ["true"]
        }}
        CONNECT after -> one
        '''
    )
    ctst.ok("run", "-d", "containust.ctst")
    ctst.ok("exec", "one", "--", "sh", "-c", "grep Cap /proc/self/status > /out/exec")
    for place in ("program", "probe", "exec"):
        lines = (ctst.directory / "out" / place).read_text().splitlines()
        assert {line.split(":")[0]: int(line.split()[1], 16) for line in lines} == expected, place
