"""From written values to typed ones: sizes, durations, volumes and so on (language.md, section 3).

Every converter takes ``(reader, source, value)`` with a value of a kind its property accepts, and returns the
typed value, or :data:`INVALID` once it has reported what is wrong. None is never a result.
"""

from __future__ import annotations

from containust.common.types import Port, Restart, Volume

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from containust.compose.properties import Property
    from containust.compose.tree import Interpolation, Problems, Source, Value

    Converter = Callable[["Reader", Source, Value], Any]

INVALID: Any = object()  # reported
WAITING: Any = object()  # for the ports of another component, see containust.compose.references

NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
RESTARTS = ("never", "on-failure", "always", "unless-stopped")
MOST_NETWORKS = 64  # of one component
MOST_VARIABLES = 4096  # of the files of one component, which all that start from it inherit


class Reader:
    """What converters need besides the value: the host's environment and where problems go."""

    __slots__ = ("environ", "images", "known", "problems", "waits")

    def __init__(self, problems: Problems, environ: Mapping[str, str]) -> None:
        self.problems = problems
        self.environ = environ
        self.images: dict[tuple[str | None, str], str] = {}  # what :func:`image` made of directory and text
        self.known: Callable[[Source, Interpolation], str | None] | None = None  # set when components are known
        self.waits = False  # some text referred to a component

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
        from containust.compose.interpolation import resolve

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
        if text is INVALID or text.__class__ is str:
            return text
        from containust.compose.references import known_text

        return known_text(self, source, value)

    def wait(self, source: Source, row: Property, value: Value, result: Any) -> Any:
        """What becomes of a value that refers to a component before components are known."""
        from containust.compose.references import wait

        return wait(self, source, row, value, result)

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
    """The value of an environment variable or a label."""
    if value.kind == "string":
        return reader.deferred(source, value)
    return ("true" if value.value else "false") if value.kind == "bool" else str(value.value)


def image(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID:
        return text
    known = reader.images.get((source.directory, text))
    if known is not None:
        return known
    from containust.common.errors import ContainustError
    from containust.common.reference import parse_reference

    try:
        reference = parse_reference(text)
    except ContainustError as error:
        return reader.wrong(source, value, error.message, error.help, None, "E007")
    if reference.scheme in ("file", "tar") and not reference.location.startswith("/"):
        if source.directory is None:
            return remote_path(reader, source, value)
        reference = reference.absolute(source.directory)
    result = reader.images[source.directory, text] = str(reference)
    return result


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
    from containust.common import os

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
    seen: set[tuple[int, str]] = set()
    for i, one in enumerate(found):
        if (one.number, one.protocol) in seen:
            return reader.wrong(source, value.value[i], f"port {one.number}/{one.protocol} is listed twice")
        seen.add((one.number, one.protocol))
    return found


def is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


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


def working_directory(reader: Reader, source: Source, value: Value) -> Any:
    text = reader.text(source, value)
    if text is INVALID or text.startswith("/"):
        return text
    return reader.wrong(source, value, f"{text[:60]!r} is not an absolute path", ['as in "/srv/app"'])


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
    if len(names) > MOST_NETWORKS:
        return reader.wrong(
            source, value, f"more than {MOST_NETWORKS} networks", ["one network can hold any components"]
        )
    for alone in ("host", "none"):
        if alone in names and len(names) > 1:
            return reader.wrong(source, value, f'"{alone}" goes with no other network', [f'write network = "{alone}"'])
    return names


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
    if len(variables) > MOST_VARIABLES:
        return reader.wrong(source, value, f"more than {MOST_VARIABLES} variables", ["leave out what nothing reads"])
    return INVALID if bad else variables


def later(module: str, name: str) -> Converter:
    """The converter ``name`` of ``containust.compose.<module>``, imported when a file first needs it."""

    def convert(reader: Reader, source: Source, value: Value) -> Any:
        from sys import modules

        full = f"containust.compose.{module}"
        if full not in modules:
            __import__(full)
        return getattr(modules[full], name)(reader, source, value)

    return convert
