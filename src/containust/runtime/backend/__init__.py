"""Where containers run: the protocol, and the choice of a backend."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.backend.protocol import ContainerBackend
    from containust.runtime.project import Project


def detect_backend(project: Project, wanted: str = "auto") -> ContainerBackend:
    """The backend that ``--backend`` names: ``auto``, ``linux`` or ``vm``.

    Raises ContainustError R010 where there is none.
    """
    import sys

    from containust.common.errors import ContainustError

    if wanted in ("auto", "linux") and sys.platform == "linux":
        from containust.runtime.backend.linux import LinuxBackend

        return LinuxBackend(project)
    raise ContainustError(
        "R010",
        f"there is no {wanted} backend on {sys.platform} in this version",
        "run on Linux with `--backend linux`; the virtual machine backend is still to come",
    )
