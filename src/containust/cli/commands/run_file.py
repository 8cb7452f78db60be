"""``ctst run`` of a file or a plan."""

from __future__ import annotations

from containust.cli.arguments import Arguments, seconds
from containust.cli.commands.run import OPTIONS, pass_through, tell_closed_ports
from containust.common import os
from containust.common.errors import UsageError
from containust.sdk.stack import Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.cli.main import Context

ONLY_IMAGE = [
    name for name, _ in OPTIONS.values() if name not in ("detach", "only", "keep_orphans", "timeout", "image")
]


def run_file(given: Arguments, context: Context) -> int:
    """``run [FILE | FILE.plan]``."""
    for name in ONLY_IMAGE:
        if name in given.values:
            raise UsageError(f"--{name} goes with --image", "a component's properties are set in its file")
    if given.rest is not None or len(given.positional) > 1:
        raise UsageError("run takes one file", "a command after `--` goes with --image")
    file = given.positional[0] if given.positional else "containust.ctst"
    if file.endswith(".plan"):
        return finish(_planned(file, given, context), given, context)
    only = [name for item in given.many("only") for name in item.split(",") if name]
    stack = Stack.load(
        file,
        state_file=context.state_file,
        offline=context.offline,
        backend=context.backend,
        remove_orphans=not given.flag("keep_orphans"),
        only=only or None,
    )
    return finish(stack, given, context)


def _planned(file: str, given: Arguments, context: Context) -> Stack:
    for option in ("only", "keep_orphans"):
        if option in given.values:
            raise UsageError("a plan already says what is to be done", "give these options to `ctst plan`, or run FILE")
    return Stack.from_plan(os.path.join(context.cwd, file), offline=context.offline, backend=context.backend)


def finish(stack: Stack, given: Arguments, context: Context) -> int:
    """Bring a stack of a file up, and stay with it unless it is to be detached."""
    stack.engine.options.timeout = seconds(given.text("timeout"), "--timeout")
    tell_closed_ports(stack, context)
    if given.flag("detach"):
        from containust.cli.output.plan import summary

        steps = stack.up()
        if not context.quiet:
            context.out(summary(steps, stack.exposes, context.color))
        return 0
    return stack.run(echo(list(stack.components), context.color))


def echo(names: list[str], color: bool) -> Callable[[str, bytes, bytes], None]:
    """Writes whole lines of several components, each with its name in front."""
    from containust.cli.output import NAME_COLOURS

    width = max((len(name) for name in names), default=0)
    heads: dict[str, bytes] = {}
    for index, name in enumerate(names):
        head = f"{name.ljust(width)} | "
        if color:
            head = f"\x1b[{NAME_COLOURS[index % len(NAME_COLOURS)]}m{head}\x1b[0m"
        heads[name] = head.encode()
    partial: dict[tuple[str, bytes], bytes] = {}
    terminal = {b"stdout": os.isatty(1), b"stderr": os.isatty(2)}

    def write(name: str, stream: bytes, data: bytes) -> None:
        *lines, rest = (partial.pop((name, stream), b"") + data).split(b"\n")
        if rest:
            if len(rest) > 65536:
                lines.append(rest)
            else:
                partial[name, stream] = rest
        if lines:
            head = heads.get(name, b"")
            pass_through(name, stream, b"".join(head + clean(line, terminal[stream]) + b"\n" for line in lines))

    return write


def clean(line: bytes, terminal: bool) -> bytes:
    """A line of container output, harmless on a terminal: escape sequences would act on it. Raw for anything else."""
    if not terminal:
        return line
    text = line.rstrip(b"\r").decode("utf-8", "backslashreplace")
    if not text.isprintable():
        from containust.cli.output import safe

        text = safe(text)
    return text.encode()
