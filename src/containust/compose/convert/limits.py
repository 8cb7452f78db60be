"""Limits, networks and privileges of a Compose service."""

from __future__ import annotations

from containust.compose.convert.items import Item, as_list, escaped, keyed_map
from containust.compose.convert.part import Part
from containust.compose.privileges import CAPABILITIES
from containust.compose.quantities import LEAST_MEMORY
from containust.compose.values import is_digits

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


class Limits(Part):
    """What a container may use, reach and do."""

    networks: list[str]  # by their names in the language

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
                self.put("memory", f'"{size_text(size)}"', found["memory"])
            elif size:
                self.lost("memory", found["memory"], "too little to start a program")
            elif self.writer.fixed(found["memory"]).strip("0") not in ("", "b"):
                self.lost("memory", found["memory"], "not a size")
        if "cpus" in found:
            text = self.writer.fixed(found["cpus"])
            if text.strip("0."):
                self.put("cpus", f'"{text}"', found["cpus"])
        if "pids" in found:
            text = self.writer.fixed(found["pids"])
            if text == "-1":
                self.add("pids", "4194304")
            elif text != "0":
                self.put("pids", text if is_digits(text) else f'"{escaped(text)}"', found["pids"], "pids_limit")
        if "cpu" in found:
            text = self.writer.fixed(found["cpu"])
            if is_digits(text) and int(text) >= 2:
                self.add("cpu", str(min(int(text), 262144)))
            elif text not in ("0", "1"):
                self.lost("cpu_shares", found["cpu"], "not a number")
        item = self.take("blkio_config")
        if item is not None:
            weight = self.children(item, ("weight",), "blkio_config").get("weight")
            if weight is not None:
                text = self.writer.fixed(weight)
                literal = text if is_digits(text) else f'"{escaped(text)}"'
                self.put("io_weight", literal, weight, "blkio_config.weight")

    def deploy(self, deploy: Item, found: dict[str, Item]) -> None:
        entry = self.children(deploy, ("resources", "replicas", "restart_policy", "mode", "labels"), "deploy")
        for key in ("replicas", "mode", "labels"):
            if key in entry and entry[key].value not in (1, "1", "replicated", None, {}, []):
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
                limit = f":{attempts}" if attempts not in ("", "0") else ""
                self.put("restart", f'"on-failure{escaped(limit)}"', entry["restart_policy"], "deploy.restart_policy")
            elif condition == "any":
                self.add("restart", '"always"')
                if attempts:
                    self.lost("deploy.restart_policy.max_attempts", policy["max_attempts"])
            elif condition != "none":
                self.lost("deploy.restart_policy", entry["restart_policy"], "not a condition")

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
        names = []
        for name, options in keyed_map(item, "networks").items():
            names.append("bridge" if name == "default" else network_name(name))
            if options.value:
                self.lost(f"networks.{name}", options)
        if names and names != ["bridge"]:
            literal = f'"{names[0]}"' if len(names) == 1 else "[" + ", ".join(f'"{n}"' for n in names) + "]"
            why = self.writer.judge("network", literal)
            if why:
                self.lost("networks", item, why)
                return
            self.networks = list(dict.fromkeys(names))
            self.add("network", literal)

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
                self.put("seccomp", f'"{self.relative(value, one)}"', one, "security_opt")
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
        elif item is not None and self.writer.plain(item) != "false":
            self.lost("init", item, "neither true nor false")

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


def network_name(name: str) -> str:
    chosen = "".join([c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in name]).lstrip("._-")
    return chosen or "network"


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
