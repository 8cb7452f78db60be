"""Directories that are nobody else's."""

from __future__ import annotations

import os


def make_private(path: str) -> None:
    """Make the directory ``path`` and those above it that are missing, each with mode 0700 (runtime.md, "State").

    ``os.makedirs`` gives its mode to the last one only. One that is there stays as it is. Raises OSError.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        above = os.path.dirname(path)
        if not above:
            raise
        make_private(above)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
