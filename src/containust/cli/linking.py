"""Modules from a bundle of bytecode, without the import system's questions. See :mod:`containust.cli.bytecode`."""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.cli.bytecode import Entry, Extension


def link(extensions: list[Extension], modules: list[Entry], packages: str) -> bool:
    """Load ``extensions``, make ``modules`` and execute them in order; False, and nothing done, when a file is not what
    it was."""
    try:
        for _, path, modified, size in extensions:
            status = posix.stat(path)
            if status.st_mtime_ns != modified or status.st_size != size:
                return False
        for _, path, modified, size, _, _ in modules:
            status = posix.stat(f"{packages}/{path}")
            if status.st_mtime_ns != modified or status.st_size != size:
                return False
    except OSError:
        return False
    known = sys.modules
    finder = known["_frozen_importlib_external"]
    importer = known["_frozen_importlib"]
    for name, path, _, _ in extensions:
        importer._load(importer.ModuleSpec(name, finder.ExtensionFileLoader(name, path), origin=path))
    new = type(sys)
    for name, path, _, _, package, code in modules:
        module = known[name] = new(name)
        module.__file__ = f"{packages}/{path}"
        parent, _, last = name.rpartition(".")
        if package:
            module.__path__ = [module.__file__.rpartition("/")[0]]
        exec(code, module.__dict__)
        if parent:
            setattr(known[parent], last, known[name])
    return True
