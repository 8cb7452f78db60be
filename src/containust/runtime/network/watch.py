"""Hearing of changes to the rules of the host: a firewall that is loaded anew may flush ours, or deny other ports.

Source: linux/netfilter/nfnetlink.h (group NFNLGRP_NFTABLES), linux/netfilter/nf_tables.h: attribute 1 of every message
about a table, chain, rule, set or element is the name of the table.
"""

from __future__ import annotations

import _socket

from containust.core.netlink import AF_NETLINK, HEADER, NETLINK_NETFILTER, attribute_map
from containust.runtime.network.rules import TABLE_PREFIX, table_name

NFNLGRP_NFTABLES = 7
_ENOBUFS = 105


class RulesetWatch:
    """A socket on which the kernel reports what is committed to nf_tables in this network namespace."""

    def __init__(self, project: str) -> None:
        self._own = table_name(project)
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        self._socket = _socket.socket(AF_NETLINK, kind, NETLINK_NETFILTER)
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        self.fd = self._socket.fileno()

    def concerns_us(self) -> bool:
        """Read what was reported; whether our table, or the host's own rules, changed."""
        found = False
        while True:
            try:
                buffer = self._socket.recv(65536)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != _ENOBUFS:
                    return found
                found = True  # more was reported than there was room for
                continue
            offset = 0
            while offset + 20 <= len(buffer):
                length = HEADER.unpack_from(buffer, offset)[0]
                if length < 20:
                    break
                name = attribute_map(buffer, offset + 20, offset + length).get(1, b"").rstrip(b"\0").decode()
                # A transaction ends with a message without a table; other projects' tables are none of our business.
                found = found or name == self._own or bool(name and not name.startswith(TABLE_PREFIX.rstrip("-")))
                offset += (length + 3) & ~3

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
