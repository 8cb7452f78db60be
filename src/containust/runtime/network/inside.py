"""The container's own end: loopback, addresses and routes, set up inside its new network namespace.

:func:`prepare` builds the requests, :func:`configure` adds the calls that send them to what a container's init process
does between clone3 and execve. The interfaces themselves are there already, made from outside.
"""

from __future__ import annotations

from containust.core import rtnetlink as rt
from containust.core.netlink import AF_NETLINK, NETLINK_ROUTE, numbered
from containust.runtime.network.addresses import pack_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from containust.core.calls import Calls
    from containust.runtime.network.attachment import Attachment

LOOPBACK_INDEX = 1
SOCK_RAW = 3
NLMSGERR_ERROR = 16  # where an answer has its error: behind the header (netlink(7))
# Above what a kernel with tunnel modules puts into every new namespace by itself.
FIRST_INDEX = 16

# For the caller to write under /proc/sys as root of the container, best effort: no routes from whoever
# claims to be a
# router, and ping without raw sockets for every group of the container.
SETTINGS = (
    ("net/ipv6/conf/all/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv4/ping_group_range", "0 65535"),
)


def prepare(attachments: Sequence[Attachment]) -> list[bytes]:
    """The requests for :func:`configure`; the first attachment's gateway is the default route."""
    messages = [rt.link_up(LOOPBACK_INDEX)]
    for position, one in enumerate(attachments):
        index = FIRST_INDEX + position
        messages.append(rt.link_up(index))
        messages.append(rt.new_address(index, pack_address(one.address), one.prefix))
        if one.address6 and one.prefix6:
            messages.append(rt.new_address(index, pack_address(one.address6), one.prefix6))
    if attachments:
        messages.append(rt.default_route(FIRST_INDEX, pack_address(attachments[0].gateway)))
        if attachments[0].gateway6:
            messages.append(rt.default_route(FIRST_INDEX, pack_address(attachments[0].gateway6)))
    return messages


def configure(calls: Calls, prepared: Sequence[bytes]) -> None:
    """Configure the network namespace of the process that makes the calls."""
    requests = bytes(numbered(prepared, 0, len(prepared) - 1))
    connection = calls.socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)
    calls.send(connection, requests, "network")
    # What is refused answers unasked and in order: the first answer is the first refusal, or says that all is done.
    calls.receive(connection, "network")
    calls.load(calls.scratch + NLMSGERR_ERROR, "netlink", "network of the container")
