"""Values that say who a program is and what it may do: user, host name, capabilities, system call filter, signal.

Loaded only where a file has one; converters as in :mod:`containust.compose.values`.
"""

from __future__ import annotations

from containust.compose.values import INVALID, NAME, absolute, is_digits, not_one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.compose.tree import Source, Value
    from containust.compose.values import Reader

CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
)
SIGNALS = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN "
    "TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS RTMIN RTMAX"
)


def user(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID:
        return text
    name, colon, group = text.partition(":")
    words = [name, group] if colon else [name]
    for word in words:
        whole = is_digits(word)
        if (
            not word
            or word[0] == "-"
            or not NAME.issuperset(word)
            or (whole and (len(word) > 10 or int(word) > 2**32 - 2))
        ):
            return reader.wrong(
                source,
                value,
                f"{text[:60]!r} is not a user",
                ['"1000", "1000:1000", "www-data" or "www-data:www-data"'],
            )
    return text


def hostname(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID:
        return text
    labels = text.split(".")
    if len(text) > 64 or not all(
        0 < len(word) < 64 and word[0] != "-" and word[-1] != "-" and "_" not in word and NAME.issuperset(word)
        for word in labels
    ):
        return reader.wrong(
            source,
            value,
            f"{text[:70]!r} is not a host name",
            ["letters, digits and -, at most 64 characters"],
        )
    return text


def capability(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID:
        return text
    known = CAPABILITIES.split()
    name = text.upper().removeprefix("CAP_")
    if name in known:
        return f"CAP_{name}"
    help = ["list the capabilities one by one; [] drops all"] if name == "ALL" else ["capabilities(7) lists them"]
    return reader.wrong(source, value, f"no capability {text[:60]!r}", help, (name, known, "did you mean {}?"))


def capabilities(reader: Reader, source: Source, value: Value) -> Any:
    found = reader.texts(source, value, capability)
    return found if found is INVALID else list(dict.fromkeys(found))


def seccomp(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID or text in ("default", "unconfined"):
        return text
    if text.startswith(("/", "./", "../")):
        return absolute(reader, source, value, text)
    return not_one_of(reader, source, value, text, ("default", "unconfined", "./profile.json"))


def signal_name(reader: Reader, source: Source, value: Value) -> Any:
    """A signal's name; the result has the SIG prefix."""
    text = reader.text(source, value)
    if text is INVALID:
        return text
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+" if "+" in name else "-")
    known = SIGNALS.split()
    if (name in known) or (plus and base in ("RTMIN", "RTMAX") and is_digits(offset) and int(offset[:3]) < 31):
        return f"SIG{name}"
    return reader.wrong(
        source,
        value,
        f"no signal {text[:60]!r}",
        ["signal(7) lists them"],
        (name, known, 'did you mean "SIG{}"?'),
    )
