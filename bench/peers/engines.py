"""Each peer set up in a :class:`peers.place.Place`: what it needs, how it is called, how it is stopped.
Parity. All run the same busybox image and wait for the program's end. What differs is printed with each
result: runc and crun as configured here and podman and docker by default use no user namespace, Containust
does; bwrap and the C floor set no seccomp filter and drop no capability.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from peers.place import Place, descendants, run

HERE = Path(__file__).resolve().parent
NAMESPACES = ["pid", "mount", "ipc", "uts", "network", "cgroup"]


def missing(*programs: str) -> str:
    """Why a peer cannot run; empty when all programs are there."""
    absent = [name for name in programs if not (shutil.which(name) or os.path.exists(name))]
    return f"{', '.join(absent)} not installed (bench/peers/install.sh)" if absent else ""


def floor(place: Place) -> str:
    """The C floor, compiled; its path."""
    binary = f"{place.scratch}/floor"
    run("gcc", "-O2", "-o", binary, str(HERE.parent / "floor.c"))
    return binary


def bundle(place: Place, name: str, argv: list[str], runtime: str = "runc") -> str:
    """An OCI bundle of the image for runc or crun; its directory."""
    directory = f"{place.scratch}/bundle-{name}"
    os.mkdir(directory)
    run(runtime, "spec", "-b", directory)
    path = Path(directory, "config.json")
    config = json.loads(path.read_text())
    config["root"] = {"path": place.rootfs, "readonly": True}
    process = config["process"]
    process.update(args=argv, terminal=False, cwd="/")
    process.pop("rlimits", None)  # raising them takes CAP_SYS_RESOURCE, which a guest or a container may lack
    config["linux"]["namespaces"] = [{"type": kind} for kind in NAMESPACES]
    config["linux"]["seccomp"] = json.loads(Path(HERE / "seccomp.json").read_text())
    config["linux"]["cgroupsPath"] = f"/ctst-bench/{name}"
    path.write_text(json.dumps(config))
    return directory


class Dockerd:
    """dockerd with a root, a socket and a pid file of its own, in the place's network namespace."""

    def __init__(self, place: Place, bridge: bool) -> None:
        self.place = place
        self.socket = f"unix://{place.scratch}/docker.sock"
        self.environment = {**place.environment, "DOCKER_HOST": self.socket}
        root = f"{place.scratch}/docker"
        argv = [
            "dockerd",
            f"--data-root={root}/data",
            f"--exec-root={root}/exec",
            f"--pidfile={root}/pid",
            f"--host={self.socket}",
            "--containerd-namespace=ctst-bench",
            "--log-level=error",
            *([] if bridge else ["--bridge=none"]),
        ]
        os.makedirs(root)
        self.log = f"{root}/log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, env=place.environment)
        try:
            self._wait()
            self.call("import", place.tar, "bench")
        except OSError:
            self.stop()
            raise

    def _wait(self) -> None:
        for _ in range(300):
            with contextlib.suppress(OSError):
                self.call("version")
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise OSError(f"dockerd did not start: {Path(self.log).read_text(errors='replace')[-400:]}")

    def call(self, *argv: str) -> str:
        return str(run("docker", *argv, environment=self.environment))

    def processes(self) -> list[int]:
        """dockerd and its containerd, without the shims."""
        return [
            self.process.pid,
            *(p for p in descendants(self.process.pid) if "containerd-shim" not in _name(p)),
        ]

    def stop(self) -> None:
        """End dockerd (and, with it, its containerd)."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def shims() -> list[int]:
    """Docker's shims among this benchmark's processes."""
    return [pid for pid in descendants(os.getpid()) if "containerd-shim" in _name(pid)]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    except OSError:
        return ""


def podman(place: Place) -> None:
    """Configuration for podman under the place's HOME, and the image."""
    home = Path(place.environment["HOME"])
    (home / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\nlog_driver = "k8s-file"\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        f'[network]\nnetwork_backend = "cni"\ncni_plugin_dirs = ["/usr/lib/cni"]\n'
        f'network_config_dir = "{home}/cni"\n'
    )
    (home / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{home}/graph"\nrunroot = "{home}/run"\n'
    )
    (home / ".config/containers").mkdir(parents=True)
    (home / ".config/containers/policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    run("podman", "import", "-q", place.tar, "localhost/bench", environment=place.environment)


def ctst(place: Place, path: str | None) -> tuple[list[str], dict[str, str], str]:
    """``(command, environment, reason)``: the reason says why Containust cannot run, empty when it can."""
    program = path or shutil.which("ctst") or ""
    directory = f"{place.scratch}/ctst"
    os.makedirs(directory, exist_ok=True)
    if not program or not os.path.exists(program):
        return [], {}, "no ctst: give its path with --ctst"
    environment = {**place.environment, "PATH": f"{os.path.dirname(program)}:{place.environment['PATH']}"}
    environment["CONTAINUST_IMAGE_STORE"] = place.disk
    return [os.path.abspath(program), "-C", directory], environment, ""


def write_stack(path: str, services: int, tar: str) -> None:
    """A `.ctst` file of sleeping services."""
    # stop_timeout 0 as the others have it: PID 1 that sleeps ignores SIGTERM.
    with open(path, "w") as file:
        for number in range(services):
            file.write(
                f'COMPONENT s{number} {{\n    image = "tar://{tar}"\n'
                '    command = ["/bin/sleep", "1000000"]\n    stop_timeout = "0s"\n}\n\n'
            )
