"""An ordinary user of a host of the test's own.

The host is a mount namespace, in which /etc/passwd, /etc/subuid and /etc/subgid name the user and /dev/net/tun is open
to all as on any desktop, and a network namespace with an uplink to another one, the outside. The machine itself is not
changed. The user's home, and the installed package where the user can read it, are in a directory of the host's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest

from containust.core import syscalls as sc
from harness import COMMAND, Done, eventually, outcome, pids, read

HOST, OUTSIDE = "198.51.100.2", "198.51.100.1"
HOST6, OUTSIDE6 = "2001:db8:51::2", "2001:db8:51::1"
NAME = "containust-test"
FILES = ("passwd", "group", "subuid", "subgid")

PREPARE = """
set -e
mount --make-rprivate /
for file in passwd group subuid subgid; do
    [ -e /etc/$file ] || continue
    mount --bind {etc}/$file /etc/$file
done
ip link set lo up
mount -t tmpfs tmpfs {etc}/dev
mknod -m 666 {etc}/dev/tun c 10 200
mount --bind {etc}/dev/tun /dev/net/tun
ip link add up0 type veth peer name up1 netns {outside}
ip address add {HOST}/24 dev up0
ip -6 address add {HOST6}/64 dev up0 nodad
ip link set up0 up
ip route add default via {OUTSIDE}
ip -6 route add default via {OUTSIDE6}
nsenter -n -t {outside} sh -c '
    ip link set lo up
    ip address add {OUTSIDE}/24 dev up1
    ip -6 address add {OUTSIDE6}/64 dev up1 nodad
    ip link set up1 up'
echo ready
exec sleep 900
"""


def _sleeper(*namespaces: str) -> subprocess.Popen[bytes]:
    one = subprocess.Popen(["unshare", *namespaces, "sh", "-c", "echo; exec sleep 900"], stdout=subprocess.PIPE)
    assert one.stdout is not None
    one.stdout.readline()
    return one


class User:
    """``ctst`` run by the user. Calling it gives a :class:`Done`; ``ok`` also expects status 0."""

    def __init__(self) -> None:
        self.uid = 40000 + os.getpid() % 20000
        self.first = 0x5000_0000 + (os.getpid() % 4096) * 65536
        self.base = Path(tempfile.mkdtemp(prefix="containust-rootless-"))
        self.base.chmod(0o755)
        etc = self.base / "etc"
        (etc / "dev").mkdir(parents=True)
        shutil.copy("/etc/passwd", etc)
        shutil.copy("/etc/group", etc)
        self.home = self.base / "home"
        self.directory = self.own("project")
        self.own("project/.containust")
        os.chown(self.home, self.uid, self.uid)
        self.home.chmod(0o700)
        with (etc / "passwd").open("a") as file:
            file.write(f"{NAME}:x:{self.uid}:{self.uid}::{self.home}:/bin/sh\n")
        with (etc / "group").open("a") as file:
            file.write(f"{NAME}:x:{self.uid}:\n")
        for name in ("subuid", "subgid"):
            (etc / name).write_text(f"{NAME}:{self.first}:65536\n")
            if not os.path.exists(f"/etc/{name}"):
                Path(f"/etc/{name}").touch()  # for the mount; empty says what its absence says
        self.etc = etc
        self.command = self._installed()
        outside = _sleeper("-n")
        script = PREPARE.format(
            etc=etc, outside=outside.pid, HOST=HOST, HOST6=HOST6, OUTSIDE=OUTSIDE, OUTSIDE6=OUTSIDE6
        )
        host = subprocess.Popen(["unshare", "-m", "-n", "sh", "-c", script], stdout=subprocess.PIPE)
        assert host.stdout is not None
        assert host.stdout.readline() == b"ready\n"
        self.network = os.open(f"/proc/{host.pid}/ns/net", os.O_RDONLY)
        self.mounts = os.open(f"/proc/{host.pid}/ns/mnt", os.O_RDONLY)
        self.outside = os.open(f"/proc/{outside.pid}/ns/net", os.O_RDONLY)
        for one in (host, outside):
            one.kill()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()
        self.environ = {
            # CONTAINUST_TEST_PATH: directories with another pasta than the system's, to be tested.
            "PATH": f"{os.environ.get('CONTAINUST_TEST_PATH', '')}:/usr/local/bin:/usr/bin:/bin".lstrip(":"),
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
        }

    def own(self, name: str) -> Path:
        """A directory of the user's in the home."""
        path = self.home / name
        path.mkdir(parents=True)
        os.chown(path, self.uid, self.uid)
        path.chmod(0o700)
        return path

    def _installed(self) -> list[str]:
        """The command, where the user can reach it: what is tested may lie in a directory of root's alone."""
        if len(COMMAND) > 1:
            pytest.fail("these tests run the installed command: use ./dev test")
        copy = self.base / "installed"
        target = copy / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        target.mkdir(parents=True)
        (copy / "bin").mkdir()
        shutil.copytree(Path(sysconfig.get_path("purelib")) / "containust", target / "containust")
        shutil.copy(COMMAND[0], copy / "bin/ctst")
        script = Path(COMMAND[0]).parent.parent / "share/containust/ctst"
        if script.exists():  # behind a launcher
            (copy / "share/containust").mkdir(parents=True)
            shutil.copy(script, copy / "share/containust/ctst")
        (copy / "bin/python3").symlink_to(os.path.realpath(sys.executable))
        subprocess.run(["chmod", "-R", "a+rX", str(copy)], check=True)
        return [str(copy / "bin/ctst")]

    # -- running things -----------------------------------------------------------------------------------------

    def become(self) -> None:
        """Make the calling process one of the user's on the host."""
        sc.setns(self.network, sc.CLONE_NEWNET)
        sc.setns(self.mounts, sc.CLONE_NEWNS)
        os.setgroups([self.uid])
        os.setresgid(self.uid, self.uid, self.uid)
        os.setresuid(self.uid, self.uid, self.uid)
        os.chdir(self.directory)

    def popen(self, *words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        given: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": {**self.environ, **(env or {})},
            "preexec_fn": self.become,
            **options,
        }
        return subprocess.Popen([*self.command, *words], **given)

    def __call__(self, *words: str, seconds: float = 40, **options: Any) -> Done:
        return outcome(self.popen(*words, **options), words, None, seconds)

    def ok(self, *words: str, **options: Any) -> str:
        done = self(*words, **options)
        assert done.status == 0, done
        return str(done.out)

    def write(self, text: str, name: str = "containust.ctst") -> None:
        path = self.directory / name
        path.write_text(textwrap.dedent(text))
        os.chown(path, self.uid, self.uid)

    def rows(self) -> dict[str, dict[str, Any]]:
        """``ps -a --json`` by name."""
        return {row["name"]: row for row in json.loads(self.ok("ps", "-a", "--json"))["containers"]}

    # -- the network --------------------------------------------------------------------------------------------

    def ask(self, address: str, port: int, namespace: int, protocol: str = "tcp", send: bytes = b"") -> str:
        """What a service answers to a client in a network namespace; empty when it does not."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                sc.setns(namespace, sc.CLONE_NEWNET)
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
                client = socket.socket(family, kind)
                client.settimeout(3)
                client.connect((address, port))
                if send or protocol == "udp":
                    client.send(send or b"?")
                while piece := client.recv(65536):
                    os.write(writer, piece)
                    if protocol == "udp":
                        break
            except OSError:
                pass
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            answer = file.read()
        os.waitpid(pid, 0)
        return str(answer, errors="replace").strip()

    def listen(self, address: str, port: int, namespace: int, text: str) -> int:
        """A server in a network namespace that answers ``text`` to each connection; its pid."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                sc.setns(namespace, sc.CLONE_NEWNET)
                server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind((address, port))
                server.listen(8)
                os.write(writer, b"1")
                while True:
                    client, _ = server.accept()
                    client.sendall(text.encode())
                    client.close()
            finally:
                os._exit(0)
        os.close(writer)
        assert os.read(reader, 1) == b"1"
        os.close(reader)
        self.servers.append(pid)
        return pid

    servers: list[int] = []

    # -- what is left -------------------------------------------------------------------------------------------

    def processes(self) -> list[tuple[int, str]]:
        """Live processes of the user's and of the user's subordinate ids: pid and command line."""
        found = []
        for pid in pids():
            status = read(f"/proc/{pid}/status")
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            if not fields or fields["State"].startswith(("Z", "X")):
                continue
            uid = int(fields["Uid"].split()[1])
            if uid == self.uid or self.first <= uid < self.first + 65536:
                found.append((pid, read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()))
        return found

    def running(self, *words: str) -> list[int]:
        """Pids of the user's processes whose command line has all ``words``."""
        return [pid for pid, line in self.processes() if all(word in line for word in words)]

    def keeper(self) -> int:
        """The process that is outside the project's user namespace, of those that `ctst` started."""
        own = os.readlink("/proc/self/ns/user")
        found = [p for p in self.running("ctst") if read(f"/proc/{p}/comm").strip() == "ctst-keeper"]
        assert len(found) == 1, found
        assert os.readlink(f"/proc/{found[0]}/ns/user") == own
        return found[0]

    def supervisors(self) -> list[int]:
        return [p for p in self.running("ctst") if read(f"/proc/{p}/comm").strip() != "ctst-keeper"]

    def clean(self) -> None:
        """Nothing of the user's runs, and nothing is in ``run/``."""
        run = self.directory / ".containust/run"

        def left() -> list[object]:
            return [*self.processes(), *(run.iterdir() if run.exists() else [])]

        try:
            eventually(lambda: not left(), 10)
        except AssertionError:
            raise AssertionError(f"left: {left()}") from None

    def close(self) -> None:
        """Remove all containers by our own command, and see that nothing is left."""
        try:
            if (self.directory / ".containust").exists():
                self.ok("rm", "--force")
            self.clean()
        finally:
            for pid in self.servers:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            self.servers.clear()
            for pid, _ in self.processes():
                os.kill(pid, signal.SIGKILL)
            for fd in (self.network, self.mounts, self.outside):
                os.close(fd)
            shutil.rmtree(self.base)
