"""``ctst explain``: what an error code means."""

from __future__ import annotations

from containust.cli.arguments import FLAG, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.main import Context

HELP = """Usage: ctst explain [--json] [CODE...]

What an error code means and what to do, for codes of the language with a file that has the error and one that has
not. Without a code all are listed.

  --json   one document with the key codes

Examples:
  ctst explain E004
  ctst explain
"""


def run(words: list[str], context: Context) -> int:
    """Print the explanation of each code, or the table of all."""
    given = parse(words, {"--json": ("json", FLAG)})
    if given.flag("help"):
        context.out(HELP)
        return 0
    context.take(given.values)
    from containust.sdk import language

    codes = given.positional
    if given.flag("json"):
        import json

        titles = language.codes()
        chosen = [code.upper() for code in codes] or list(titles)
        for code in chosen:
            language.explain(code)  # raises for one that does not exist
        rows = [{"code": code, "title": titles[code], "explanation": language.explain(code)} for code in chosen]
        context.out(json.dumps({"codes": rows}, indent=2, ensure_ascii=False) + "\n")
    elif codes:
        context.out("\n\n".join(language.explain(code) for code in codes) + "\n")
    else:
        context.out("\n".join(f"{code}  {title}" for code, title in language.codes().items()) + "\n")
    return 0
