"""Archives become the tree that they describe, on every rung of the ladder."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import (
    DIRECTORY,
    FIFO,
    HARDLINK,
    SYMLINK,
    docker_archive,
    import_bytes,
    member,
    oci_layout,
    raw,
    sha,
    tar,
    tar_of,
)

from conftest import listing
from containust.common.errors import ContainustError
from containust.image.store import Image, ImageStore
from containust.image.tar_index import byte_sum
from containust.image.tree import STANDARD_DIRECTORIES, STANDARD_FILES

STANDARD = {*STANDARD_DIRECTORIES, *STANDARD_FILES}


def without_standard(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {key: value for key, value in found.items() if key not in STANDARD}


def make_tree(root: Path, count: int = 60) -> None:
    """A directory with every kind of thing that an image holds."""
    generator = random.Random(7)
    (root / "etc").mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "usr/bin/su").write_bytes(b"#!" * 5000)
    os.chown(root / "usr/bin/su", 0, 42)
    os.chmod(root / "usr/bin/su", 0o4755)
    os.link(root / "usr/bin/su", root / "usr/bin/su-hard")
    os.symlink("/usr/bin/su", root / "usr/bin/absolute")
    os.symlink("../" * 30 + "x" * 600, root / "long-link")
    os.symlink("bin", root / "usr/sbin")
    os.mkfifo(root / "etc/fifo", 0o600)
    os.chown(root / "etc/fifo", 7, 8)
    os.setxattr(root / "usr/bin/su", "user.note", b"\0binary\xff" * 30)
    os.setxattr(root / "usr/bin", "user.long", b"v" * 900)
    (root / ("n" * 255)).write_bytes(b"long name")
    (root / "empty").touch()
    (root / os.fsdecode(b"\xff\xfe odd \n name")).write_bytes(b"1")
    deep = root / "deep"
    for number in range(40):
        deep = deep / f"directory-{number:03}"
    deep.mkdir(parents=True)
    (deep / "leaf").write_bytes(b"leaf")
    for number in range(count):
        directory = root / f"data/{number % 7}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file-{number:05}").write_bytes(
            generator.randbytes(generator.choice([0, 1, 511, 512, 513, 9000]))
        )
    os.utime(root / "empty", ns=(0, -1_500_000_000))
    os.chmod(root / "data", 0o1777)


def test_a_directory_comes_out_as_it_was(
    store: ImageStore, rung: str, opened: Callable[[Image], str], tmp_path: Path
) -> None:
    make_tree(tmp_path / "root")
    image = store.ensure(f"file://{tmp_path}/root")
    assert without_standard(listing(opened(image))) == without_standard(listing(str(tmp_path / "root")))
    assert image.standard_targets


def test_an_archive_of_gnu_tar_comes_out_as_it_extracts(
    store: ImageStore, rung: str, opened: Callable[[Image], str], tmp_path: Path
) -> None:
    make_tree(tmp_path / "root")
    for form in ("gnu", "pax"):
        archive = tmp_path / f"{form}.tar"
        options = ["--format", form, *(["--xattrs", "--xattrs-include=*"] if form == "pax" else [])]
        subprocess.run(["tar", *options, "-C", tmp_path / "root", "-cf", archive, "."], check=True)
        again = tmp_path / f"again-{form}"
        again.mkdir()
        subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "-C", again, "-xpf", archive], check=True)
        image = store.ensure(f"tar://{archive}")
        assert without_standard(listing(opened(image))) == without_standard(listing(str(again)))


@pytest.mark.parametrize("form", ["gnu", "posix0.0", "posix0.1", "posix1.0"])
def test_sparse_files_keep_their_content_and_their_holes(
    store: ImageStore, rung: str, opened: Callable[[Image], str], tmp_path: Path, form: str
) -> None:
    (tmp_path / "root").mkdir()
    with open(tmp_path / "root/sparse", "wb") as file:
        for number in range(40):
            file.seek(number * 100_000 + 4096)
            file.write(b"%04d" % number * 2000)
        file.truncate(8 << 20)
    options = ["--format=gnu"] if form == "gnu" else ["--format=pax", f"--sparse-version={form[5:]}"]
    archive = tmp_path / "sparse.tar"
    subprocess.run(["tar", "-S", *options, "-C", tmp_path / "root", "-cf", archive, "."], check=True)
    assert archive.stat().st_size < 2 << 20
    image = store.ensure(f"tar://{archive}")
    with open(f"{opened(image)}/sparse", "rb") as found, open(tmp_path / "root/sparse", "rb") as expected:
        assert found.read() == expected.read()


def test_every_compression_gives_the_same_image(store: ImageStore, tmp_path: Path) -> None:
    plain = tar(member("bin/", kind=DIRECTORY, mode=0o755), member("bin/sh", os.urandom(300_000), mode=0o755))
    from backports import zstd

    forms = {
        "plain": plain,
        "gzip": gzip.compress(plain),
        "gzip, two members": gzip.compress(plain[:70_001]) + gzip.compress(plain[70_001:]),
        "gzip, padded": gzip.compress(plain) + bytes(1000),
        "bzip2": bz2.compress(plain),
        "xz": lzma.compress(plain),
        "zstd": zstd.compress(plain),
        "zstd, two frames": zstd.compress(plain[:4096]) + zstd.compress(plain[4096:]),
        "zstd, skippable frame": b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd.compress(plain),
    }
    ids = {name: import_bytes(store, data, f"{number}.tar").id for number, (name, data) in enumerate(forms.items())}
    assert len(set(ids.values())) == 1, ids
    assert len(os.listdir(f"{store.directory}/layers")) == 1


def test_layers_merge_with_whiteouts_and_opaque_directories(
    store: ImageStore, rung: str, opened: Callable[[Image], str]
) -> None:
    base = tar(
        member("etc/", kind=DIRECTORY),
        member("etc/keep", b"keep"),
        member("etc/gone", b"gone"),
        member("opaque/", kind=DIRECTORY),
        member("opaque/old", b"old"),
        member("replaced/", kind=DIRECTORY),
        member("replaced/inside", b"1"),
        member("lib", kind=SYMLINK, target="usr/lib"),
        member("usr/lib/", kind=DIRECTORY),
        member("usr/lib/base.so", b"base"),
        member("flip", b"a file"),
    )
    upper = tar(
        member("etc/new", b"new"),
        member("etc/.wh.gone"),
        member("opaque/fresh", b"fresh"),  # before the opaque marker of its own layer, which must not touch it
        member("opaque/.wh..wh..opq"),
        member("replaced", b"now a file"),
        member("lib/added.so", b"added"),  # through the lower layer's link
        member("flip/", kind=DIRECTORY),
        member("flip/in", b"x"),
        member(".wh..wh.plnk/", kind=DIRECTORY),
    )
    image = import_bytes(store, docker_archive([base, upper]))
    root = opened(image)
    assert sorted(p for p in listing(root) if p not in STANDARD) == sorted(
        [
            "etc/keep",
            "etc/new",
            "flip",
            "flip/in",
            "lib",
            "opaque",
            "opaque/fresh",
            "replaced",
            "usr",
            "usr/lib",
            "usr/lib/added.so",
            "usr/lib/base.so",
        ]
    )
    assert Path(f"{root}/replaced").read_bytes() == b"now a file"
    assert os.readlink(f"{root}/lib") == "usr/lib"
    assert Path(f"{root}/usr/lib/added.so").read_bytes() == b"added"


def test_a_whiteout_leaves_its_own_layer_alone(store: ImageStore, opened: Callable[[Image], str]) -> None:
    base = tar(member("a/", kind=DIRECTORY), member("a/old", b"old"), member("f", b"old"))
    upper = tar(
        member("a/", kind=DIRECTORY),
        member("a/new", b"new"),
        member(".wh.a"),
        member("f", b"new"),
        member(".wh.f"),
    )
    root = opened(import_bytes(store, docker_archive([base, upper])))
    assert os.listdir(f"{root}/a") == ["new"]
    assert Path(f"{root}/f").read_bytes() == b"new"


def test_overlay_whiteouts_count_as_whiteouts(store: ImageStore, opened: Callable[[Image], str]) -> None:
    base = tar(member("f", b"old"), member("g", b"old"))
    upper = tar(raw(name=b"f", type=b"3"))
    root = opened(import_bytes(store, docker_archive([base, upper])))
    assert not os.path.exists(f"{root}/f")
    assert os.path.exists(f"{root}/g")


def test_an_image_of_130_layers_mounts(store: ImageStore, rung: str, opened: Callable[[Image], str]) -> None:
    layers = [tar(member(f"file-{number}", b"%d" % number), member("last", b"%d" % number)) for number in range(130)]
    root = opened(import_bytes(store, docker_archive(layers)))
    assert Path(f"{root}/last").read_bytes() == b"129"
    assert all(Path(f"{root}/file-{number}").read_bytes() == b"%d" % number for number in range(130))


def test_the_configuration_of_an_image_is_honoured(store: ImageStore, tmp_path: Path) -> None:
    config: dict[str, object] = {
        "Entrypoint": ["/entry"],
        "Cmd": ["serve", "--fast"],
        "Env": ["A=1", "PATH=/opt/bin"],
        "WorkingDir": "/srv",
        "User": "www:33",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/data": {}},
        "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000, "Retries": 5},
        "Labels": {"a": "b"},
    }
    layer = tar(member("bin/sh", b"x", mode=0o755))
    for number, data in enumerate((docker_archive([layer], config), tar_of(oci_layout([layer], config)))):
        found = import_bytes(store, data, f"{number}.tar").config
        assert (found.entrypoint, found.command, found.env) == (
            ["/entry"],
            ["serve", "--fast"],
            ["A=1", "PATH=/opt/bin"],
        )
        assert (found.workdir, found.user, found.stop_signal, found.volumes) == (
            "/srv",
            "www:33",
            "SIGQUIT",
            ["/data"],
        )
        assert [(port.number, port.protocol) for port in found.exposed_ports] == [(53, "udp"), (80, "tcp")]
        assert found.healthcheck is not None
        assert found.healthcheck.command == ["/bin/sh", "-c", "true"]
        assert (found.healthcheck.interval, found.healthcheck.retries) == (2.0, 5)
        assert found.labels == {"a": "b"}


def test_an_oci_layout_is_read_as_a_directory_and_as_an_archive(store: ImageStore, tmp_path: Path) -> None:
    files = oci_layout([gzipped := gzip.compress(plain := tar(member("f", b"1")), mtime=0)])
    document = json.loads(next(v for v in files.values() if b"diff_ids" in v))
    old = json.dumps(document).encode()
    document["rootfs"]["diff_ids"] = [sha(plain)]
    files = oci_layout([gzipped])
    index = json.loads(files["index.json"])
    manifest = json.loads(files[f"blobs/sha256/{index['manifests'][0]['digest'][7:]}"])
    config = json.dumps(document).encode()
    manifest["config"].update(digest=sha(config), size=len(config))
    text = json.dumps(manifest).encode()
    index["manifests"][0].update(digest=sha(text), size=len(text))
    files = {
        "oci-layout": files["oci-layout"],
        "index.json": json.dumps(index).encode(),
        **{f"blobs/sha256/{sha(data)[7:]}": data for data in (config, text, gzipped)},
    }
    assert old
    for name, data in files.items():
        path = tmp_path / "layout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    first = store.ensure(f"tar://{tmp_path}/layout")
    assert store.find(f"tar://{tmp_path}/layout") == first
    assert import_bytes(store, tar_of(files)).id == first.id


def test_standard_targets_that_are_links_are_left_and_told(store: ImageStore, opened: Callable[[Image], str]) -> None:
    image = import_bytes(
        store,
        tar(member("var/run", kind=SYMLINK, target="/run"), member("tmp", kind=SYMLINK, target="var/tmp")),
    )
    assert not image.standard_targets
    assert os.readlink(f"{opened(image)}/tmp") == "var/tmp"
    plain = import_bytes(store, tar(member("f")), "plain.tar")
    assert plain.standard_targets
    root = opened(plain)
    assert stat.S_IMODE(os.stat(f"{root}/tmp").st_mode) == 0o1777
    assert stat.S_IMODE(os.stat(f"{root}/var/tmp").st_mode) == 0o1777
    assert all(os.path.isfile(f"{root}/{path}") for path in STANDARD_FILES)


def test_hard_links_and_fifos_and_large_ids(store: ImageStore, rung: str, opened: Callable[[Image], str]) -> None:
    image = import_bytes(
        store,
        tar(
            member("a", b"content", uid=4_000_000_000, gid=3_000_000),
            member("b", kind=HARDLINK, target="./a"),
            member("p", kind=FIFO, mode=0o620),
        ),
    )
    root = opened(image)
    first, second = os.stat(f"{root}/a"), os.stat(f"{root}/b")
    assert first.st_ino == second.st_ino
    assert first.st_nlink == 2
    assert (first.st_uid, first.st_gid) == (4_000_000_000, 3_000_000)
    assert stat.S_ISFIFO(os.lstat(f"{root}/p").st_mode)


def test_our_tar_is_read_alike_by_tarfile(tmp_path: Path, store: ImageStore) -> None:
    make_tree(tmp_path / "root")
    image = store.ensure(f"file://{tmp_path}/root")
    with tarfile.open(f"{store.directory}/{image.devices[0]}") as archive:
        names = {entry.name: entry for entry in archive.getmembers()}
    assert names["usr/bin/su"].mode == 0o4755
    assert names["long-link"].linkname == "../" * 30 + "x" * 600
    assert names["etc/fifo"].isfifo()


def test_several_images_in_one_archive_are_told(store: ImageStore, tmp_path: Path) -> None:
    layer = tar(member("f"))
    one = docker_archive([layer], names=("one:1",))
    with tarfile.open(fileobj=__import__("io").BytesIO(one)) as archive:
        manifest = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
    manifest.append({**manifest[0], "RepoTags": ["two:2"]})
    with pytest.raises(ContainustError) as error:
        import_bytes(store, one[:-1024] + tar(member("manifest.json", json.dumps(manifest).encode())))
    assert error.value.code == "I004"
    assert "one:1, two:2" in error.value.message


def test_the_sum_of_a_header_is_the_sum_of_its_bytes() -> None:
    for header in (bytes(512), b"\xff" * 512, b"\xff" * 256 + bytes(256), *(os.urandom(512) for _ in range(100))):
        assert byte_sum(header) == sum(header)
