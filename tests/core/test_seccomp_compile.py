"""The compiler, against a plain reading of the profile: every number, and random profiles."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import struct
from errno import EAFNOSUPPORT, ENOSYS, EPERM
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from containust.common.errors import ContainustError
from containust.core import capability, seccomp
from containust.core import seccomp_profile as default
from containust.core.seccomp_compile import AUDIT_ARCH, compile, parse
from containust.core.seccomp_numbers import NEWEST, NUMBERS

FULL = bool(os.environ.get("CONTAINUST_FULL"))
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
Arguments = tuple[int, ...]
NONE: Arguments = (0,) * 6


def simulate(blob: bytes, arch: int, number: int, arguments: Arguments = NONE) -> int:
    """What the kernel's interpreter would return for one call."""
    data = struct.pack("<iIQ6Q", struct.unpack("<i", struct.pack("<I", number))[0], arch, 0, *arguments)
    program = list(struct.iter_unpack("<HBBI", blob))
    accumulator = position = 0
    while True:
        code, true, false, value = program[position]
        position += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:
            accumulator &= value
        elif code == 0x06:
            return int(value)
        elif code == 0x05:
            position += value
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[code]
            position += true if holds else false


def holds(argument: dict[str, Any], arguments: Arguments) -> bool:
    actual, value = arguments[argument["index"]], int(argument["value"])
    comparisons: dict[str, bool] = {
        "SCMP_CMP_EQ": actual == value,
        "SCMP_CMP_NE": actual != value,
        "SCMP_CMP_LT": actual < value,
        "SCMP_CMP_LE": actual <= value,
        "SCMP_CMP_GT": actual > value,
        "SCMP_CMP_GE": actual >= value,
        "SCMP_CMP_MASKED_EQ": actual & value == argument.get("valueTwo", 0) & value,
    }
    return comparisons[argument["op"]]


def read(profile: dict[str, Any], name: str, arguments: Arguments) -> int:
    """The profile's word on a call, without compiling it."""
    rules = [rule for rule in profile["syscalls"] if name in rule["names"]]
    rules.sort(key=lambda rule: "args" not in rule)
    for rule in rules:
        if all(holds(argument, arguments) for argument in rule.get("args", ())):
            return action(rule["action"], rule.get("errnoRet"))
    return action(profile["defaultAction"], profile.get("defaultErrnoRet"))


def action(name: str, error: int | None) -> int:
    if name == "SCMP_ACT_ERRNO":
        return ERRNO | (EPERM if error is None else error)
    return {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_KILL_PROCESS": KILL}[name]


SAMPLES: list[Arguments] = [
    NONE,
    (38, 0x5412, 0, 0, 0, 0),
    (2, 0x541C, 0, 0, 0, 0),
    (0x10000000, 0x5423, 0, 0, 0, 0),
    (1 << 32 | 2, 1 << 32 | 0x5412, 0, 0, 0, 0),
    (0x11, 0, 0, 0, 0, 0),
    (0xFFFFFFFF, 0, 0, 0, 0, 0),
]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("declared", [[], ["SYS_ADMIN"], ["NET_RAW", "NET_ADMIN", "SYS_PTRACE"], ["ALL"]])
@pytest.mark.parametrize("compat", [False, True])
def test_default_profile_says_the_same_compiled_and_read(machine: str, declared: list[str], compat: bool) -> None:
    mask = capability.parse(declared)
    profile = default.default_profile(machine, mask, compat)
    blob = compile(profile, machine, mask)
    for table in [machine, seccomp.COMPAT[machine]] if compat else [machine]:
        for name, number in NUMBERS[table].items():
            for arguments in SAMPLES:
                said = simulate(blob, AUDIT_ARCH[table], number, arguments)
                assert said == read(profile, name, arguments), (table, name, arguments)
        assert simulate(blob, AUDIT_ARCH[table], NEWEST + 1) == ERRNO | ENOSYS
        assert simulate(blob, AUDIT_ARCH[table], 0xFFFFFFFF) == ERRNO | ENOSYS


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_foreign_architectures_end_the_process(machine: str) -> None:
    blob = compile(default.default_profile(machine), machine)
    for name, arch in {**AUDIT_ARCH, "ppc64le": 0xC0000015}.items():
        if name != machine:
            assert simulate(blob, arch, 1) == KILL


def test_x32_calls_do_not_exist() -> None:
    blob = compile(default.default_profile("x86_64", capability.parse(["ALL"])), "x86_64")
    for number in NUMBERS["x86_64"].values():
        assert simulate(blob, AUDIT_ARCH["x86_64"], 0x40000000 | number) == ERRNO | ENOSYS


def test_shipped_blobs_are_what_the_generator_makes() -> None:
    directory = os.path.join(os.path.dirname(seccomp.__file__), "data")
    shipped = {name: open(os.path.join(directory, name), "rb").read() for name in os.listdir(directory)}
    assert {name: blob for name, blob in shipped.items() if name.startswith("seccomp-")} == default.shipped()


def test_widening_mask_is_the_gated_capabilities() -> None:
    assert capability.parse([*default.GATED, "NET_RAW", "NET_ADMIN"]) == seccomp.WIDENING


def test_every_name_is_a_system_call_somewhere() -> None:
    known = set().union(*NUMBERS.values())
    assert not set(default.ALLOWED) - known
    assert not set(" ".join(default.GATED.values()).split()) - known


def test_numbers_are_those_of_libseccomp() -> None:
    path = ctypes.util.find_library("seccomp")
    if path is None:
        pytest.skip("libseccomp is not here to compare with")
    resolve = ctypes.CDLL(path).seccomp_syscall_resolve_name_arch
    resolve.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    resolve.restype = ctypes.c_int
    for table, names in NUMBERS.items():
        compared = 0
        for name, number in names.items():
            theirs = resolve(AUDIT_ARCH[table], name.encode())
            if theirs >= 0:  # negative: unknown to that version, or a pseudo number
                assert theirs == number, (table, name)
                compared += 1
        assert compared > 290


ARGUMENTS = st.fixed_dictionaries(
    {
        "index": st.integers(0, 5),
        "value": st.sampled_from([0, 1, 5, 0xFFFFFFFF, 1 << 32, 1 << 32 | 5, (1 << 64) - 1]),
        "valueTwo": st.sampled_from([0, 1, 5, 1 << 32, (1 << 64) - 1]),
        "op": st.sampled_from([f"SCMP_CMP_{op}" for op in ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")]),
    }
)
NAME = st.sampled_from(["read", "write", "openat", "mseal", "clone3", "socket", "io_uring_setup"])
ACTION = st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
CONDITIONAL = st.fixed_dictionaries(
    {
        "names": st.lists(NAME, min_size=1),
        "action": ACTION,
        "args": st.lists(ARGUMENTS, min_size=1, max_size=3),
    }
)
VALUES = st.sampled_from([0, 1, 4, 5, 6, 0xFFFFFFFF, 1 << 32, 1 << 32 | 5, (1 << 64) - 1])


@settings(max_examples=2000 if FULL else 150, deadline=None)
@given(
    st.lists(CONDITIONAL, max_size=12),
    st.dictionaries(NAME, ACTION),
    ACTION,
    st.tuples(*[VALUES] * 6),
    st.sampled_from(["x86_64", "aarch64"]),
)
def test_random_profiles_say_the_same_compiled_and_read(
    conditional: list[dict[str, Any]],
    plain: dict[str, str],
    standard: str,
    arguments: Arguments,
    machine: str,
) -> None:
    rules = [*conditional, *({"names": [name], "action": said} for name, said in plain.items())]
    profile = {"defaultAction": standard, "syscalls": rules}
    blob = compile(profile, machine)
    for name in ("read", "write", "openat", "mseal", "clone3", "socket", "io_uring_setup", "getpid"):
        said = simulate(blob, AUDIT_ARCH[machine], NUMBERS[machine][name], arguments)
        assert said == read(profile, name, arguments)


def test_a_long_chain_of_rules_is_jumped_over() -> None:
    rules = [
        {
            "names": ["ioctl"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"}],
        }
        for value in range(500)
    ]
    blob = compile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}, "x86_64")
    for value in (0, 250, 499, 500):
        said = simulate(blob, AUDIT_ARCH["x86_64"], 16, (0, value, 0, 0, 0, 0))
        assert said == (ALLOW if value < 500 else ERRNO | EPERM)
    assert simulate(blob, AUDIT_ARCH["x86_64"], 0) == ERRNO | EPERM


def test_docker_conditions_on_capabilities_and_architectures() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {
                "names": ["clone3"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 38,
                "excludes": {"caps": ["CAP_BPF"]},
            },
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        ],
    }
    arch = AUDIT_ARCH["x86_64"]
    without = compile(profile, "x86_64", 0)
    having = compile(profile, "x86_64", capability.parse(["SYS_ADMIN", "BPF"]))
    assert simulate(without, arch, 165) == ERRNO | EPERM
    assert simulate(having, arch, 165) == ALLOW
    assert simulate(without, arch, 435) == ERRNO | ENOSYS
    assert simulate(having, arch, 435) == ERRNO | EPERM
    assert simulate(without, arch, 158) == simulate(without, arch, 101) == ALLOW
    assert simulate(without, AUDIT_ARCH["i386"], 384) == ERRNO | EPERM
    assert simulate(without, AUDIT_ARCH["i386"], 26) == ALLOW


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ({"defaultAction": "SCMP_ACT_MAYBE"}, "SCMP_ACT_MAYBE"),
        ({}, "None"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}, "listenerPath"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x86"]}, "x86"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, ""),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["bfp"], "action": "SCMP_ACT_ERRNO"}],
            },
            "bfp",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [
                    {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                    {"names": ["read"], "action": "SCMP_ACT_KILL"},
                ],
            },
            "read",
        ),
        (
            {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [
                    {
                        "names": ["read"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}],
                    }
                ],
            },
            "range",
        ),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": ["read"]}, "object"),
    ],
)
def test_a_wrong_profile_is_refused_by_name(profile: dict[str, Any], said: str) -> None:
    if profile.get("syscalls") == {}:
        compile(profile, "x86_64")  # empty is nothing said
        return
    with pytest.raises(ContainustError) as caught:
        compile(profile, "x86_64", 0, "/etc/strict.json")
    assert caught.value.code == "E006"
    assert "/etc/strict.json" in caught.value.message and said in caught.value.message


def test_an_unknown_name_in_an_allowlist_is_no_error() -> None:
    rule = {"names": ["read", "frobnicate"], "action": "SCMP_ACT_ALLOW"}
    assert compile({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}, "x86_64")


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_text_that_is_no_profile(text: bytes) -> None:
    with pytest.raises(ContainustError):
        parse(text, "p.json")


def test_a_profile_round_trips_through_json() -> None:
    profile = default.default_profile("x86_64")
    assert compile(parse(json.dumps(profile).encode(), "p"), "x86_64") == compile(profile, "x86_64")


def test_socket_families_outside_the_list_are_as_if_absent() -> None:
    blob = compile(default.default_profile("x86_64"), "x86_64")
    for family in range(50):
        said = simulate(blob, AUDIT_ARCH["x86_64"], 41, (family, 1, 0, 0, 0, 0))
        assert said == (ALLOW if family in (1, 2, 10, 16) else ERRNO | EAFNOSUPPORT)
