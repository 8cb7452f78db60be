"""Compose files to ``.ctst``: what ``ctst convert`` does.

Everything has one of three fates: it becomes a property or a statement, it becomes a comment at its place
with a warning that has its line, or Compose itself ignores it (``x-`` keys, ``version``) and it becomes a
comment.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Conversion:
    """``text`` in canonical layout, and one line for each thing that could not be converted."""

    __slots__ = ("text", "warnings")

    def __init__(self, text: str, warnings: list[str]) -> None:
        self.text = text
        self.warnings = warnings


def convert(
    paths: Sequence[str],
    environ: Mapping[str, str],
    profiles: Sequence[str] = (),
    directory: str | None = None,
) -> Conversion:
    """The Compose files at ``paths``, later ones overriding, for a ``.ctst`` file in ``directory``, by default that
    of the first.

    ``environ`` decides what Compose variables must be fixed as, where the language cannot keep them;
    ``profiles`` are the active ones. Raises ContainustError for what is no Compose file.
    """
    from containust.compose.convert.writer import Writer
    from containust.compose.tree import Uncollected

    with Uncollected():
        return Writer(list(paths), environ, list(profiles), directory).conversion()
