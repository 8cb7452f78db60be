"""``ctst run``: make reality match a file, or run one container."""

from __future__ import annotations

from containust.cli.arguments import FLAG, LIST, VALUE, Arguments, parse, seconds
from containust.common import os
from containust.common.errors import ContainustError, UsageError
from containust.sdk.stack import Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.cli.main import Context

HELP = """Usage: ctst run [OPTIONS] [FILE | FILE.plan]
       ctst run --image URI [OPTIONS] [-- COMMAND...]

Make reality match FILE (default containust.ctst): import, create, recreate what changed, remove what left the file.
In the foreground it shows the logs of all components; Ctrl+C stops them in reverse order, a second one kills them.

  -d, --detach           go on in the background once everything is up
  --only NAME[,NAME]     these components and their dependencies
  --no-remove-orphans    keep containers whose component left the file
  --timeout SECONDS      give up a start that is not up by then, and undo it
  --image URI            run one container instead; its exit status is ours
  --name N, --rm, -i, -t, -e K=V, -v SOURCE:TARGET[:ro], --memory SIZE, --cpus N, --pids N,
  --network NAME, -p [ADDRESS:]HOST:CONTAINER[/udp], -u USER, -w DIR, --writable, --include PATH
                         with --image

Examples:
  ctst run -d stack.ctst
  ctst run --rm --image host:///bin/sh -- sh -c 'echo hi'
"""

OPTIONS = {
    "-d": ("detach", FLAG),
    "--detach": ("detach", FLAG),
    "--only": ("only", LIST),
    "--no-remove-orphans": ("keep_orphans", FLAG),
    "--timeout": ("timeout", VALUE),
    "--image": ("image", VALUE),
    "--name": ("name", VALUE),
    "--rm": ("rm", FLAG),
    "-i": ("interactive", FLAG),
    "--interactive": ("interactive", FLAG),
    "-t": ("tty", FLAG),
    "--tty": ("tty", FLAG),
    "-e": ("env", LIST),
    "--env": ("env", LIST),
    "-v": ("volume", LIST),
    "--volume": ("volume", LIST),
    "--memory": ("memory", VALUE),
    "-m": ("memory", VALUE),
    "--cpus": ("cpus", VALUE),
    "--pids": ("pids", VALUE),
    "--network": ("network", VALUE),
    "-p": ("publish", LIST),
    "--publish": ("publish", LIST),
    "-u": ("user", VALUE),
    "--user": ("user", VALUE),
    "-w": ("workdir", VALUE),
    "--workdir": ("workdir", VALUE),
    "--writable": ("writable", FLAG),
    "--include": ("include", LIST),
}
ONLY_IMAGE = [
    name for name, _ in OPTIONS.values() if name not in ("detach", "only", "keep_orphans", "timeout", "image")
]


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, OPTIONS)
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    if given.text("image"):
        return run_image(given, context)
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


def tell_closed_ports(stack: Stack, context: Context) -> None:
    """Warn of published ports that the host's firewall keeps closed: they look open in every other way."""
    for message, help in stack.closed_ports():
        context.err(f"warning: {message}\n  help: {help}\n")


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


def run_image(given: Arguments, context: Context) -> int:
    """``run --image``."""
    from containust.cli.commands.run_image import component, published

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


def pass_through(name: str, stream: bytes, data: bytes) -> None:
    """Output of a single container goes where its command's would."""
    view = memoryview(data)
    fd = 1 if stream == b"stdout" else 2
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            continue
        except OSError:  # nobody reads any more; the log still does
            return


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


__all__ = ["ContainustError", "clean", "echo", "pass_through", "run"]
