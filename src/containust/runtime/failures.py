"""Why a start failed: what a child or a reaper reports, as the error that a user sees."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.core.calls import is_report
from containust.core.syscalls import EACCES, ENOENT, ENOTDIR
from containust.runtime.launch import namespace_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.core.calls import Calls
    from containust.runtime.launch import Launch

# Steps of a start, each with the error code it fails with.
STEP_CODES = {
    "namespaces": "R001",
    "ids": "R001",
    "cgroup": "R002",
    "root": "R003",
    "mounts": "R003",
    "network": "R013",
    "terminal": "R004",
    "user": "R004",
    "privileges": "R004",
    "workdir": "R004",
    "exec": "R004",
}


def explain(launch: Launch, calls: Calls, report: bytes) -> ContainustError:
    """The error for a child's report, of its calls or of a reaper: ``step NUL errno NUL``."""
    if not report:
        return ContainustError("R004", f"{launch.name}: ended before its program ran")
    if is_report(report):
        step, number, detail = calls.failed(report)
    else:
        fields = report.split(b"\0", 2)
        step, number, detail = fields[0].decode(), int(fields[1]), ""
    program = os.fsdecode(launch.argv[0])
    if step == "exec":
        if number in (ENOENT, ENOTDIR):
            return ContainustError(
                "R004",
                f"{launch.name}: {program} is not in the image",
                "check `command` and PATH; for a host:// image name the program in `image` or `include`",
                "the loader or `#!` interpreter that the program names may be what is missing"
                if not program.startswith(("/tmp/", "/run/", "/var/tmp/"))
                else "a read-only container has an empty tmpfs there: put the program elsewhere, or let it be writable",
                status=127,
            )
        if number == EACCES:
            return ContainustError(
                "R004",
                f"{launch.name}: {program} cannot be executed: permission denied",
                "it must be a file with an execute bit that the container's user may read",
                status=126,
            )
        return ContainustError(
            "R004", f"{launch.name}: {program} cannot be executed: {os.strerror(number)}", status=126
        )
    if step == "namespaces":
        return namespace_error(launch.name, OSError(number, os.strerror(number)))
    if step == "workdir":
        return ContainustError(
            "R004",
            f"{launch.name}: cannot change to the working directory {os.fsdecode(launch.workdir)}: "
            f"{os.strerror(number)}",
            "`workdir` must be a directory of the image",
        )
    return ContainustError(STEP_CODES.get(step, "R004"), f"{launch.name}: start failed at {step}: {detail}")
