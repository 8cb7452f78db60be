"""``ctst exec``: run a program in a running container."""

from __future__ import annotations

from containust.cli.arguments import FLAG, LIST, VALUE, parse
from containust.common import os
from containust.common.errors import UsageError
from containust.sdk.project import Project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst exec [OPTIONS] NAME [--] COMMAND...

Join the container's namespaces and cgroup with its user, capabilities, filter and environment.
The exit status is the program's; 126 when it cannot be executed, 127 when it is not there.

  -i               give it standard input
  -t               give it a terminal (automatic when both ends are one)
  -u USER, -w DIR, -e K=V

Examples:
  ctst exec web -- ls /
  ctst exec -it db sh
"""
OPTIONS = {
    "-i": ("interactive", FLAG),
    "--interactive": ("interactive", FLAG),
    "-t": ("tty", FLAG),
    "--tty": ("tty", FLAG),
    "-u": ("user", VALUE),
    "--user": ("user", VALUE),
    "-w": ("workdir", VALUE),
    "--workdir": ("workdir", VALUE),
    "-e": ("env", LIST),
    "--env": ("env", LIST),
}


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, OPTIONS, stop_at=1)
    if given.flag("help"):
        context.out(HELP)
        return 0
    command = list(given.rest or ())
    if command[:1] == ["--"]:
        command = command[1:]
    if not given.positional or not command:
        raise UsageError("exec takes a container and a command", "ctst exec NAME -- COMMAND...")
    context.take(given.values)
    env = {}
    for item in given.many("env"):
        key, equals, value = item.partition("=")
        if not key:
            raise UsageError(f"-e takes KEY=VALUE, not {item!r}")
        env[key] = value if equals else os.environ.get(key, "")
    both = os.isatty(0) and os.isatty(1)
    if given.flag("tty") and not os.isatty(0):
        raise UsageError("-t needs a terminal on standard input", "leave it out in scripts")
    return Project.current(context.cwd, state_file=context.state_file, backend=context.backend).exec(
        given.positional[0],
        command,
        tty=both or given.flag("tty"),
        interactive=given.flag("interactive") or both,
        user=given.text("user"),
        workdir=given.text("workdir"),
        env=env,
    )
