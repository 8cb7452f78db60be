"""``host://``: programs of this host, with what they need, as a root file system.

``host:///usr/bin/python3`` or several, separated by commas; the first is the image's command. Beside what
ELF headers
and ``#!`` lines say, a few programs are known to need more: an interpreter its standard library, git its
commands,
busybox the links that make its applets. ``include`` adds further paths or globs with the libraries they need.
"""

from __future__ import annotations

import os

from containust.common.types import ImageConfig
from containust.image.distroless import Collection
from containust.image.importing import DEFAULT_PATH, Imported, settle
from containust.image.layers import build_tree
from containust.image.store import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from containust.image.staging import Staging

# What programs load at run time without any header saying so: program name to paths or globs, those that
# exist.
KNOWN_NEEDS = {
    "perl": ("/usr/lib/*-linux-gnu/perl-base", "/usr/share/perl5/core_perl", "/usr/lib64/perl5"),
    "git": ("/usr/lib/git-core", "/usr/libexec/git-core", "/usr/share/git-core/templates", "/bin/sh"),
    "nginx": ("/etc/nginx", "/usr/share/nginx", "/usr/lib/nginx/modules"),
    "bash": ("/lib/terminfo/x/xterm*", "/lib/terminfo/l/linux", "/lib/terminfo/s/screen*"),
}
# Parts of Python's standard library that no service needs.
PYTHON_SKIPS = ("test", "idlelib", "turtledemo", "tkinter", "site-packages", "dist-packages")


def import_programs(staging: Staging, programs: Sequence[str], include: Sequence[str]) -> Imported:
    """Import a ``host://`` image. Raises I001 when a program, a library or an ``include`` is not there."""
    collection = Collection()
    for program in programs:
        real = collection.add_program(program)
        _add_known(collection, program, real)
    for pattern in include:
        _add_include(collection, pattern)
    collection.add_common()
    settle(max((s.st_ctime_ns for s in collection.sources.values()), default=0))
    path = f"{staging.path}/layer.tar"
    collection.write(path)
    layer = staging.stage_layer(path)
    root, facts = staging.add_root(build_tree(staging.store, [layer]), [layer])
    return Imported(root, facts, ImageConfig(command=[programs[0]], env=[DEFAULT_PATH]), collection.sources)


def _add_include(collection: Collection, pattern: str) -> None:
    from glob import glob, has_magic

    paths = sorted(glob(pattern)) if has_magic(pattern) else [pattern]
    if has_magic(pattern):
        directory = os.path.dirname(pattern)
        while has_magic(directory):
            directory = os.path.dirname(directory)
        if os.path.isdir(directory):
            collection.sources[directory] = os.lstat(directory)
    if not paths:
        raise missing(f"include {pattern!r} matches nothing on this host", "correct the pattern, or leave it away")
    for path in paths:
        try:
            collection.add_tree(path)
        except OSError as error:
            raise missing(
                f"include {path!r} cannot be read: {error.strerror}", "correct the path, or leave it away"
            ) from error


def _add_known(collection: Collection, program: str, real: str) -> None:
    """What is known of the program beyond its headers; nothing here is an error when it is missing."""
    names = {os.path.basename(program), os.path.basename(real)}
    interpreters = {os.path.basename(path) for path in collection.members if is_python(os.path.basename(path))}
    if interpreters:
        for path in [path for path in collection.members if is_python(os.path.basename(path))]:
            _add_python(collection, path, script=not is_python(os.path.basename(real)))
    for name in names:
        for pattern in KNOWN_NEEDS.get(name, ()):
            from glob import glob

            for path in sorted(glob(pattern)):
                try:
                    collection.add_tree(path)
                except OSError:
                    continue
    if "busybox" in names:
        _add_applets(collection, program, real)


def is_python(name: str) -> bool:
    """Whether ``name`` is that of a CPython with its version, such as python3.12."""
    return name.startswith("python3.") and name[8:].isdigit()


def _add_python(collection: Collection, path: str, script: bool) -> None:
    """The standard library beside the interpreter ``path``; with ``script`` what is installed for it, too."""
    prefix = os.path.dirname(os.path.dirname(path))
    version = os.path.basename(path)
    skip = [name for name in PYTHON_SKIPS if not (script and name.endswith("-packages"))]
    for library in ("lib", "lib64"):
        directory = f"{prefix}/{library}/{version}"
        if not os.path.isdir(directory):
            continue
        skip += [name for name in os.listdir(directory) if name.startswith("config-")]
        collection.add_tree(directory, skip)
    if script and os.path.isdir(f"{prefix}/lib/python3/dist-packages"):
        collection.add_tree(f"{prefix}/lib/python3/dist-packages")


def _add_applets(collection: Collection, program: str, real: str) -> None:
    """A link for each of busybox's applets, where it would install it."""
    from subprocess import DEVNULL, PIPE, run

    try:
        listing = run(
            [real, "--list-full"], stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, timeout=10, check=False, env={}
        )
    except OSError:
        return
    for line in listing.stdout.decode(errors="replace").splitlines():
        directory, _, name = line.rpartition("/")
        if not name or "/" in name or ".." in directory:
            continue
        try:
            directory = collection.add(f"/{directory}")
        except OSError:
            directory = f"/{directory}".rstrip("/")
        collection.add_link(f"{directory.rstrip('/')}/{name}", program)
