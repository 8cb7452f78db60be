"""``ctst start``, ``stop``, ``restart`` and ``rm``."""

from __future__ import annotations

from containust.cli.arguments import FLAG, VALUE, Arguments, parse, seconds
from containust.sdk.project import Project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

START = """Usage: ctst start [NAME...]

Start stopped containers as they were, all of the project's without a name.

Examples:
  ctst start
  ctst start web db
"""
STOP = """Usage: ctst stop [-t SECONDS] [--force] [NAME...]

Stop containers, dependents first: stop signal, stop_timeout, then a kill of everything in them.

  -t, --timeout SECONDS   instead of each component's stop_timeout
  --force                 kill at once

Examples:
  ctst stop
  ctst stop -t 2 web
"""
RESTART = """Usage: ctst restart [-t SECONDS] [NAME...]

Examples:
  ctst restart web
  ctst restart -t 1
"""
RM = """Usage: ctst rm [--force] [--volumes] [NAME...]

Remove stopped containers with their logs and writable layers, all of the project's without a name.

  --force     stop running ones first, by a kill
  --volumes   also managed volumes that no other container uses

Examples:
  ctst rm web
  ctst rm --force
"""

TIMEOUT = {"-t": ("timeout", VALUE), "--timeout": ("timeout", VALUE)}
FORCE = {"--force": ("force", FLAG), "-f": ("force", FLAG)}


def start(words: list[str], context: Context) -> int:
    """``ctst start``."""
    given = parse(words, {})
    if given.flag("help"):
        return _help(START, context)
    return _report(_project(given, context).start(given.positional), context)


def stop(words: list[str], context: Context) -> int:
    """``ctst stop``."""
    given = parse(words, {**TIMEOUT, **FORCE})
    if given.flag("help"):
        return _help(STOP, context)
    timeout = seconds(given.text("timeout"), "--timeout")
    project = _project(given, context)
    return _report(project.stop(given.positional, timeout, given.flag("force")), context)


def restart(words: list[str], context: Context) -> int:
    """``ctst restart``."""
    given = parse(words, TIMEOUT)
    if given.flag("help"):
        return _help(RESTART, context)
    timeout = seconds(given.text("timeout"), "--timeout")
    return _report(_project(given, context).restart(given.positional, timeout), context)


def rm(words: list[str], context: Context) -> int:
    """``ctst rm``."""
    given = parse(words, {**FORCE, "--volumes": ("volumes", FLAG)})
    if given.flag("help"):
        return _help(RM, context)
    project = _project(given, context)
    return _report(project.remove(given.positional, given.flag("force"), given.flag("volumes")), context)


def _project(given: Arguments, context: Context) -> Project:
    context.take(given.values)
    return Project.current(context.cwd, state_file=context.state_file, offline=context.offline, backend=context.backend)


def _help(text: str, context: Context) -> int:
    context.out(text)
    return 0


def _report(names: list[str], context: Context) -> int:
    if not context.quiet:
        context.out("".join(f"{name}\n" for name in names))
    return 0
