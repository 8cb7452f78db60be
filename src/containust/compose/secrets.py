"""Where secrets come from (language.md, section 9). A value is returned, never kept or put into an error."""

from __future__ import annotations

import os
import stat

from containust.common.errors import ContainustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM = "/run/containust/secrets"
LARGEST = 1 << 20


def variable_name(name: str) -> str:
    """The host variable of the secret ``name``."""
    return "CONTAINUST_SECRET_" + name.upper().replace(".", "_").replace("-", "_")


def directories(project_dir: str, environ: Mapping[str, str]) -> list[str]:
    """Where a secret's file is looked for; ``project_dir`` is the ``.containust`` directory or its parent."""
    project = project_dir.rstrip("/") or "/"
    if os.path.basename(project) != ".containust":
        project = os.path.join(project, ".containust")
    own = environ.get("CONTAINUST_SECRETS_DIR")
    return [*([own] if own else []), os.path.join(project, "secrets"), SYSTEM]


def find_secret(name: str, project_dir: str, environ: Mapping[str, str]) -> str:
    """The value of the secret ``name``, a file's trailing newline dropped.

    Raises E020 when there is none, S005 when its file is not private, S003 when it cannot be read.
    """
    value = environ.get(variable_name(name))
    if value is not None:
        return value
    for directory in directories(project_dir, environ):
        try:
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ContainustError(
                "S003",
                f"the file of secret {name!r} in {directory} cannot be read: {error.strerror}",
                "let it belong to the user who runs ctst",
            ) from None
        try:
            return _read(descriptor, name, os.path.join(directory, name))
        finally:
            os.close(descriptor)
    raise ContainustError(
        "E020",
        f"secret {name!r} is not there",
        f"set {variable_name(name)}, or put it into a file of mode 0600:",
        *[os.path.join(directory, name) for directory in directories(project_dir, environ)],
    )


def _read(descriptor: int, name: str, path: str) -> str:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ContainustError("S005", f"{path} is no regular file", "a secret is a file of mode 0600")
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o077:
        raise ContainustError(
            "S005",
            f"the file of secret {name!r} is open to others: {path}",
            f"chmod 600 {path}, and let it belong to you or to root",
        )
    if status.st_size > LARGEST:
        raise ContainustError("S005", f"{path} is larger than {LARGEST >> 20} MiB", "a secret is a short text")
    data = b""
    while len(data) <= LARGEST:
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        data += chunk
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ContainustError("E020", f"{path} is not UTF-8", "encode it, for example with base64") from None
    if "\0" in text:
        raise ContainustError("E020", f"{path} holds a zero byte", "encode it, for example with base64")
    return text.removesuffix("\n").removesuffix("\r")
