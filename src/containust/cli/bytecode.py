"""The bytecode of what ``run``, ``exec`` and ``ps`` import, in one file a command.

Python finds fifty modules by some nine hundred system calls and unmarshals the same names fifty times. These commands
read one file instead, which stands in ``__pycache__`` beside Python's own and is left unused as soon as one source
differs from what it was made of: then, and whenever it cannot be written, imports go the usual way. What only people
and checkers read, docstrings and annotations, is left out of it.
"""

from __future__ import annotations

import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

    # Module -> (path of its source below site-packages, source's mtime in ns and size, whether a package, its code).
    Bundle = dict[str, tuple[str, int, int, bool, CodeType]]

LISTS = __file__.rpartition("/")[0] + "/starts"


class Finder:
    """A finder and loader (importlib.abc) of the modules of one bundle."""

    __slots__ = ("bundle", "packages")

    def __init__(self, bundle: Bundle, packages: str) -> None:
        self.bundle = bundle
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The specification of a module of the bundle, None for any other."""
        entry = self.bundle.get(name)
        if entry is None:
            return None
        source = f"{self.packages}/{entry[0]}"
        specification: Any = type(sys.__spec__)
        spec = specification(name, self, origin=source, is_package=entry[3])
        spec.has_location = True
        if entry[3]:
            spec.submodule_search_locations.append(source.rpartition("/")[0])
        return spec

    def create_module(self, spec: Any) -> None:
        """The import system's own."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code in it; the bundle lets go of the code."""
        exec(self.bundle.pop(module.__name__)[4], module.__dict__)


def install(bundle: Bundle, packages: str) -> bool:
    """Take imports from ``bundle`` from now on; False, and nothing done, when a source is not what it was."""
    try:
        for path, modified, size, _, _ in bundle.values():
            status = posix.stat(f"{packages}/{path}")
            if status.st_mtime_ns != modified or status.st_size != size:
                return False
    except OSError:
        return False
    sys.meta_path.insert(0, Finder(bundle, packages))
    return True


def save(what: str, packages: str, bundle_path: str) -> None:
    """Write the bundle of what ``starts/<what>.txt`` lists. Whoever may not write there goes without."""
    bundle = {}
    try:
        with open(f"{LISTS}/{what}.txt") as listed:
            names = [name for name in listed.read().split() if name.startswith("containust")]
        for name in [*names, __name__]:
            path = name.replace(".", "/") + ".py"
            package = not exists(f"{packages}/{path}")
            if package:
                path = name.replace(".", "/") + "/__init__.py"
            status = posix.stat(f"{packages}/{path}")
            bundle[name] = (path, status.st_mtime_ns, status.st_size, package, compiled(f"{packages}/{path}"))
        replace(bundle_path, marshal.dumps(bundle))
    except OSError:
        return


def compiled(path: str) -> CodeType:
    """The code of a source file without docstrings, annotations and what they need of ``__future__``."""
    import ast

    class Lean(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
            node.returns = None
            return self.generic_visit(node)

        def visit_arg(self, node: ast.arg) -> ast.AST:
            node.annotation = None
            return node

        def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
            if node.value is None:
                return ast.copy_location(ast.Pass(), node)
            return ast.copy_location(ast.Assign([node.target], node.value), node)

        def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
            return ast.copy_location(ast.Pass(), node) if node.module == "__future__" else node

    with open(path, encoding="utf-8") as source:
        tree = ast.fix_missing_locations(Lean().visit(ast.parse(source.read(), path)))
    code: CodeType = compile(tree, path, "exec", dont_inherit=True, optimize=2)
    return code


def exists(path: str) -> bool:
    """Whether there is such a file."""
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def replace(path: str, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError."""
    temporary = f"{path}.{posix.getpid()}"
    descriptor = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        posix.rename(temporary, path)
    except OSError:
        posix.unlink(temporary)
        raise
