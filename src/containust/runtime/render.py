"""From a component and its image to what a process is started with: arguments, environment, paths.

References are filled in here and nowhere else, so a secret's value exists only in the memory of the process that
starts the container, and in the container.
"""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.compose.interpolation import render as text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.common.types import Component, ImageConfig, Ref
    from containust.runtime.users import User

    Lookup = Callable[[Ref], str]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def arguments(component: Component, config: ImageConfig, lookup: Lookup) -> list[str]:
    """Final argv: entrypoint + command by the OCI rules. Raises ContainustError R004 when both are empty."""
    if component.entrypoint is not None:
        entrypoint = [text(item, lookup) for item in component.entrypoint]
        command = [] if component.command is None else [text(item, lookup) for item in component.command]
    else:
        entrypoint = config.entrypoint
        command = config.command if component.command is None else [text(i, lookup) for i in component.command]
    argv = [*entrypoint, *command]
    if not argv or not argv[0]:
        raise ContainustError(
            "R004",
            f"{component.name}: the image names no program and the component has no command",
            'set `command = ["/path/of/program"]`',
            status=127,
        )
    return argv


def environment(
    component: Component, config: ImageConfig, user: User, hostname: str, lookup: Lookup, tty: bool
) -> dict[str, str]:
    """The whole environment of the program: nothing of the host's is in it."""
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname, "HOME": user.home}
    if tty:
        env["TERM"] = "xterm"
    for item in config.env:
        key, _, plain = item.partition("=")
        env[key] = plain
    for key, value in component.env.items():
        env[key] = text(value, lookup)
    return env


def candidates(program: str, path: str) -> list[bytes]:
    """What execve tries, in order: the program itself when it has a slash, else each directory of ``path``."""
    if "/" in program:
        return [os.fsencode(program)]
    return [os.fsencode(f"{directory or '.'}/{program}") for directory in path.split(":")]


def encode(env: dict[str, str]) -> dict[bytes, bytes]:
    """The environment as execve takes it."""
    return {os.fsencode(key): os.fsencode(value) for key, value in env.items()}
