"""One Compose service as a component, its connections and its published ports."""

from __future__ import annotations

import os

from containust.common.errors import ContainustError
from containust.common.reference import is_registry, parse_reference
from containust.compose.convert.reader import Item, Variable, as_list, keyed, resolve
from containust.compose.privileges import CAPABILITIES, SIGNALS
from containust.compose.quantities import LEAST_MEMORY, parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.compose.convert.writer import Writer

# What a container has that says nothing (runtime.md, "Privileges"): cap_add adds to it, cap_drop takes away.
DEFAULT_CAPABILITIES = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE"
BYTES = {
    "": 1,
    "b": 1,
    "k": 2**10,
    "kb": 2**10,
    "m": 2**20,
    "mb": 2**20,
    "g": 2**30,
    "gb": 2**30,
    "t": 2**40,
    "tb": 2**40,
}
CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
MODES = {"ro": ":ro", "rw": "", "z": "", "Z": "", "cached": "", "delegated": "", "consistent": ""}


class Service:
    """One service; the methods that return lines also warn of what they could not say."""

    def __init__(self, writer: Writer, name: str, item: Item) -> None:
        self.writer = writer
        self.name = name
        self.item = item
        self.keys: dict[str, Item] = item.value
        self.component_name = writer.names[name]
        self.active = writer.active(item)
        self.ports: list[str] = []  # literals for the ports property
        self.published: list[tuple[Item, str, int, int, str]] = []
        self.notes: list[str] = []  # comments beside the statements
        self.networks: list[str] = ["bridge"]
        self.lines: list[str] = []
        self.build()

    # Plumbing

    def add(self, key: str, value: str) -> None:
        self.lines.append(f"    {key} = {value}")

    def lost(self, key: str, item: Item, why: str = "no counterpart") -> None:
        self.lines += ["    " + line for line in self.writer.lost(f"{self.name}.{key}", item, why)]

    def take(self, key: str) -> Item | None:
        """The value of ``key``, from then on handled; None when it is absent or null."""
        item = self.keys.get(key)
        self.handled.add(key)
        return item if item is not None and item.value is not None else None

    def children(self, item: Item, known: tuple[str, ...], name: str) -> dict[str, Item]:
        """A mapping's entries, with those not in ``known`` lost."""
        if not isinstance(item.value, dict):
            return {}
        for key, child in item.value.items():
            if key not in known and not key.startswith("x-"):
                self.lost(f"{name}.{key}", child)
        return item.value

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
                from containust.compose.convert.writer import comment

                self.lines.append("    " + comment(f"{self.name}.{key}", item, "Compose ignores it"))
            elif key not in self.handled and not (item.value is None or item.value == [] or item.value == {}):
                self.lost(key, item)

    def component(self) -> list[str]:
        if self.ports:
            self.add("port" if len(self.ports) == 1 and '"' not in self.ports[0] else "ports", self.port_literal())
        return [f"COMPONENT {self.component_name} {{", *self.lines, "}"]

    def port_literal(self) -> str:
        if len(self.ports) == 1 and '"' not in self.ports[0]:
            return self.ports[0]
        return f"[{', '.join(self.ports)}]"

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
            if isinstance(item.value, list):
                words = [self.writer.quoted(word) for word in item.value]
            else:
                words = [self.writer.quoted(item.new(word)) for word in words_of(str(item.value))]
            if key == "entrypoint" and not words:
                self.lost(key, item, "an empty entrypoint cannot be told from the image's")
                continue
            self.add(key, f"[{', '.join(words)}]")
        for key, name in (("working_dir", "workdir"), ("user", "user"), ("hostname", "hostname")):
            item = self.take(key)
            if item is not None:
                self.add(name, self.writer.quoted(item))
        own = self.take("container_name")
        if own is not None and self.writer.plain(own) != self.component_name:
            self.lost("container_name", own, f"its name is {self.component_name}")

    def environment(self) -> None:
        item = self.take("environment")
        if item is not None:
            entries = []
            values = keyed(item, "environment").value
            for key, value in values.items() if isinstance(values, dict) else ():
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
                entries.append(f"        {key_literal(key)} = {literal}")
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
            names.append(f'"{self.relative(self.writer.fixed(where), where)}"')
        if names:
            self.add("env_file", names[0] if len(names) == 1 else f"[{', '.join(names)}]")

    def relative(self, path: str, item: Item) -> str:
        """A host path as the file that is written will see it, as a string's inside."""
        from containust.compose.convert.writer import escaped

        if path == "~" or path.startswith("~/"):
            path = self.writer.lookup(item).get("HOME", "/root") + path[1:]
        if not os.path.isabs(path):
            path = os.path.relpath(os.path.join(item.base, path), self.writer.directory)
            if not path.startswith("../") and path != "..":
                path = "./" if path == "." else f"./{path}"
        return escaped(path)

    def labels(self) -> None:
        item = self.take("labels")
        if item is None:
            return
        values = keyed(item, "labels").value
        entries = [
            f"        {key_literal(key)} = {self.writer.quoted(value)}"
            for key, value in (values.items() if isinstance(values, dict) else ())
        ]
        if entries:
            self.lines += ["    labels = {", *entries, "    }"]

    # Ports

    def port_lists(self) -> None:
        item = self.take("ports")
        for one in as_list(item) if item is not None else []:
            if isinstance(one.value, dict):
                self.long_port(one)
            else:
                self.short_port(one)
        item = self.take("expose")
        for one in as_list(item) if item is not None else []:
            text, _, protocol = self.writer.fixed(one).partition("/")
            ports = port_range(text)
            if not ports or protocol not in ("", "tcp", "udp"):
                self.lost("expose", one, "not a port")
            for port in ports:
                self.listen(port, protocol or "tcp")

    def listen(self, port: int, protocol: str) -> None:
        literal = str(port) if protocol == "tcp" else f'"{port}/{protocol}"'
        if literal not in self.ports:
            self.ports.append(literal)

    def short_port(self, item: Item) -> None:
        text, _, protocol = self.writer.fixed(item).partition("/")
        rest, _, container = text.rpartition(":")
        address = ""
        if rest.startswith("["):
            address, _, rest = rest[1:].partition("]")
            rest = rest.removeprefix(":")
        elif ":" in rest:
            address, _, rest = rest.rpartition(":")
        elif rest.count(".") == 3:
            address, rest = rest, ""
        self.publish(item, address, rest, container, protocol or "tcp")

    def long_port(self, item: Item) -> None:
        known = ("target", "published", "protocol", "host_ip", "mode", "name", "app_protocol")
        entry = self.children(item, known, "ports")
        for key in ("name", "app_protocol"):
            if key in entry:
                self.lost(f"ports.{key}", entry[key])
        texts = {key: self.writer.fixed(entry[key]) if key in entry else "" for key in known}
        self.publish(item, texts["host_ip"], texts["published"], texts["target"], texts["protocol"] or "tcp")

    def publish(self, item: Item, address: str, host: str, container: str, protocol: str) -> None:
        inner, outer = port_range(container), port_range(host)
        if not inner or protocol not in ("tcp", "udp") or (host and not outer):
            self.lost("ports", item, "not a port of TCP or UDP")
            return
        for port in inner:
            self.listen(port, protocol)
        if not host:
            self.lost("ports", item, "the host port is not fixed; add EXPOSE with one")
        elif len(outer) != len(inner):
            self.lost("ports", item, "any free port of a range has no counterpart; add EXPOSE with one")
        else:
            for one, port in zip(outer, inner, strict=True):
                self.published.append((item, address, one, port, protocol))

    def exposed(self, taken: set[tuple[str, int, str]]) -> list[str]:
        lines = []
        for item, address, host, container, protocol in self.published:
            key = (address, host, protocol)
            statement = expose_statement(address or "0.0.0.0", host, container, protocol, self.component_name)
            if not self.active or key in taken:
                why = "the same host port twice" if self.active else f"{self.component_name} is a template"
                self.writer.warn(item, f"{self.name}.ports: {why}")
                lines.append(f"// {statement}  ({why})")
                continue
            taken.add(key)
            lines.append(statement)
        return lines

    # Mounts

    def volumes(self) -> None:
        mounts: list[str] = []
        memory: list[str] = []
        seen: set[str] = set()
        item = self.take("volumes")
        for one in as_list(item) if item is not None else []:
            if isinstance(one.value, dict):
                self.long_volume(one, mounts, memory, seen)
            else:
                self.short_volume(one, mounts, seen)
        item = self.take("tmpfs")
        for one in as_list(item) if item is not None else []:
            target, _, options = self.writer.fixed(one).partition(":")
            size = ""
            for option in filter(None, options.split(",")):
                key, _, value = option.partition("=")
                if key == "size" and amount(value):
                    size = f":size={size_text(amount(value))}"
                else:
                    self.lost(f"tmpfs.{option}", one)
            self.mount(one, seen, target, memory, f'"{target}{size}"')
        for kind, directory in (("secrets", "/run/secrets"), ("configs", "")):
            item = self.take(kind)
            for one in as_list(item) if item is not None else []:
                self.file_mount(one, kind, directory, mounts, seen)
        for key, values in (("volumes", mounts), ("tmpfs", memory)):
            if len(values) == 1 and key == "volumes":
                self.add("volume", values[0])
            elif values:
                self.lines += [f"    {key} = [", *[f"        {value}," for value in values], "    ]"]

    def mount(self, item: Item, seen: set[str], target: str, into: list[str], literal: str) -> None:
        normal = os.path.normpath(target)
        if not target.startswith("/") or ".." in target.split("/") or normal == "/":
            self.lost("volumes", item, "the target is no absolute path inside")
        elif normal in seen:
            self.lost("volumes", item, "the same target twice")
        else:
            seen.add(normal)
            into.append(literal)

    def short_volume(self, item: Item, mounts: list[str], seen: set[str]) -> None:
        text = self.writer.fixed(item)
        parts = text.split(":")
        if len(parts) == 1:
            self.mount(item, seen, text, mounts, f'"{self.anonymous(item, text)}:{text}"')
            return
        mode = ""
        for option in parts[2].split(",") if len(parts) > 2 else []:
            if option not in MODES:
                self.lost(f"volumes.{option}", item)
            mode = mode or MODES.get(option, "")
        self.mount(item, seen, parts[1], mounts, f'"{self.origin(parts[0], item)}:{parts[1]}{mode}"')

    def anonymous(self, item: Item, target: str) -> str:
        words = "".join([c if c.isascii() and c.isalnum() else "-" for c in target]).strip("-")
        name = f"{self.component_name}-{words}"
        self.writer.warn(item, f"{self.name}.volumes: the anonymous volume for {target} is kept as {name!r}")
        return name

    def origin(self, source: str, item: Item) -> str:
        """The source of a volume: a path, or a managed volume's name."""
        if source.startswith(("/", ".", "~")) or "/" in source:
            return self.relative(source, item)
        name = "".join([c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in source])
        return name if name[:1].isalnum() else f"v{name}"

    def long_volume(self, item: Item, mounts: list[str], memory: list[str], seen: set[str]) -> None:
        known = ("type", "source", "target", "read_only", "bind", "volume", "tmpfs", "consistency")
        entry = self.children(item, known, "volumes")
        text = {key: self.writer.fixed(entry[key]) if key in entry else "" for key in ("type", "source", "target")}
        mode = ":ro" if "read_only" in entry and self.writer.plain(entry["read_only"]) == "true" else ""
        for key, harmless in (
            ("bind", ("create_host_path", "selinux")),
            ("volume", ("nocopy",)),
            ("tmpfs", ("size",)),
        ):
            if key in entry:
                self.children(entry[key], harmless, f"volumes.{key}")
        target = text["target"]
        if text["type"] == "tmpfs":
            size = (
                entry["tmpfs"].value.get("size")
                if "tmpfs" in entry and isinstance(entry["tmpfs"].value, dict)
                else None
            )
            number = amount(self.writer.plain(size)) if size is not None else 0
            self.mount(
                item,
                seen,
                target,
                memory,
                f'"{target}:size={size_text(number)}"' if number else f'"{target}"',
            )
        elif text["type"] == "volume" and not text["source"]:
            self.mount(item, seen, target, mounts, f'"{self.anonymous(item, target)}:{target}{mode}"')
        elif text["type"] in ("bind", "volume"):
            source = text["source"]
            origin = self.relative(source, item) if text["type"] == "bind" else self.origin(source, item)
            self.mount(item, seen, target, mounts, f'"{origin}:{target}{mode}"')
        else:
            self.lost("volumes", item)

    def file_mount(self, item: Item, kind: str, directory: str, mounts: list[str], seen: set[str]) -> None:
        entry = item.value if isinstance(item.value, dict) else {"source": item}
        for key, child in entry.items():
            if key not in ("source", "target"):
                self.lost(f"{kind}.{key}", child)
        name = self.writer.plain(entry.get("source"))
        file = self.writer.mounted(name, kind)
        if file is None:
            self.lost(kind, item, "only those with a file have a counterpart")
            return
        target = self.writer.plain(entry["target"]) if "target" in entry else name
        if not target.startswith("/"):
            target = f"{directory}/{target}"
        self.mount(item, seen, target, mounts, f'"{self.relative(self.writer.fixed(file), file)}:{target}:ro"')

    # Limits

    def memory_and_cpu(self) -> None:
        found: dict[str, Item] = {}
        for key, name in (
            ("mem_limit", "memory"),
            ("cpus", "cpus"),
            ("pids_limit", "pids"),
            ("cpu_shares", "cpu"),
        ):
            item = self.take(key)
            if item is not None:
                found[name] = item
        deploy = self.take("deploy")
        if deploy is not None:
            self.deploy(deploy, found)
        if "memory" in found:
            size = amount(self.writer.fixed(found["memory"]))
            if size >= LEAST_MEMORY:
                self.add("memory", f'"{size_text(size)}"')
            elif size:
                self.lost("memory", found["memory"], "too little to start a program")
        if "cpus" in found:
            text = self.writer.fixed(found["cpus"])
            if text.strip("0."):
                self.add("cpus", f'"{text}"')
        if "pids" in found:
            text = self.writer.fixed(found["pids"])
            if text.isdigit() and int(text):
                self.add("pids", text)
            elif text != "0":
                self.add("pids", "4194304")
        if "cpu" in found:
            text = self.writer.fixed(found["cpu"])
            if text.isdigit() and int(text) >= 2:
                self.add("cpu", str(min(int(text), 262144)))
        item = self.take("blkio_config")
        if item is not None:
            weight = self.children(item, ("weight",), "blkio_config").get("weight")
            if weight is not None:
                self.add("io_weight", self.writer.fixed(weight))

    def deploy(self, deploy: Item, found: dict[str, Item]) -> None:
        entry = self.children(deploy, ("resources", "replicas", "restart_policy", "mode", "labels"), "deploy")
        for key in ("replicas", "mode", "labels"):
            if key in entry and self.writer.plain(entry[key]) not in ("1", "replicated"):
                self.lost(f"deploy.{key}", entry[key])
        if "resources" in entry:
            resources = self.children(entry["resources"], ("limits",), "deploy.resources")
            if "limits" in resources:
                limits = self.children(resources["limits"], ("cpus", "memory", "pids"), "deploy.resources.limits")
                for key, item in limits.items():
                    if key in ("cpus", "memory", "pids"):
                        found[key] = item
        if "restart_policy" in entry:
            policy = self.children(entry["restart_policy"], ("condition", "max_attempts"), "deploy.restart_policy")
            condition = self.writer.plain(policy["condition"]) if "condition" in policy else "any"
            attempts = self.writer.plain(policy["max_attempts"]) if "max_attempts" in policy else ""
            if "restart" in self.keys:
                self.lost("deploy.restart_policy", entry["restart_policy"], "restart says it too")
            elif condition == "on-failure":
                self.add("restart", f'"on-failure{":" + attempts if attempts.isdigit() and int(attempts) else ""}"')
            elif condition == "any":
                self.add("restart", '"always"')
                if attempts:
                    self.lost("deploy.restart_policy.max_attempts", policy["max_attempts"])

    # Networks and security

    def network(self) -> None:
        mode, item = self.take("network_mode"), self.take("networks")
        if mode is not None:
            text = self.writer.fixed(mode)
            if text in ("host", "none"):
                self.networks = [text]
                self.add("network", f'"{text}"')
            elif text not in ("bridge", "default"):
                self.lost("network_mode", mode)
            return
        if item is None:
            return
        entries = keyed(item, "networks").value
        names = []
        for name, options in entries.items() if isinstance(entries, dict) else ():
            names.append("bridge" if name == "default" else network_name(name))
            if options.value:
                self.lost(f"networks.{name}", options)
        if names and names != ["bridge"]:
            self.networks = names
            self.add(
                "network",
                f'"{names[0]}"' if len(names) == 1 else "[" + ", ".join(f'"{n}"' for n in names) + "]",
            )

    def security(self) -> None:
        item = self.take("read_only")
        if item is None or self.writer.plain(item) != "true":
            self.add("readonly", "false")
        add, drop = self.take("cap_add"), self.take("cap_drop")
        if add is not None or drop is not None:
            self.capabilities(as_list(add) if add else [], as_list(drop) if drop else [])
        item = self.take("security_opt")
        for one in as_list(item) if item is not None else []:
            key, _, value = self.writer.fixed(one).replace("=", ":", 1).partition(":")
            if key == "seccomp" and value == "unconfined":
                self.add("seccomp", '"unconfined"')
            elif key == "seccomp":
                self.add("seccomp", f'"{self.relative(value, one)}"')
            elif key != "no-new-privileges" or value == "false":
                self.lost("security_opt", one)
        item = self.take("userns_mode")
        if item is not None:
            if self.writer.plain(item) == "host":
                self.add("userns", '"host"')
            else:
                self.lost("userns_mode", item)
        item = self.take("init")
        if item is not None and self.writer.plain(item) == "true":
            self.add("init", "true")

    def capabilities(self, add: list[Item], drop: list[Item]) -> None:
        known = CAPABILITIES.split()
        kept = set(DEFAULT_CAPABILITIES.split())
        for items, more in ((drop, False), (add, True)):
            for item in items:
                name = self.writer.fixed(item).upper().removeprefix("CAP_")
                if name == "ALL":
                    kept = set(known) if more else set()
                elif name not in known:
                    self.lost("cap_add" if more else "cap_drop", item, "no such capability")
                elif more:
                    kept.add(name)
                else:
                    kept.discard(name)
        self.add("capabilities", f"[{', '.join(f'{chr(34)}{name}{chr(34)}' for name in known if name in kept)}]")

    # Life and end

    def healthcheck(self) -> None:
        item = self.take("healthcheck")
        if item is None:
            return
        known = ("test", "interval", "timeout", "retries", "start_period", "disable")
        entry = self.children(item, known, "healthcheck")
        test = entry.get("test")
        words = as_list(test) if test is not None else []
        kind = self.writer.plain(words[0]) if words and test is not None and isinstance(test.value, list) else ""
        disabled = "disable" in entry and self.writer.plain(entry["disable"]) == "true"
        if disabled or kind == "NONE":
            self.lost("healthcheck", item, "the image's own healthcheck, if it has one, stays")
            return
        if test is None or test.value in (None, [], ""):
            self.lost("healthcheck", item, "it changes the image's, which only a whole one can")
            return
        if kind == "CMD":
            command = f"[{', '.join(self.writer.quoted(word) for word in words[1:])}]"
        elif kind == "CMD-SHELL":
            command = self.writer.quoted(words[1]) if len(words) > 1 else '""'
        else:
            command = self.writer.quoted(words[0])
        lines = [f"        command = {command}"]
        for key in ("interval", "timeout", "start_period"):
            if key in entry:
                text = duration_text(self.writer.fixed(entry[key]))
                if text and (key == "start_period" or text != "0s"):
                    lines.append(f'        {key} = "{text}"')
                elif not text:
                    self.lost(f"healthcheck.{key}", entry[key], "not a duration")
        if "retries" in entry and self.writer.fixed(entry["retries"]).isdigit():
            lines.append(f"        retries = {max(1, int(self.writer.plain(entry['retries'])))}")
        self.lines += ["    healthcheck = {", *lines, "    }"]

    def endings(self) -> None:
        item = self.take("restart")
        if item is not None:
            text = self.writer.fixed(item)
            if text.startswith(("always", "unless-stopped", "on-failure")):
                self.add("restart", f'"{text.removesuffix(":0")}"')
            elif text not in ("no", "false", ""):
                self.lost("restart", item)
        item = self.take("stop_signal")
        if item is not None:
            text = self.writer.fixed(item)
            if text.isdigit():
                import signal

                text = signal.Signals(int(text)).name if 0 < int(text) < 32 else text
            if text.upper().removeprefix("SIG").partition("+")[0].partition("-")[0] in SIGNALS.split():
                self.add("stop_signal", f'"{text}"')
            else:
                self.lost("stop_signal", item)
        item = self.take("stop_grace_period")
        if item is not None:
            text = duration_text(self.writer.fixed(item))
            if text:
                self.add("stop_timeout", f'"{text}"')
            else:
                self.lost("stop_grace_period", item, "not a duration")

    # Dependencies

    def connections(self) -> list[str]:
        lines: list[str] = []
        depends = self.keys.get("depends_on")
        targets: dict[str, Item] = dict(keyed(depends, "depends_on").value) if depends and depends.value else {}
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
    from containust.compose.convert.writer import escaped
    from containust.compose.lexer import is_name

    return key if is_name(key) else f'"{escaped(key)}"'


def network_name(name: str) -> str:
    chosen = "".join([c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in name]).lstrip("._-")
    return chosen or "network"


def port_range(text: str) -> list[int]:
    """``"80"`` or ``"8000-8010"`` as ports; empty for anything else."""
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit() and len(first + last) < 11):
        return []
    if not 0 < int(first) <= int(last) < 65536:
        return []
    return list(range(int(first), int(last) + 1))


def expose_statement(address: str, host: int, container: int, protocol: str, name: str) -> str:
    shown = f'"[{address}]"' if ":" in address else f'"{address}"'
    return f"EXPOSE {shown}:{host}:{container}{'/udp' if protocol == 'udp' else ''} -> {name}"


def amount(text: str) -> int:
    """Bytes of a Compose size, whose units are all powers of 1024; 0 for none."""
    digits = text.strip().lower().rstrip("kmgtb")
    unit = text.strip().lower()[len(digits) :]
    try:
        return max(0, int(float(digits) * BYTES[unit]))
    except (ValueError, KeyError, OverflowError):
        return 0


def size_text(size: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size // 1000}.{size % 1000:03}KB"


def duration_text(text: str) -> str:
    """A Compose duration as one of the language; empty for none."""
    text = text.strip()
    if parse_duration(text) is not None:
        return text
    for unit, factor in (("us", 1000), ("µs", 1000), ("ns", 1000000)):
        if text.endswith(unit) and text[: -len(unit)].isdigit():
            return f"{max(1, int(text[: -len(unit)]) // factor)}ms"
    return ""


def has_dollar(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return b"$" in file.read(1 << 20)
    except OSError:
        return False
