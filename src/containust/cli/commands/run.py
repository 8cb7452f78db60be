"""``ctst run``: make reality match a file, or run one container."""

from __future__ import annotations

from containust.cli.arguments import FLAG, LIST, VALUE, parse
from containust.common import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context
    from containust.sdk.stack import Stack

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


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, OPTIONS)
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    if given.text("image"):
        from containust.cli.commands.run_image import run_image

        return run_image(given, context)
    from containust.cli.commands.run_file import run_file

    return run_file(given, context)


def tell_closed_ports(stack: Stack, context: Context) -> None:
    """Warn of published ports that the host's firewall keeps closed: they look open in every other way."""
    for message, help in stack.closed_ports():
        context.err(f"warning: {message}\n  help: {help}\n")


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
