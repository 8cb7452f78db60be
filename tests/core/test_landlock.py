"""Landlock in real processes that have every capability otherwise."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from containust.core import landlock, syscalls
from containust.core.calls import at_once

VERSION = landlock.abi()
pytestmark = pytest.mark.skipif(VERSION < 2, reason="the kernel has no Landlock of version 2")


def walled(action: Callable[[], object], scoped: int = 0) -> str:
    """What ``action`` did in a child inside a domain: ``"ok"`` or the error's name."""
    reader, writer = os.pipe()
    ruleset = landlock.prepare(VERSION, scoped)
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            at_once(landlock.apply, ruleset)
            action()
            os.write(writer, b"ok")
        except OSError as error:
            os.write(writer, errno.errorcode[error.errno or 0].encode())
        finally:
            os._exit(0)
    os.close(writer)
    assert ruleset is not None
    os.close(ruleset.fd)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
@pytest.mark.guest
def test_no_device_nodes(tmp_path: Path, kind: int) -> None:
    assert walled(lambda: os.mknod(tmp_path / "d", kind | 0o600, os.makedev(1, 3))) == "EACCES"


@pytest.mark.guest
def test_fifos_files_and_renames_between_directories_work(tmp_path: Path) -> None:
    def work() -> None:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        (tmp_path / "a/file").write_text("x")
        os.rename(tmp_path / "a/file", tmp_path / "b/file")
        os.link(tmp_path / "b/file", tmp_path / "a/link")

    assert walled(work) == "ok"


@pytest.mark.guest
def test_no_mount_changes(tmp_path: Path) -> None:
    assert walled(lambda: syscalls.mount("tmpfs", str(tmp_path), "tmpfs", 0)) == "EPERM"
    assert walled(lambda: syscalls.umount2("/proc", syscalls.MNT_DETACH)) == "EPERM"


@pytest.mark.skipif(VERSION < 6, reason="scopes came with version 6")
def test_abstract_sockets_outside_are_out_of_reach() -> None:
    name = f"\0containust-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()

        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(name)

        assert walled(connect) == "ok"
        assert walled(connect, landlock.SCOPE_ABSTRACT_UNIX_SOCKET) == "EPERM"


def test_an_old_kernel_gets_no_ruleset() -> None:
    assert landlock.prepare(0) is None and landlock.prepare(1) is None
    at_once(landlock.apply, None)
