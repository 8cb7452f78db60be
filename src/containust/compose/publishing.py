"""EXPOSE: which component a published port leads to, and what collides (language.md, section 7).

Loaded only where a file has an EXPOSE.
"""

from __future__ import annotations

from containust.common.types import Expose
from containust.compose.resolver import open_references
from containust.compose.values import INVALID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.compose.checks import Checker
    from containust.compose.tree import ExposeNode

WILDCARDS = ("0.0.0.0", "::")
LISTED = 10  # names in one message


class Publisher:
    """The EXPOSE statements of a :class:`containust.compose.checks.Checker` whose components are built."""

    def __init__(self, checker: Checker) -> None:
        self.checker = checker
        self.source = checker.source
        self.problems = checker.problems
        self.reader = checker.resolver.reader
        resolver = checker.resolver
        # Some component's ports may be hidden by a mistake.
        self.hurt = any(resolver.damaged(node) for node in checker.nodes.values())

    def publish(self) -> list[Expose]:
        published: list[Expose] = []
        listening: dict[tuple[int, str], list[str]] | None = None
        taken: dict[tuple[int, str, bool], dict[str, ExposeNode]] = {}
        for node in self.checker.exposes:
            address = self.address(node)
            bad = False
            for value in (node.host_port, node.container_port):
                if value is not None and not 1 <= value.value <= 65535:
                    self.reader.wrong(self.source, value, f"{value.value} is not a port", ["1 to 65535"])
                    bad = True
            host = node.host_port.value
            container = (node.container_port or node.host_port).value
            if node.target is not None:
                target = node.target.text if self.checker.known(node.target, "EXPOSE") else ""
            else:
                if listening is None:
                    listening = self.checker.listening()
                target = "" if bad else self.listener(node, container, listening)
            if address is INVALID or bad:
                continue
            if address in WILDCARDS:
                at = node.address
                assert at is not None
                help = ["leave the address away for 127.0.0.1, or keep it if that is meant"]
                self.problems.add(
                    "W015",
                    self.source,
                    at.start,
                    at.end,
                    f"port {host} is open to every network of this host",
                    help,
                )
            self.collide(node, taken.setdefault((host, node.protocol, ":" in address), {}), address)
            if target and self.reachable(node, target):
                published.append(Expose(target, host, container, node.protocol, address))
        return published

    def reachable(self, node: ExposeNode, target: str) -> bool:
        """Whether the component has an address of its own to lead to; W013 where it has not."""
        networks = self.checker.components[target].networks
        if "host" in networks:
            message = f"{target} is on the host's network: it listens on the host itself"
            help = ["remove the EXPOSE, or give the component a network of its own"]
        elif networks == ["none"]:
            message = f"{target} has no network, so that nothing can reach it"
            help = ['remove the EXPOSE, or `network = "none"`']
        else:
            return True
        self.problems.add("W013", self.source, node.start, node.end, message, help)
        return False

    def address(self, node: ExposeNode) -> Any:
        """The address without brackets, validated; 127.0.0.1 when none is written."""
        if node.address is None:
            return "127.0.0.1"
        reader = self.reader
        text = reader.text(self.source, node.address)
        if text is INVALID:
            if reader.waits:
                from containust.compose.references import refused

                refused(reader, self.source, open_references(node.address))
            return text
        import _socket

        bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
        family = _socket.AF_INET6 if ":" in bare else _socket.AF_INET
        try:
            return _socket.inet_ntop(family, _socket.inet_pton(family, bare))
        except (OSError, ValueError):
            help = ['an address of this host such as "127.0.0.1", "0.0.0.0" or "[::1]"']
            if bare == "localhost":
                help = ['write "127.0.0.1", which is the default']
            return self.reader.wrong(self.source, node.address, f"{text[:60]!r} is not an IP address", help)

    def listener(self, node: ExposeNode, port: int, listening: dict[tuple[int, str], list[str]]) -> str:
        """The one component that has ``port``; empty and E011 when it is none or several."""
        names = listening.get((port, node.protocol), [])
        if len(names) == 1:
            return names[0]
        place = node.container_port or node.host_port
        if names:
            message = f"{len(names)} components have port {port}: {', '.join(names[:LISTED])}"
            message += ", …" if len(names) > LISTED else ""
            help = [f"say which one: EXPOSE … -> {names[0]}"]
        else:
            message = f"no component has port {port}/{node.protocol}"
            known = []
            for (number, kind), owners in listening.items():
                known.append(f"{owners[0]} has {number}" + ("" if kind == "tcp" else f"/{kind}"))
                if len(known) == LISTED:
                    break
            help = [f"say which one: EXPOSE … -> name, or give one port = {port}"]
            if known:
                help.append(", ".join(known))
        if names or not self.hurt:
            self.problems.add("E011", self.source, place.start, place.end, message, help)
        return ""

    def collide(self, node: ExposeNode, others: dict[str, ExposeNode], address: str) -> None:
        wildcard = address in WILDCARDS
        first = others.get(address) or others.get("0.0.0.0") or others.get("::")
        if first is None and wildcard and others:
            first = next(iter(others.values()))
        others.setdefault(address, node)
        if first is not None:
            self.problems.add(
                "E012",
                self.source,
                node.host_port.start,
                node.host_port.end,
                f"host port {node.host_port.value}/{node.protocol} is used twice",
                ["choose another host port: EXPOSE host:container"],
                [(self.source, first.start, first.end, "first used here")],
            )
