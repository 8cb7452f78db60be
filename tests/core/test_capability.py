"""The five capability sets of real processes, in a user namespace of their own and in the host's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from containust.common.errors import ContainustError
from containust.core import capability, syscalls
from containust.core.calls import at_once

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def sets_after_exec(mask: int, uid: int, ambient: int = 0, user_namespace: bool = True) -> tuple[dict[str, int], str]:
    """The sets, and NoNewPrivs, of a program executed after apply."""
    prepared = capability.prepare(mask, ambient)
    reader, writer = os.pipe()
    mapped, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writer, 1)
            if user_namespace:
                syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(writer, b"\n")
            os.read(mapped, 1)
            os.setgroups([])
            syscalls.check(syscalls.syscall(119 if syscalls.MACHINE == "x86_64" else 149, uid, uid, uid), "gid")
            at_once(capability.apply, prepared, uid)
            os.execv("/bin/cat", ["cat", "/proc/self/status"])
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(1)
    os.close(writer)
    os.close(mapped)
    try:
        os.read(reader, 1)
        if user_namespace:
            for kind in ("gid_map", "uid_map"):
                Path(f"/proc/{pid}/{kind}").write_text("0 3000000 65536")
        os.write(go, b"x")
        with os.fdopen(reader) as file:
            text = file.read()
    finally:
        os.close(go)
        status = os.waitpid(pid, 0)[1]
    assert status == 0, text
    lines = dict(line.split(":", 1) for line in text.strip().splitlines() if ":" in line)
    assert lines["Uid"].split() == [str(uid)] * 4
    return {name: int(lines[name], 16) for name in SETS}, lines["NoNewPrivs"].strip()


MASKS = [0, capability.DEFAULT_MASK, 1 << 21, capability.parse(["ALL"])]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.guest
def test_root_has_exactly_the_declared_list(mask: int) -> None:
    sets, no_new_privs = sets_after_exec(mask, 0)
    assert sets == {"CapInh": 0, "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapAmb": 0}
    assert no_new_privs == "1"


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.guest
def test_another_user_has_the_list_as_its_bound_only(mask: int) -> None:
    sets, no_new_privs = sets_after_exec(mask, 1000)
    assert sets == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": mask, "CapAmb": 0}
    assert no_new_privs == "1"


@pytest.mark.guest
def test_another_user_keeps_what_is_ambient() -> None:
    mask = capability.DEFAULT_MASK
    ambient = capability.parse(["NET_BIND_SERVICE"])
    sets, _ = sets_after_exec(mask, 1000, ambient)
    assert sets == {
        "CapInh": ambient,
        "CapPrm": ambient,
        "CapEff": ambient,
        "CapBnd": mask,
        "CapAmb": ambient,
    }


def test_ambient_never_exceeds_the_list_and_is_not_for_root() -> None:
    mask = capability.parse(["KILL"])
    assert sets_after_exec(mask, 1000, capability.parse(["ALL"]))[0]["CapAmb"] == mask
    assert sets_after_exec(mask, 0, mask)[0]["CapInh"] == 0


def test_in_the_host_user_namespace_the_sets_are_the_same() -> None:
    mask = capability.DEFAULT_MASK
    sets, _ = sets_after_exec(mask, 0, user_namespace=False)
    assert sets == {"CapInh": 0, "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapAmb": 0}


def test_names_and_numbers() -> None:
    assert capability.NAMES.index("SYS_ADMIN") == 21
    assert capability.NAMES.index("CHECKPOINT_RESTORE") == 40
    assert capability.names(capability.DEFAULT_MASK) == sorted(capability.DEFAULT, key=capability.NAMES.index)
    assert capability.names(1 << 50) == ["50"]
    assert capability.last_capability() >= 35


def test_parse_takes_names_with_and_without_prefix() -> None:
    assert capability.parse(["CAP_NET_RAW", "chown", "cap_kill"]) == 1 << 13 | 1 | 1 << 5
    assert capability.parse([]) == 0
    assert capability.parse(["all"]) == (1 << 41) - 1


@pytest.mark.parametrize("name", ["NET_RWA", "CAP_", "", "CAP_CAP_KILL", "root"])
def test_an_unknown_name_is_an_error_that_helps(name: str) -> None:
    with pytest.raises(ContainustError) as caught:
        capability.parse(["KILL", name])
    assert caught.value.code == "E006"
    assert repr(name) in caught.value.message
    assert caught.value.help


def test_capabilities_unknown_to_the_kernel_are_left_out() -> None:
    prepared = capability.prepare(capability.parse(["ALL"]), last=36)
    assert prepared.drop == []
    assert capability.prepare(0, last=36).drop == list(range(37))
