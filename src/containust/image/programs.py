"""What programs need beyond what ELF headers and ``#!`` lines say, as far as it is known, and what a user includes.

An interpreter needs its standard library, git its commands, busybox the links that make its applets, a TLS library
its configuration and certificates. Nothing of this is an error when it is missing: the program may do without.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK

from containust.image.rooted import PATH
from containust.image.store import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.image.distroless import Collection

# What programs load at run time without any header saying so: program name to paths or globs, those that exist.
KNOWN_NEEDS = {
    "perl": (
        "/usr/lib/*-linux-gnu/perl-base",
        "/usr/lib/*-linux-gnu/perl/5.*",
        "/usr/share/perl/5.*",
        "/usr/share/perl5/core_perl",
        "/usr/lib64/perl5",
    ),
    "git": ("/usr/lib/git-core", "/usr/libexec/git-core", "/usr/share/git-core/templates", "/bin/sh"),
    "nginx": ("/etc/nginx", "/usr/share/nginx", "/usr/lib/nginx/modules"),
    "bash": ("/lib/terminfo/x/xterm*", "/lib/terminfo/l/linux", "/lib/terminfo/s/screen*"),
}
# Directories that must be there, without what a host keeps in them.
KNOWN_DIRECTORIES = {"nginx": ("/var/lib/nginx", "/var/log/nginx")}
# Log files that become the container's own streams, as they cannot be written in a read-only root.
KNOWN_LINKS = {"nginx": {"/var/log/nginx/access.log": "/dev/stdout", "/var/log/nginx/error.log": "/dev/stderr"}}
# Programs that leave for the background unless they are told to stay: what keeps them in front, and what stops them
# after the requests under way.
FOREGROUND = {"nginx": (["-g", "daemon off;"], "SIGQUIT")}
# Parts of Python's standard library that no service needs.
PYTHON_SKIPS = ("test", "idlelib", "turtledemo", "tkinter", "site-packages", "dist-packages")
ZONES = "/usr/share/zoneinfo"
ZONE_SKIPS = ("posix", "right")  # the same again, and the same counting leap seconds
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


def add_known(collection: Collection, program: str, real: str) -> None:
    """What is known beyond their headers of the program and of the interpreters that it names."""
    names = {os.path.basename(path) for pair in collection.programs.items() for path in pair}
    for path in list(collection.programs):
        prefix = os.path.dirname(os.path.dirname(path))
        if collection.root.real(f"{prefix}/pyvenv.cfg") is not None:
            for part in ("pyvenv.cfg", "lib"):
                collection.add_tree(f"{prefix}/{part}")
    for path in [path for path in collection.members if is_python(os.path.basename(path))]:
        _add_python(collection, path, script=not is_python(os.path.basename(real)))
    for name in sorted(names - collection.known):
        collection.known.add(name)
        for pattern in KNOWN_NEEDS.get(name, ()):
            for path in collection.root.glob(pattern):
                try:
                    collection.add_tree(path)
                except OSError:
                    continue
        for path in KNOWN_DIRECTORIES.get(name, ()):
            try:
                collection.add(path)
            except OSError:
                continue
        if not collection.root.path:
            for path, target in KNOWN_LINKS.get(name, {}).items():
                collection.add_link(path, target)
    if "busybox" in (os.path.basename(program), os.path.basename(real)):
        if collection.root.path:
            _add_applet_links(collection, real)
        else:
            _add_applets(collection, program, real)


def add_tls(collection: Collection) -> None:
    """OpenSSL's directory and providers, where its library is among the members: they are named in the library."""
    from re import compile

    found = compile(rb'(OPENSSLDIR|MODULESDIR): "(/[^"\0]{1,200})"')
    for path in [path for path in collection.members if os.path.basename(path).startswith("libcrypto.so")]:
        try:
            data = collection.root.read(path, 64 << 20)
        except OSError:
            continue
        for match in found.finditer(data):
            directory = os.fsdecode(match[2])
            paths = [f"{directory}/{name}" for name in ("cert.pem", "openssl.cnf")]
            for item in paths if match[1] == b"OPENSSLDIR" else [directory]:
                try:
                    collection.add_tree(item)
                except OSError:
                    continue
            if match[1] == b"OPENSSLDIR" and collection.root.real(BUNDLE) is not None:
                collection.add_link(f"{directory}/cert.pem", BUNDLE)


def add_include(collection: Collection, pattern: str) -> None:
    """Add a path or a glob that the user named, with the libraries that it needs. Raises I001."""
    from glob import has_magic

    paths = collection.root.glob(pattern) if has_magic(pattern) else [pattern]
    if has_magic(pattern):
        directory = os.path.dirname(pattern)
        while has_magic(directory):
            directory = os.path.dirname(directory)
        real = collection.root.real(directory)
        if real is not None and collection.root.is_directory(real):
            collection.sources[collection.root.host(real)] = collection.stat(real)
    if not paths:
        raise missing(
            f"include {pattern!r} matches nothing {collection.where}", "correct the pattern, or leave it away"
        )
    for path in paths:
        try:
            collection.add_tree(path)
        except OSError as error:
            raise missing(
                f"include {path!r} cannot be read {collection.where}: {error.strerror}",
                "correct the path, or leave it away",
            ) from error


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
        if not collection.root.is_directory(directory):
            continue
        host = collection.root.host(collection.root.real(directory) or directory)
        skip += [name for name in os.listdir(host) if name.startswith("config-")]
        collection.add_tree(directory, skip)
    if script and collection.root.is_directory(f"{prefix}/lib/python3/dist-packages"):
        collection.add_tree(f"{prefix}/lib/python3/dist-packages")
    if ZONES not in collection.members and collection.root.is_directory(ZONES):
        collection.add_tree(ZONES, ZONE_SKIPS)


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


def _add_applet_links(collection: Collection, real: str) -> None:
    """The applets that a root has already, as links; a program of a foreign root is not run to ask it."""
    inode = collection.stat(real).st_ino
    for directory in PATH:
        above = collection.root.real(directory)
        if above is None or not S_ISDIR(collection.stat(above).st_mode):
            continue
        for name in os.listdir(collection.root.host(above)):
            path = f"{above}/{name}"
            s = collection.stat(path)
            if s.st_ino == inode or (S_ISLNK(s.st_mode) and collection.root.real(path) == real):
                collection.add(path)
