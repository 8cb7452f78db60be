"""``ctst explain``: what an error code means."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXAMPLES = """\
examples:
  ctst explain E004     what a cycle is, with a file that has one and one that has none
  ctst explain          all codes with their titles
"""


def run(arguments: list[str], context: Any) -> int:
    """Print the explanation of each code, or the table of all."""
    import argparse

    from containust.sdk import language

    parser = argparse.ArgumentParser(
        prog="ctst explain",
        description="Explain an error code.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("codes", nargs="*", metavar="CODE", help="such as E004; without one, all are listed")
    parser.add_argument("--json", action="store_true", help="one document with the key codes")
    options = parser.parse_args(arguments)
    if options.json:
        import json

        titles = language.codes()
        chosen = [code.upper() for code in options.codes] or list(titles)
        for code in chosen:
            language.explain(code)  # raises for one that does not exist
        rows = [{"code": code, "title": titles[code], "explanation": language.explain(code)} for code in chosen]
        context.out(json.dumps({"codes": rows}, indent=2, ensure_ascii=False) + "\n")
    elif options.codes:
        context.out("\n\n".join(language.explain(code) for code in options.codes) + "\n")
    else:
        context.out("\n".join(f"{code}  {title}" for code, title in language.codes().items()) + "\n")
    return 0
