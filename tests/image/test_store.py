"""The store keeps whole images only, knows them again cheaply, and shares what they have in common."""

from __future__ import annotations

import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import docker_archive, import_bytes, member, tar

from conftest import listing
from containust.common.errors import ContainustError
from containust.image import catalog, mounting
from containust.image.hashing import CHUNK, PIECE, Follower, digests
from containust.image.sources.tar import MEMBERS
from containust.image.store import Image, ImageStore
from containust.image.verify import verify_root

FULL = bool(os.environ.get("CONTAINUST_FULL"))
HEAVY = (
    "re enum typing dataclasses pathlib subprocess logging socket json argparse asyncio threading hashlib "
    "tempfile shutil signal contextlib collections functools inspect urllib uuid secrets ctypes"
)


def files(store: ImageStore) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in Path(store.directory).rglob("*") if path.is_file()}


def test_finding_and_mounting_import_nothing_heavy(store: ImageStore) -> None:
    store.ensure("host:///bin/sh")
    program = f"""
import sys
from containust.image.store import ImageStore
from containust.image.mounting import open_root
store = ImageStore({store.directory!r})
image = store.find("host:///bin/sh")
assert image is not None
open_root(store, image)
print(" ".join(set({HEAVY!r}.split()) & set(sys.modules)))
"""
    path = str(Path(__file__).resolve().parents[2] / "src")
    out = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {path!r})\n{program}"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert out.stdout.split() == []


def test_find_writes_nothing_and_sees_every_change_of_a_tree(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/f").write_text("one")
    (root / "a/g").write_text("g")
    uri = f"file://{root}"
    assert store.find(uri) is None
    assert not os.path.exists(store.directory)
    first = store.ensure(uri)
    before = files(store)
    assert store.find(uri) == first
    assert files(store) == before
    changes: list[Callable[[], object]] = [
        lambda: (root / "a/b/f").write_text("two"),
        lambda: os.chmod(root / "a/g", 0o600),
        (root / "a/new").touch,
        lambda: os.unlink(root / "a/new"),
        lambda: os.rename(root / "a/g", root / "a/h"),
        lambda: os.symlink("x", root / "link"),
        lambda: os.utime(root / "a/b/f", ns=(1, 1)),
        lambda: os.setxattr(root / "a/b/f", "user.x", b"1"),
    ]
    seen = {first.id}
    for number, change in enumerate(changes):
        change()
        assert store.find(uri) is None, number
        image = store.ensure(uri)
        assert store.find(uri) == image
        seen.add(image.id)
    assert len(seen) >= len(changes)


def test_a_change_right_after_an_import_is_seen(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(20):
        (root / "f").write_text(f"{number:05}")
        first = store.ensure(f"file://{root}")
        with open(root / "f", "r+") as file:  # the same size and inode, at once
            file.write(f"{number:04}x")
        assert store.find(f"file://{root}") is None
        assert store.ensure(f"file://{root}").id != first.id


def test_the_same_content_is_stored_once(store: ImageStore, tmp_path: Path) -> None:
    data = tar(member("bin/sh", b"x" * 5000, mode=0o755))
    first = import_bytes(store, data, "one.tar")
    before = {path: stamp for path, stamp in files(store).items() if "/catalog/" not in path}
    second = import_bytes(store, data, "two.tar")
    assert first.id == second.id
    assert {path: stamp for path, stamp in files(store).items() if "/catalog/" not in path} == before
    shared = import_bytes(store, docker_archive([data, tar(member("more"))]), "three.tar")
    assert shared.devices[0] == first.devices[0]


@pytest.mark.parametrize("form", ["plain", "gzip", "docker", "docker-gzip"])
def test_a_second_import_of_the_same_content_writes_nothing(store: ImageStore, tmp_path: Path, form: str) -> None:
    data = tar(member("f", os.urandom(4 << 20)))
    if "docker" in form:
        data = docker_archive([data])
    if "gzip" in form:
        data = gzip.compress(data, 1)
    (tmp_path / "other-name.tar").write_bytes(data)
    first = import_bytes(store, data)
    before = written()
    second = store.ensure(f"tar://{tmp_path}/other-name.tar")
    assert written() - before < 64 << 10  # a catalog entry
    before = written()
    assert store.ensure(f"tar://{tmp_path}/other-name.tar").id == second.id == first.id
    assert written() == before


def written() -> int:
    """Bytes that this process has written so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def test_a_pin_must_hold(store: ImageStore, tmp_path: Path) -> None:
    data = tar(member("f"))
    (tmp_path / "a.tar").write_bytes(data)
    import hashlib

    digest = hashlib.sha256(data).hexdigest()
    assert store.ensure(f"tar://{tmp_path}/a.tar@sha256:{digest}").id
    wrong = "0" * 64
    with pytest.raises(ContainustError) as error:
        store.ensure(f"tar://{tmp_path}/a.tar@sha256:{wrong}")
    assert error.value.code == "I002"
    assert digest in error.value.message


def test_a_copied_store_is_verified_once_and_used(store: ImageStore, tmp_path: Path) -> None:
    image = import_bytes(store, tar(member("f", b"1")))
    catalog_image = ImageStore(str(tmp_path / "copy"))
    shutil.copytree(store.directory, catalog_image.directory)
    uri = f"tar://{tmp_path}/archive.tar"
    assert catalog_image.find(uri) is None
    assert catalog_image.ensure(uri) == image
    assert catalog_image.find(uri) == image


def test_damage_in_the_store_is_noticed_and_mended(store: ImageStore, tmp_path: Path) -> None:
    image = import_bytes(store, tar(member("f", b"precious")))
    path = f"{store.directory}/{image.devices[0]}"
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(512)
        file.write(b"tampered")
    assert verify_root(store, image.layer) != []
    assert any(row["errors"] for row in catalog.verify(store))
    uri = f"tar://{tmp_path}/archive.tar"
    assert store.find(uri) is None
    assert store.ensure(uri) == image
    assert verify_root(store, image.layer) == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"schema": 99}', '{"schema": 1, "key": []}', "\0" * 100, "[" * 100_000]
)
def test_a_damaged_catalog_entry_means_a_new_import(store: ImageStore, tmp_path: Path, content: str) -> None:
    image = import_bytes(store, tar(member("f")))
    (entry,) = Path(store.directory, "catalog").iterdir()
    entry.chmod(0o600)
    entry.write_text(content)
    uri = f"tar://{tmp_path}/archive.tar"
    assert store.find(uri) is None
    assert catalog.listing(store) == []
    assert store.ensure(uri) == image


@pytest.mark.parametrize(
    "uri",
    [
        "file:///no/such",
        "tar:///no/such.tar",
        "host:///no/such",
        "image://nothing",
        "tar:///etc",
        "file:///etc/passwd",
    ],
)
def test_what_is_not_there_is_not_found(store: ImageStore, uri: str) -> None:
    with pytest.raises(ContainustError) as error:
        store.ensure(uri)
    assert error.value.code == "I001"
    assert error.value.status == 4
    assert error.value.help


def test_remote_images_are_refused_offline(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path / "images"), offline=True)
    for uri in ("oci://docker.io/library/alpine:3.21", "https://example.org/a.tar@sha256:" + "0" * 64):
        with pytest.raises(ContainustError) as error:
            store.ensure(uri)
        assert error.value.code == "I005"


def test_a_live_directory_is_used_as_it_is(store: ImageStore, tmp_path: Path, opened: Callable[[Image], str]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").write_text("1")
    image = store.ensure(f"file://{root}", live=True)
    assert store.find(f"file://{root}", live=True) == image
    path = opened(image)
    (root / "f").write_text("2")
    assert Path(f"{path}/f").read_text() == "2"
    with pytest.raises(OSError):
        Path(f"{path}/f").write_text("3")
    assert not os.path.exists(store.directory)


def test_two_imports_at_once_both_succeed(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for number in range(200):
        (root / f"f{number}").write_bytes(os.urandom(1000))
    program = f"from containust.image.store import ImageStore; print(ImageStore({store.directory!r}).ensure('file://{root}').id)"
    runs = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    ids = {run.communicate()[0] for run in runs}
    assert all(run.returncode == 0 for run in runs)
    assert len(ids) == 1
    assert len(os.listdir(f"{store.directory}/layers")) == 1
    assert os.listdir(f"{store.directory}/staging") == []


@pytest.mark.parametrize("form", ["docker", "plain"])
def test_an_import_killed_at_any_point_leaves_nothing_half(store: ImageStore, tmp_path: Path, form: str) -> None:
    if form == "docker":
        data = docker_archive([tar(*[member(f"{n}-{i}", os.urandom(20_000)) for i in range(40)]) for n in range(4)])
    else:  # large enough that its copy is on its way to the disk, and being hashed, while it is made and indexed
        data = tar(*[member(f"d/{i}", os.urandom(70_000)) for i in range(600)])
    (tmp_path / "a.tar").write_bytes(data)
    uri = f"tar://{tmp_path}/a.tar"
    store.ensure("host:///bin/sh")  # modules compiled, directories made
    generator = random.Random(5)
    longest = 0.0
    for _ in range(500 if FULL else 25):
        shutil.rmtree(f"{store.directory}/catalog", ignore_errors=True)
        shutil.rmtree(f"{store.directory}/layers", ignore_errors=True)
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                store.ensure(uri)
            finally:
                os._exit(0)
        time.sleep(generator.uniform(0, max(longest, 0.05)))
        os.kill(pid, 9)
        _, status = os.waitpid(pid, 0)
        if status == 0:
            longest = max(longest, time.monotonic() - start)
        for name in os.listdir(f"{store.directory}/layers") if os.path.isdir(f"{store.directory}/layers") else ():
            subprocess.run(
                ["sha256sum", "--check", "--quiet"],
                input=f"{name}  {store.directory}/layers/{name}/layer.tar\n",
                text=True,
                check=True,
            )
            assert sorted(os.listdir(f"{store.directory}/layers/{name}")) == ["chunks.bin", "layer.tar"]
        found = store.find(uri)
        assert found is None or verify_root(store, found.layer) == []
    # The last one may have been killed with the image in the catalog already: the next import is what sweeps.
    shutil.rmtree(f"{store.directory}/catalog", ignore_errors=True)
    image = store.ensure(uri)
    assert verify_root(store, image.layer) == []
    assert os.listdir(f"{store.directory}/staging") == []


def test_prune_removes_what_nothing_refers_to_and_nothing_else(store: ImageStore, tmp_path: Path) -> None:
    first = import_bytes(store, tar(member("one")), "one.tar")
    second = import_bytes(store, tar(member("two")), "two.tar")
    with pytest.raises(ContainustError) as error:
        catalog.remove(store, [first.id], in_use={first.id})
    assert error.value.code == "I007"
    assert catalog.remove(store, [first.id[7:15]]) == [f"tar://{tmp_path}/one.tar"]
    assert [row["id"] for row in catalog.listing(store)] == [second.id]
    assert os.listdir(f"{store.directory}/layers") == [second.devices[0].split("/")[1]]
    os.unlink(tmp_path / "two.tar")
    catalog.prune(store, {second.id}, stale=True)
    assert verify_root(store, second.layer) == []
    freed = catalog.prune(store, stale=True)
    assert freed["layers"] == 1
    assert os.listdir(f"{store.directory}/roots") == []


def test_prune_waits_for_an_import(store: ImageStore) -> None:
    import_bytes(store, tar(member("one")))
    lock = os.open(f"{store.directory}/staging", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    program = f"from containust.image import catalog, store; catalog.prune(store.ImageStore({store.directory!r}))"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        os.close(lock)
        assert process.wait(20) == 0


@pytest.mark.parametrize("limit", ["size=2m", "size=2m,nr_inodes=12", "size=8m,nr_inodes=16"])
def test_a_full_disk_is_a_clean_error(tmp_path: Path, limit: str) -> None:
    from containust.core import syscalls

    data = tar(member("big", os.urandom(3 << 20)))
    (tmp_path / "a.tar").write_bytes(data)
    directory = tmp_path / "small"
    directory.mkdir()
    pid = os.fork()
    if pid == 0:  # a mount namespace of its own, so that the host sees nothing of the small disk
        status = 1
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            syscalls.mount("tmpfs", str(directory), "tmpfs", 0, limit)
            store = ImageStore(str(directory / "images"))
            try:
                store.ensure(f"tar://{tmp_path}/a.tar")
            except ContainustError as error:
                left = [os.listdir(f"{store.directory}/{part}") for part in ("staging", "catalog")]
                # A layer and its root may have got their names before the catalog found no room: whole, or not there.
                whole = all(verify_root(store, root) == [] for root in os.listdir(f"{store.directory}/roots"))
                told = error.code == "I003" and "no space" in error.message
                status = 0 if told and whole and not any(left) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("form", ["plain", "gzip", "docker", "file"])
def test_an_error_of_the_disk_is_told_however_early_it_comes(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    members = [member(f"d/{i}", os.urandom(70_000)) for i in range(600)]
    data = docker_archive([tar(*members)]) if form == "docker" else tar(*members)
    (tmp_path / "a.tar").write_bytes(gzip.compress(data, 1) if form == "gzip" else data)
    uri = f"tar://{tmp_path}/a.tar"
    if form == "file":
        (tmp_path / "root").mkdir()
        subprocess.run(["tar", "-C", tmp_path / "root", "-xf", tmp_path / "a.tar"], check=True)
        uri = f"file://{tmp_path}/root"
    real = os.fdatasync
    calls = []

    def failing_once(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 1:  # the kernel tells an error once: the syncs after it find everything clean
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", failing_once)
    with pytest.raises(ContainustError) as error:
        store.ensure(uri)
    assert error.value.code == "I003" and "Input/output error" in str(error.value)
    assert calls
    assert [
        os.listdir(f"{store.directory}/{part}") for part in ("layers", "roots", "records", "catalog", "staging")
    ] == [[] for _ in range(5)]
    monkeypatch.undo()
    assert verify_root(store, store.ensure(uri).layer) == []


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + CHUNK, 70 << 20])
@pytest.mark.parametrize("told", [True, False])
def test_a_file_that_is_being_written_is_hashed_as_one_that_is_there(tmp_path: Path, size: int, told: bool) -> None:
    data = os.urandom(size)
    generator = random.Random(size)
    path = tmp_path / "f"
    with Follower(str(path)) as follower, open(path, "xb", buffering=0) as file:
        at = 0
        while at < size:
            piece = data[at : at + generator.randrange(1, 2 * PIECE)]
            at += file.write(piece)
            follower.grown(at)
            if generator.random() < 0.5:
                time.sleep(0.001)  # it may catch up
        if told:
            follower.finished()
            found = follower.result()
    if not told:
        found = follower.result()
    chunks = b"".join(hashlib.sha256(data[at : at + CHUNK]).digest() for at in range(0, size, CHUNK))
    assert found == (hashlib.sha256(data).hexdigest(), chunks)
    assert digests(str(path)) == found
    if follower.writing is not None:
        follower.writing.wait()


def test_an_archive_of_images_is_not_written_to_the_disk_twice(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, inodes = [], []
    real = os.fdatasync

    def noting(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        inodes.append(os.fstat(fd).st_ino)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", noting)
    layer = tar(*[member(f"d/{i}", os.urandom(70_000)) for i in range(600)])
    import_bytes(store, gzip.compress(docker_archive([layer]), 1))
    assert synced and not [path for path in synced if "archive.tar" in path]
    del inodes[:]
    stored = set(Path(store.directory).glob("layers/*/layer.tar"))
    import_bytes(store, gzip.compress(tar(member("other", b"x"), *[member(f"e/{i}", b"") for i in range(9)]), 1))
    # By its inode: the archive is the layer's file, and has that name by the time at which a late thread looks.
    (fresh,) = set(Path(store.directory).glob("layers/*/layer.tar")) - stored
    assert fresh.stat().st_ino in inodes


def test_an_archive_of_images_may_have_more_members_than_any(store: ImageStore, tmp_path: Path) -> None:
    layer = tar(member("bin/sh", b"x" * 5000, mode=0o755))
    junk = [(f"junk/{i}", b"") for i in range(MEMBERS + 100)]
    plain = docker_archive([layer])
    names = tarfile.open(fileobj=io.BytesIO(plain))
    parts = [(name, file.read()) for name in names.getnames() if (file := names.extractfile(name))]
    (tmp_path / "a.tar").write_bytes(tar(*[member(name, content) for name, content in [*junk, *parts]]))
    image = store.ensure(f"tar://{tmp_path}/a.tar")
    assert image.devices == [f"layers/{hashlib.sha256(layer).hexdigest()}/layer.tar"]
    assert os.listdir(f"{store.directory}/staging") == []


def test_roots_can_be_cloned_for_several_containers(store: ImageStore, opened: Callable[[Image], str]) -> None:
    image = import_bytes(store, tar(member("f", b"1")))
    first = mounting.open_root(store, image)
    second = mounting.clone_root(first)
    assert listing(f"/proc/self/fd/{first}") == listing(f"/proc/self/fd/{second}")
    os.close(first)
    assert Path(f"/proc/self/fd/{second}/f").read_bytes() == b"1"
    os.close(second)


def test_no_loop_device_and_no_mount_is_left(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    image = import_bytes(store, tar(member("f", b"1")))
    monkeypatch.setenv("CONTAINUST_IMAGE_MOUNT", "erofs-loop")
    mounts = Path("/proc/self/mountinfo").read_text()
    for _ in range(5):
        os.close(mounting.open_root(store, image))
    assert Path("/proc/self/mountinfo").read_text() == mounts
    for _ in range(100):
        out = subprocess.run(["losetup", "--json", "--list"], capture_output=True, text=True, check=True).stdout
        backing = [device["back-file"] or "" for device in json.loads(out or '{"loopdevices": []}')["loopdevices"]]
        if not any(store.directory in path for path in backing):
            return
        time.sleep(0.05)
    raise AssertionError(backing)
