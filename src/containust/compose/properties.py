"""The one table of component properties (language.md, section 3).

Checks, help texts, the formatter's order and the documentation read it; a property exists when it has a row.
"""

from __future__ import annotations

from containust.compose import values as v

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.compose.values import Converter


class Property:
    """One row.

    ``kinds`` are the kinds of value accepted, ``form`` says so in words. ``field`` is the attribute of
    :class:`containust.common.types.Component` it fills, empty for none. For a map that merges key by key,
    ``item`` has the kinds of its entries and ``convert`` takes the value of one.
    """

    __slots__ = ("convert", "default", "excludes", "field", "form", "item", "kinds", "meaning", "name")

    def __init__(
        self,
        name: str,
        kinds: tuple[str, ...],
        convert: Converter,
        form: str,
        default: str,
        meaning: str,
        field: str | None = None,
        excludes: str = "",
        item: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.kinds = kinds
        self.convert = convert
        self.form = form
        self.default = default
        self.meaning = meaning
        self.field = name if field is None else field
        self.excludes = excludes
        self.item = item


TEXT = ("string",)
INT = ("int",)
BOOL = ("bool",)
LIST = ("list",)
MAP = ("map",)
ENTRY = ("string", "int", "bool")

ROWS = (
    Property("template", BOOL, v.as_is, "true or false", "decided by use", "only for FROM, never deployed", ""),
    Property(
        "required_params",
        LIST,
        v.strings,
        'a list such as ["image", "DB_URL"]',
        "[]",
        "what a child must set",
        "",
    ),
    Property(
        "image",
        TEXT,
        v.image,
        'a reference such as "oci://docker.io/library/alpine:3.21"',
        "required",
        "where the root file system comes from",
    ),
    Property(
        "include",
        LIST,
        v.paths,
        'a list of paths such as ["/etc/ssl"]',
        "[]",
        "more host paths for a host:// image",
    ),
    Property("live", BOOL, v.as_is, "true or false", "false", "use the directory of a file:// image itself"),
    Property("distroless", BOOL, v.as_is, "true or false", "false", "keep only what the programs need"),
    Property("lazy", BOOL, v.as_is, "true or false", "true", "start before the image is complete"),
    Property("entrypoint", LIST, v.arguments, 'a list such as ["/bin/app"]', "the image's", "the program"),
    Property("command", LIST, v.arguments, 'a list such as ["serve", "--port=80"]', "the image's", "its arguments"),
    Property(
        "workdir",
        TEXT,
        v.working_directory,
        'an absolute path such as "/srv"',
        "the image's",
        "working directory",
    ),
    Property(
        "user", TEXT, v.later("privileges", "user"), '"uid[:gid]" or a name', "the image's", "who the program runs as"
    ),
    Property(
        "hostname",
        TEXT,
        v.later("privileges", "hostname"),
        'a string such as "web"',
        "the component's name",
        "name inside the container",
    ),
    Property("port", INT, v.one_port, "a number, 1 to 65535", "none", "the port it listens on", "ports", "ports"),
    Property(
        "ports",
        LIST,
        v.ports,
        'a list such as [80, 443, "53/udp"]',
        "none",
        "the ports it listens on",
        "ports",
        "port",
    ),
    Property("env", MAP, v.variable, 'a map such as { KEY = "value" }', "{}", "environment variables", item=ENTRY),
    Property(
        "env_file",
        ("string", "list"),
        v.env_files,
        "a path or a list of paths",
        "none",
        "dotenv files; env wins",
        "",
    ),
    Property("volume", TEXT, v.one_volume, '"source:target[:ro|rw]"', "none", "one mount", "volumes", "volumes"),
    Property("volumes", LIST, v.volumes, 'a list of "source:target[:ro|rw]"', "none", "mounts", "volumes", "volume"),
    Property(
        "tmpfs",
        LIST,
        v.later("quantities", "tmpfs"),
        'a list of "/path" or "/path:size=64MiB"',
        "[]",
        "private memory file systems",
    ),
    Property("readonly", BOOL, v.as_is, "true or false", "true", "the root file system is read-only"),
    Property(
        "memory", TEXT, v.later("quantities", "memory"), 'a size such as "512MiB"', "none", "hard limit of memory"
    ),
    Property(
        "cpu",
        ("string", "int"),
        v.later("quantities", "cpu"),
        'shares such as 512 or "0.5"',
        "none",
        "relative weight, 1024 is normal",
        "cpu_shares",
    ),
    Property("cpus", TEXT, v.later("quantities", "cpus"), 'a string such as "1.5"', "none", "hard limit in CPUs"),
    Property("io_weight", INT, v.number(1, 10000), "a number, 1 to 10000", "none", "relative weight of disk access"),
    Property(
        "io_max",
        TEXT,
        v.later("quantities", "rate"),
        'a size such as "20MiB"',
        "none",
        "most bytes a second that are read from a disk, and that are written",
    ),
    Property("pids", INT, v.number(1, 4194304), "a number, 1 to 4194304", "4096", "most processes and threads"),
    Property(
        "network",
        ("string", "list"),
        v.networks,
        "a name or a list of names",
        '"bridge"',
        "networks to join",
        "networks",
    ),
    Property(
        "capabilities",
        LIST,
        v.later("privileges", "capabilities"),
        'a list such as ["NET_BIND_SERVICE"]',
        "a safe few",
        "exactly what is kept",
    ),
    Property("userns", TEXT, v.choice("auto", "host"), '"auto" or "host"', '"auto"', "user namespace"),
    Property(
        "seccomp",
        TEXT,
        v.later("privileges", "seccomp"),
        '"default", "unconfined" or the path of a profile',
        '"default"',
        "system call filter",
    ),
    Property(
        "healthcheck",
        MAP,
        v.as_is,
        'a map such as { command = ["/bin/ready"] }',
        "none",
        "when it counts as healthy",
        "",
        item=("string", "int", "list"),
    ),
    Property(
        "restart",
        TEXT,
        v.restart,
        '"never", "on-failure", "on-failure:5", "always" or "unless-stopped"',
        '"never"',
        "when it is started again",
    ),
    Property(
        "stop_signal",
        TEXT,
        v.later("privileges", "signal_name"),
        'a signal such as "SIGINT"',
        "the image's or SIGTERM",
        "how it is asked to end",
    ),
    Property(
        "stop_timeout",
        TEXT,
        v.later("quantities", "duration"),
        'a duration such as "30s"',
        '"10s"',
        "how long it may take to end",
    ),
    Property("init", BOOL, v.as_is, "true or false", "false", "a tiny reaper is PID 1"),
    Property(
        "labels",
        MAP,
        v.variable,
        'a map such as { team = "web" }',
        "{}",
        "names and values of your own",
        item=ENTRY,
    ),
)
PROPERTIES = {row.name: row for row in ROWS}

HEALTHCHECK = {
    "command": Property(
        "command",
        ("list", "string"),
        v.probe,
        'a list such as ["/bin/ready"], or one string for the shell',
        "required",
        "exit status 0 is healthy",
    ),
    "interval": Property(
        "interval",
        TEXT,
        v.later("quantities", "positive_duration"),
        'a duration such as "30s"',
        '"30s"',
        "time between probes",
    ),
    "timeout": Property(
        "timeout",
        TEXT,
        v.later("quantities", "positive_duration"),
        'a duration such as "5s"',
        '"5s"',
        "a longer probe has failed",
    ),
    "retries": Property(
        "retries",
        INT,
        v.number(1, 1000000),
        "a number, 1 or more",
        "3",
        "failures in a row that make it unhealthy",
    ),
    "start_period": Property(
        "start_period",
        TEXT,
        v.later("quantities", "duration"),
        'a duration such as "10s"',
        '"0s"',
        "failures at first that do not count",
    ),
}

# What people write that is called otherwise here.
OTHERWISE = {
    "environment": "env",
    "cmd": "command",
    "args": "command",
    "mem_limit": "memory",
    "cap_add": "capabilities",
    "working_dir": "workdir",
    "read_only": "readonly",
    "pids_limit": "pids",
    "health_check": "healthcheck",
    "restart_policy": "restart",
    "networks": "network",
    "network_mode": "network",
    "stop_grace_period": "stop_timeout",
    "cpu_shares": "cpu",
    "security_opt": "seccomp",
    "name": "hostname",
}
STATEMENT_HELP = {
    "depends_on": "dependencies are statements: CONNECT this -> other",
    "links": "dependencies are statements: CONNECT this -> other",
    "connect": "dependencies are statements: CONNECT this -> other",
    "expose": "publishing is a statement: EXPOSE 8080:80 -> this",
    "publish": "publishing is a statement: EXPOSE 8080:80 -> this",
    "from": "the template stands before the brace: COMPONENT this FROM template { … }",
    "extends": "the template stands before the brace: COMPONENT this FROM template { … }",
    "build": 'images are built elsewhere; a directory can be used as one: image = "file://./rootfs"',
    "secrets": 'a secret is used in a string: "${secret.name}"',
    "privileged": 'grant what is needed by name: capabilities = ["NET_ADMIN"]',
}
