"""Mount targets are found and made inside the root, whatever links an image holds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from containust.core.calls import at_once
from containust.core.filesystem import rootfs


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A directory that plays an image's root, with a neighbour that no link may lead to."""
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield fd, inside
    os.close(fd)
    assert not list((tmp_path / "outside").iterdir()), "something was made outside of the root"


def test_missing_targets_are_made(root: tuple[int, Path]) -> None:
    fd, path = root
    at_once(rootfs.create_target, fd, "/a/b/c", True)
    at_once(rootfs.create_target, fd, "/a/file", False)
    assert (path / "a/b/c").is_dir() and (path / "a/file").is_file()
    at_once(rootfs.create_target, fd, "/a/b/c", True)
    at_once(rootfs.create_target, fd, "/a/file", False)


@pytest.mark.parametrize("link", ["../outside", "/../outside", "../../../../../../../../tmp"])
@pytest.mark.parametrize("directory", [True, False])
def test_a_link_never_leads_out(root: tuple[int, Path], link: str, directory: bool) -> None:
    fd, path = root
    (path / "link").symlink_to(link)
    for target in ("/link/made", "/link"):
        try:
            at_once(rootfs.create_target, fd, target, directory)
        except OSError:
            continue
    assert not Path("/tmp/made").exists()


def test_an_absolute_link_means_the_roots_own(root: tuple[int, Path], tmp_path: Path) -> None:
    fd, path = root
    (path / "link").symlink_to(str(tmp_path / "outside"))
    with pytest.raises(OSError):
        rootfs.resolve(fd, "/link")
    (path / "again").symlink_to("/etc")
    found = rootfs.resolve(fd, "/again")
    assert os.fstat(found).st_ino == (path / "etc").stat().st_ino
    os.close(found)


def test_dots_stay_inside(root: tuple[int, Path]) -> None:
    fd, path = root
    found = rootfs.resolve(fd, "/../../etc")
    assert os.fstat(found).st_ino == (path / "etc").stat().st_ino
    os.close(found)


def test_links_of_proc_are_not_followed(root: tuple[int, Path]) -> None:
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(OSError):
        rootfs.resolve(proc, "/self/root/etc")
    os.close(proc)


def test_no_descriptor_outlives_exec(root: tuple[int, Path]) -> None:
    fd, path = root
    (path / "loop").symlink_to("loop")
    before = set(os.listdir("/proc/self/fd"))
    for target in ("/a/b", "/loop/x", "/etc/../etc/y"):
        try:
            at_once(rootfs.create_target, fd, target, True)
        except OSError:
            pass
    new = [int(name) for name in set(os.listdir("/proc/self/fd")) - before if os.path.exists(f"/proc/self/fd/{name}")]
    assert not any(os.get_inheritable(number) for number in new)
    for number in new:
        os.close(number)
