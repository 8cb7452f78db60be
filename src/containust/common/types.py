"""Domain types shared by every layer: what a stack is once its file has been read and resolved.

Plain ``__slots__`` classes with positional constructors: these are made on the start-up path of every command,
where one dataclass costs more than a container's user namespace does. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Record:
    """Base of the value types: equality, representation and a dictionary form from ``__slots__``."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(getattr(self, s) == getattr(other, s) for s in self.__slots__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, s) for s in self.__slots__))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{s}={getattr(self, s)!r}' for s in self.__slots__)})"

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values, in the order of ``__slots__``."""
        return {s: plain(getattr(self, s)) for s in self.__slots__}


def plain(value: Any) -> Any:
    """``value`` with every record in it replaced by its dictionary, tuples by lists."""
    if isinstance(value, Record):
        return value.as_dict()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


class Ref(Record):
    """A reference that can only be resolved when a stack is deployed.

    ``kind`` is ``"component"`` (``name`` a component, ``attribute`` one of host, port, connection_string) or
    ``"secret"`` (``attribute`` empty). ``${env.X}`` is resolved while checking and never becomes a Ref.
    """

    __slots__ = ("attribute", "kind", "name")

    def __init__(self, kind: str, name: str, attribute: str = "") -> None:
        self.kind = kind
        self.name = name
        self.attribute = attribute


# A string value of the language: plain, or parts in which references stand for what deployment fills in.
if TYPE_CHECKING:
    Text = str | tuple[str | Ref, ...]


class Port(Record):
    """A port a component listens on. ``protocol`` is ``"tcp"`` or ``"udp"``."""

    __slots__ = ("number", "protocol")

    def __init__(self, number: int, protocol: str = "tcp") -> None:
        self.number = number
        self.protocol = protocol


class Volume(Record):
    """A directory or file mounted into a container.

    ``kind`` is ``"bind"`` (``source`` an absolute host path) or ``"managed"`` (``source`` a bare name under the
    project's ``volumes/``).
    """

    __slots__ = ("kind", "readonly", "source", "target")

    def __init__(self, kind: str, source: str, target: str, readonly: bool = False) -> None:
        self.kind = kind
        self.source = source
        self.target = target
        self.readonly = readonly


class Tmpfs(Record):
    """A private tmpfs at ``target``; ``size`` in bytes or None for the kernel's default."""

    __slots__ = ("size", "target")

    def __init__(self, target: str, size: int | None = None) -> None:
        self.target = target
        self.size = size


class Restart(Record):
    """``policy`` is never, on-failure, always or unless-stopped; ``limit`` bounds on-failure's attempts."""

    __slots__ = ("limit", "policy")

    def __init__(self, policy: str = "never", limit: int | None = None) -> None:
        self.policy = policy
        self.limit = limit


class Healthcheck(Record):
    """A probe. ``command`` is an argv; times are seconds."""

    __slots__ = ("command", "interval", "retries", "start_period", "timeout")

    def __init__(
        self,
        command: list[Text],
        interval: float = 30.0,
        timeout: float = 5.0,
        retries: int = 3,
        start_period: float = 0.0,
    ) -> None:
        self.command = command
        self.interval = interval
        self.timeout = timeout
        self.retries = retries
        self.start_period = start_period


class Expose(Record):
    """A published port: ``address:host_port`` on the host leads to ``container_port`` of ``component``."""

    __slots__ = ("address", "component", "container_port", "host_port", "protocol")

    def __init__(
        self,
        component: str,
        host_port: int,
        container_port: int,
        protocol: str = "tcp",
        address: str = "127.0.0.1",
    ) -> None:
        self.component = component
        self.host_port = host_port
        self.container_port = container_port
        self.protocol = protocol
        self.address = address

    @property
    def place(self) -> str:
        """``address:port`` on the host, an IPv6 address in brackets."""
        return f"[{self.address}]:{self.host_port}" if ":" in self.address else f"{self.address}:{self.host_port}"


DEFAULT_PIDS = 4096
DEFAULT_STOP_TIMEOUT = 10.0

# Every property of a deployed component with the value it has when nothing sets it (language.md, section 3).
COMPONENT_DEFAULTS: dict[str, Any] = {
    "image": "",
    "include": [],
    "live": False,
    "ports": [],
    "memory": None,  # bytes
    "cpu_shares": None,  # 1024 is one share of normal
    "cpus": None,  # hard limit in CPUs, a float
    "io_weight": None,  # 1-10000
    "io_max": None,  # bytes a second
    "pids": DEFAULT_PIDS,
    "env": {},  # str -> Text, in file order
    "volumes": [],
    "tmpfs": [],
    "command": None,  # None: the image's
    "entrypoint": None,  # None: the image's
    "readonly": True,
    "workdir": None,
    "user": None,
    "hostname": None,  # None: the component's name
    "capabilities": None,  # None: the default list; names with the CAP_ prefix
    "userns": "auto",  # or "host"
    "seccomp": "default",  # or "unconfined", or the absolute path of an OCI profile
    "distroless": False,
    "lazy": True,
    "restart": Restart(),
    "networks": ["bridge"],
    "healthcheck": None,
    "stop_signal": None,  # None: the image's, else SIGTERM; a name such as "SIGINT"
    "stop_timeout": DEFAULT_STOP_TIMEOUT,
    "init": False,
    "labels": {},
    "depends_on": [],  # CONNECT targets, in file order
}


class Component(Record):
    """One component to deploy: :data:`COMPONENT_DEFAULTS` updated by what its file says."""

    __slots__ = ("name", *COMPONENT_DEFAULTS)

    if TYPE_CHECKING:
        name: str
        image: str
        include: list[str]
        live: bool
        ports: list[Port]
        memory: int | None
        cpu_shares: int | None
        cpus: float | None
        io_weight: int | None
        io_max: int | None
        pids: int
        env: dict[str, Text]
        volumes: list[Volume]
        tmpfs: list[Tmpfs]
        command: list[Text] | None
        entrypoint: list[Text] | None
        readonly: bool
        workdir: str | None
        user: str | None
        hostname: str | None
        capabilities: list[str] | None
        userns: str
        seccomp: str
        distroless: bool
        lazy: bool
        restart: Restart
        networks: list[str]
        healthcheck: Healthcheck | None
        stop_signal: str | None
        stop_timeout: float
        init: bool
        labels: dict[str, Text]
        depends_on: list[str]

    def __init__(self, name: str, **properties: Any) -> None:
        self.name = name
        for key, default in COMPONENT_DEFAULTS.items():
            value = properties.pop(key, default)
            if value is default and isinstance(value, (list, dict)):
                value = value.copy()
            setattr(self, key, value)
        if properties:
            raise TypeError(f"unknown component properties: {', '.join(sorted(properties))}")


class Stack(Record):
    """A resolved ``.ctst`` file: what to deploy, and in which order.

    ``file`` is the absolute path of the entry file, ``components`` the deployed ones by name in file order,
    ``templates`` the names that are not deployed, ``exposes`` every published port with its component bound.
    """

    __slots__ = ("components", "exposes", "file", "templates")

    def __init__(
        self,
        file: str,
        components: dict[str, Component],
        exposes: list[Expose],
        templates: list[str] | None = None,
    ) -> None:
        self.file = file
        self.components = components
        self.exposes = exposes
        self.templates = templates or []


class ImageConfig(Record):
    """The part of an OCI image configuration that a container start honours (image-spec, config.md).

    ``env`` is a list of ``KEY=value``; ``healthcheck`` is already in our own form.
    """

    __slots__ = (
        "command",
        "entrypoint",
        "env",
        "exposed_ports",
        "healthcheck",
        "labels",
        "stop_signal",
        "user",
        "volumes",
        "workdir",
    )

    def __init__(
        self,
        entrypoint: list[str] | None = None,
        command: list[str] | None = None,
        env: list[str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        exposed_ports: list[Port] | None = None,
        volumes: list[str] | None = None,
        stop_signal: str | None = None,
        healthcheck: Healthcheck | None = None,
        labels: dict[str, str] | None = None,
    ) -> None:
        self.entrypoint = entrypoint or []
        self.command = command or []
        self.env = env or []
        self.workdir = workdir
        self.user = user
        self.exposed_ports = exposed_ports or []
        self.volumes = volumes or []
        self.stop_signal = stop_signal
        self.healthcheck = healthcheck
        self.labels = labels or {}
