"""What this package uses of the standard library's ``os``, from ``posix`` directly.

Importing ``os`` takes 0.8 ms, a twentieth of a container's start, most of it for abstract classes that nothing here
needs. Names and meanings are those of ``os``; what is rare comes from there when it is asked for. A program that has
``os`` already, such as one that uses the SDK, gets that.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import *  # noqa: F403
    from os import environ as environ
    from os import path as path
elif "os" in sys.modules:
    sys.modules[__name__] = sys.modules["os"]
else:
    from posix import *  # noqa: F403

    _exit = posix._exit
    devnull = "/dev/null"

    def __getattr__(name):
        import os

        return getattr(os, name)

    def fsencode(name):
        if isinstance(name, str):
            return name.encode("utf-8", "surrogateescape")
        return posix.fspath(name)

    def fsdecode(name):
        if isinstance(name, bytes):
            return name.decode("utf-8", "surrogateescape")
        return posix.fspath(name)

    def makedirs(name, mode=0o777, exist_ok=False):
        head = path.dirname(name.rstrip("/"))
        if head and not path.exists(head):
            makedirs(head, exist_ok=True)
        try:
            posix.mkdir(name, mode)
        except OSError:
            if not exist_ok or not path.isdir(name):
                raise

    environ = {fsdecode(key): fsdecode(value) for key, value in posix.environ.items()}

    class _Path:
        """``os.path``."""

        def __getattr__(self, name):
            import os

            return getattr(os.path, name)

        def join(self, first, *parts):
            for part in parts:
                if part.startswith("/") or not first:
                    first = part
                else:
                    first += part if first.endswith("/") else f"/{part}"
            return first

        def dirname(self, name):
            head = name[: name.rfind("/") + 1]
            return head.rstrip("/") or head

        def abspath(self, name):
            normalised = getattr(posix, "_path_normpath", None) or self.__getattr__("normpath")
            return normalised(self.join(posix.getcwd(), name))

        def exists(self, name):
            try:
                posix.stat(name)
            except (OSError, ValueError):
                return False
            return True

        def isdir(self, name):
            try:
                return posix.stat(name).st_mode & 0o170000 == 0o040000
            except (OSError, ValueError):
                return False

        def expanduser(self, name):
            home = environ.get("HOME") if name == "~" else None
            return home.rstrip("/") or "/" if home else self.__getattr__("expanduser")(name)

        def realpath(self, name):
            try:
                fd = posix.open(name, posix.O_PATH | posix.O_CLOEXEC)
            except OSError:  # it need not be there
                return self.__getattr__("realpath")(name)
            try:
                return posix.readlink(f"/proc/self/fd/{fd}")
            finally:
                posix.close(fd)

    path = _Path()
