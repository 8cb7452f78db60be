"""From written values to typed ones: sizes, durations, volumes and so on (language.md, section 3).

Every converter takes ``(reader, source, value)`` with a value of a kind its property accepts, and returns the
typed value, or :data:`INVALID` once it has reported what is wrong. None is never a result.
"""

from __future__ import annotations

from containust.common.types import Port, Restart, Tmpfs, Volume
from containust.compose.interpolation import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from containust.compose.tree import Interpolation, Problems, Source, Value

    Converter = Callable[["Reader", Source, Value], Any]

INVALID: Any = object()

SIZE_UNITS = {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
TIME_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
LEAST_MEMORY = 6 * 2**20
NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
RESTARTS = ("never", "on-failure", "always", "unless-stopped")
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


class Reader:
    """What converters need besides the value: the host's environment and where problems go."""

    __slots__ = ("environ", "problems")

    def __init__(self, problems: Problems, environ: Mapping[str, str]) -> None:
        self.problems = problems
        self.environ = environ

    def wrong(
        self,
        source: Source,
        value: Value,
        message: str,
        help: Iterable[str] = (),
        suggest: tuple[str, Iterable[str], str] | None = None,
        code: str = "E006",
    ) -> Any:
        self.problems.add(code, source, value.start, value.end, message, help, (), suggest)
        return INVALID

    def deferred(self, source: Source, value: Value) -> Any:
        """A string in which references to components and secrets may stay open until deployment."""
        if value.value.__class__ is str:
            return value.value
        failed: list[Interpolation] = []
        text = resolve(value.value, self.environ, failed.append)
        for part in failed:
            self.problems.add(
                "E014",
                source,
                part.start,
                part.end,
                f"the variable {part.name} is not set on this host",
                [f"set it, or give it a default: ${{env.{part.name}:-…}}"],
            )
        return INVALID if failed else text

    def text(self, source: Source, value: Value) -> Any:
        """A string that must be known before anything is deployed."""
        if value.value.__class__ is str:
            return value.value
        text = self.deferred(source, value)
        if text is INVALID or isinstance(text, str):
            return text
        for part in value.value:
            if not isinstance(part, str) and part.kind != "env":
                self.problems.add(
                    "E006",
                    source,
                    part.start,
                    part.end,
                    "this property cannot wait for deployment, when the reference is known",
                    [
                        "env, command, entrypoint and healthcheck can refer to components and secrets",
                        "here only ${env.NAME} can be used",
                    ],
                )
        return INVALID

    def texts(self, source: Source, value: Value, convert: Converter, accepted: str = "string") -> Any:
        """Each entry of a list converted; INVALID when one of them is."""
        results = []
        bad = False
        for item in value.value:
            if item.kind == "error":
                bad = True
                continue
            if item.kind != "string" and item.kind != accepted:
                shown = f"{str(item.value).lower()}" if item.kind in ("int", "bool") else ""
                help = [f'quote it: "{shown}"'] if shown else []
                result = self.wrong(source, item, f"expected a string, found {KINDS[item.kind]}", help)
            else:
                result = convert(self, source, item)
            if result is INVALID:
                bad = True
            else:
                results.append(result)
        return INVALID if bad else results


KINDS = {
    "string": "a string",
    "int": "a number",
    "bool": "true or false",
    "list": "a list",
    "map": "a map",
    "error": "nothing",
}


def as_is(reader: Reader, source: Source, value: Value) -> Any:
    return value.value


def string(reader: Reader, source: Source, value: Value) -> Any:
    return reader.text(source, value)


def argument(reader: Reader, source: Source, value: Value) -> Any:
    return reader.deferred(source, value)


def arguments(reader: Reader, source: Source, value: Value) -> Any:
    return reader.texts(source, value, argument)


def probe(reader: Reader, source: Source, value: Value) -> Any:
    """A health check's command: a list is an argv, one string is for the image's shell."""
    if value.kind == "list":
        if not value.value:
            return reader.wrong(source, value, "the command is empty", ['write ["program", "argument"]'])
        return reader.texts(source, value, argument)
    text = reader.deferred(source, value)
    return INVALID if text is INVALID else ["/bin/sh", "-c", text]


def strings(reader: Reader, source: Source, value: Value) -> Any:
    return reader.texts(source, value, string)


def variable(reader: Reader, source: Source, value: Value) -> Any:
    """The value of an environment variable."""
    if value.kind == "string":
        return reader.deferred(source, value)
    return ("true" if value.value else "false") if value.kind == "bool" else str(value.value)


def label(reader: Reader, source: Source, value: Value) -> Any:
    if value.kind == "string":
        return reader.text(source, value)
    return ("true" if value.value else "false") if value.kind == "bool" else str(value.value)


def image(reader: Reader, source: Source, value: Value) -> Any:
    from containust.common.errors import ContainustError
    from containust.common.reference import parse_reference

    text = reader.text(source, value)
    if text is INVALID:
        return text
    try:
        reference = parse_reference(text)
    except ContainustError as error:
        return reader.wrong(source, value, error.message, error.help, None, "E007")
    if reference.scheme in ("file", "tar") and not reference.location.startswith("/"):
        if source.directory is None:
            return remote_path(reader, source, value)
        reference = reference.absolute(source.directory)
    return str(reference)


def remote_path(reader: Reader, source: Source, value: Value) -> Any:
    return reader.wrong(
        source,
        value,
        "a relative path means nothing in a remote file",
        ["set it in the component that uses this one"],
    )


def path(reader: Reader, source: Source, value: Value) -> Any:
    """A host path, absolute or ``./`` relative to the file; the result is absolute."""
    text = reader.text(source, value)
    return text if text is INVALID else absolute(reader, source, value, text)


def absolute(reader: Reader, source: Source, value: Value, text: str) -> Any:
    if text.startswith("/"):
        return text
    if not text:
        return reader.wrong(source, value, "the path is empty")
    if source.directory is None:
        return remote_path(reader, source, value)
    import os

    return os.path.normpath(os.path.join(source.directory, text))


def paths(reader: Reader, source: Source, value: Value) -> Any:
    return reader.texts(source, value, path)


def number(least: int, most: int) -> Converter:
    """A converter of integers in a range."""

    def convert(reader: Reader, source: Source, value: Value) -> Any:
        if least <= value.value <= most:
            return int(value.value)
        return reader.wrong(source, value, f"{value.value} is out of range", [f"{least} to {most} is possible"])

    return convert


def choice(*names: str) -> Converter:
    """A converter of strings that must be one of ``names``."""

    def convert(reader: Reader, source: Source, value: Value) -> Any:
        text = reader.text(source, value)
        if text is INVALID or text in names:
            return text
        return not_one_of(reader, source, value, text, names)

    return convert


def not_one_of(reader: Reader, source: Source, value: Value, text: str, names: Iterable[str]) -> Any:
    known = ", ".join([f'"{name}"' for name in names])
    return reader.wrong(
        source,
        value,
        f"{text[:60]!r} is not possible here",
        [f"one of {known}"],
        (text, names, 'did you mean "{}"?'),
    )


port_number = number(1, 65535)


def port(reader: Reader, source: Source, value: Value) -> Any:
    """One entry of ``ports``, or ``port`` itself."""
    if value.kind == "int":
        checked = port_number(reader, source, value)
        return checked if checked is INVALID else Port(checked)
    text = reader.text(source, value)
    if text is INVALID:
        return text
    digits, slash, protocol = text.partition("/")
    if is_digits(digits) and len(digits) < 6 and 0 < int(digits) < 65536 and (not slash or protocol in ("tcp", "udp")):
        return Port(int(digits), protocol or "tcp")
    return reader.wrong(source, value, f"{text[:60]!r} is not a port", ['1 to 65535, or with a protocol "53/udp"'])


def one_port(reader: Reader, source: Source, value: Value) -> Any:
    result = port(reader, source, value)
    return INVALID if result is INVALID else [result]


def ports(reader: Reader, source: Source, value: Value) -> Any:
    found = reader.texts(source, value, port, "int")
    if found is INVALID:
        return found
    for i, first in enumerate(found):
        if i and first in found[:i] and i < 100:
            return reader.wrong(source, value.value[i], f"port {first.number}/{first.protocol} is listed twice")
    return found


def is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def decimal(text: str) -> float | None:
    """``"1"`` or ``"1.5"`` as a float; None for anything else."""
    whole, _, fraction = text.partition(".")
    if len(text) > 24 or not is_digits(whole) or ("." in text and not is_digits(fraction)):
        return None
    return float(text)


def parse_size(text: str) -> int | None:
    """Bytes of ``"64MiB"``; None when it is not a size."""
    for unit, factor in SIZE_UNITS.items():
        if text.endswith(unit):
            amount = decimal(text[: -len(unit)].rstrip(" "))
            return None if amount is None else int(amount * factor)
    return None


def parse_duration(text: str) -> float | None:
    """Seconds of ``"1m30s"``; None when it is not a duration. Units come from large to small, each once."""
    units = list(TIME_UNITS)
    total = 0.0
    i = 0
    if not text or len(text) > 40:
        return None
    while i < len(text):
        begin = i
        while i < len(text) and (text[i] in "0123456789."):
            i += 1
        amount = decimal(text[begin:i])
        begin = i
        while i < len(text) and text[i] in "hms":
            i += 1
        unit = text[begin:i]
        if amount is None or unit not in units:
            return None
        del units[: units.index(unit) + 1]
        total += amount * TIME_UNITS[unit]
    return total


def memory(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID:
        return text
    size = parse_size(text)
    if size is None:
        return not_a_size(reader, source, value, text)
    if size < LEAST_MEMORY:
        return reader.wrong(source, value, f"{text} is too little to start a program", ['at least "6MiB"'])
    if size > 2**62:
        return reader.wrong(source, value, f"{text} is more than any machine has")
    return size


def not_a_size(reader: Reader, source: Source, value: Value, text: str) -> Any:
    help = ['a size is a number and KB, MB, GB (powers of 1000) or KiB, MiB, GiB, TiB (of 1024), as in "512MiB"']
    digits = text.rstrip("bBiI").rstrip("kKmMgGtT").rstrip()
    unit = text[len(digits) :].strip().lower().rstrip("b").rstrip("i")
    if decimal(digits) is not None and unit in ("k", "m", "g", "t"):
        help.insert(0, f'did you mean "{digits}{unit.upper()}iB"?')
    return reader.wrong(source, value, f"{text[:60]!r} is not a size", help)


def duration(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID:
        return text
    seconds = parse_duration(text)
    if seconds is None:
        help = ['a duration is "150ms", "30s", "2m", "1h" or a compound such as "1m30s"']
        if decimal(text) is not None:
            help.insert(0, f'did you mean "{text}s"?')
        return reader.wrong(source, value, f"{text[:60]!r} is not a duration", help)
    if seconds > 10**9:
        return reader.wrong(source, value, f"{text} is too long")
    return seconds


def positive_duration(reader: Reader, source: Source, value: Value) -> Any:
    seconds = duration(reader, source, value)
    if seconds is INVALID or seconds > 0:
        return seconds
    return reader.wrong(source, value, "it must be longer than nothing", ['for example "5s"'])


def cpu(reader: Reader, source: Source, value: Value) -> Any:
    """A weight in CPU shares; the kernel takes 2 to 262144."""
    if value.kind == "int":
        shares: float | None = value.value
    else:
        text = reader.text(source, value)
        if text is INVALID:
            return text
        shares = decimal(text)
        if shares is not None and "." in text:
            shares = round(shares * 1024)
    if shares is None or not 2 <= shares <= 262144:
        return reader.wrong(
            source,
            value,
            "this is not a CPU weight",
            ['2 to 262144 shares, where 1024 is normal, or a multiple of normal such as "0.5"'],
        )
    return int(shares)


def cpus(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID:
        return text
    amount = decimal(text)
    if amount is None or not 0.01 <= amount <= 8192:
        return reader.wrong(source, value, f"{text[:60]!r} is not a number of CPUs", ['"0.01" or more, as in "1.5"'])
    return amount


def volume(reader: Reader, source: Source, value: Value) -> Any:
    """``source:target[:ro|rw]``."""
    text = reader.text(source, value)
    if text is INVALID:
        return text
    parts = text.split(":")
    mode = parts.pop() if len(parts) == 3 else "rw"
    form = ['a volume is "source:target" or "source:target:ro"']
    if len(parts) != 2 or not parts[0]:
        return reader.wrong(source, value, f"{text[:80]!r} is not a volume", form)
    if mode not in ("ro", "rw"):
        return reader.wrong(source, value, f"{mode[:40]!r} is not a mode of a volume", ["the modes are ro and rw"])
    origin, target = parts
    checked = mount_target(reader, source, value, target)
    if checked is INVALID:
        return checked
    if origin.startswith(("/", "./", "../")) or origin in (".", ".."):
        origin = absolute(reader, source, value, origin)
        return origin if origin is INVALID else Volume("bind", origin, checked, mode == "ro")
    if origin[0] in "._-" or not NAME.issuperset(origin):
        help = [
            f"a path starts with / or ./, as in ./{origin}:{target}",
            "a managed volume's name has letters, digits and _ . -",
        ]
        return reader.wrong(source, value, f"{origin[:60]!r} is neither a path nor a name", help)
    return Volume("managed", origin, checked, mode == "ro")


def mount_target(reader: Reader, source: Source, value: Value, target: str) -> Any:
    """An absolute path in the container without ``..``, not the root itself; normalised."""
    parts = target.split("/")
    if not target.startswith("/") or ".." in parts:
        return reader.wrong(
            source,
            value,
            f"the target {target[:60]!r} is not an absolute path without ..",
            ['as in "./data:/var/lib/data"'],
        )
    kept = [part for part in parts if part and part != "."]
    if not kept:
        return reader.wrong(source, value, "a volume cannot replace the root directory")
    return "/" + "/".join(kept)


def one_volume(reader: Reader, source: Source, value: Value) -> Any:
    result = volume(reader, source, value)
    return INVALID if result is INVALID else [result]


def volumes(reader: Reader, source: Source, value: Value) -> Any:
    return reader.texts(source, value, volume)


def one_tmpfs(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID:
        return text
    target, colon, option = text.partition(":")
    target = mount_target(reader, source, value, target)
    if target is INVALID:
        return target
    size = None
    if colon:
        key, _, amount = option.partition("=")
        size = parse_size(amount)
        if key != "size" or not size:
            return reader.wrong(source, value, f"{option[:60]!r} is not an option of tmpfs", ['"/path:size=64MiB"'])
    return Tmpfs(target, size)


def tmpfs(reader: Reader, source: Source, value: Value) -> Any:
    return reader.texts(source, value, one_tmpfs)


def working_directory(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID or text.startswith("/"):
        return text
    return reader.wrong(source, value, f"{text[:60]!r} is not an absolute path", ['as in "/srv/app"'])


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


def restart(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID:
        return text
    policy, colon, limit = text.partition(":")
    if policy not in RESTARTS:
        return not_one_of(reader, source, value, text, RESTARTS)
    if not colon:
        return Restart(policy)
    if policy != "on-failure" or not is_digits(limit) or len(limit) > 6 or int(limit) == 0:
        return reader.wrong(
            source, value, f"{text[:60]!r} has no limit that counts", ['"on-failure:5" limits the attempts']
        )
    return Restart(policy, int(limit))


def network(reader: Reader, source: Source, value: Value) -> Any:
    """One network's name."""
    text = reader.text(source, value)
    if text is INVALID or (text and text[0] not in "._-" and len(text) <= 128 and NAME.issuperset(text)):
        return text
    return reader.wrong(
        source,
        value,
        f"{text[:60]!r} is not the name of a network",
        ['"bridge", "host", "none" or a name of letters, digits and _ . -'],
    )


def networks(reader: Reader, source: Source, value: Value) -> Any:
    if value.kind == "string":
        text = network(reader, source, value)
        return INVALID if text is INVALID else [text]
    names = reader.texts(source, value, network)
    if names is INVALID:
        return names
    names = list(dict.fromkeys(names))
    if not names:
        return reader.wrong(source, value, "the list of networks is empty", ['for no network write "none"'])
    for alone in ("host", "none"):
        if alone in names and len(names) > 1:
            return reader.wrong(source, value, f'"{alone}" goes with no other network', [f'write network = "{alone}"'])
    return names


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


def env_files(reader: Reader, source: Source, value: Value) -> Any:
    """The variables of one or more dotenv files, later ones winning."""
    from containust.compose.dotenv import read_dotenv

    found = [path(reader, source, value)] if value.kind == "string" else reader.texts(source, value, path)
    if found is INVALID or INVALID in found:
        return INVALID
    variables: dict[str, str] = {}
    places = [value] if value.kind == "string" else value.value
    bad = False
    for place, name in zip(places, found, strict=True):
        wrong = read_dotenv(name, variables)
        if wrong:
            bad = True
            reader.wrong(source, place, wrong[0], wrong[1:])
    return INVALID if bad else variables
