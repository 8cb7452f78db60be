"""Published and exposed ports of a Compose service."""

from __future__ import annotations

from containust.compose.convert.items import Item, as_list
from containust.compose.convert.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.compose.convert.writer import Writer

WILDCARDS = {"0.0.0.0", "::"}


class Ports(Part):
    """``ports`` and ``expose``: what a component listens on, and its EXPOSE statements."""

    def __init__(self, writer: Writer, name: str, item: Item) -> None:
        super().__init__(writer, name, item)
        self.ports: dict[str, None] = {}  # literals for the ports property, in order
        self.published: list[tuple[Item, str, int, int, str]] = []

    def single_port(self) -> bool:
        return len(self.ports) == 1 and '"' not in next(iter(self.ports))

    def port_literal(self) -> str:
        if self.single_port():
            return next(iter(self.ports))
        return f"[{', '.join(self.ports)}]"

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
        self.ports[str(port) if protocol == "tcp" else f'"{port}/{protocol}"'] = None

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
        if not inner or protocol not in ("tcp", "udp") or (host and not outer) or not is_address(address):
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

    def exposed(self, taken: dict[tuple[int, str, bool], set[str]]) -> list[str]:
        lines = []
        for item, given, host, container, protocol in self.published:
            address = given or "0.0.0.0"
            others = taken.setdefault((host, protocol, ":" in address), set())
            statement = expose_statement(address, host, container, protocol, self.component_name)
            twice = address in others or bool(others & WILDCARDS) or bool(others and address in WILDCARDS)
            if not self.active or twice:
                why = "the same host port twice" if self.active else f"{self.component_name} is a template"
                self.writer.warn(item, f"{self.name}.ports: {why}")
                lines.append(f"// {statement}  ({why})")
                continue
            others.add(address)
            lines.append(statement)
        return lines


def port_range(text: str) -> list[int]:
    """``"80"`` or ``"8000-8010"`` as ports; empty for anything else."""
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit() and len(first + last) < 11):
        return []
    if not 0 < int(first) <= int(last) < 65536:
        return []
    return list(range(int(first), int(last) + 1))


def is_address(text: str) -> bool:
    """Whether ``text`` is an IP address, or empty for every one."""
    import socket

    if not text:
        return True
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def expose_statement(address: str, host: int, container: int, protocol: str, name: str) -> str:
    shown = f'"[{address}]"' if ":" in address else f'"{address}"'
    return f"EXPOSE {shown}:{host}:{container}{'/udp' if protocol == 'udp' else ''} -> {name}"
