"""What a container's root is put together from, above its image."""

from __future__ import annotations

from containust.common import os
from containust.core import syscalls
from containust.core.syscalls import AT_FDCWD, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MS_PRIVATE, OPEN_TREE_CLONE
from containust.runtime.launch import Bind
from containust.runtime.network import hosts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from containust.common.types import Component
    from containust.runtime.container import Job
    from containust.runtime.launch import Launch
    from containust.runtime.project import Project


def scratch(component: Component) -> list[tuple[str, dict[str, str | int | None]]]:
    """The tmpfs mounts of a container: what a read-only root needs, then what the component declares."""
    mounts: dict[str, dict[str, str | int | None]] = {}
    if component.readonly:
        mounts["/tmp"] = {"mode": "1777"}
        mounts["/run"] = {"mode": "755"}
        mounts["/var/tmp"] = {"mode": "1777"}
    for declared in component.tmpfs:
        options: dict[str, str | int | None] = {"mode": "1777"}
        if declared.size:
            options["size"] = str(declared.size)
        mounts[declared.target] = options
    for volume in component.volumes:  # a volume at the same place wins
        mounts.pop(volume.target, None)
    return list(mounts.items())


def prepare(launch: Launch, job: Job, project: Project) -> None:
    """Say what lies over the image: nothing, room for mount points only, or what the container may write to."""
    component = job.component
    if not component.readonly:
        launch.overlay = "upper"
        base = job.container.id_base or 0
        directory = f"{project.rootfs}/{job.container.id}"
        os.makedirs(directory, 0o700, exist_ok=True)
        os.chown(directory, base, base)  # the container's root opens the other two in it
        for path in (f"{directory}/upper", f"{directory}/work"):
            os.makedirs(path, 0o755, exist_ok=True)
            os.chown(path, base, base)
        launch.writable_fd = syscalls.open_tree(AT_FDCWD, directory, OPEN_TREE_CLONE)
        syscalls.mount_setattr(launch.writable_fd, "", 0, propagation=MS_PRIVATE)
        return
    targets = [volume.target for volume in component.volumes] + [target for target, _ in launch.tmpfs]
    plain = job.root_ready and all(_present(launch.layer_fd, target) for target in targets)
    launch.overlay = "none" if plain else "scratch"


def _present(root_fd: int, target: str) -> bool:
    from containust.core.filesystem.rootfs import resolve

    try:
        os.close(resolve(root_fd, target))
    except OSError:
        return False
    return True


def mount_files(launch: Launch, job: Job, project: Project, run: str) -> None:
    """Make the files in ``run`` by which a container finds others, and mount them and its volumes."""
    base = job.container.id_base or 0
    contents = {
        "hosts": hosts.hosts_file(launch.hostname, [job.component.name], launch.attachments, job.peers),
        "hostname": hosts.hostname_file(launch.hostname),
        "resolv.conf": hosts.resolv_conf(launch.network, offline=job.container.offline),
    }
    for name, content in contents.items():
        path = f"{run}/{name}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.write(fd, content.encode())
        if base:
            os.fchown(fd, base, base)
        os.close(fd)
        tree = syscalls.open_tree(AT_FDCWD, path, OPEN_TREE_CLONE)
        attributes = syscalls.MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
        syscalls.mount_setattr(tree, "", 0, set=attributes, propagation=MS_PRIVATE)
        launch.binds.append(Bind(tree, f"etc/{name}", False, idmapped=False))
    if job.component.volumes:
        from containust.runtime.backend.volumes import mounted

        for volume in job.component.volumes:
            launch.binds.append(mounted(job.component, volume, launch, project))
