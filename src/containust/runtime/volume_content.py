"""The first content of a managed volume: what the image has where the volume is mounted, with owners and modes."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.core.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
S_IFMT, S_IFDIR, S_IFREG, S_IFLNK = 0o170000, 0o040000, 0o100000, 0o120000


def create(directory: str, root_fd: int, target: str) -> None:
    """Make the volume ``directory`` from ``target`` inside the image mounted at ``root_fd``, in one step.

    An image without that path gives an empty directory of root's. Raises ContainustError R003.
    """
    from shutil import rmtree

    os.makedirs(os.path.dirname(directory), 0o755, exist_ok=True)
    made = f"{directory}.{os.getpid()}.new"
    try:
        os.mkdir(made, 0o755)
        try:
            source = openat2(root_fd, target, os.O_RDONLY | os.O_DIRECTORY, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except OSError:
            pass
        else:
            try:
                _copy(source, made, {})
            finally:
                os.close(source)
        os.rename(made, directory)
    except OSError as error:
        rmtree(made, ignore_errors=True)
        if not os.path.isdir(directory):  # else another container of the stack was quicker
            raise ContainustError(
                "R003", f"cannot make the volume {directory}: {error.strerror}", "check the disk"
            ) from error


def _copy(source: int, target: str, links: dict[int, str]) -> None:
    """Copy the directory open as ``source`` into the directory ``target``, which nobody else sees yet."""
    for entry in os.scandir(source):
        s = entry.stat(follow_symlinks=False)
        path = f"{target}/{entry.name}"
        kind = s.st_mode & S_IFMT
        if kind == S_IFLNK:
            os.symlink(os.readlink(entry.name, dir_fd=source), path)
            os.chown(path, s.st_uid, s.st_gid, follow_symlinks=False)
        elif kind == S_IFDIR:
            os.mkdir(path, 0o700)
            fd = os.open(entry.name, READ | os.O_DIRECTORY, dir_fd=source)
            try:
                _copy(fd, path, links)
            finally:
                os.close(fd)
        elif kind == S_IFREG and s.st_nlink > 1 and s.st_ino in links:
            os.link(links[s.st_ino], path)
        elif kind == S_IFREG:
            fd = os.open(entry.name, READ, dir_fd=source)
            try:
                _file(fd, path, s)
            finally:
                os.close(fd)
            links[s.st_ino] = path
    _describe(source, target, os.fstat(source))


def _file(fd: int, path: str, s: os.stat_result) -> None:
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        at = 0
        while at < s.st_size and (sent := os.sendfile(out, fd, at, s.st_size - at)):
            at += sent
    finally:
        os.close(out)
    _describe(fd, path, s)


def _describe(fd: int, path: str, s: os.stat_result) -> None:
    os.chown(path, s.st_uid, s.st_gid)
    for name in os.listxattr(fd):
        if name.startswith("user."):
            os.setxattr(path, name, os.getxattr(fd, name))
    os.chmod(path, s.st_mode & 0o7777)
    os.utime(path, ns=(s.st_mtime_ns, s.st_mtime_ns))
