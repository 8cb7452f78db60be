"""Values with a unit: sizes, durations, shares and numbers of CPUs, and tmpfs, which has a size.

Loaded only where a file has one; converters as in :mod:`containust.compose.values`.
"""

from __future__ import annotations

from containust.common.types import Tmpfs
from containust.compose.values import INVALID, is_digits, mount_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.compose.tree import Source, Value
    from containust.compose.values import Reader

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
LEAST_RATE = 64 << 10
LEAST_MEMORY = 6 * 2**20


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
    size, text = _size(reader, source, value)
    if size is INVALID:
        return size
    if size < LEAST_MEMORY:
        return reader.wrong(source, value, f"{text} is too little to start a program", ['at least "6MiB"'])
    if size > 2**62:
        return reader.wrong(source, value, f"{text} is more than any machine has")
    return size


def rate(reader: Reader, source: Source, value: Value) -> Any:
    size, text = _size(reader, source, value)
    if size is INVALID:
        return size
    if size < LEAST_RATE:
        return reader.wrong(source, value, f"{text} a second is too little to read a program by", ['at least "64KiB"'])
    return min(size, 2**62)


def _size(reader: Reader, source: Source, value: Value) -> tuple[Any, Any]:
    """Bytes and the text that names them; INVALID after a problem."""
    text = reader.text(source, value)
    size = text if text is INVALID else parse_size(text)
    return (not_a_size(reader, source, value, text) if size is None else size), text


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


def tmpfs(reader: Reader, source: Source, value: Value) -> Any:
    return reader.texts(source, value, one_tmpfs)


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
