"""A store of its own for every test, and what a mounted image holds, as data to compare."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from containust.image import mounting
from containust.image.store import Image, ImageStore

Listing = dict[str, tuple[object, ...]]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(str(tmp_path / "images"))


@pytest.fixture(params=mounting.RUNGS)
def rung(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CONTAINUST_IMAGE_MOUNT", request.param)
    return str(request.param)


@pytest.fixture
def opened(store: ImageStore) -> Iterator[Callable[[Image], str]]:
    """A function from an image to a path under which its tree can be read until the test ends."""
    fds = []

    def open_image(image: Image) -> str:
        fds.append(mounting.open_root(store, image))
        return f"/proc/self/fd/{fds[-1]}"

    yield open_image
    for fd in fds:
        os.close(fd)


def listing(root: str, *, times: bool = True) -> Listing:
    """Everything below ``root``: path to type, mode, owner, time, content or target, attributes, hard-link
    group.
    """
    found: Listing = {}
    groups: dict[int, str] = {}
    for directory, names, files in os.walk(root):
        for name in sorted([*names, *files]):
            path = os.path.join(directory, name)
            s = os.lstat(path)
            content: object = None
            attributes: object = None
            if stat.S_ISREG(s.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            elif stat.S_ISLNK(s.st_mode):
                content = os.readlink(path)
            if not stat.S_ISLNK(s.st_mode):
                attributes = sorted(
                    (x, os.getxattr(path, x)) for x in os.listxattr(path) if not x.startswith("security.selinux")
                )
            key = os.path.relpath(path, root)
            group = groups.setdefault(s.st_ino, key) if not stat.S_ISDIR(s.st_mode) else key
            moment = s.st_mtime_ns if times else 0
            found[key] = (s.st_mode, s.st_uid, s.st_gid, moment, content, attributes, group)
    return found
