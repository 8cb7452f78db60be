"""Mounts go neither in nor out, on a host whose mounts are shared, as systemd makes them."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from harness import BOX, COMMAND, Ctst

pytestmark = pytest.mark.guest


def on_shared_mounts(ctst: Ctst, script: str) -> str:
    """Output of a shell script where ``shared`` is a shared mount and ``ctst`` the command, in a mount namespace."""
    shared = ctst.directory / "shared"
    shared.mkdir()
    (ctst.directory / "root").mkdir()
    prelude = f"""
        set -e
        mount --bind {shared} {shared}
        mount --make-shared {shared}
        cd {ctst.directory}
        ctst() {{ nsenter --net=/proc/{os.getpid()}/fd/{ctst.network} {shlex.join(COMMAND)} "$@"; }}
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", prelude + script],
        env=ctst.environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_mounted_below_a_volume_later_is_not_in_the_container(ctst: Ctst) -> None:
    said = on_shared_mounts(
        ctst,
        f"""
        mkdir shared/below
        ctst run -d --name one -v ./shared:/data --image {BOX} -- sleep 600 >/dev/null
        mount -t tmpfs tmpfs shared/below
        touch shared/below/file
        ctst exec one -- ls /data/below
        ctst exec one -- cat /proc/self/mountinfo
        ctst rm --force one >/dev/null
        """,
    )
    assert " /data " in said and "file\n" not in said
    assert " shared:" not in said and " master:" not in said and "/data/below" not in said


def test_files_below_a_mount_in_a_volume_have_their_owners_too(ctst: Ctst) -> None:
    said = on_shared_mounts(
        ctst,
        f"""
        mkdir -p shared/below
        mount --bind root shared/below
        ctst run --rm -v ./shared:/data --image {BOX} -- sh -c 'touch /data/below/file && stat -c %u /data/below/file'
        stat -c %u root/file
        """,
    )
    assert said == "0\n0\n"


@pytest.mark.parametrize("options", ["", "--writable"])
def test_what_a_container_mounts_on_its_root_is_not_on_the_host(ctst: Ctst, options: str) -> None:
    said = on_shared_mounts(
        ctst,
        f"""
        export CONTAINUST_IMAGE_MOUNT=extract HOME=$PWD/shared
        ctst run -d --name one {options} --image {BOX} -- sleep 600 >/dev/null
        cat /proc/self/mountinfo
        ctst exec one -- cat /proc/self/mountinfo >inside
        ctst rm --force one >/dev/null
        """,
    )
    inside = (ctst.directory / "inside").read_text()
    assert " /proc " in inside and " shared:" not in inside and " master:" not in inside
    assert [line for line in said.splitlines() if f"{ctst.directory}/shared/" in line] == []
