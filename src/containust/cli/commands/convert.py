"""``ctst convert``: Compose files to ``.ctst``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXAMPLES = """\
examples:
  ctst convert -o containust.ctst              compose.yaml of this directory
  ctst convert -f compose.yaml -f prod.yaml    two files, the second overriding the first
"""
NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")


def run(arguments: list[str], context: Any) -> int:
    """Write the converted text; a warning with its line for everything that has no counterpart."""
    import argparse
    import os

    from containust.cli.commands.check import within
    from containust.common.errors import ContainustError
    from containust.sdk import language

    parser = argparse.ArgumentParser(
        prog="ctst convert",
        description="Convert Compose files to a .ctst file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", metavar="COMPOSE", help=f"default: {', '.join(NAMES)}")
    parser.add_argument(
        "-f", "--file", action="append", dest="files", default=[], metavar="FILE", help="may be repeated"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="paths in it become relative to its directory; default: standard output"
    )
    parser.add_argument(
        "--profile", action="append", default=[], metavar="NAME", help="include services of this profile"
    )
    options = parser.parse_args(arguments)
    names = [*([options.file] if options.file else []), *options.files]
    if not names:
        names = [name for name in NAMES if os.path.exists(within(context.directory, name))][:1]
        if not names:
            raise ContainustError("S004", "there is no Compose file here", f"name it, or use one of {', '.join(NAMES)}")
    path = within(context.directory, options.output) if options.output else ""
    result = language.convert_compose(
        [within(context.directory, name) for name in names],
        profiles=options.profile,
        directory=os.path.dirname(path) or "." if path else None,
    )
    for warning in result.warnings:
        context.err(f"warning: {warning}\n")
    if not options.output:
        context.out(result.text.removesuffix("\n") + "\n")
        return 0
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(result.text)
    except OSError as error:
        raise ContainustError("S003", f"cannot write {path}: {error.strerror}", "choose another -o") from None
    return 0
