"""Coverage-guided fuzzing of convert: ``python tests/compose/fuzz_convert.py -runs=100000 CORPUS``, stacks/ as a start.

Needs atheris and PyYAML. A crash is any exception but a ContainustError, or a result that does not check.
"""

from __future__ import annotations

import os
import sys
import tempfile

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

with atheris.instrument_imports(include=["containust.compose.convert"]):
    from containust.common.errors import ContainustError
    from containust.compose.convert import convert
    from containust.compose.diagnostics import render
    from containust.compose.load import load_checked

DIRECTORY = tempfile.mkdtemp(prefix="fuzz-convert-")
ENVIRON = {"HOME": DIRECTORY, "A": "1"}


def one(data: bytes) -> None:
    path = os.path.join(DIRECTORY, "compose.yaml")
    with open(path, "wb") as file:
        file.write(data)
    try:
        result = convert([path], ENVIRON)
    except ContainustError:
        return
    _, found = load_checked(os.path.join(DIRECTORY, "containust.ctst"), environ=ENVIRON, text=result.text)
    # What Compose asks of the host with ${A:?} is asked for here too.
    wrong = [one for one in found if one.severity == "error" and one.code != "E014"]
    assert not wrong, result.text + render(wrong)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
