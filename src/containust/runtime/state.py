"""The state index: one JSON file a project, replaced atomically (runtime.md, "State").

Readers never lock. Writers hold an exclusive ``flock`` on a file beside it, write a temporary file in the same
directory, fsync it, rename it and fsync the directory: at any SIGKILL or power cut the file is the old or the new one.
"""

from __future__ import annotations

import fcntl
import time

from containust.common import os
from containust.common.errors import ContainustError
from containust.common.types import Record
from containust.core import jsontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.runtime.project import Project

SCHEMA_VERSION = 1
LOCK_TIMEOUT = 30.0

CREATED = "created"
RUNNING = "running"
STOPPED = "stopped"
FAILED = "failed"
PAUSED = "paused"
# What may follow what; anything else is a mistake in the runtime and raises.
TRANSITIONS = {
    CREATED: (RUNNING, FAILED, STOPPED),
    RUNNING: (STOPPED, FAILED, PAUSED),
    PAUSED: (RUNNING, STOPPED, FAILED),
    STOPPED: (CREATED, RUNNING),
    FAILED: (CREATED, RUNNING),
}


class Container(Record):
    """What is recorded of one container. Times are RFC 3339 strings in UTC, ``start_ticks`` the kernel's start time
    of ``pid`` in clock ticks after boot: a pid is trusted only together with it and with the PID namespace that it is
    the init of."""

    __slots__ = (
        "attachments",
        "boot_id",
        "config_digest",
        "created",
        "done",
        "error",
        "exit_code",
        "exposes",
        "finished",
        "health",
        "id",
        "id_base",
        "image",
        "image_id",
        "name",
        "offline",
        "oom_killed",
        "pid",
        "pid_namespace",
        "remove",
        "restarts",
        "signal",
        "spec",
        "stack_file",
        "start_ticks",
        "started",
        "state",
        "stop_signal",
        "wanted",
    )

    def __init__(self, id: str, name: str, **values: Any) -> None:
        self.id = id
        self.name = name
        self.stack_file: str | None = None  # None: made by `run --image`
        self.spec: dict[str, Any] = {}  # the component as runtime.spec writes it; never a secret's value
        self.config_digest = ""
        self.image = ""
        self.image_id = ""
        self.state = CREATED
        self.wanted = RUNNING  # what the user asked for last: running or stopped
        self.health: str | None = None
        self.pid: int | None = None
        self.start_ticks: int | None = None
        self.pid_namespace: int | None = None  # its inode
        self.boot_id = ""
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.oom_killed = False
        self.error: dict[str, Any] | None = None  # code and message of a start that failed
        self.done = False  # a one-shot that exited 0 and was waited for: a second `run` leaves it (language.md, 6)
        self.restarts = 0
        self.created = ""
        self.started: str | None = None
        self.finished: str | None = None
        self.exposes: list[dict[str, Any]] = []
        self.attachments: list[dict[str, Any]] = []
        self.offline = False  # started with --offline: its networks lead to peers only
        self.id_base: int | None = None
        self.stop_signal = "SIGTERM"
        self.remove = False  # --rm: forget it when it ends
        for key, value in values.items():
            setattr(self, key, value)

    def begin(self) -> None:
        """Be about to start because the user wants it, after it had ended."""
        self.become(CREATED)
        self.wanted = RUNNING
        self.done = False
        self.error = None
        self.restarts = 0  # `on-failure:N` counts from here

    def ended(self) -> None:
        """Have ended without anybody to see how."""
        self.become(STOPPED if self.wanted == STOPPED else FAILED)
        self.pid = self.start_ticks = self.pid_namespace = None
        self.exit_code = self.signal = None
        self.oom_killed = False
        self.finished = now()
        self.health = None

    def become(self, state: str) -> None:
        """Go to another state. Raises ValueError for a transition outside the table."""
        if state != self.state and state not in TRANSITIONS[self.state]:
            raise ValueError(f"container {self.name}: no transition from {self.state} to {state}")
        self.state = state

    @property
    def cgroup(self) -> str:
        """Name of the container's group below the project's."""
        return self.id[:12]

    @property
    def unit(self) -> str:
        """What the container is supervised with: its stack's file, or itself."""
        return self.stack_file or self.id


class State:
    """The index in memory: containers by id, networks by name, the project's id range."""

    __slots__ = ("containers", "networks")

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {}
        self.networks: dict[str, Any] = {}

    def by_name(self, name: str) -> Container | None:
        """The container with exactly this name."""
        for container in self.containers.values():
            if container.name == name:
                return container
        return None

    def find(self, name: str) -> Container:
        """By exact name, full id or unique id prefix of four or more. Raises ContainustError R005."""
        exact = self.by_name(name) or self.containers.get(name)
        if exact:
            return exact
        matches = [c for c in self.containers.values() if len(name) >= 4 and c.id.startswith(name)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ContainustError(
                "R005", f"id prefix {name} is ambiguous", *(f"{c.id[:12]} is {c.name}" for c in matches)
            )
        from containust.common.suggest import nearest

        near = nearest(name, [c.name for c in self.containers.values()])
        raise ContainustError(
            "R005",
            f"no container called {name}",
            f"did you mean {near}?" if near else "`ctst ps -a` lists this project's containers",
        )


def load(project: Project) -> State:
    """The project's state; an empty one when nothing was ever recorded.

    Raises ContainustError S001 for a file that is not ours to read as state, S003 without permission, S006 for a
    newer schema. The file is never overwritten in these cases.
    """
    path = project.state_file
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return State()
    except NotADirectoryError:
        return State()
    except OSError as error:
        if isinstance(error, PermissionError):
            raise ContainustError(
                "S003", f"cannot read {path}: {error.strerror}", "run as the user who owns this project"
            ) from None
        raise ContainustError(
            "S001", f"cannot read {path}: {error.strerror}", "it must be a regular file, not a link"
        ) from None
    try:
        status = os.fstat(fd)
        if status.st_mode & 0o170000 != 0o100000:
            raise ContainustError("S001", f"{path} is not a regular file", "move it away; it has not been changed")
        _trust(path, status)
        size = status.st_size
        text = b""
        while len(text) < size:
            piece = os.read(fd, size - len(text))
            if not piece:
                break
            text += piece
    except OSError as error:
        raise ContainustError(
            "S001", f"cannot read {path}: {error.strerror}", "check the disk that it is on; it has not been changed"
        ) from None
    finally:
        os.close(fd)
    return decode(text, path)


def _trust(path: str, status: os.stat_result) -> None:
    """Refuse what somebody else can write, for it says what is killed and deleted. Raises ContainustError S003."""
    directory = os.path.dirname(path)
    for name, one in ((path, status), (directory, os.stat(directory))):
        if one.st_uid not in (0, os.geteuid()):
            raise ContainustError(
                "S003",
                f"{name} belongs to another user (uid {one.st_uid})",
                "run as that user, or in a project of your own",
            )
        if one.st_mode & 0o1002 == 0o002:  # a directory whose files only their owners can remove will do
            raise ContainustError("S003", f"everybody may write to {name}", f"chmod o-w {name}")


def decode(text: bytes, path: str) -> State:
    """State from the bytes of its file."""
    try:
        document = jsontext.loads(text.decode())
        version = document["schema_version"]
        if version > SCHEMA_VERSION:
            raise ContainustError(
                "S006",
                f"{path} was written by a newer containust (schema {version}, this one knows {SCHEMA_VERSION})",
                "use that version, or another --state-file",
            )
        state = State()
        for values in document["containers"]:
            container = Container(**values)
            _check(container)
            state.containers[container.id] = container
        state.networks = document.get("networks", {})
        return state
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ContainustError(
            "S001",
            f"{path} is damaged ({error}); it has not been changed",
            "restore it from a backup, or move it away to start afresh (running containers then need `ctst doctor`)",
        ) from None


def _check(container: Container) -> None:
    """Refuse what would fail later, or act on something else: a pid that is none, an id that is a path."""
    numbers = [
        getattr(container, name) for name in ("pid", "start_ticks", "pid_namespace", "id_base", "exit_code", "signal")
    ]
    texts = (container.id, container.name, container.boot_id, container.stop_signal, container.wanted)
    if container.state not in TRANSITIONS or not _is_id(container.id):
        raise ValueError(f"no such state or id: {container.state!r}, {container.id!r}")
    for number in numbers:
        if number is not None and (type(number) is not int or number < 0):
            raise ValueError(f"{container.name}: {number!r} is not a number")
    for text in texts:
        if type(text) is not str:
            raise ValueError(f"{text!r} is not a text")
    if type(container.spec) is not dict or type(container.restarts) is not int:
        raise ValueError(f"{container.name}: no definition")
    for volume in container.spec.get("volumes", ()):
        if volume["kind"] == "managed" and ("/" in volume["source"] or volume["source"] in ("", ".", "..")):
            raise ValueError(f"{container.name}: no such volume: {volume['source']!r}")


def _is_id(text: object) -> bool:
    """Whether it has the form of a UUID: ids become names of directories that are deleted."""
    return type(text) is str and len(text) == 36 and text[8] == "-" and not text.strip("0123456789abcdef-")


def encode(state: State) -> bytes:
    """The file's bytes."""
    return jsontext.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "containers": [container.as_dict() for container in state.containers.values()],
            "networks": state.networks,
        }
    ).encode()


class Update:
    """``with Update(project) as state:`` holds the lock and gives the newest state, written if the block ends well."""

    __slots__ = ("_lock", "_project", "state")

    def __init__(self, project: Project) -> None:
        self._project = project
        self._lock = lock(f"{project.state_file}.lock", LOCK_TIMEOUT)
        try:
            self.state = load(project)
        except BaseException:
            self.abandon()
            raise

    def commit(self) -> None:
        """Write the state and give up the lock."""
        try:
            save(self._project, self.state)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Give up the lock, leaving the file as it was. Again, or after a commit, it does nothing."""
        if self._lock >= 0:
            # A container that is being made has a copy of the descriptor until exec; closing ours would not unlock.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> State:
        return self.state

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.abandon()


def lock(path: str, timeout: float) -> int:
    """A descriptor that holds an exclusive flock on ``path``.

    Raises ContainustError S002 when others hold it for ``timeout`` s and nothing is written in that time.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise permission(path, error) from None
    began, before = time.monotonic(), _progress(path)
    pause = 0.0005
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except OSError as error:
            if not isinstance(error, BlockingIOError | PermissionError):
                os.close(fd)
                raise
        if time.monotonic() > began + timeout:
            seen = _progress(path)
            if seen != before:  # many wait, and they get their turns
                began, before = time.monotonic(), seen
                continue
            os.close(fd)
            raise ContainustError(
                "S002",
                f"{path} has been locked by another ctst for {timeout:.0f} s",
                "wait for it, or end the process that `fuser` shows on that file",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def _progress(path: str) -> tuple[int, int]:
    """Something that changes whenever one who holds the lock ``path`` has written the state."""
    try:
        status = os.stat(path.removesuffix(".lock"))
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def save(project: Project, state: State) -> None:
    """Replace the state file. The caller holds the lock."""
    path = project.state_file
    temporary = f"{path}.new"
    try:
        fd = _create(temporary)
        try:
            data = encode(state)
            while data:
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        try:
            os.unlink(temporary)  # on a full disk it is in the way
        except OSError:
            pass
        raise permission(path, error) from None


def _create(path: str) -> int:
    """A new file: one that is there was left by a killed process, or laid there by somebody who would keep it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        os.unlink(path)
        return os.open(path, flags, 0o600)


def permission(path: str, error: OSError) -> ContainustError:
    """S003 for a state file that cannot be written, with what is in the way."""
    from errno import EDQUOT, ENOSPC, EROFS

    why = "the file system is read-only" if error.errno == EROFS else error.strerror
    remedy = "free some space, or" if error.errno in (ENOSPC, EDQUOT) else "run as the user who owns this project, or"
    return ContainustError("S003", f"cannot write {path}: {why}", f"{remedy} name another place with --state-file")


def now() -> str:
    """The time as RFC 3339 in UTC with nanoseconds."""
    return timestamp(time.time_ns())


def timestamp(nanoseconds: int) -> str:
    """A time since the epoch as RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
