"""The files by which a running container finds others, brought in line with who is there."""

from __future__ import annotations

from containust.common import os
from containust.runtime.container import places
from containust.runtime.network.hosts import hosts_file, resolv_conf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from containust.runtime.network.attachment import Attachment
    from containust.runtime.state import Container


def rewrite(directory: str, container: Container, peers: Mapping[str, list[Attachment]]) -> None:
    """Rewrite them in the container's run directory, where they are: it has them mounted."""
    hostname = container.spec.get("hostname") or container.name
    contents = {
        "hosts": hosts_file(hostname, [container.name], places(container.attachments), peers),
        "resolv.conf": resolv_conf(offline=container.offline),
    }
    for name, content in contents.items():
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return  # it has ended meanwhile
        try:
            _replace(fd, content.encode())
        finally:
            os.close(fd)


def _replace(fd: int, content: bytes) -> None:
    """Make ``content`` the whole of an open file, if it is not."""
    if os.read(fd, len(content) + 1) != content:
        os.pwrite(fd, content, 0)
        os.ftruncate(fd, len(content))
