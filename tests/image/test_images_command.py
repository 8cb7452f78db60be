"""`ctst images`, `build` and `load` as a user meets them: damage, use, kills, archives of other tools."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness import BOX, FULL, Ctst

STACK = """
    COMPONENT whole {
        image = "file://./root"
        command = ["/bin/busybox", "sleep", "600"]
        network = "none"
    }
    COMPONENT reduced {
        image = "file://./root"
        distroless = true
        command = ["/bin/busybox", "true"]
        network = "none"
    }
"""


def make_root(directory: Path) -> None:
    (directory / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    (directory / "bin/sh").symlink_to("busybox")
    (directory / "data").write_bytes(os.urandom(3 << 20))


def rows(ctst: Ctst, *words: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(ctst.ok("images", *words, "--json"))["images"]
    return found


def test_a_changed_bit_is_found_named_and_mended(ctst: Ctst) -> None:
    make_root(ctst.directory / "root")
    ctst.write(STACK)
    ctst.ok("build")
    assert [row["distroless"] for row in sorted(rows(ctst), key=lambda row: bool(row["distroless"]))] == [False, True]
    assert "(distroless)" in ctst.ok("images")
    whole = next(row for row in rows(ctst, "--list") if not row["distroless"])
    assert ctst.ok("images", "verify").count("ok ") == 2
    layers = list((ctst.directory / ".containust/images/layers").glob("*/layer.tar"))
    layer = max(layers, key=lambda path: path.stat().st_size)
    layer.chmod(0o644)
    with open(layer, "r+b") as file:
        file.seek(layer.stat().st_size - 100_000)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    # Both images have the same reference; one is damaged.
    done = ctst("images", "verify")
    assert done.status == 1
    assert [line.split()[0] for line in sorted(done.out.splitlines())] == ["damaged", "ok"]
    assert f"{layer.parent.name}" in done.err
    errors = {row["id"]: row["errors"] for row in json.loads(ctst("images", "verify", "--json").out)["images"]}
    assert [bool(found) for image_id, found in errors.items() if image_id == whole["id"]] == [True]
    ctst.ok("build")
    assert ctst("images", "verify").status == 0


def test_images_in_use_stay(ctst: Ctst) -> None:
    make_root(ctst.directory / "root")
    ctst.write(STACK.partition("    COMPONENT reduced")[0])
    ctst.ok("run", "-d")
    for words in (("rm", "file://./root"), ("--remove", "file://./root")):
        done = ctst("images", *words)
        assert done.status == 1 and "error[I007]" in done.err, done
    (ctst.directory / "root/data").write_bytes(b"changed")  # its source is gone, but the container lives from it
    ctst.ok("images", "prune")
    assert ctst.ok("exec", "whole", "--", "/bin/busybox", "wc", "-c", "/data").split()[0] == str(3 << 20)
    assert ctst("images", "verify").status == 0
    ctst.ok("rm", "--force")
    assert ctst.ok("images", "--remove", "file://./root") == f"removed file://{ctst.directory}/root\n"
    assert rows(ctst) == []
    assert list((ctst.directory / ".containust/images/layers").iterdir()) == []
    ctst.assert_clean()


def test_an_id_and_its_beginning_name_an_image(ctst: Ctst) -> None:
    ctst.ok("run", "--rm", "--image", BOX, "--", "true")
    (row,) = rows(ctst)
    for name in (row["id"], str(row["id"])[7:], str(row["id"])[7:15], row["reference"]):
        assert json.loads(ctst.ok("images", "inspect", str(name)))["id"] == row["id"]
    assert ctst("images", "inspect", str(row["id"])[7:10]).status == 4  # three digits are no name


def test_killed_imports_of_the_command_leave_whole_layers_only(ctst: Ctst) -> None:
    make_root(ctst.directory / "root")
    for number in range(200):
        (ctst.directory / f"root/file-{number}").write_bytes(os.urandom(20_000))
    archive = str(ctst.directory / "root.tar")
    subprocess.run(["tar", "-C", ctst.directory / "root", "-cf", archive, "."], check=True)
    shutil.rmtree(ctst.directory / "root")
    generator = random.Random(11)
    store = ctst.home / ".containust/images"
    began = time.monotonic()
    ctst.ok("load", archive)
    took = time.monotonic() - began
    killed = 0
    for _ in range(100 if FULL else 8):
        shutil.rmtree(store / "layers", ignore_errors=True)
        shutil.rmtree(store / "catalog", ignore_errors=True)
        process = ctst.popen("load", archive)
        time.sleep(generator.uniform(0.1, 1.1) * took)  # mostly within, on whatever machine
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        for layer in store.glob("layers/*"):
            assert sorted(os.listdir(layer)) == ["chunks.bin", "layer.tar"]
            digest = subprocess.run(
                ["sha256sum", layer / "layer.tar"], capture_output=True, text=True, check=True
            ).stdout
            assert digest.split()[0] == layer.name
    assert killed
    (loaded,) = json.loads(ctst.ok("load", archive, "--json"))["images"]
    assert ctst("images", "verify").status == 0
    assert list((store / "staging").iterdir()) == []
    ctst.ok("run", "--rm", "--image", f"image://{loaded['name']}", "--", "/bin/sh", "-c", "true")


def test_an_archive_of_tar_runs_compressed_as_it_may_be(ctst: Ctst) -> None:
    make_root(ctst.directory / "root")
    ids = set()
    for option in ("", "-z", "-j", "-J", "--zstd"):
        archive = ctst.directory / f"archive{option}"
        subprocess.run(["tar", "-C", ctst.directory / "root", *option.split(), "-cf", archive, "."], check=True)
        words = ("--image", f"tar://{archive}", "--", "/bin/sh", "-c", "busybox wc -c < /data")
        assert ctst.ok("run", "--rm", *words).strip() == str(3 << 20)
        ids.add(json.loads(ctst.ok("images", "inspect", f"tar://{archive}"))["id"])
    assert len(ids) == 1


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_a_layout_of_umoci_runs_as_it_is_configured(ctst: Ctst) -> None:
    layout = f"{ctst.directory}/layout"
    make_root(ctst.directory / "root")

    def umoci(*words: str) -> None:
        subprocess.run(["umoci", *words], check=True, capture_output=True)

    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:1.0")
    umoci("insert", "--image", f"{layout}:1.0", str(ctst.directory / "root"), "/")
    (ctst.directory / "root/data").write_text("second layer\n")
    umoci("insert", "--image", f"{layout}:1.0", str(ctst.directory / "root/data"), "/data")
    umoci("insert", "--image", f"{layout}:1.0", "--whiteout", "/bin/sh")
    umoci("config", "--image", f"{layout}:1.0", "--config.cmd=/bin/busybox", "--config.cmd=cat", "--config.cmd=data")
    umoci("config", "--image", f"{layout}:1.0", "--config.user=33:44", "--config.env=A=1")
    assert ctst.ok("run", "--rm", "--image", f"tar://{layout}") == "second layer\n"
    assert ctst.ok("run", "--rm", "--image", f"tar://{layout}", "--", "/bin/busybox", "id", "-u") == "33\n"
    assert ctst("run", "--rm", "--image", f"tar://{layout}", "--", "/bin/sh").status == 127


@pytest.mark.parametrize("readonly", ["true", "false"])
def test_a_live_directory_is_used_as_it_is_and_never_written_to(ctst: Ctst, readonly: str) -> None:
    make_root(ctst.directory / "root")  # without /proc, /etc or any other place of a mount
    note = ctst.directory / "root/note"
    note.write_text("one\n")
    ctst.write(f"""
        COMPONENT dev {{
            image = "file://./root"
            live = true
            readonly = {readonly}
            command = ["/bin/busybox", "sleep", "600"]
            network = "none"
        }}
    """)
    before = sorted(os.listdir(ctst.directory / "root"))
    ctst.ok("run", "-d")
    assert ctst.ok("exec", "dev", "--", "/bin/busybox", "cat", "/note") == "one\n"
    if readonly == "true":
        # Documentation/filesystems/overlayfs.rst leaves open what a change below an overlay does; a rewrite in place
        # is seen by all kernels that there are.
        note.write_text("two\n")
        assert ctst.ok("exec", "dev", "--", "/bin/busybox", "cat", "/note") == "two\n"
    written = ctst("exec", "dev", "--", "/bin/busybox", "sh", "-c", "echo three > /note")
    assert bool(written.status) == (readonly == "true"), written
    assert note.read_text() in ("one\n", "two\n")
    assert sorted(os.listdir(ctst.directory / "root")) == before
    assert rows(ctst) == []  # nothing is stored
    ctst.ok("rm", "--force")
    ctst.assert_clean()
