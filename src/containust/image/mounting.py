"""From a stored image to a detached mount of its whole tree, by the best means that this kernel has.

The ladder: EROFS metadata over the layer files themselves (Linux 6.12), the same over loop devices (6.4), a
clone of
an extracted tree. A rung is tried by really mounting; the one that worked is remembered for the process.
``CONTAINUST_IMAGE_MOUNT`` forces one.
"""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError, UsageError
from containust.core import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.image.store import Image, ImageStore

RUNGS = ("erofs-file", "erofs-loop", "extract")
_OPTION_MAX = 255  # fsconfig(2) takes strings of up to 255 bytes

_working = ""


def open_root(store: ImageStore, image: Image) -> int:
    """A descriptor of a detached read-only mount of the image's tree.

    The caller owns it, may give it an id mapping and other attributes with mount_setattr(2), move it into
    place or use
    it as an overlay's lower directory. Raises ContainustError R003 when no rung works.
    """
    global _working
    if image.directory:
        return _clone_directory(image.directory)
    forced = os.environ.get("CONTAINUST_IMAGE_MOUNT")
    if forced:
        if forced not in RUNGS:
            raise UsageError(f"CONTAINUST_IMAGE_MOUNT is {forced!r}", f"use one of {', '.join(RUNGS)}, or unset it")
        try:
            return _OPENERS[forced](store, image)
        except OSError as error:
            raise _failed(image, [f"{forced}: {error}"]) from error
    reasons = []
    for rung in (_working, *RUNGS) if _working else RUNGS:
        try:
            fd = _OPENERS[rung](store, image)
        except OSError as error:
            import errno

            if error.errno in (errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise _failed(image, [f"{rung}: {error}"]) from error
            reasons.append(f"{rung}: {error}")
            continue
        _working = rung
        return fd
    raise _failed(image, reasons)


def clone_root(root_fd: int) -> int:
    """Another detached mount of the same file system as ``root_fd``, to be mapped and moved on its own.

    Sharing one file system between the containers of an image shares its page cache too. Needs Linux 6.15
    while
    ``root_fd`` is detached; raises OSError EINVAL before, and :func:`open_root` is then the way.
    """
    return syscalls.open_tree(root_fd, "", syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH)


def rung_in_use() -> str:
    """The rung that worked last in this process, or empty."""
    return _working


def _open_erofs_file(store: ImageStore, image: Image) -> int:
    fds: list[int] = []
    try:
        root = f"{store.directory}/roots/{image.layer}/meta.erofs"
        return _mount_erofs(_short(root, fds), [_short(f"{store.directory}/{device}", fds) for device in image.devices])
    finally:
        for fd in fds:
            os.close(fd)


def _open_erofs_loop(store: ImageStore, image: Image) -> int:
    from containust.image.loop import attach

    fds: list[int] = []
    try:
        paths = []
        for path in (f"roots/{image.layer}/meta.erofs", *image.devices):
            name, fd = attach(f"{store.directory}/{path}")
            fds.append(fd)
            paths.append(name)
        return _mount_erofs(paths[0], paths[1:])
    finally:
        # The mount holds the devices now; each detaches itself with its last user.
        for fd in fds:
            os.close(fd)


def _open_extracted(store: ImageStore, image: Image) -> int:
    path = f"{store.directory}/roots/{image.layer}/tree"
    if not os.path.isdir(path):
        from containust.image.extract import extract_root

        extract_root(store, image)
    return _clone_directory(path)


def _clone_directory(path: str) -> int:
    try:
        fd = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE)
    except OSError as error:
        raise ContainustError(
            "R003",
            f"cannot use the directory {path} as a root: {error.strerror}",
            "does it exist, and may you read it?",
        ) from error
    # Private: what a container mounts below its root would else be mounted on the host's shared mount, too.
    syscalls.mount_setattr(fd, "", 0, set=syscalls.MOUNT_ATTR_RDONLY, propagation=syscalls.MS_PRIVATE)
    return fd


_OPENERS = {"erofs-file": _open_erofs_file, "erofs-loop": _open_erofs_loop, "extract": _open_extracted}


def _mount_erofs(source: str, devices: list[str]) -> int:
    fs_fd = syscalls.fsopen("erofs")
    try:
        fsconfig = syscalls.fsconfig
        fsconfig(fs_fd, syscalls.FSCONFIG_SET_STRING, "source", source)
        for device in devices:
            fsconfig(fs_fd, syscalls.FSCONFIG_SET_STRING, "device", device)
        fsconfig(fs_fd, syscalls.FSCONFIG_SET_FLAG, "ro")
        fsconfig(fs_fd, syscalls.FSCONFIG_CMD_CREATE, None)
        return syscalls.fsmount(fs_fd, syscalls.MOUNT_ATTR_RDONLY)
    finally:
        os.close(fs_fd)


def _short(path: str, fds: list[int]) -> str:
    """``path``, or a name in /proc of a descriptor of it where it is too long for fsconfig(2)."""
    if len(os.fsencode(path)) <= _OPTION_MAX:
        return path
    fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    return f"/proc/self/fd/{fds[-1]}"


def _failed(image: Image, reasons: list[str]) -> ContainustError:
    return ContainustError(
        "R003",
        f"the image {image.reference} cannot be mounted: {'; '.join(reasons)}",
        "`ctst doctor` names what this host can mount",
    )
