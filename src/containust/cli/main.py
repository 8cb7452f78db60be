"""``ctst``: find the command, run it, render its error. Nothing else is imported until the command is known."""

from __future__ import annotations

import sys

from containust.common import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Command -> one line of `ctst --help`.
COMMANDS = {
    "build": "import every image of a file",
    "check": "static analysis of a .ctst file",
    "completion": "shell completion for bash, zsh or fish",
    "convert": "Compose file to .ctst",
    "doctor": "what this host offers, what is missing, how to mend it",
    "events": "life-cycle events",
    "exec": "run a program in a running container",
    "explain": "what an error code means",
    "fmt": "canonical layout of .ctst files",
    "images": "list, verify, remove and inspect images",
    "inspect": "everything known of one container",
    "load": "import an archive made by save, docker or podman",
    "logs": "output of containers",
    "plan": "what run would do",
    "ps": "list containers",
    "pull": "fetch an image from a registry",
    "push": "send an image to a registry",
    "restart": "stop and start containers",
    "rm": "remove containers",
    "run": "make reality match a file, or run one container",
    "save": "write an image to an archive",
    "start": "start stopped containers",
    "stop": "stop containers",
}

HELP = """ctst - daemonless containers with a composition language

Usage: ctst [OPTIONS] COMMAND [ARGUMENTS]

Commands:
{commands}
Options:
  -C DIR              run as if started in DIR
  --offline           no outbound network, in commands and in containers (CONTAINUST_OFFLINE=1)
  --require-provenance
                      fetch only images that a trusted key has signed (CONTAINUST_REQUIRE_PROVENANCE=1)
  --state-file PATH   another state index; its directory is the project directory (CONTAINUST_STATE_FILE)
  --backend NAME      auto, linux or vm (CONTAINUST_BACKEND)
  --no-color          no colours (NO_COLOR)
  -v, -q, --log-level LEVEL
                      diagnostics on standard error (CONTAINUST_LOG)
  --version           print the version

`ctst COMMAND --help` explains a command, `ctst explain CODE` an error.

Examples:
  ctst run                                    bring up containust.ctst, follow its logs, Ctrl+C stops it
  ctst run --image host:///bin/sh -- sh -c 'echo hi'
"""


class Context:
    """What every command gets: where it runs, how it may print."""

    __slots__ = ("backend", "color", "cwd", "error_color", "offline", "quiet", "state_file", "verbose")

    def __init__(self) -> None:
        self.cwd = "."
        self.offline = False
        self.state_file: str | None = None
        self.backend = "auto"
        self.color = False
        self.error_color = False
        self.quiet = False
        self.verbose = False

    @property
    def directory(self) -> str:
        """Where relative file names of the command line start."""
        return self.cwd

    def out(self, text: str) -> None:
        """Write to standard output, as it is."""
        sys.stdout.write(text)

    def err(self, text: str) -> None:
        """Write to standard error, as it is."""
        sys.stderr.write(text)

    def take(self, values: dict[str, Any]) -> None:
        """Global options given behind the command's name."""
        self.offline = self.offline or bool(values.get("offline"))
        if values.get("require_provenance"):
            os.environ["CONTAINUST_REQUIRE_PROVENANCE"] = "1"
        self.state_file = values.get("state_file") or self.state_file
        self.backend = check_backend(values.get("backend") or self.backend, "--backend")
        if values.get("no_color"):
            self.color = self.error_color = False


def run(bundle: tuple[str, str, str] | None = None) -> None:
    """The installed command. Leaves with ``os._exit``: nothing of ours waits for the interpreter's tear-down.

    ``bundle`` names what :func:`containust.cli.bytecode.save` has to write, when the command's is not there or old.
    """
    import gc

    gc.disable()  # a short life makes no garbage worth the search; a supervisor turns it on again
    status = main(sys.argv[1:])
    if bundle is not None and status == 0:
        from containust.cli import bytecode

        bytecode.save(*bundle)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1
    os._exit(status)


def main(words: list[str]) -> int:
    """Run a command line; the exit status by the table of cli.md."""
    from containust.common.errors import ContainustError

    context = Context()
    try:
        return dispatch(words, context)
    except ContainustError as error:
        from containust.cli.output import error as render

        _flush()
        diagnostics = getattr(error, "rendered", None)
        text = (
            diagnostics(context.error_color)
            if diagnostics
            else render(
                error.code, error.message, error.help, context.error_color, (error.container or "", error.output)
            )
        )
        _complain(text)
        return error.status
    except BrokenPipeError:
        # The reader of our output has gone, as with `ctst logs | head`: that is no failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        from containust.cli.output import error as render

        code = "S003" if error.errno in (1, 13, 30) else "R004"
        where = f"{error.filename}: " if error.filename else ""
        _complain(render(code, f"{where}{error.strerror or error}", [], context.error_color))
        return 3 if code == "S003" else 1
    except Exception as error:
        if os.environ.get("CONTAINUST_LOG") == "debug":
            raise
        from containust.cli.output import error as render

        _complain(
            render(
                "R004",
                f"containust met a mistake of its own: {type(error).__name__}: {error}",
                ["please report it with the output of the same command under CONTAINUST_LOG=debug"],
                context.error_color,
            )
        )
        return 1


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        pass


def _complain(text: str) -> None:
    try:
        sys.stderr.write(text)
    except (OSError, UnicodeError):
        pass


def dispatch(words: list[str], context: Context) -> int:
    """Read the global options, then hand over to the command's module."""
    from containust.cli.arguments import FLAG, GLOBAL, GLOBAL_SHORT, parse

    position = 0
    while position < len(words) and words[position].startswith("-") and words[position] != "-":
        option = words[position].partition("=")[0]
        known = {**GLOBAL, **GLOBAL_SHORT}.get(option)
        position += 1 if known is None or known[1] == FLAG or "=" in words[position] else 2
    given = parse(words[:position], GLOBAL_SHORT)
    _environment(context)
    context.take(given.values)
    context.quiet = given.flag("quiet")
    context.verbose = given.flag("verbose")
    directory = given.text("directory")
    if directory:
        try:
            os.chdir(directory)
        except OSError as error:
            from containust.common.errors import ContainustError

            raise ContainustError("S004", f"-C {directory}: {error.strerror}") from None
    if given.flag("version"):
        from containust import __version__

        context.out(f"ctst {__version__}\n")
        return 0
    if position >= len(words) or given.flag("help"):
        lines = "".join(f"  {name:12}{text}\n" for name, text in COMMANDS.items())
        context.out(HELP.format(commands=lines))
        return 0 if given.flag("help") else 2
    status: int = command(words[position])(words[position + 1 :], context)
    return status


def command(name: str) -> Any:
    """The ``run`` function of a command. Raises UsageError for one that does not exist."""
    if name in COMMANDS or name == "__complete":
        module, function = MODULES.get(name, (name, "run"))
        return getattr(__import__(f"containust.cli.commands.{module}", fromlist=[function]), function)
    from containust.common.errors import UsageError
    from containust.common.suggest import nearest

    near = nearest(name, COMMANDS)
    raise UsageError(
        f"there is no command {name!r}",
        f"did you mean `ctst {near}`?" if near else "`ctst --help` lists them",
    )


# Commands that share a module, and those whose function is not called ``run``.
MODULES = {
    "start": ("lifecycle", "start"),
    "stop": ("lifecycle", "stop"),
    "restart": ("lifecycle", "restart"),
    "rm": ("lifecycle", "rm"),
    "__complete": ("completion", "complete"),
}


def _environment(context: Context) -> None:
    """Settings from documented variables; a bad value is an error."""
    environ = os.environ
    from containust.common.errors import UsageError

    offline = environ.get("CONTAINUST_OFFLINE", "0")
    if offline not in ("0", "1", ""):
        raise UsageError(f"CONTAINUST_OFFLINE is {offline!r}", "set it to 1 or 0")
    context.offline = offline == "1"
    context.state_file = environ.get("CONTAINUST_STATE_FILE") or None
    context.backend = check_backend(environ.get("CONTAINUST_BACKEND") or "auto", "CONTAINUST_BACKEND")
    plain = bool(environ.get("NO_COLOR"))
    context.color = not plain and os.isatty(1)
    context.error_color = not plain and os.isatty(2)


def check_backend(name: str, where: str) -> str:
    """``name`` when it is a backend. Raises UsageError."""
    if name not in ("auto", "linux", "vm"):
        from containust.common.errors import UsageError

        raise UsageError(f"{where}: there is no backend {name!r}", "use auto, linux or vm")
    return name
