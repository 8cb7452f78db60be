"""save and load, the commands around them, and other people's tools where they are installed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from archives import docker_archive, member, tar

from conftest import listing
from containust.cli.main import main
from containust.image import mounting
from containust.image.store import ImageStore
from containust.image.tree import STANDARD_DIRECTORIES, STANDARD_FILES
from containust.sdk.images import Images


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images.current(str(tmp_path), state_file=str(tmp_path / "project/state.json"))


def ctst(tmp_path: Path, *words: str) -> int:
    return main(["--state-file", str(tmp_path / "project/state.json"), *words])


def test_what_is_saved_is_loaded_the_same(images: Images, tmp_path: Path) -> None:
    mine = images.ensure("host:///bin/sh")
    images.save(["host:///bin/sh"], str(tmp_path / "out.tar"))
    first = (tmp_path / "out.tar").read_bytes()
    images.save([mine.id], str(tmp_path / "out.tar"))
    assert (tmp_path / "out.tar").read_bytes() == first
    other = Images.current(str(tmp_path), state_file=str(tmp_path / "other/state.json"))
    (loaded,) = other.load(str(tmp_path / "out.tar"))
    assert loaded["id"] == mine.id
    assert loaded["name"].startswith("localhost/sh:")
    image = other.store.ensure(f"image://{loaded['name']}")
    assert (image.layer, image.config) == (mine.layer, mine.config)
    assert other.store.ensure(f"image://{mine.id}").id == mine.id
    assert other.store.ensure(f"image://{mine.id[7:19]}").id == mine.id


def test_both_forms_of_the_archive_say_the_same(images: Images, tmp_path: Path) -> None:
    images.ensure("host:///bin/sh")
    images.save(["host:///bin/sh"], str(tmp_path / "out.tar"))
    subprocess.run(["tar", "-C", tmp_path, "--one-top-level=x", "-xf", tmp_path / "out.tar"], check=True)
    oci = Images.current(str(tmp_path), state_file=str(tmp_path / "oci/state.json"))
    docker = Images.current(str(tmp_path), state_file=str(tmp_path / "docker/state.json"))
    layout = oci.load(str(tmp_path / "x"))
    os.unlink(tmp_path / "x/oci-layout")
    os.unlink(tmp_path / "x/index.json")
    subprocess.run(["tar", "-C", tmp_path / "x", "-cf", tmp_path / "docker.tar", "."], check=True)
    assert docker.load(str(tmp_path / "docker.tar")) == layout


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = docker_archive([tar(member("bin/sh", b"x", mode=0o755))], {"Cmd": ["/bin/sh"]}, ("app:1", "app:latest"))
    (tmp_path / "in.tar").write_bytes(archive)
    assert ctst(tmp_path, "load", str(tmp_path / "in.tar"), "--json") == 0
    loaded = json.loads(capsys.readouterr().out)["images"]
    assert [image["name"] for image in loaded] == ["app:1", "app:latest"]
    assert ctst(tmp_path, "images", "--json") == 0
    assert {row["reference"] for row in json.loads(capsys.readouterr().out)["images"]} == {
        "image://app:1",
        "image://app:latest",
    }
    assert ctst(tmp_path, "images") == 0
    assert "image://app:1" in capsys.readouterr().out
    assert ctst(tmp_path, "images", "verify") == 0
    capsys.readouterr()
    assert ctst(tmp_path, "images", "inspect", "app:1") == 0
    assert json.loads(capsys.readouterr().out)["config"]["command"] == ["/bin/sh"]
    assert ctst(tmp_path, "save", "app", "-o", str(tmp_path / "out.tar")) == 0
    assert ctst(tmp_path, "images", "rm", "app:1") == 0
    assert ctst(tmp_path, "images", "rm", "app:1") == 4
    assert ctst(tmp_path, "images", "rm", loaded[0]["id"]) == 0
    assert ctst(tmp_path, "images", "prune") == 0
    assert ctst(tmp_path, "images", "nonsense") == 2
    assert ctst(tmp_path, "save", "gone", "-o", str(tmp_path / "no.tar")) == 4
    assert not (tmp_path / "no.tar").exists()
    assert ctst(tmp_path, "load", str(tmp_path / "missing.tar")) == 4
    assert ctst(tmp_path, "--offline", "pull", "alpine") == 1
    for command in ("build", "images", "pull", "push", "save", "load"):
        assert ctst(tmp_path, command, "--help") == 0


def test_build_imports_what_a_file_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.ctst").write_text('COMPONENT a {\n    image = "host:///bin/sh"\n}\n')
    assert ctst(tmp_path, "build", str(tmp_path / "s.ctst"), "--dry-run") == 0
    assert "would import" in capsys.readouterr().out
    assert ctst(tmp_path, "build", str(tmp_path / "s.ctst"), "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["images"]
    assert row["id"].startswith("sha256:")
    assert ctst(tmp_path, "build", str(tmp_path / "s.ctst"), "--json") == 0
    assert not json.loads(capsys.readouterr().out)["images"][0]["imported"]


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_skopeo_reads_what_we_save_and_we_what_it_writes(images: Images, tmp_path: Path, form: str) -> None:
    mine = images.ensure("host:///bin/sh")
    images.save(["host:///bin/sh"], str(tmp_path / "out.tar"))
    policy = ["--insecure-policy", "copy"]
    subprocess.run(
        ["skopeo", *policy, f"{form}:{tmp_path}/out.tar", f"oci:{tmp_path}/layout:a"],
        check=True,
        capture_output=True,
    )
    subprocess.run(
        ["skopeo", *policy, f"oci:{tmp_path}/layout:a", f"{form}:{tmp_path}/back.tar:x:1"],
        check=True,
        capture_output=True,
    )
    for path in ("layout", "back.tar"):
        (loaded,) = images.load(str(tmp_path / path))
        assert images.inspect(loaded["id"])["root"] == f"sha256:{mine.layer}"


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_umoci_unpacks_what_we_save_to_what_we_mount(images: Images, tmp_path: Path) -> None:
    mine = images.ensure("host:///bin/sh")
    images.save(["host:///bin/sh"], str(tmp_path / "out.tar"))
    subprocess.run(["tar", "-C", tmp_path, "--one-top-level=layout", "-xf", tmp_path / "out.tar"], check=True)
    tag = json.loads((tmp_path / "layout/index.json").read_text())["manifests"][0]["annotations"][
        "org.opencontainers.image.ref.name"
    ]
    subprocess.run(
        ["umoci", "unpack", "--image", f"{tmp_path}/layout:{tag}", f"{tmp_path}/bundle"],
        check=True,
        capture_output=True,
    )
    fd = mounting.open_root(images.store, mine)
    ours = listing(f"/proc/self/fd/{fd}")
    theirs = listing(f"{tmp_path}/bundle/rootfs")
    os.close(fd)
    assert {key: value for key, value in ours.items() if key in theirs} == theirs


@pytest.fixture(scope="module")
def minbase(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian root file system, from the directory that CONTAINUST_TEST_DEBIAN names."""
    path = os.environ.get("CONTAINUST_TEST_DEBIAN")
    if not path:
        pytest.skip("CONTAINUST_TEST_DEBIAN names no Debian root file system")
    return Path(path)


def test_a_debian_root_comes_out_as_it_is(minbase: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Absolute links, hard links, set-user-id files, extended attributes: by every rung, from a tar and a directory."""
    store = ImageStore(str(tmp_path / "images"))
    archive = tmp_path / "debian.tar"
    subprocess.run(["tar", "--xattrs", "--xattrs-include=*", "-C", minbase, "-cf", archive, "."], check=True)
    original = {
        k: v
        for k, v in listing(str(minbase)).items()
        if not (k.startswith("dev/") and v[4] is None and not os.path.isdir(minbase / k))
    }
    assert any(stat.S_ISREG(int(str(v[0]))) and int(str(v[0])) & stat.S_ISUID for v in original.values())
    assert any(str(v[4]).startswith("/") for v in original.values())
    added = {*STANDARD_DIRECTORIES, *STANDARD_FILES}
    for uri in (f"tar://{archive}", f"file://{minbase}"):
        image = store.ensure(uri)
        for rung in mounting.RUNGS:
            monkeypatch.setenv("CONTAINUST_IMAGE_MOUNT", rung)
            fd = mounting.open_root(store, image)
            ours = listing(f"/proc/self/fd/{fd}")
            os.close(fd)
            theirs = original
            if uri.startswith("tar"):  # GNU tar's own format has whole seconds
                ours = {k: (*v[:3], 0, *v[4:]) for k, v in ours.items()}
                theirs = {k: (*v[:3], 0, *v[4:]) for k, v in theirs.items()}
            assert {k: (ours.get(k), theirs[k]) for k in theirs if ours.get(k) != theirs[k]} == {}
            assert ours.keys() - theirs.keys() <= added
