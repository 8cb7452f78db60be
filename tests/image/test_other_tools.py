"""Images that buildah, podman and docker made, and ours in their hands: each with its own storage and namespaces."""

from __future__ import annotations

import glob
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from conftest import Listing, listing
from containust.core import syscalls
from containust.image import mounting
from containust.image.store import ImageStore
from containust.image.tree import STANDARD_DIRECTORIES, STANDARD_FILES
from harness import BOX, Ctst, eventually

CAPABILITY = "01000002000400" + 26 * "0"  # net_bind_service
FORMS = ("docker-archive", "oci-archive", "oci")
BASE = r"""
mkdir -p $m/bin $m/etc/deep/er $m/opaque $m/usr/lib $m/home/user
cp /bin/busybox $m/bin/
ln $m/bin/busybox $m/bin/sh
ln -s /usr/lib $m/lib
ln -s ../../../outside $m/etc/up
echo 1 > $m/etc/gone; echo 2 > $m/etc/deep/er/gone-too; echo old > $m/opaque/old
cp /bin/true $m/bin/setuid; chown 33:44 $m/bin/setuid; chmod 4755 $m/bin/setuid
cp /bin/true $m/bin/keeps-setuid; chown 33:44 $m/bin/keeps-setuid; chmod 4755 $m/bin/keeps-setuid
cp /bin/true $m/bin/capable; python3 -c 'import os, sys
os.setxattr(sys.argv[1], "security.capability", bytes.fromhex(sys.argv[2]))' $m/bin/capable $capability
python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.note", b"kept")' $m/home/user
chown 1000:1000 $m/home/user; mkfifo $m/etc/fifo; chmod 1777 $m/opaque
"""
UPPER = r"""
rm $m/etc/gone; rm -r $m/etc/deep; echo 'a file now' > $m/etc/deep
rm -r $m/opaque; mkdir $m/opaque; echo new > $m/opaque/new
rm $m/lib; mkdir $m/lib; echo so > $m/lib/x.so
ln $m/etc/deep $m/etc/hard; chmod 711 $m/home/user; rm $m/bin/setuid
"""
CONFIG = ("--cmd", "/bin/sh -c 'echo ran; id -u; pwd; echo $A'", "--user", "33:44", "--workingdir", "/opaque")


def apart(work: Callable[[], None]) -> None:
    """Do ``work`` in a child with mounts and a network of its own, where only loopback is up."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET)
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            work()
            status = 0
        except subprocess.CalledProcessError as error:
            print(error, error.stdout, error.stderr, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def output(*words: str | Path, **options: object) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=90, check=True, **options)  # type: ignore[call-overload]
    return str(done.stdout.strip())


class Built:
    """The archives that buildah made of one image by form, and what buildah itself mounts for it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with open(directory / "listing", "rb") as file:
            self.listing: Listing = pickle.load(file)

    def path(self, form: str) -> str:
        return f"{self.directory}/{form}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    directory = tmp_path_factory.mktemp("buildah")

    def build() -> None:
        storage = ["--root", f"{directory}/root", "--runroot", f"{directory}/run", "--storage-driver", "overlay"]
        environ = {**os.environ, "HOME": str(directory)}

        def buildah(*words: str) -> str:
            return output("buildah", *storage, *words, env=environ)

        source = "scratch"
        for name, script in (("lower", BASE), ("upper", UPPER)):
            container = buildah("from", source)
            mounted = buildah("mount", container)
            output("sh", "-ec", script, env={**environ, "m": mounted, "capability": CAPABILITY})
            buildah("umount", container)
            if name == "upper":
                buildah("config", *CONFIG, "--env", "A=of the image", "--stop-signal", "SIGQUIT", container)
            buildah("commit", "-q", container, name)
            source = name
        for form in FORMS:
            buildah("push", "-q", "upper", f"{form}:{directory}/{form}:localhost/upper:1")
        mounted = buildah("mount", buildah("from", "upper"))
        with open(directory / "listing", "wb") as file:
            pickle.dump(listing(mounted), file)
        buildah("umount", "-a")

    apart(build)
    yield Built(directory)
    shutil.rmtree(directory)


def comparable(found: Listing) -> Listing:
    """Without what an import adds, and with times as archives keep them: whole seconds."""
    standard = {*STANDARD_DIRECTORIES, *STANDARD_FILES}
    return {
        key: (*value[:3], int(str(value[3])) // 10**9, *value[4:])
        for key, value in found.items()
        if key not in standard or key == "etc"
    }


@pytest.mark.parametrize("form", FORMS)
def test_an_image_of_buildah_is_what_buildah_mounts(built: Built, tmp_path: Path, rung: str, form: str) -> None:
    store = ImageStore(str(tmp_path / "images"))
    image = store.ensure(f"tar://{built.path(form)}")
    fd = mounting.open_root(store, image)
    ours = comparable(listing(f"/proc/self/fd/{fd}"))
    os.close(fd)
    theirs = comparable(built.listing)
    assert ours.keys() == theirs.keys()
    assert {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]} == {}
    assert theirs["bin/keeps-setuid"][:3] == (0o104755, 33, 44)
    assert theirs["bin/capable"][5] == [("security.capability", bytes.fromhex(CAPABILITY))]
    assert {"opaque/new", "lib/x.so", "etc/hard", "bin/sh"} <= theirs.keys()
    assert not {"opaque/old", "etc/gone", "bin/setuid", "etc/deep/er"} & theirs.keys()


@pytest.mark.parametrize("form", FORMS)
def test_an_image_of_buildah_runs_as_it_is_configured(ctst: Ctst, built: Built, form: str) -> None:
    ctst.ok("load", built.path(form))
    out = ctst.ok("run", "--rm", "--image", "image://localhost/upper:1")
    assert out.split("\n") == ["ran", "33", "/opaque", "of the image", ""]
    inspected = json.loads(ctst.ok("images", "inspect", "localhost/upper:1"))
    assert len(inspected["layers"]) == 2
    assert inspected["config"]["stop_signal"] == "SIGQUIT"


def test_skopeo_hands_images_on_both_ways(ctst: Ctst, built: Built, tmp_path: Path) -> None:
    ctst.ok("load", built.path("oci"))
    ctst.ok("save", "localhost/upper:1", "-o", str(tmp_path / "ours.tar"))
    seen = set()
    for number, (source, form) in enumerate(
        (
            (f"docker-archive:{tmp_path}/ours.tar", "oci-archive"),
            (f"oci-archive:{tmp_path}/ours.tar", "docker-archive"),
            (f"docker-archive:{built.path('docker-archive')}", "oci"),
            (f"oci:{built.path('oci')}", "docker-archive"),
        )
    ):
        target = f"{tmp_path}/{number}"
        output("skopeo", "--insecure-policy", "copy", source, f"{form}:{target}:localhost/again:{number}")
        (loaded,) = json.loads(ctst.ok("load", target, "--json"))["images"]
        seen.add(json.loads(ctst.ok("images", "inspect", loaded["id"]))["root"])
        assert "of the image" in ctst.ok("run", "--rm", "--image", f"image://{loaded['name']}")
    assert len(seen) == 1


def remove_groups(name: str) -> None:
    for path in sorted(glob.glob(f"/sys/fs/cgroup/**/{name}/**/", recursive=True), reverse=True):
        os.rmdir(path)


@pytest.mark.skipif(not shutil.which("podman") or not shutil.which("runc"), reason="podman is not installed")
def test_podman_saves_for_us_and_runs_ours(ctst: Ctst, built: Built, tmp_path: Path) -> None:
    ctst.ok("run", "--rm", "--image", BOX, "--", "true")
    ctst.ok("save", BOX, "-o", str(tmp_path / "ours.tar"))
    group = f"containust-test-{os.getpid()}"
    (tmp_path / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
    )

    short = tempfile.mkdtemp(prefix="ctp-")  # podman's limit is 50 characters

    def work() -> None:
        environ = {**os.environ, "HOME": str(tmp_path), "CONTAINERS_CONF": str(tmp_path / "containers.conf")}
        storage = ["--root", f"{tmp_path}/root", "--runroot", short, "--storage-driver", "overlay"]

        def podman(*words: str) -> str:
            return output("podman", *storage, *words, env=environ)

        for source in (f"{tmp_path}/ours.tar", built.path("oci-archive")):
            podman("load", "-q", "-i", source)
        for form in ("docker-archive", "oci-archive"):
            podman("save", "-q", "--format", form, "-o", f"{tmp_path}/{form}", "localhost/upper:1")
        (name,) = [n for n in podman("images", "--format", "{{.Repository}}:{{.Tag}}").split() if "busybox" in n]
        run = ["run", "--rm", "--network=none", f"--cgroup-parent=/{group}"]
        assert podman(*run, name, "/bin/busybox", "echo", "ours there") == "ours there"

    try:
        apart(work)
    finally:
        remove_groups(group)
        shutil.rmtree(short)
    for form in ("docker-archive", "oci-archive"):
        (loaded,) = json.loads(ctst.ok("load", f"{tmp_path}/{form}", "--json"))["images"]
        assert "of the image" in ctst.ok("run", "--rm", "--image", f"image://{loaded['name']}")


@pytest.mark.skipif(not shutil.which("dockerd") or not shutil.which("docker"), reason="docker is not installed")
def test_docker_saves_for_us_and_runs_ours(ctst: Ctst, built: Built, tmp_path: Path) -> None:
    ctst.ok("run", "--rm", "--image", BOX, "--", "true")
    ctst.ok("save", BOX, "-o", str(tmp_path / "ours.tar"))
    group = f"containust-test-{os.getpid()}"
    short = tempfile.mkdtemp(prefix="ctst-")  # containerd's sockets lie three levels below; 104 bytes are theirs

    def work() -> None:
        environ = {**os.environ, "HOME": str(tmp_path), "DOCKER_HOST": f"unix://{short}/socket"}

        def docker(*words: str) -> str:
            return output("docker", *words, env=environ)

        options = ["--iptables=false", "--ip6tables=false", "--bridge=none", f"--cgroup-parent=/{group}"]
        places = [f"--data-root={tmp_path}/data", f"--exec-root={short}", f"--pidfile={tmp_path}/pid"]
        with open(tmp_path / "log", "wb") as log:
            daemon = subprocess.Popen(
                ["dockerd", *places, *options, "-H", environ["DOCKER_HOST"]], stdout=log, stderr=log, env=environ
            )
        try:
            version = partial(subprocess.run, ["docker", "version"], env=environ, capture_output=True, check=False)
            # A cold dockerd on a busy machine takes tens of seconds; one that has ended is not waited for.
            eventually(lambda: daemon.poll() is not None or version().returncode == 0, 90)
            assert daemon.poll() is None, (tmp_path / "log").read_text()
            for source in (f"{tmp_path}/ours.tar", built.path("docker-archive")):
                docker("load", "-q", "-i", source)
            (name,) = [n for n in docker("images", "--format", "{{.Repository}}:{{.Tag}}").split() if "busybox" in n]
            run = ["run", "--rm", "--network=none"]
            assert docker(*run, name, "/bin/busybox", "echo", "ours there") == "ours there"
            docker("save", "-o", f"{tmp_path}/theirs.tar", "localhost/upper:1")
        finally:
            daemon.terminate()
            daemon.wait(30)

    try:
        apart(work)
    finally:
        remove_groups(group)
        shutil.rmtree(short)
    (loaded,) = json.loads(ctst.ok("load", f"{tmp_path}/theirs.tar", "--json"))["images"]
    assert "of the image" in ctst.ok("run", "--rm", "--image", f"image://{loaded['name']}")
