"""Why a container is not up that a start waits for, as the errors that a user sees."""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.runtime.state import RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.state import Container


def too_late(name: str, timeout: float) -> ContainustError:
    """R014 for a start that has taken more than ``timeout`` seconds."""
    error = ContainustError("R014", f"{name} was not up after {timeout:g} s", "allow more with --timeout")
    error.container = name
    return error


def unhealthy(name: str) -> ContainustError:
    """R014 for one whose probes have failed for too long."""
    error = ContainustError(
        "R014",
        f"{name} is unhealthy: its health check has not succeeded",
        "mend what it checks, or give it more time with start_period or retries",
    )
    error.container = name
    return error


def dependency_failed(name: str, dependency: Container) -> ContainustError:
    """R015 for one that was not started because ``dependency`` is not what it waits for."""
    what = "is unhealthy" if dependency.state == RUNNING else f"ended with {_ending(dependency)}"
    error = ContainustError("R015", f"{name} was not started: its dependency {dependency.name} {what}")
    error.container = dependency.name
    return error


def _ending(container: Container) -> str:
    """How a container ended, in words."""
    if container.oom_killed:
        return "an out-of-memory kill"
    if container.signal:
        return f"signal {container.signal}"
    if container.exit_code is None:
        return "an unknown status"
    return f"exit status {container.exit_code}"
