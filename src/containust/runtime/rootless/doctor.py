"""What ``ctst doctor`` looks at for an ordinary user: what containers without root need, each really tried."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError
from containust.core import idmap, syscalls
from containust.core.calls import Calls
from containust.core.cgroup.none import NoManager
from containust.core.filesystem import rootfs
from containust.runtime.doctor import FAIL, OK, WARN, Check
from containust.runtime.rootless import groups, namespaces, programs, requirements

SANDBOX = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)
# What a control group's controller gives.
LIMITS = {"memory": "memory", "cpu": "cpus, cpu_shares", "io": "io_weight", "pids": "pids"}


def user() -> list[Check]:
    """Who runs this."""
    name = requirements.login()
    return [Check("user", OK, f"{name} (uid {os.geteuid()}): containers are below a user namespace of {name}'s")]


def subordinate_ids() -> list[Check]:
    """Ids, the programs that hand them out, and the switches."""
    found = [Check("subordinate ids", FAIL, what, remedy) for what, remedy in requirements.lacks()]
    if found:
        return found
    name, uid = requirements.login(), os.geteuid()
    ranges = requirements.subordinate(requirements.SUBUID, uid, name)
    return [Check("subordinate ids", OK, f"{name} has those from {ranges[0][0]}, newuidmap and newgidmap are there")]


def sandbox(directory: str) -> list[Check]:
    """A container's namespaces below the user's own, a stacked root over ``directory``, and rules for its network."""
    if requirements.lacks():
        return [Check("namespaces", FAIL, "not tried: ids are missing", "see `subordinate ids`")]
    try:
        own = namespaces.new_user()
    except ContainustError as error:
        return [Check("namespaces", FAIL, error.message, "; ".join(error.help))]
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _try(own, directory, writer)
    os.close(own)
    os.close(writer)
    text = b""
    while piece := os.read(reader, 4096):
        text += piece
    os.close(reader)
    os.waitpid(pid, 0)
    done = text.decode(errors="replace").splitlines()
    found = []
    for step, detail, remedy in (
        (
            "namespaces",
            "user, PID, mount, network, IPC, UTS and cgroup, below the user's own",
            "raise the sysctls user.max_*_namespaces; an outer container or a security module may forbid them",
        ),
        ("overlayfs", "mounted inside the container's user namespace", "it needs Linux 6.5 or later, with overlayfs"),
        ("nf_tables", "reachable in the project's network namespace", "as root: modprobe nf_tables"),
    ):
        said = next((line[len(step) + 1 :] for line in done if line.startswith(f"{step} ")), "the probe ended early")
        found.append(Check(step, OK, detail) if said == "ok" else Check(step, FAIL, said, remedy))
    return found


def _try(own: int, directory: str, writer: int) -> None:
    """The probe's child, which enters the user's namespaces as a start does. Never returns."""
    step = "namespaces"
    try:
        syscalls.setns(own, syscalls.CLONE_NEWUSER)
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET)
        layer = syscalls.open_tree(syscalls.AT_FDCWD, directory, syscalls.OPEN_TREE_CLONE)
        go_reader, go = os.pipe2(os.O_CLOEXEC)
        pid, _ = syscalls.clone3(SANDBOX)
        if pid == 0:
            try:
                os.close(go)
                os.read(go_reader, 1)
                calls = Calls()
                rootfs.isolate_mounts(calls)
                rootfs.stack_on_root(calls, layer)
                rootfs.scratch_overlay(calls, layer, rootfs.spare_numbers(layer))
                calls.run()
                os.write(writer, b"overlayfs ok\n")
            except OSError as error:
                os.write(writer, f"overlayfs {error.strerror}\n".encode())
            finally:
                os._exit(0)
        idmap.write_same_maps(pid)
        os.write(writer, b"namespaces ok\n")
        os.close(go)
        os.waitpid(pid, 0)
        step = "nf_tables"
        from containust.core import nftables

        connection = nftables.connect()
        nftables.tables(connection)
        connection.close()
        os.write(writer, b"nf_tables ok\n")
    except OSError as error:
        os.write(writer, f"{step} {error.strerror or error}\n".encode())
    finally:
        os._exit(0)


def network() -> list[Check]:
    """The program that connects containers with the host's network, and the ports that a user may publish."""
    names = [one.name for one in programs.KNOWN]
    missing = requirements.missing_network(names)
    found = []
    if missing:
        found.append(Check("network program", FAIL, f'{missing[0]}: only network = "none" works', missing[1]))
    else:
        present = [name for name in names if requirements.find(name)]
        first = programs.order()[0].name
        if present == ["pasta"] and not programs.is_recent():
            found.append(
                Check(
                    "network program",
                    WARN,
                    "pasta, of before the end of 2024: connections that are closed one way only may hang",
                    "as root: apt-get install slirp4netns, or a newer passt",
                )
            )
        else:
            used = first if first in present else present[0]
            found.append(Check("network program", OK, f"{used} ({', '.join(present)} installed)"))
    lowest = _number("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024)
    detail = f"EXPOSE may use host ports from {lowest} on"
    if lowest > 80:
        detail += " (as root: sysctl -w net.ipv4.ip_unprivileged_port_start=80 opens those from 80 on)"
    found.append(Check("host ports", OK, detail))
    return found


def limits() -> list[Check]:
    """Which limits can be enforced."""
    manager = groups.detect()
    if isinstance(manager, groups.DelegatedManager):
        offered = groups.offered(manager.root)
        lacking = [name for name in LIMITS if name not in offered]
        if not lacking:
            return [Check("cgroups", OK, f"version 2, delegated at {manager.root}: {' '.join(offered)}")]
        return [
            Check(
                "cgroups",
                WARN,
                f"version 2, delegated at {manager.root} without {' '.join(lacking)}: "
                f"{', '.join(LIMITS[name] for name in lacking)} are refused (R002)",
                groups.delegation_remedy(lacking),
            )
        ]
    assert isinstance(manager, NoManager)
    return [
        Check(
            "cgroups",
            WARN,
            "no control group is delegated to you: memory, cpus, cpu_shares, io_weight and pids are refused (R002); "
            "only the default number of processes is kept, for each user id of a container",
            manager.remedy,
        )
    ]


def images() -> list[Check]:
    """How a user's containers get their roots."""
    return [Check("images", OK, "each image is unpacked into a directory once: mounting EROFS takes root")]


def session() -> list[Check]:
    """Whether the user's processes outlive the session."""
    name = requirements.login()
    if not os.path.isdir("/run/systemd/system") or os.path.exists(f"/var/lib/systemd/linger/{name}"):
        return []
    return [
        Check(
            "session",
            WARN,
            "containers may end with your last login session",
            f"loginctl enable-linger {name}, if they are to go on",
        )
    ]


def _number(path: str, default: int) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return default
