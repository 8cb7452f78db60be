"""Everything that ``ctst doctor --attack`` tries is withstood, and would be seen if it were not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containust.runtime.attacks import RUN, facts, inside
from containust.runtime.attacks.inside import main as program_inside
from containust.runtime.attacks.inside.frame import ATTACKS
from containust.sdk import attacks
from harness import PYTHON, Ctst, eventually

assert program_inside.MODULES  # importing them has registered what they try
NAMES = [name for _, name, _, _ in ATTACKS]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    directory = tmp_path_factory.mktemp("attacks")
    ctst = Ctst(directory / "project", directory / "home", f"attacks-{directory.name}")
    ctst.environ["TMPDIR"] = str(ctst.directory)
    done = ctst("doctor", "--attack", "--json", seconds=100)
    found = {outcome["name"]: outcome for outcome in json.loads(done.out)["attacks"]}
    assert done.status == any(outcome["broke"] for outcome in found.values())
    assert {path.name for path in ctst.directory.iterdir()} <= {".containust"}, "it leaves nothing"
    yield found
    ctst.close()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.guest
def test_withstood(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    assert outcomes[name]["broke"] == {}


# What breaks each of these: a wall that the file takes away, or something wrong that the attack's facts describe.
SEEN = {
    "nested_user_namespace", "keyrings", "personality", "calls_of_32_bit", "kernel_calls", "filter_after_exec",
    "type_on_terminal", "capabilities", "host_loopback", "environment", "exhaust_processes", "shared_namespaces",
}  # fmt: skip


def test_an_attack_that_gets_through_is_seen(ctst: Ctst) -> None:
    """The same program in a container without a filter, on the host's network, with a capability and variables more."""
    volume = ctst.directory / "attack"
    volume.mkdir(mode=0o777)
    shutil.copytree(Path(inside.__file__).parent, volume / "inside", ignore=shutil.ignore_patterns("__pycache__"))
    ctst.write(
        f'''
        COMPONENT open {{
            image = "{PYTHON}"
            command = {json.dumps(["/usr/bin/python3", "-ISc", RUN.format(report="/attack/open.json")])}
            volumes = ["{volume}:/attack"]
            seccomp = "unconfined"
            capabilities = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "NET_RAW"]
            network = "host"
            env = {{ LD_SHOWN = "1" }}
        }}
        '''
    )
    program = (
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
        "print(s.getsockname()[1], flush=True); __import__('signal').pause()"
    )
    enter = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{ctst.network}"]
    server = subprocess.Popen([*enter, sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        network = os.readlink(f"/proc/{server.pid}/ns/net")
        namespaces = {"net": network, "user": "another"}
        facts.write(str(volume), attacks.PIDS, {"port": port, "socket": "", "namespaces": namespaces})
        ctst.ok("run", "-d", "containust.ctst")
        report = volume / "open.json"
        eventually(report.exists)
        broke = {entry["name"]: entry["broke"] for entry in json.loads(report.read_text()) if entry["broke"]}
    finally:
        server.kill()
        server.communicate()
    assert set(broke) >= SEEN, SEEN - set(broke)
    assert not [text for text in broke.values() if "itself failed" in text], broke
