"""What a wheel's ``ctst`` is (a build hook of hatchling).

The script of this directory is a shell's and Python's at once and runs everywhere. For architectures that
``launcher.c`` knows on Linux the command is that program, which executes the same script without a shell.
"""

from __future__ import annotations

import os
import platform

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HERE = os.path.dirname(__file__)


class Command(BuildHookInterface):  # type: ignore[type-arg, unused-ignore]
    """Chooses the command, and names the platform of a wheel that is for one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a wheel is built."""
        launcher = f"{HERE}/launcher-{platform.machine()}"
        if platform.system() != "Linux" or not os.path.exists(launcher):
            build_data["shared_scripts"][f"{HERE}/ctst"] = "ctst"
            return
        build_data["shared_scripts"][launcher] = "ctst"
        build_data["shared_data"][f"{HERE}/ctst"] = "share/containust/ctst"
        build_data["pure_python"] = False
        # Neither bound to a version of Python nor to a libc.
        build_data["tag"] = f"py3-none-manylinux2014_{platform.machine()}.musllinux_1_1_{platform.machine()}"
