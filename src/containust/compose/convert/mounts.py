"""Volumes, tmpfs, and the files of secrets and configs of a Compose service."""

from __future__ import annotations

import os

from containust.compose.convert.items import Item, as_list, escaped
from containust.compose.convert.limits import amount, size_text
from containust.compose.convert.part import Part

MODES = {"ro": ":ro", "rw": ""}


class Mounts(Part):
    """Everything that is mounted: no target twice, and nothing that the language would refuse."""

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
            self.mount(one, seen, target, memory, f'"{escaped(target)}{size}"', "tmpfs")
        for kind, directory in (("secrets", "/run/secrets"), ("configs", "")):
            item = self.take(kind)
            for one in as_list(item) if item is not None else []:
                self.file_mount(one, kind, directory, mounts, seen)
        for key, values in (("volumes", mounts), ("tmpfs", memory)):
            if len(values) == 1 and key == "volumes":
                self.add("volume", values[0])
            elif values:
                self.lines += [f"    {key} = [", *[f"        {value}," for value in values], "    ]"]

    def mount(
        self, item: Item, seen: set[str], target: str, into: list[str], literal: str, kind: str = "volumes"
    ) -> None:
        normal = os.path.normpath(target)
        if not target.startswith("/") or ".." in target.split("/") or normal == "/":
            self.lost("volumes", item, "the target is no absolute path inside")
        elif normal in seen:
            self.lost("volumes", item, "the same target twice")
        else:
            why = self.writer.judge(kind, f"[{literal}]")
            if why:
                self.lost("volumes" if kind == "volumes" else "tmpfs", item, why)
                return
            seen.add(normal)
            into.append(literal)

    def short_volume(self, item: Item, mounts: list[str], seen: set[str]) -> None:
        text = self.writer.fixed(item)
        parts = text.split(":")
        if len(parts) == 1:
            self.mount(item, seen, text, mounts, f'"{self.anonymous(item, text)}:{escaped(text)}"')
            return
        mode = ""
        for option in ",".join(parts[2:]).split(",") if len(parts) > 2 else []:
            if option not in MODES:
                self.lost(f"volumes.{option}", item)
            mode = mode or MODES.get(option, "")
        self.mount(item, seen, parts[1], mounts, f'"{self.origin(parts[0], item)}:{escaped(parts[1])}{mode}"')

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
        known = ("type", "source", "target", "read_only", "bind", "volume", "tmpfs")
        entry = self.children(item, known, "volumes")
        text = {key: self.writer.fixed(entry[key]) if key in entry else "" for key in ("type", "source", "target")}
        mode = ":ro" if "read_only" in entry and self.writer.plain(entry["read_only"]) == "true" else ""
        for key, harmless in (
            ("bind", ("create_host_path",)),
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
            if size is not None and not number:
                self.lost("volumes.tmpfs.size", size, "not a size")
            self.mount(
                item,
                seen,
                target,
                memory,
                f'"{escaped(target)}:size={size_text(number)}"' if number else f'"{escaped(target)}"',
                "tmpfs",
            )
        elif text["type"] == "volume" and not text["source"]:
            self.mount(item, seen, target, mounts, f'"{self.anonymous(item, target)}:{escaped(target)}{mode}"')
        elif text["type"] in ("bind", "volume"):
            source = text["source"]
            origin = self.relative(source, item) if text["type"] == "bind" else self.origin(source, item)
            self.mount(item, seen, target, mounts, f'"{origin}:{escaped(target)}{mode}"')
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
        self.mount(item, seen, target, mounts, f'"{self.relative(self.writer.fixed(file), file)}:{escaped(target)}:ro"')
