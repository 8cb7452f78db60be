"""The bytecode of what ``run``, ``exec`` and ``ps`` import, in one file a command.

Python finds fifty modules by some nine hundred system calls, asks itself for each where it may come from, and
unmarshals the same names fifty times. These commands read one file instead, which stands in ``__pycache__`` beside
Python's own and is left unused as soon as one source differs from what it was made of: then, and whenever it cannot be
written, imports go the usual way. What only people and checkers read is left out of it: docstrings, annotations, line
numbers.

``scripts/ctst`` reads the file: the code of :mod:`containust.cli.linking`, then the modules in the order in which they
need each other.
"""

from __future__ import annotations

import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable
    from types import CodeType

    # Name, path of the source below site-packages, its mtime in ns and size, whether it is a package, its code.
    Entry = tuple[str, str, int, int, bool, CodeType]
    # Name, path, mtime in ns and size of one of Python's own that is a shared object.
    Extension = tuple[str, str, int, int]

HERE = __file__.rpartition("/")[0]


def save(what: str, packages: str, bundle_path: str) -> None:
    """Write the bundle of what ``starts/<what>.txt`` lists. Whoever may not write there goes without."""
    try:
        with open(f"{HERE}/starts/{what}.txt") as listed:
            names = listed.read().split()
        linker = compiled(parsed(f"{HERE}/linking.py"), f"{HERE}/linking.py")
        ours = [name for name in names if name.startswith("containust")]
        replace(bundle_path, marshal.dumps((linker, extensions(names), list(entries(ours, packages)))))
    except OSError:
        return


def extensions(names: list[str]) -> list[Extension]:
    """Which of the modules ``names``, all imported by now, are shared objects. Raises OSError."""
    found = []
    for name in names:
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if spec and type(spec.loader).__name__ == "ExtensionFileLoader":
            status = posix.stat(spec.origin)
            found.append((name, spec.origin, status.st_mtime_ns, status.st_size))
    return found


def entries(names: list[str], packages: str) -> Iterable[Entry]:
    """The modules ``names``, each behind those that its own statements import. Raises OSError."""
    done: dict[str, Entry] = {}

    def add(name: str) -> None:
        if name in done or name not in names:
            return
        add(name.rpartition(".")[0])
        path = name.replace(".", "/") + ".py"
        package = not exists(f"{packages}/{path}")
        if package:
            path = name.replace(".", "/") + "/__init__.py"
        status = posix.stat(f"{packages}/{path}")
        tree = parsed(f"{packages}/{path}")
        for needed in imported(tree):
            add(needed)
        done[name] = (name, path, status.st_mtime_ns, status.st_size, package, compiled(tree, path))

    for name in names:
        add(name)
    return done.values()


def imported(tree: ast.Module) -> list[str]:
    """Names of what a module imports when it is executed itself; some may be no modules but what is in one."""
    import ast

    names = []
    for statement in tree.body:
        for node in [statement, *getattr(statement, "handlers", ()), *_blocks(statement)]:
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _blocks(statement: ast.stmt) -> list[ast.stmt]:
    """What is executed inside ``try`` and ``if``; ``if TYPE_CHECKING`` never is."""
    import ast

    if isinstance(statement, ast.Try):
        return [*statement.body, *statement.orelse]
    if isinstance(statement, ast.If) and not (isinstance(statement.test, ast.Name) and "TYPE" in statement.test.id):
        return [*statement.body, *statement.orelse]
    return []


def parsed(path: str) -> ast.Module:
    """The syntax tree of a source file without docstrings, annotations and what they need of ``__future__``."""
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
        tree: ast.Module = ast.fix_missing_locations(Lean().visit(ast.parse(source.read(), path)))
    return tree


def compiled(tree: ast.Module, path: str) -> CodeType:
    """The code of a module without line numbers."""
    code: CodeType = compile(tree, path, "exec", dont_inherit=True, optimize=2)
    return _unnumbered(code)


def _unnumbered(code: CodeType) -> CodeType:
    inner = tuple(_unnumbered(item) if isinstance(item, type(code)) else item for item in code.co_consts)
    return code.replace(co_consts=inner, co_linetable=b"")


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
