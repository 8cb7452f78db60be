"""``ctst doctor`` says what is there, in words and as a document, and changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from containust.runtime import doctor, leftovers
from containust.runtime.leftovers import Remains
from harness import BOX, Ctst, mounts

NAMES = {
    "user", "namespaces", "idmapped mounts", "overlayfs", "cgroups", "images", "nf_tables", "forwarding", "firewall",
    "seccomp", "landlock", "bytecode", "start-up files", "leftovers", "id ranges",
}  # fmt: skip


def test_every_check_has_a_name_a_status_and_a_remedy_where_one_is_due(ctst: Ctst) -> None:
    done = ctst("doctor", "--json")
    checks = json.loads(done.out)["checks"]
    assert {check["name"] for check in checks} >= NAMES
    for check in checks:
        assert check["status"] in ("ok", "warn", "fail")
        assert check["detail"]
        assert check["status"] == "ok" or check["help"], check
    assert done.status == (1 if any(check["status"] == "fail" for check in checks) else 0)


def test_a_host_that_runs_containers_passes(ctst: Ctst) -> None:
    assert ctst.shell("echo hi").out == "hi\n"
    done = ctst("doctor")
    assert done.status == 0, done
    assert "fail" not in done.out


def test_nothing_is_changed(ctst: Ctst) -> None:
    before = sorted(ctst.directory.rglob("*")), mounts("/")
    ctst("doctor")
    assert (sorted(ctst.directory.rglob("*")), mounts("/")) == before
    assert not (ctst.home / ".containust").exists()


def test_a_user_without_privileges_is_told_and_nothing_breaks(ctst: Ctst) -> None:
    def become() -> None:
        ctst.enter()
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)

    program = "import sys; sys.path[:] = %r\nfrom containust.cli.main import main; sys.exit(main(['doctor', '--json']))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program % sys.path],
            cwd="/",
            env=ctst.environ,
            preexec_fn=become,
            capture_output=True,
            text=True,
            check=False,
            timeout=40,
        )
    except PermissionError:
        pytest.skip("others may not run this Python")
    if "Permission denied" in done.stderr:
        pytest.skip("others may not read this checkout")
    assert done.returncode == 1, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["subordinate ids"]["status"] == "fail"
    assert "as root: " in checks["subordinate ids"]["help"]


def test_a_probe_that_breaks_hides_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> list[doctor.Check]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(doctor, "seccomp", broken)
    checks = doctor.examine(str(tmp_path))
    assert [check.status for check in checks if check.name == "broken"] == ["warn"]
    assert checks[-1].name == "id ranges"


def test_what_a_vanished_project_left_is_named_with_the_command_that_removes_it(ctst: Ctst) -> None:
    ctst.on_host("ip", "link", "add", "ctb012345600", "type", "bridge")
    ctst.on_host("ip", "link", "set", "ctb012345600", "group", str(0x10123456))
    ctst.on_host("nft", "add", "table", "inet", "containust-0123456789")
    found = [c for c in json.loads(ctst("doctor", "--json").out)["checks"] if "0123456789" in c["detail"]]
    assert [check["status"] for check in found] == ["warn"]
    assert "ctb012345600" in found[0]["detail"]
    ctst.on_host("sh", "-c", found[0]["help"])
    assert "ctb0123456" not in ctst.on_host("ip", "link")
    assert "0123456789" not in ctst.on_host("nft", "list", "tables")


def test_a_running_project_is_no_leftover(ctst: Ctst) -> None:
    ctst.ok("run", "-d", "--name", "one", "--network", "bridge", "--image", BOX, "--", "sleep", "600")
    checks = json.loads(ctst.ok("doctor", "--json"))["checks"]
    assert not [c for c in checks if c["name"] == "leftovers" and str(ctst.home) in c["detail"]]


def test_the_removal_of_groups_is_a_command_for_each_hierarchy() -> None:
    remains = Remains("0123456789")
    remains.groups = ["/sys/fs/cgroup/pids/containust/0123456789"]
    assert leftovers.removal(remains) == (
        "find /sys/fs/cgroup/pids/containust/0123456789 -depth -type d -exec rmdir {} +"
    )


def test_the_rung_of_images_is_named(ctst: Ctst) -> None:
    def told() -> str:
        checks = json.loads(ctst.ok("doctor", "--json"))["checks"]
        return str(next(check["detail"] for check in checks if check["name"] == "images"))

    assert told().startswith(("erofs-file: ", "erofs-loop: ", "extract: "))
    ctst.environ["CONTAINUST_IMAGE_MOUNT"] = "extract"
    assert told().endswith("demands extract")
    for rung in ("erofs-file", "erofs-loop", "extract"):
        ctst.environ["CONTAINUST_IMAGE_MOUNT"] = rung
        assert ctst.box("echo", rung).out == f"{rung}\n"
        kind = "erofs" if rung.startswith("erofs") else ""
        assert kind in ctst.box("cat", "/proc/self/mountinfo").out
    ctst.environ["CONTAINUST_IMAGE_MOUNT"] = "nonsense"
    done = ctst.box("true")
    assert done.status == 2 and "erofs-file, erofs-loop, extract" in done.err, done
