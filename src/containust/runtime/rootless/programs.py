"""The program that connects a project's network namespace to the host's network: pasta or slirp4netns.

Started by the keeper, from outside, once for the whole project. With pasta containers see the clients' own addresses
and have IPv6; with slirp4netns they do without, but it also works on a host without any route, and takes a change of
the published ports without a restart. pasta comes first if it is from the end of 2024 or later: that of 2023, in Debian
12, leaves a connection open for good whose client has said first that it sends no more (as ``nc`` does), and may answer
none but the host's loopback.
``CONTAINUST_ROOTLESS_NETWORK`` names one of them.
"""

from __future__ import annotations

import _signal
import marshal
import select
import time

from containust.common import os
from containust.common.errors import ContainustError, UsageError
from containust.core import syscalls
from containust.runtime import process
from containust.runtime.launch import IGNORED_BY_PYTHON
from containust.runtime.network.rules import host_addresses
from containust.runtime.rootless import requirements
from containust.runtime.rootless.namespaces import Inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    Port = tuple[str, int, str]  # address, host port, protocol

INTERFACE = "tap0"
RECORD = "network-program"
PID_FILE = "pasta.pid"
API = "slirp4netns"
MTU = 65520
PATIENCE = 10.0
SIGTERM, SIGKILL = 15, 9
LOOPBACK_OPTION = "--host-lo-to-ns-lo"
SETTING = "CONTAINUST_ROOTLESS_NETWORK"


class Program:
    """One that runs."""

    name = ""

    def __init__(self, run: int, ports: set[Port]) -> None:
        self.run = run
        self.ports = ports
        self.pid = self.pidfd = -1

    @classmethod
    def begin(cls, user: int, network: int, run: int, ports: set[Port]) -> Program:
        """Start it, connected and with its ports open. Raises ContainustError R013 with what it says."""
        program = cls(run, ports)
        program.user, program.network = user, network
        path = requirements.find(cls.name)
        if path is None:
            raise ContainustError("R013", f"{cls.name} is not installed")
        errors = os.memfd_create("errors", os.MFD_CLOEXEC)
        try:
            with Inside(user, network) as there:
                program._launch(path, there.pid, errors)
                program._record()
                if not program._ready():
                    program.end()
                    said = os.pread(errors, 4096, 0).decode(errors="replace").strip().splitlines()
                    raise ContainustError("R013", f"{cls.name}: {said[-1] if said else 'did not start'}")
        finally:
            os.close(errors)
        return program

    user: int
    network: int

    def _launch(self, path: str, target: int, errors: int) -> None:
        raise NotImplementedError

    def _ready(self) -> bool:
        raise NotImplementedError

    def _spawn(self, argv: list[str], errors: int, handed: dict[int, int]) -> None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.fchdir(self.run)
                for number in IGNORED_BY_PYTHON:  # pasta takes an ignored SIGPIPE for a failure
                    _signal.signal(number, _signal.SIG_DFL)
                for target, fd in {0: null, 1: errors, 2: errors, **handed}.items():
                    os.dup2(fd, target, inheritable=True)
                syscalls.close_range(3 + len(handed), 0xFFFFFFFF)
                os.execve(argv[0], argv, {"PATH": requirements.SYSTEM_PATH})
            finally:
                os._exit(127)
        os.close(null)
        self.pidfd = os.pidfd_open(self.pid)

    def _record(self) -> None:
        """For the keeper that comes after this one, should it be killed."""
        record = os.open(RECORD, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self.run)
        os.write(record, marshal.dumps((self.name, self.pid, process.start_ticks(self.pid), sorted(self.ports))))
        os.close(record)

    def forward(self, ports: set[Port]) -> Program:
        """The program with exactly these ports open: itself, or another in its place."""
        if ports == self.ports:
            return self
        former = self.ports
        self.end()
        try:
            return self.begin(self.user, self.network, self.run, ports)
        except ContainustError:
            self.begin(self.user, self.network, self.run, former).adopt(self)
            raise

    def adopt(self, other: Program) -> None:
        """Let ``other`` stand for this one."""
        other.pid, other.pidfd, other.ports = self.pid, self.pidfd, self.ports

    def end(self) -> None:
        """Stop it and forget it."""
        process.send(self.pidfd, SIGTERM)
        if not select.select([self.pidfd], [], [], 1.0)[0]:
            process.send(self.pidfd, SIGKILL)
        self.close()

    def close(self) -> None:
        """Reap it, and remove its files."""
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # of another keeper
        os.close(self.pidfd)
        _forget(self.run)


class Pasta(Program):
    """passt's pasta: sockets of its own on the host for the connections of the namespace, and the other way."""

    name = "pasta"

    def _launch(self, path: str, target: int, errors: int) -> None:
        words = [path, "--foreground", "--quiet", "--config-net", "--no-netns-quit", "--ns-ifname", INTERFACE]
        # Nothing of the host's loopback is reachable from inside: not by the gateway's address, not by its ports.
        words += ["--no-map-gw", "--tcp-ns", "none", "--udp-ns", "none", "--pid", PID_FILE]
        if is_recent():
            words.append(LOOPBACK_OPTION)  # older ones do that anyway
        for protocol, option in (("tcp", "--tcp-ports"), ("udp", "--udp-ports")):
            own = sorted((port, address) for address, port, kind in self.ports if kind == protocol)
            for port, address in own:
                # One address a port is all that pasta takes; of both loopbacks the IPv4 one.
                words += [option, f"{host_addresses(address, False)[0]}/{port}"]
            if not own:
                words += [option, "none"]
        self._spawn([*words, str(target)], errors, {})

    def _ready(self) -> bool:
        """It writes its pid once everything is set up."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                fd = os.open(PID_FILE, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.run)
            except FileNotFoundError:
                pass
            else:
                written = os.read(fd, 16)
                os.close(fd)
                if written:
                    return True
            if select.select([self.pidfd], [], [], 0.001)[0]:
                return False
        return False


class Slirp4netns(Program):
    """slirp4netns: a whole TCP/IP stack in user space. Containers see its own address as that of every client."""

    name = "slirp4netns"
    ADDRESS = "10.0.2.100"
    NETWORK = "10.0.2.0/24"

    def __init__(self, run: int, ports: set[Port]) -> None:
        super().__init__(run, ports)
        self._ids: dict[Port, int] = {}
        self._reader = self._exit = -1

    def _launch(self, path: str, target: int, errors: int) -> None:
        self._reader, ready = os.pipe2(os.O_CLOEXEC)
        ends, self._exit = os.pipe2(os.O_CLOEXEC)  # closed with the keeper, whatever ends that
        words = [path, "--configure", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp", f"--mtu={MTU}"]
        words += ["--ready-fd=3", "--exit-fd=4", f"--api-socket={API}", str(target), INTERFACE]
        self._spawn(words, errors, {3: ready, 4: ends})
        os.close(ready)
        os.close(ends)

    def _ready(self) -> bool:
        told = select.select([self._reader, self.pidfd], [], [], PATIENCE)[0]
        up = self._reader in told and os.read(self._reader, 1) == b"1"
        os.close(self._reader)
        if up:
            wanted, self.ports = self.ports, set()
            try:
                self._open(wanted)
            except ContainustError:
                self.end()
                raise
            self._record()
        return up

    def forward(self, ports: set[Port]) -> Program:
        """As its base class's; connections by ports that stay live on."""
        for port in self.ports - ports:
            self._call("remove_hostfwd", {"id": self._ids.pop(port)})
            self.ports = self.ports - {port}
        self._open(ports - self.ports)
        self._record()
        return self

    def _open(self, ports: set[Port]) -> None:
        for address, port, protocol in sorted(ports):
            arguments: dict[str, str | int] = {
                "proto": protocol,
                "host_addr": host_addresses(address, False)[0],
                "host_port": port,
                "guest_port": port,
            }
            self._ids[address, port, protocol] = self._call("add_hostfwd", arguments)["id"]
            self.ports = self.ports | {(address, port, protocol)}

    def _call(self, verb: str, arguments: dict[str, str | int]) -> dict[str, int]:
        import json
        import socket

        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.connect(f"/proc/self/fd/{self.run}/{API}")
            client.sendall(json.dumps({"execute": verb, "arguments": arguments}).encode())
            client.shutdown(socket.SHUT_WR)
            data = b""
            while piece := client.recv(4096):
                data += piece
            answer = json.loads(data)
        except (OSError, ValueError) as error:
            raise ContainustError("R013", f"slirp4netns does not answer: {error}") from None
        finally:
            client.close()
        if "error" in answer:
            raise ContainustError("R013", f"slirp4netns: {verb} {arguments}: {answer['error'].get('desc')}")
        result: dict[str, int] = answer.get("return", {})
        return result

    def close(self) -> None:
        super().close()
        if self._exit >= 0:
            os.close(self._exit)
            self._exit = -1


KNOWN: tuple[type[Program], ...] = (Pasta, Slirp4netns)


def order() -> list[type[Program]]:
    """The programs in the order in which they are tried. Raises UsageError for a setting that names none."""
    named = os.environ.get(SETTING)
    if named:
        chosen = [one for one in KNOWN if named == one.name]
        if not chosen:
            raise UsageError(f"{SETTING} is {named!r}", f"use {' or '.join(one.name for one in KNOWN)}, or unset it")
        return chosen
    return [Pasta, Slirp4netns] if is_recent() else [Slirp4netns, Pasta]


def start(user: int, network: int, run: int, ports: set[Port]) -> Program:
    """The first of the programs that works. Raises ContainustError S003 when none is installed, R013 with reasons."""
    chosen = order()
    missing = requirements.missing_network([one.name for one in chosen])
    if missing:
        raise ContainustError("S003", f"a network without root: {missing[0]}", missing[1], 'or use network = "none"')
    reasons = []
    for one in chosen:
        try:
            return one.begin(user, network, run, ports)
        except ContainustError as error:
            reasons.append(error.message)
    raise ContainustError("R013", "; ".join(reasons), "`ctst doctor` says what is missing")


def is_recent() -> bool:
    """Whether pasta is from the end of 2024 or later: it knows an option of that time. Its version is no number here
    and there, and said to terminals only."""
    path = requirements.find(Pasta.name)
    if path is None:
        return False
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)]
    pid = os.posix_spawn(path, [path, LOOPBACK_OPTION, "--version"], {}, file_actions=actions)
    os.close(null)
    return os.waitpid(pid, 0)[1] == 0


def resume(user: int, network: int, run: int) -> Program | None:
    """The program of a keeper that was killed: as it runs, or started again with the ports that it had."""
    try:
        fd = os.open(RECORD, os.O_RDONLY | os.O_CLOEXEC, dir_fd=run)
    except FileNotFoundError:
        return None
    try:
        name, pid, ticks, ports = marshal.loads(os.read(fd, 1 << 20))
    except (ValueError, EOFError, TypeError):
        return None
    finally:
        os.close(fd)
    kind = next(one for one in KNOWN if one.name == name)
    pidfd = process.open_pidfd(pid, ticks) if ticks is not None else -1
    if pidfd >= 0 and network >= 0 and kind is Pasta:
        program = kind(run, set(ports))
        program.user, program.network, program.pid, program.pidfd = user, network, pid, pidfd
        return program
    if pidfd >= 0:
        process.send(pidfd, SIGKILL)
        select.select([pidfd], [], [], 1.0)
        os.close(pidfd)
    _forget(run)
    try:
        return kind.begin(user, network, run, set(ports)) if network >= 0 else None
    except ContainustError:
        return None  # the next start says what is wrong


def _forget(run: int) -> None:
    for name in (RECORD, PID_FILE, API):
        try:
            os.unlink(name, dir_fd=run)
        except FileNotFoundError:
            pass
