"""One Compose service as a component, its connections and its published ports."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.common.reference import is_registry, parse_reference
from containust.compose.convert.items import Item, as_list, comment, escaped, keyed_map, wrong_form
from containust.compose.convert.life import Life
from containust.compose.convert.limits import Limits
from containust.compose.convert.mounts import Mounts
from containust.compose.convert.ports import Ports
from containust.compose.convert.variables import Variable, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.compose.convert.writer import Writer

CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
LONGEST_ARGUMENT = 131072  # MAX_ARG_STRLEN; taking a longer text apart would take long, too
SWITCHES = ("privileged", "tty", "stdin_open", "oom_kill_disable")


class Service(Ports, Mounts, Limits, Life):
    """One service."""

    def __init__(self, writer: Writer, name: str, item: Item) -> None:
        super().__init__(writer, name, item)
        self.networks = ["bridge"]
        self.targets: list[str] = []  # components that this one depends on
        self.build()

    def build(self) -> None:
        self.handled: set[str] = {"depends_on", "links", "profiles"}
        if not self.active:
            profiles = self.keys["profiles"]
            self.lost("profiles", profiles, "not active, so it is a template; `--profile` activates it")
            self.add("template", "true")
        elif "profiles" in self.keys:
            self.lost("profiles", self.keys["profiles"], "active, so it is always deployed")
        for step in (
            self.image,
            self.program,
            self.environment,
            self.port_lists,
            self.volumes,
            self.memory_and_cpu,
            self.network,
            self.security,
            self.healthcheck,
            self.endings,
            self.labels,
        ):
            step()
        for key, item in self.keys.items():
            if key.startswith("x-"):
                self.lines.append("    " + comment(f"{self.name}.{key}", item, "Compose ignores it"))
            elif key in SWITCHES and item.value is False:
                pass  # what a container is anyway
            elif key not in self.handled and not (item.value is None or item.value == [] or item.value == {}):
                self.lost(key, item)

    def component(self) -> list[str]:
        if self.ports:
            self.add("port" if self.single_port() else "ports", self.port_literal())
        return [f"COMPONENT {self.component_name} {{", *self.lines, "}"]

    # Image and program

    def image(self) -> None:
        item, build = self.take("image"), self.take("build")
        if build is not None:
            self.lost("build", build, "images are built elsewhere")
        if item is None:
            self.add("image", f'"image://{self.component_name}"')
            if build is None:
                self.writer.warn(self.item, f"{self.name} has no image")
            return
        parts = self.writer.parts(item)
        known = self.writer.lookup(item)
        unset = [part for part in parts if isinstance(part, Variable) and part.wanted and not known.get(part.name)]
        # What `:?` asks for and the host has not is asked for by the result too; any text shows the form.
        text = resolve(parts, {**known, **{part.name: "0" for part in unset}})
        try:
            reference = str(parse_reference("oci://" + full_name(text)))
        except ContainustError as error:
            self.lost("image", item, error.message)
            self.add("image", f'"image://{self.component_name}"')
            return
        head = parts[0] if isinstance(parts[0], str) else ""
        tag_kept = len(parts) > 1 and ":" in head.rpartition("/")[2] and "@" not in text
        if tag_kept:
            # Only the tag varies: everything before it is fixed, so the variables can stay.
            fixed = full_name(head + "x").removesuffix("x")
            self.add("image", self.writer.literal([f"oci://{fixed}", *parts[1:]], item))
            return
        if unset and text == full_name(text):
            self.add("image", self.writer.literal(["oci://", *parts], item))
            return
        if any(isinstance(part, Variable) for part in parts):
            self.writer.warn(item, f"the variables of {item.value!r} were fixed: {text!r}")
        self.add("image", f'"{reference}"')

    def program(self) -> None:
        for key in ("entrypoint", "command"):
            item = self.take(key)
            if item is None:
                continue
            if isinstance(item.value, str) and len(item.value) > LONGEST_ARGUMENT:
                self.lost(key, item, "longer than an argument can be; write a list")
                continue
            if isinstance(item.value, list):
                words = [self.writer.quoted(word) for word in item.value]
            else:
                words = [self.writer.quoted(item.new(word)) for word in words_of(str(item.value))]
            if key == "entrypoint" and not words:
                self.lost(key, item, "an empty entrypoint cannot be told from the image's")
                continue
            self.put(key, f"[{', '.join(words)}]", item)
        for key, name in (("working_dir", "workdir"), ("user", "user"), ("hostname", "hostname")):
            item = self.take(key)
            if item is not None:
                self.put(name, self.writer.quoted(item), item, key)
        own = self.take("container_name")
        if own is not None and self.writer.plain(own) != self.component_name:
            self.lost("container_name", own, f"its name is {self.component_name}")

    def environment(self) -> None:
        item = self.take("environment")
        if item is not None:
            entries = []
            for key, value in keyed_map(item, "environment").items():
                key = self.writer.fixed(value.new(key)) if "$" in key else key
                if value.value is None:
                    if key in self.writer.lookup(value):
                        literal = self.writer.literal([Variable(key, "", False)], value)
                    else:
                        self.lost(
                            f"environment.{key}",
                            value,
                            "it is passed on only when the host has it, and it has not",
                        )
                        continue
                else:
                    literal = self.writer.quoted(value)
                line = f"{key_literal(key)} = {literal}"
                why = self.writer.judge("env", f"{{ {line} }}")
                if why:
                    self.lost(f"environment.{key}", value, why)
                else:
                    entries.append(f"        {line}")
            if entries:
                self.lines += ["    env = {", *entries, "    }"]
        files = self.take("env_file")
        names = []
        for one in as_list(files) if files is not None else []:
            where = one
            if isinstance(one.value, dict):
                entry = self.children(one, ("path", "required"), "env_file")
                where = entry.get("path", one)
                required = entry.get("required")
                path = os.path.join(one.base, self.writer.plain(where))
                if required is not None and required.value is False and not os.path.exists(path):
                    self.lost("env_file", one, "it is optional and not there")
                    continue
            path = os.path.join(where.base, self.writer.plain(where))
            if has_dollar(path):
                self.writer.warn(where, f"{self.name}.env_file: a $ in {os.path.basename(path)} stays a $")
            literal = f'"{self.relative(self.writer.fixed(where), where)}"'
            why = self.writer.judge("env_file", literal)
            if why:
                self.lost("env_file", one, why)
            else:
                names.append(literal)
        if names:
            self.add("env_file", names[0] if len(names) == 1 else f"[{', '.join(names)}]")

    def labels(self) -> None:
        item = self.take("labels")
        if item is None:
            return
        entries = []
        for key, value in keyed_map(item, "labels").items():
            if key:
                entries.append(f"        {key_literal(key)} = {self.writer.quoted(value)}")
            else:
                self.lost("labels", value, "a label without a name")
        if entries:
            self.lines += ["    labels = {", *entries, "    }"]

    # Dependencies

    def connections(self) -> list[str]:
        lines: list[str] = []
        depends = self.keys.get("depends_on")
        targets = dict(keyed_map(depends, "depends_on")) if depends and depends.value else {}
        links = self.keys.get("links")
        for link in as_list(links) if links else []:
            name, _, alias = self.writer.plain(link).partition(":")
            targets.setdefault(name, link.new(None))
            if alias and alias != name:
                lines += self.writer.lost(f"{self.name}.links", link, f"no alias {alias!r} of a name")
        for name, item in targets.items():
            lines += self.connection(name, item)
        return lines

    def connection(self, name: str, item: Item) -> list[str]:
        other = self.writer.services.get(name)
        if other is None:
            return self.writer.lost(f"{self.name}.depends_on.{name}", item, "no such service")
        lines: list[str] = []
        if item.value is not None and not isinstance(item.value, dict):
            raise wrong_form(item, f"{self.name}.depends_on.{name}", "mapping")
        statement = f"CONNECT {self.component_name} -> {other.component_name}"
        options = item.value if isinstance(item.value, dict) else {}
        harmless = {("restart", "false"), ("required", "true"), *[("condition", one) for one in CONDITIONS]}
        for key, child in options.items():
            plain = self.writer.plain(child)
            if key == "condition" and plain == "service_started" and "healthcheck" in other.keys:
                lines += self.writer.lost(
                    f"{self.name}.depends_on.{name}.condition", child, f"it waits until {name} is healthy"
                )
            elif (key, plain) not in harmless:
                lines += self.writer.lost(f"{self.name}.depends_on.{name}.{key}", child)
        why = ""
        if not (self.active and other.active):
            why = f"{(self if not self.active else other).component_name} is a template"
        elif not reachable(self.networks, other.networks):
            why = "they share no network"
        if why:
            self.writer.warn(item, f"{self.name}.depends_on.{name}: {why}")
            return [*lines, f"// {statement}  ({why})"]
        self.targets.append(other.component_name)
        return [*lines, statement]


def reachable(mine: list[str], theirs: list[str]) -> bool:
    if "host" in mine or "host" in theirs:
        return True
    return bool((set(mine) & set(theirs)) - {"none"})


def full_name(text: str) -> str:
    """An image as Docker resolves it: with its registry, and ``library/`` for the short ones."""
    first, slash, _ = text.partition("/")
    if slash and is_registry(first):
        host, _, rest = text.partition("/")
        return f"docker.io/{rest}" if host == "index.docker.io" else text
    return f"docker.io/{text}" if slash else f"docker.io/library/{text}"


def words_of(text: str) -> list[str]:
    """A command line as Compose splits it."""
    import shlex

    try:
        return shlex.split(text)
    except ValueError:
        return ["/bin/sh", "-c", text]


def key_literal(key: str) -> str:
    from containust.compose.lexer import is_name

    return key if is_name(key) else f'"{escaped(key)}"'


def has_dollar(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return b"$" in file.read(1 << 20)
    except OSError:
        return False
