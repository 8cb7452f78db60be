"""``ctst pull``: an image from a registry into the project's store."""

from __future__ import annotations

import sys

from containust.cli.arguments import FLAG, parse
from containust.common.errors import UsageError

PAUSE = 5.0  # seconds between two lines of progress where there is no terminal
UNITS = 10_000  # totals up to this are layers, not bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from containust.cli.main import Context

HELP = """Usage: ctst pull REFERENCE [--json]

Fetch an image by the OCI distribution protocol, and lock its tag to what it is now (.containust/images.lock).

REFERENCE is [oci://][REGISTRY/]REPOSITORY[:TAG][@sha256:DIGEST]; the registry is Docker Hub unless named.
Logins of `docker login` are used, or CONTAINUST_REGISTRY_USER and _PASSWORD, or CONTAINUST_REGISTRY_TOKEN.
A pull that was interrupted goes on where it ended. Mirrors: CONTAINUST_REGISTRY_MIRRORS="docker.io=mirror.example",
or those of /etc/containers/registries.conf. Own authorities: SSL_CERT_FILE, or /etc/docker/certs.d/REGISTRY/ca.crt.

  --json   one document

Examples:
  ctst pull alpine:3.21
  ctst pull registry.example.org/team/app:1.0
"""


def run(words: list[str], context: Context) -> int:
    """The command."""
    given = parse(words, {"--json": ("json", FLAG)})
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    if len(given.positional) != 1:
        raise UsageError("pull takes one reference", "ctst pull REPOSITORY:TAG")
    from containust.sdk.images import Images

    images = Images.current(context.cwd, state_file=context.state_file, offline=context.offline)
    image = images.pull(given.positional[0], meter(context))
    if given.flag("json"):
        from containust.sdk.documents import to_json

        context.out(to_json({"images": [{"reference": image.reference, "id": image.id, "size": image.size}]}))
    else:
        context.out(f"{image.reference}  {image.id}\n")
    return 0


def meter(context: Context) -> Callable[[str, int, int], None] | None:
    """Progress on standard error: a line that overwrites itself on a terminal, else a line now and then."""
    if context.quiet:
        return None
    import os
    from time import monotonic

    from containust.cli.output import size

    terminal = os.isatty(2)
    pause = 0.1 if terminal else PAUSE
    last = [monotonic() - 0.1 if terminal else monotonic()]

    def show(what: str, done: int, total: int) -> None:
        now = monotonic()
        if done >= total and terminal:
            context.err("\r\x1b[K")
        elif now - last[0] >= pause:
            last[0] = now
            text = f"{what} {size(done)} of {size(total)}" if total > UNITS else f"{what} {done} of {total}"
            context.err(f"\r\x1b[K{text}" if terminal else f"{text}\n")
            sys.stderr.flush()

    return show
