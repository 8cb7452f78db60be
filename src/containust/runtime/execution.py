"""Another program in a running container, as its own component says: ``ctst exec``."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.image.store import ImageStore
from containust.runtime import spec, values
from containust.runtime.container import Job
from containust.runtime.state import RUNNING, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.runtime.backend.running import RunningContainers
    from containust.runtime.container import Handle
    from containust.runtime.project import Project


def execute(
    project: Project,
    backend: RunningContainers,
    name: str,
    argv: list[str],
    tty: bool,
    interactive: bool,
    user: str | None,
    workdir: str | None,
    env: dict[str, str],
) -> Handle:
    """Start ``argv`` in the container called ``name``, on the caller's standard streams or a terminal of its own.

    Raises ContainustError R005, R007 when it does not run, R008 when it ended meanwhile, and R004 for the program.
    """
    state = load(project)
    container = state.find(name)
    if container.state != RUNNING:
        raise ContainustError(
            "R007", f"{container.name} is not running", f"start it with `ctst start {container.name}`"
        )
    component = spec.decode(container.name, container.spec)
    if env:
        component.env = {**component.env, **env}
    base = os.path.dirname(container.stack_file) if container.stack_file else os.getcwd()
    kept = None
    if component.distroless:
        from containust.runtime.reduced import words

        kept = words(component)
    image = ImageStore(project.images).recorded(
        component.image, component.include, base, distroless=kept, live=component.live
    )

    def secret(name: str) -> str:
        from containust.compose.secrets import find_secret

        return find_secret(name, project.directory, os.environ)

    job = Job(
        container,
        component,
        image.config,
        lambda: -1,
        True,
        lambda ref: values.look_up(component, ref, state, [], secret),
    )
    job.argv, job.user, job.workdir = argv, user, workdir
    job.tty, job.capture = tty, False
    job.stdio = (0 if interactive else -1, 1, 2)
    return backend.exec(container, job)
