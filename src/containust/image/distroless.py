"""A root file system of programs and exactly what they need, collected from a host or from a larger root.

Everything keeps its path. A symbolic link on the way to a file is kept as a link (``/bin`` of a merged
``/usr``, a
library's version links), so a program is found under the name it was asked by. Directories that are only on
the way
are root's and 0755. What was looked at is remembered with its stat, for the catalog.
"""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISLNK, S_ISREG

from containust.image.libraries import LD_SO_CACHE, Libraries, Loaded
from containust.image.pack import Packer, unreadable
from containust.image.rooted import Root
from containust.image.store import missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Loaded by glibc itself while a program runs, so that no header names them.
GLIBC_LOADS = ("libnss_files.so.2", "libnss_dns.so.2", "libgcc_s.so.1")
STATIC_IDS = 100  # accounts below are the distribution's own, the same on each of its hosts
NOBODY = 65534


class Collection:
    """The members found so far.

    ``root`` is what they are collected from; it is given for a directory other than the host's root, and its files
    then keep their owners. ``sources`` holds the stamps of the host's files that were looked at, ``unresolved`` lists
    libraries that no search directory has, as (library, needed by).
    """

    def __init__(self, root: str = "") -> None:
        self.root = Root(root)
        self.members: dict[str, os.stat_result] = {}
        self.texts: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.sources: dict[str, os.stat_result] = {}
        self.unresolved: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.known: set[str] = set()  # names of programs whose further needs were looked up
        self.programs: dict[str, str] = {}  # name given to add_program, or taken from a #! line, to real path
        self.libraries = Libraries(self.root)
        self._scanned: set[str] = set()

    def note(self, path: str, s: os.stat_result) -> None:
        """Take ``path``, which is not below a link, into the collection."""
        self.members[path] = self.sources[self.root.host(path)] = s

    def add(self, path: str) -> str:
        """Add a file, a link with what it points to, or an empty directory; the path it really has. Raises
        OSError.
        """
        real = self.root.walk(path, self.note)
        s = self.stat(real)
        if not S_ISDIR(s.st_mode):
            self.note(real, s)
        else:
            self.members.setdefault(real, s)
        return real

    def stat(self, path: str) -> os.stat_result:
        """lstat(2) inside the root. Raises OSError."""
        return os.lstat(self.root.host(path))

    def add_program(self, path: str) -> str:
        """Add a program with its interpreter and libraries; its real path. Raises I001."""
        try:
            real = self.add(path)
            s = self.stat(real)
        except OSError as error:
            if error.errno in (2, 20):
                raise missing(
                    f"there is no {path} {self.where}",
                    "name another program in `command`"
                    if self.root.path
                    else "install it, or name another program: host:///usr/bin/NAME",
                ) from error
            raise unreadable(path, error) from error
        if not S_ISREG(s.st_mode):
            raise missing(f"{path} is not a program", "name a file; whole directories go into `include`")
        if not s.st_mode & 0o111:
            raise missing(f"{path} is not executable", f"`chmod +x {path}`, or add it by `include`")
        try:
            with open(self.root.host(real), "rb") as file:
                head = file.read(256)
        except OSError as error:
            raise unreadable(path, error) from error
        self.programs[path] = real
        if head.startswith(b"#!") and real not in self.scripts:
            self.scripts.append(real)
            self._add_script(path, head)
        elif head.startswith(b"\x7fELF"):
            before = len(self.unresolved)
            self.add_needs(real)
            if len(self.unresolved) > before:
                library, needed_by = self.unresolved[before]
                raise missing(
                    f"{needed_by} needs {library}, which is not {self.where}",
                    f"`ldd {path}` shows what is missing",
                )
        return real

    @property
    def where(self) -> str:
        """The root, as a message names it."""
        return f"in {self.root.path}" if self.root.path else "on this host"

    def _add_script(self, path: str, head: bytes) -> None:
        words = os.fsdecode(head[2:].partition(b"\n")[0]).split()
        if not words:
            raise missing(f"{path} names no interpreter after #!", "mend its first line")
        self.add_program(words[0])
        if os.path.basename(words[0]) == "env":
            for word in words[1:]:
                if word.startswith("-") or "=" in word:
                    continue
                found = self.root.which(word)
                if found is None:
                    raise missing(f"{path} asks env for {word}, which is not {self.where}", f"install {word}")
                self.add_program(found)
                return

    def add_tree(self, path: str, skip: Iterable[str] = ()) -> str:
        """Add a file or a directory with everything below it, and the libraries of what is ELF in it.
        Raises OSError.
        """
        real = self.add(path)
        s = self.stat(real)
        if not S_ISDIR(s.st_mode):
            self._scan(real, s)
            return real
        # Package managers replace files by rename, which the directory's own times show; elsewhere each file
        # counts.
        packaged = not self.root.path and real.startswith("/usr/") and not real.startswith("/usr/local/")
        skipped = frozenset(skip)
        stack = [real]
        while stack:
            directory = stack.pop()
            self.note(directory, self.stat(directory))
            with os.scandir(self.root.host(directory)) as entries:
                for entry in entries:
                    if directory == real and entry.name in skipped:
                        continue
                    path = f"{directory.rstrip('/')}/{entry.name}"
                    s = entry.stat(follow_symlinks=False)
                    if S_ISDIR(s.st_mode):
                        stack.append(path)
                        continue
                    self.members[path] = s
                    if not packaged:
                        self.sources[entry.path] = s
                    if S_ISLNK(s.st_mode):
                        self._follow(path)
                    elif S_ISREG(s.st_mode):
                        self._scan(path, s)
        return real

    def _follow(self, link: str) -> None:
        """Where a link in a tree leads to a file outside of it, that file belongs to it."""
        try:
            real = self.add(link)
            s = self.stat(real)
        except OSError:
            return  # a dangling link is kept as it is
        if S_ISREG(s.st_mode):
            self._scan(real, s)

    def _scan(self, path: str, s: os.stat_result) -> None:
        if s.st_size > 64 and (s.st_mode & 0o111 or ".so" in path):
            self.add_needs(path)

    def add_needs(self, path: str) -> None:
        """Add the loader and all libraries that the ELF file ``path`` needs, directly or not."""
        elf = self.libraries.elf(path)
        if elf is None or path in self._scanned:
            return
        self._scanned.add(path)
        musl = "ld-musl" in elf.interpreter or any("libc.musl" in name for name in elf.needed)
        if elf.interpreter:
            try:
                self.add(elf.interpreter)
            except OSError:
                self.unresolved.append((elf.interpreter, path))
        queue = [Loaded(path, elf)]
        seen: set[str] = set()
        for loaded in queue:
            for name in loaded.elf.needed:
                if name in seen:
                    continue
                seen.add(name)
                found = self.libraries.find(name, loaded, musl)
                if found is None:
                    if not (musl and name.startswith("libc.")):
                        self.unresolved.append((name, loaded.path))
                    continue
                self.add(found.path)
                queue.append(found)
            if "libc.so.6" in loaded.elf.needed and not musl:
                for name in GLIBC_LOADS:
                    extra = self.libraries.find(name, loaded, musl) if name not in seen else None
                    seen.add(name)
                    if extra is not None:
                        self.add(extra.path)
                        queue.append(extra)

    def add_link(self, path: str, target: str) -> None:
        """Add a link that the host does not have, unless something is there."""
        if path not in self.members and path not in self.texts:
            self.links[path] = target

    def add_common(self) -> None:
        """What nearly every program expects: accounts, name service order, certificates, time zone, loader
        cache.
        """
        optional = ["/etc/ssl/certs/ca-certificates.crt", "/etc/localtime"]
        if self.root.path:
            # A root made for containers has accounts of its own; a host's people are nobody's business.
            optional += ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"]
        else:
            for path in ("/etc/passwd", "/etc/group"):
                if path not in self.members:
                    self.texts[path] = self._accounts(path)
            if "/etc/nsswitch.conf" not in self.members:
                self.texts["/etc/nsswitch.conf"] = b"passwd: files\ngroup: files\nhosts: files dns\n"
        if self.libraries.cached:
            optional.append(LD_SO_CACHE)
        for path in optional:
            try:
                self.add(path)
            except OSError:
                continue

    def _accounts(self, path: str) -> bytes:
        """The distribution's own accounts out of a passwd or group file, without passwords and login
        shells.
        """
        try:
            self.sources[path] = os.lstat(path)
            with open(path, "rb") as file:
                lines = file.read(1 << 20).splitlines()
        except OSError:
            lines = []
        kept = []
        for line in lines:
            fields = line.split(b":")
            if len(fields) < 4 or not fields[2].isdigit():
                continue
            number = int(fields[2])
            if number >= STATIC_IDS and number != NOBODY:
                continue
            fields[1] = b"x"
            if path == "/etc/group":
                fields[3] = b""
            elif number:
                fields[-1] = b"/usr/sbin/nologin"
            elif len(fields) == 7:
                fields[6] = b"/bin/sh"
            kept.append(b":".join(fields) + b"\n")
        root = b"root:x:0:\n" if path == "/etc/group" else b"root:x:0:0:root:/root:/bin/sh\n"
        return b"".join(kept) or root

    def write(self, path: str) -> None:
        """Write the collection as a tar file."""
        names = {*self.members, *self.texts, *self.links, "/root"}
        for name in list(names):
            while (name := os.path.dirname(name)) != "/":
                names.add(name)
        packer = Packer(path)
        owned = bool(self.root.path)
        for name in sorted(names):
            member = os.fsencode(name[1:]) or b"."
            if name in self.texts:
                packer.text(member, self.texts[name])
            elif name in self.links:
                packer.symlink(member, os.fsencode(self.links[name]))
            elif name in self.members:
                packer.add(member, self.root.host(name), self.members[name], owned=owned)
            elif owned and name != "/root":
                packer.add(member, self.root.host(name), self.stat(name))
            else:
                packer.directory(member, 0o700 if name == "/root" else 0o755)
        packer.close()
