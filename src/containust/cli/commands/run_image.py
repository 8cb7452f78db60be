"""``ctst run --image``: its options as a component, and the run of that."""

from __future__ import annotations

from containust.cli.arguments import Arguments, number
from containust.cli.commands.run import pass_through, tell_closed_ports
from containust.common import os
from containust.common.errors import UsageError
from containust.common.types import Component, Expose, Volume
from containust.sdk.stack import Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.cli.main import Context

UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
DECIMAL = {"kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4}
BINARY = {"kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4}


def run_image(given: Arguments, context: Context) -> int:
    """``run --image``."""
    if given.positional:
        raise UsageError(f"unexpected {given.positional[0]!r}", "put the command of the container behind `--`")
    made = component(given)
    interactive, tty = given.flag("interactive"), given.flag("tty")
    if tty and given.flag("detach"):
        raise UsageError("-t and -d exclude each other", "start it with -d and use `ctst exec -t`")
    if tty and not os.isatty(0):
        raise UsageError("-t needs a terminal on standard input", "leave it out in scripts")
    stack = Stack.single(
        made,
        published(given.many("publish"), made.name),
        directory=context.cwd,
        state_file=context.state_file,
        offline=context.offline,
        backend=context.backend,
        forget=given.flag("rm"),
        interactive=interactive,
        tty=tty,
    )
    tell_closed_ports(stack, context)
    if given.flag("detach"):
        stack.up()
        context.out(f"{made.name}\n")
        return 0
    return stack.run(pass_through)


def component(given: Arguments) -> Component:
    """The component that the options describe. Raises UsageError."""
    image = given.text("image") or ""
    properties: dict[str, Any] = {"image": image, "readonly": not given.flag("writable")}
    if given.rest:
        properties["command"] = list(given.rest)
    properties["env"] = dict(variable(item) for item in given.many("env"))
    properties["volumes"] = [volume(item) for item in given.many("volume")]
    properties["include"] = given.many("include")
    if given.text("memory"):
        properties["memory"] = size(given.text("memory") or "")
    cpus = given.text("cpus")
    if cpus is not None:
        try:
            properties["cpus"] = float(cpus)
        except ValueError:
            properties["cpus"] = 0.0
        if not 0.01 <= properties["cpus"] <= 4096:
            raise UsageError(f"--cpus takes a number of CPUs such as 1.5, not {cpus!r}")
    pids = number(given.text("pids"), "--pids")
    if pids is not None:
        properties["pids"] = pids
    network = given.text("network")
    if network is None:
        network = "bridge" if given.many("publish") else "none"
    elif network in ("host", "none") and given.many("publish"):
        raise UsageError(f"-p needs a network of the container's own, not --network {network}")
    properties["networks"] = [identifier(network, "--network")]
    for key in ("user", "workdir"):
        if given.text(key):
            properties[key] = given.text(key)
    name = given.text("name")
    return Component(generated_name(image) if name is None else identifier(name, "--name"), **properties)


def identifier(text: str, option: str) -> str:
    """``text`` when a file could use it as a name (language.md, "identifiers"). Raises UsageError."""
    plain = text.isascii() and text.replace("-", "_").isidentifier() and text[0].isalpha() and len(text) <= 63
    if not plain or text[-1] == "-":
        raise UsageError(f"{option} takes letters, digits, - and _ after a first letter, not {text!r}")
    return text


def generated_name(image: str) -> str:
    """A name for a container that was given none: its program or image, and four random digits."""
    stem = image.split("://")[-1].split("@")[0].split(",")[0].rstrip("/").rpartition("/")[2].partition(":")[0]
    stem = "".join(c if c.isalnum() and c.isascii() else "-" for c in stem).strip("-") or "container"
    return f"{stem if stem[0].isalpha() else f'c-{stem}'}-{os.urandom(3).hex()}"


def variable(text: str) -> tuple[str, str]:
    """``K=V``, or ``K`` for the value that the caller has. Raises UsageError."""
    key, equals, value = text.partition("=")
    if not key:
        raise UsageError(f"-e takes KEY=VALUE, not {text!r}")
    return key, value if equals else os.environ.get(key, "")


def volume(text: str) -> Volume:
    """``source:target[:ro|rw]``. Raises UsageError."""
    parts = text.split(":")
    mode = parts.pop() if len(parts) == 3 and parts[2] in ("ro", "rw") else "rw"
    if len(parts) != 2 or not parts[0] or not parts[1].startswith("/") or ".." in parts[1].split("/"):
        raise UsageError(f"-v takes SOURCE:TARGET[:ro], with an absolute target, not {text!r}")
    source, target = parts
    if source.startswith(("/", "./", "../")) or source in (".", ".."):
        return Volume("bind", os.path.abspath(source), target, mode == "ro")
    return Volume("managed", source, target, mode == "ro")


def published(items: list[str], name: str) -> list[Expose]:
    """``-p [ADDRESS:]HOST:CONTAINER[/udp]`` as published ports. Raises UsageError."""
    exposes = []
    for item in items:
        ports, _, protocol = item.partition("/")
        head, _, container = ports.rpartition(":")
        address, _, host = head.rpartition(":")
        try:
            pair = int(host or container), int(container)
        except ValueError:
            pair = 0, 0
        if not all(1 <= port <= 65535 for port in pair) or protocol not in ("", "tcp", "udp"):
            raise UsageError(f"-p takes [ADDRESS:]HOST:CONTAINER[/udp], not {item!r}")
        exposes.append(Expose(name, *pair, protocol or "tcp", numeric(address.strip("[]") or "127.0.0.1")))
    return exposes


def numeric(address: str) -> str:
    """``address`` as the kernel writes it. Raises UsageError."""
    import _socket

    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    try:
        return _socket.inet_ntop(family, _socket.inet_pton(family, address))
    except (OSError, ValueError):
        raise UsageError(f"-p takes an IP address of this host, not {address!r}") from None


def size(text: str) -> int:
    """Bytes for ``64MiB``, ``64m``, ``1GB``. Raises UsageError."""
    digits = text.rstrip("bkmgtiBKMGTI")
    unit = text[len(digits) :].lower()
    factor = {**UNITS, **DECIMAL, **BINARY}.get(unit)
    if factor is None or not digits.isdigit():
        raise UsageError(f"--memory takes a size such as 64MiB, not {text!r}")
    value = int(digits) * factor
    if value < 6 * 1024 * 1024:
        raise UsageError(f"--memory is at least 6MiB, not {text}")
    return value
