"""From a seccomp profile in the OCI format to a classic BPF program (seccomp(2)).

The program checks the architecture, then finds the call's number by binary search over *spans* of numbers
with the same outcome (an allowlist of 330 calls has some sixty), then, where a rule asks for it, compares
arguments. Only the instructions that the kernel's allow cache can follow are used up to that point, so a call
that is always allowed costs nothing on kernels that have the cache (5.11 and newer).
Two rules where the specification leaves room: for one call, rules with arguments are tried in the order of
the file and before the rule without; and a call number newer than this compiler gives ENOSYS where the
profile's default is an error, so that a libc tries the older call instead of believing EPERM.
"""

from __future__ import annotations

from errno import ENOSYS, EPERM
from struct import pack

from containust.core.capability import NAMES
from containust.core.seccomp import COMPAT
from containust.core.seccomp_numbers import NEWEST, NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    # One struct sock_filter: code, jump if true, jump if false, constant.
    Instruction = tuple[int, int, int, int]
    Code = tuple[Instruction, ...]

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
_SCMP_ARCH = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "i386",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
}
_DOCKER_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "i386": "x86", "arm": "arm"}

SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7FFF0000
_ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": SECCOMP_RET_ERRNO,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": SECCOMP_RET_ALLOW,
}

_LD, _AND, _RET = 0x20, 0x54, 0x06  # BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_RET|K
_JA, _JEQ, _JGT, _JGE = 0x05, 0x15, 0x25, 0x35
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data
_X32_BIT = 0x40000000
_MAXIMUM = 4096  # BPF_MAXINSNS
_YES, _NO = -1, -2  # jump targets inside a condition: it holds, it fails


def parse(text: bytes, path: str) -> dict[str, Any]:
    """The profile in ``text``; raises E006 naming ``path`` when it is no JSON object."""
    import json

    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        _wrong(path, f"not JSON: {error}")
    if not isinstance(tree, dict):
        _wrong(path, "not a JSON object")
    return tree


def compile(profile: dict[str, Any], machine: str, capabilities: int = 0, path: str = "default") -> bytes:
    """The BPF program of ``profile`` for ``machine`` (``"x86_64"`` or ``"aarch64"``), 8 bytes an instruction.

    ``capabilities`` decides Docker's ``includes`` and ``excludes``. ``path`` is the profile's name in errors:
    E006 for a wrong action, operator or architecture, for something only another runtime can do, for a rule
    that forbids a call nobody knows, or for a program above the kernel's 4096 instructions.
    """
    if profile.get("listenerPath") or profile.get("listenerMetadata"):
        _wrong(path, "listenerPath: there is no agent to notify")
    code: list[Instruction] = [(_LD, 0, 0, _ARCH)]
    for architecture in _architectures(profile, machine, path):
        body = _architecture(profile, architecture, capabilities, path)
        code += _either(_JEQ, AUDIT_ARCH[architecture], body)
    code.append((_RET, 0, 0, SECCOMP_RET_KILL_PROCESS))
    if len(code) > _MAXIMUM:
        _wrong(path, f"compiles to {len(code)} instructions, the kernel takes {_MAXIMUM}")
    return b"".join(pack("<HBBI", *instruction) for instruction in code)


def _either(test: int, value: int, then: list[Instruction]) -> list[Instruction]:
    """``then`` when the accumulator passes ``test``, else what follows. Conditional jumps reach 255 steps."""
    if len(then) <= 255:
        return [(test, 0, len(then), value), *then]
    return [(test, 1, 0, value), (_JA, 0, 0, len(then)), *then]


def _architectures(profile: dict[str, Any], machine: str, path: str) -> list[str]:
    """The native table, then the 32-bit one when the profile names it. x32 calls give ENOSYS in any case."""
    named = list(_list(profile, "architectures", path))
    for entry in _list(profile, "archMap", path):
        if _SCMP_ARCH.get(entry.get("architecture")) == machine:
            named += entry.get("subArchitectures") or ()
    for name in named:
        if not isinstance(name, str) or not name.startswith("SCMP_ARCH_"):
            _wrong(path, f"architectures: {name!r} is none")
    compat = COMPAT[machine]
    return [machine, compat] if any(_SCMP_ARCH.get(name) == compat for name in named) else [machine]


def _architecture(profile: dict[str, Any], architecture: str, capabilities: int, path: str) -> list[Instruction]:
    default = _action(profile.get("defaultAction"), profile.get("defaultErrnoRet"), path)
    outcomes = _outcomes(profile, architecture, capabilities, default, path)
    unknown = SECCOMP_RET_ERRNO | ENOSYS if default & 0x7FFF0000 == SECCOMP_RET_ERRNO else default
    code: list[Instruction] = [(_LD, 0, 0, _NR)]
    if architecture == "x86_64":
        # x32: another table behind the same audit architecture. Also refuses negative numbers.
        code += _either(_JGE, _X32_BIT, [(_RET, 0, 0, SECCOMP_RET_ERRNO | ENOSYS)])
    return code + _search(_spans(outcomes, _return(default), _return(unknown)))


def _spans(outcomes: dict[int, Code], default: Code, unknown: Code) -> list[tuple[int, Code]]:
    """``(first number, code)`` of each run of numbers with the same code, from 0 on."""
    spans: list[tuple[int, Code]] = []

    def begin(number: int, code: Code) -> None:
        if not spans or spans[-1][1] != code:
            spans.append((number, code))

    following = 0
    for number in sorted(outcomes):
        if following < number:
            if following <= NEWEST:
                begin(following, default)
            if number > NEWEST + 1:
                begin(max(following, NEWEST + 1), unknown)
        begin(number, outcomes[number])
        following = number + 1
    if following <= NEWEST:
        begin(following, default)
    begin(max(following, NEWEST + 1), unknown)
    return spans


def _search(spans: list[tuple[int, Code]]) -> list[Instruction]:
    """Balanced binary search; every leaf returns, so the halves just follow each other."""
    if len(spans) == 1:
        return list(spans[0][1])
    middle = len(spans) // 2
    upper = _search(spans[middle:])
    return _either(_JGE, spans[middle][0], upper) + _search(spans[:middle])


def _outcomes(
    profile: dict[str, Any], architecture: str, capabilities: int, default: int, path: str
) -> dict[int, Code]:
    """For each call number that some rule names, the code that runs once the number is found."""
    numbers = NUMBERS[architecture]
    plain: dict[str, int] = {}
    conditional: dict[str, list[tuple[Any, int]]] = {}
    for rule in _list(profile, "syscalls", path):
        if not _concerns(rule, architecture, capabilities, path):
            continue
        action = _action(rule.get("action"), rule.get("errnoRet", rule.get("errno")), path)
        names = rule.get("names") or ([rule["name"]] if "name" in rule else [])
        for name in names:
            if name not in numbers:
                _check_known(name, action, default, path)
            elif rule.get("args"):
                conditional.setdefault(name, []).append((rule["args"], action))
            elif plain.setdefault(name, action) != action:
                _wrong(path, f"{name} has two rules without arguments and with different actions")
    outcomes: dict[int, Code] = {}
    for name in {**plain, **conditional}:
        code: list[Instruction] = []
        for arguments, action in conditional.get(name, ()):
            code += _rule(arguments, action, path)
        outcomes[numbers[name]] = (*code, (_RET, 0, 0, plain.get(name, default)))
    return outcomes


def _check_known(name: Any, action: int, default: int, path: str) -> None:
    """A name that nobody knows can be left out of what is allowed, but not out of what is forbidden."""
    known = any(name in table for table in NUMBERS.values())
    if not isinstance(name, str) or (not known and _strength(action) > _strength(default)):
        _wrong(path, f"it restricts {name!r}, which is no known system call")


def _strength(action: int) -> int:
    """Higher is more restrictive, in the kernel's own order of precedence."""
    order = (0x7FFF0000, 0x7FFC0000, 0x7FF00000, SECCOMP_RET_ERRNO, 0x00030000, 0, SECCOMP_RET_KILL_PROCESS)
    return order.index(action & 0xFFFF0000)


def _concerns(rule: Any, architecture: str, capabilities: int, path: str) -> bool:
    """Docker's ``includes`` (all of them) and ``excludes`` (none of them) of a rule."""
    if not isinstance(rule, dict):
        _wrong(path, "syscalls: an entry is no object")

    def holds(kind: str, value: Any) -> bool:
        if kind == "caps":
            bare = [str(name).removeprefix("CAP_") for name in value]
            return all(name in NAMES and bool(capabilities >> NAMES.index(name) & 1) for name in bare)
        if kind == "arches":
            return _DOCKER_ARCH[architecture] in value
        # minKernel: profiles ask for 4.8 and the like, and idmapped mounts already need 5.12.
        return kind == "minKernel"

    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    return all(holds(*item) for item in includes.items() if item[1]) and not any(
        holds(*item) for item in excludes.items() if item[1]
    )


def _rule(arguments: Any, action: int, path: str) -> list[Instruction]:
    """All of ``arguments`` hold: return ``action``; else run off the end."""
    code: list[Instruction] = [(_RET, 0, 0, action)]
    for argument in reversed(arguments):
        condition = _condition(argument, path)
        # _YES falls through to what is built already, _NO jumps over it.
        size = len(condition)
        resolved = []
        for position, (operation, true, false, value) in enumerate(condition):
            left = size - position - 1
            where = {_YES: left, _NO: left + len(code)}
            resolved.append((operation, where.get(true, true), where.get(false, false), value))
        code = resolved + code
    return code


def _condition(argument: Any, path: str) -> list[Instruction]:
    """Comparison of one 64-bit argument, in 32-bit halves; jumps are steps, or ``_YES`` and ``_NO``."""
    try:
        index, value = int(argument["index"]), int(argument["value"])
        other, operator = int(argument.get("valueTwo") or 0), argument["op"]
    except (KeyError, TypeError, ValueError):
        _wrong(path, f"args: {argument!r} needs index, value and op")
    if not 0 <= index <= 5 or not 0 <= value < 1 << 64 or not 0 <= other < 1 << 64:
        _wrong(path, f"args: {argument!r} is out of range")
    low, high = value & 0xFFFFFFFF, value >> 32
    load_low, load_high = (_LD, 0, 0, _ARGS + 8 * index), (_LD, 0, 0, _ARGS + 8 * index + 4)
    if operator == "SCMP_CMP_MASKED_EQ":
        return _masked(load_low, low, other & low & 0xFFFFFFFF) + _masked(load_high, high, (other & value) >> 32)
    yes, no = (_NO, _YES) if operator in ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE") else (_YES, _NO)
    if operator in ("SCMP_CMP_EQ", "SCMP_CMP_NE"):
        return [load_high, (_JEQ, 0, no, high), load_low, (_JEQ, yes, no, low)]
    if operator in ("SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LT", "SCMP_CMP_LE"):
        last = _JGE if operator in ("SCMP_CMP_GE", "SCMP_CMP_LT") else _JGT
        return [
            load_high,
            (_JGT, yes, 0, high),
            (_JEQ, 0, no, high),
            load_low,
            (last, yes, no, low),
        ]
    return _wrong(path, f"args: unknown operator {operator!r}")


def _masked(load: Instruction, mask: int, value: int) -> list[Instruction]:
    if mask == 0:
        return []
    narrow = [(_AND, 0, 0, mask)] if mask != 0xFFFFFFFF else []
    return [load, *narrow, (_JEQ, 0, _NO, value)]


def _action(name: Any, number: Any, path: str) -> int:
    if name not in _ACTIONS:
        _wrong(path, f"unknown or unsupported action {name!r}")
    action = _ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        error = EPERM if number is None else number
        if not isinstance(error, int) or not 0 <= error <= 4095:
            _wrong(path, f"errnoRet: {error!r} is no error number")
        return action | error
    return action


def _return(action: int) -> Code:
    return ((_RET, 0, 0, action),)


def _list(profile: dict[str, Any], key: str, path: str) -> list[Any]:
    value = profile.get(key) or []
    if not isinstance(value, list):
        _wrong(path, f"{key} is no list")
    return value


def _wrong(path: str, what: str) -> NoReturn:
    from containust.common.errors import ContainustError

    raise ContainustError(
        "E006",
        f"seccomp profile {path}: {what}",
        "the format is that of the OCI runtime specification, config-linux.md",
    )
