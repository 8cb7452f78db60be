"""Command-line options for the commands on the hot path: building an ``argparse`` parser costs as much as starting a
container does, so each command states its options as a table and this module reads them."""

from __future__ import annotations

from containust.common.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAG = "flag"
VALUE = "value"
LIST = "list"

# Options that every command takes, before or after its name.
GLOBAL = {
    "--offline": ("offline", FLAG),
    "--require-provenance": ("require_provenance", FLAG),
    "--state-file": ("state_file", VALUE),
    "--backend": ("backend", VALUE),
    "--no-color": ("no_color", FLAG),
    "--log-level": ("log_level", VALUE),
    "--help": ("help", FLAG),
}
GLOBAL_SHORT = {
    "-C": ("directory", VALUE),
    "-v": ("verbose", FLAG),
    "-q": ("quiet", FLAG),
    "-h": ("help", FLAG),
    "--version": ("version", FLAG),
}


class Arguments:
    """What was given: options as attributes of ``values``, ``positional`` words, ``rest`` after ``--`` (or None)."""

    __slots__ = ("positional", "rest", "values")

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.positional: list[str] = []
        self.rest: list[str] | None = None

    def flag(self, name: str) -> bool:
        """Whether a flag was given."""
        return bool(self.values.get(name))

    def text(self, name: str) -> str | None:
        """An option's value, None when it was not given."""
        value = self.values.get(name)
        return None if value is None else str(value)

    def many(self, name: str) -> list[str]:
        """Every value of an option that may be repeated."""
        return list(self.values.get(name, ()))


def parse(words: list[str], options: dict[str, tuple[str, str]], *, stop_at: int | None = None) -> Arguments:
    """Read ``words`` by a table of ``option -> (name, FLAG | VALUE | LIST)``.

    ``stop_at`` ends option parsing after that many positional words (for commands that take a command). Raises
    UsageError for an unknown option or a missing value.
    """
    result = Arguments()
    table = {**GLOBAL, "-h": ("help", FLAG), **options}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if word == "--":
            result.rest = words[position:]
            break
        if stop_at is not None and len(result.positional) >= stop_at:
            result.rest = words[position - 1 :]
            break
        if not word.startswith("-") or word == "-":
            result.positional.append(word)
            continue
        for option, value in _options(word, table):
            name, kind = table[option]
            if kind == FLAG:
                if value is not None:
                    raise UsageError(f"{option} takes no value")
                result.values[name] = True
                continue
            if value is None:
                if position >= len(words):
                    raise UsageError(f"{option} needs a value")
                value = words[position]
                position += 1
            if kind == LIST:
                result.values.setdefault(name, []).append(value)
            else:
                result.values[name] = value
    return result


def _options(word: str, table: dict[str, tuple[str, str]]) -> list[tuple[str, str | None]]:
    """The options in one word: ``--name``, ``--name=value``, ``-abc``, ``-xVALUE``."""
    if word.startswith("--"):
        option, equals, value = word.partition("=")
        if option not in table:
            raise _unknown(option, table)
        return [(option, value if equals else None)]
    found: list[tuple[str, str | None]] = []
    for index in range(1, len(word)):
        option = f"-{word[index]}"
        if option not in table:
            raise _unknown(option if index > 1 else word, table)
        if table[option][1] != FLAG:
            found.append((option, word[index + 1 :] or None))
            return found
        found.append((option, None))
    return found


def _unknown(option: str, table: dict[str, tuple[str, str]]) -> UsageError:
    from containust.common.suggest import nearest

    near = nearest(option, list(table))
    return UsageError(f"unknown option {option}", *([f"did you mean {near}?"] if near else []))


def number(text: str | None, what: str) -> int | None:
    """A whole number from the command line. Raises UsageError."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{what} takes a whole number, not {text!r}")
    return int(text)


def seconds(text: str | None, what: str) -> float | None:
    """Seconds from the command line: ``10`` or ``1.5``. Raises UsageError."""
    if text is None:
        return None
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise UsageError(f"{what} takes a number of seconds, not {text!r}")
    return value
