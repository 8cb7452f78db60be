"""What this host offers to containers: each check tries the real thing, in a child or on a temporary file.

Nothing is changed: mounts are detached or in the probe's own namespaces, and go with it.
"""

from __future__ import annotations

import os

from containust.common.types import Record
from containust.core import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OK, WARN, FAIL = "ok", "warn", "fail"
PR_GET_SECCOMP = 21


class Check(Record):
    """One thing looked at. ``status`` is ``ok``, ``warn`` (something goes without or slower) or ``fail`` (containers
    cannot start); ``detail`` what was found, ``help`` what to do about it, empty when there is nothing to do."""

    __slots__ = ("detail", "help", "name", "status")

    def __init__(self, name: str, status: str, detail: str, help: str = "") -> None:
        self.name = name
        self.status = status
        self.detail = detail
        self.help = help


def examine(directory: str) -> list[Check]:
    """Every check, in the order of a container's birth. ``directory`` is where the project's layers lie (or its
    nearest existing parent): its file system has to take id mappings."""
    result: list[Check] = []
    probes = _of_user(directory) if os.geteuid() else _of_root(directory)
    for probe in (*probes, seccomp, landlock, bytecode, path_files):
        result += _guarded(probe)
    if not os.geteuid():
        from containust.runtime import leftovers

        result += _guarded(leftovers.checks)
    return result


def _of_root(directory: str) -> list[Callable[[], list[Check]]]:
    return [
        user,
        lambda: namespaces(directory),
        user_namespace_limit,
        cgroups,
        images,
        nf_tables,
        forwarding_changes,
        firewall,
    ]


def _of_user(directory: str) -> list[Callable[[], list[Check]]]:
    from containust.runtime.rootless import doctor

    return [
        doctor.user,
        doctor.subordinate_ids,
        lambda: doctor.sandbox(directory),
        user_namespace_limit,
        doctor.limits,
        doctor.images,
        doctor.network,
        doctor.session,
    ]


def _guarded(probe: Callable[[], list[Check]]) -> list[Check]:
    """A probe's checks; one that breaks says so instead of hiding the others."""
    from containust.common.errors import ContainustError

    try:
        return probe()
    except ContainustError as error:
        return [Check(getattr(probe, "__name__", "check"), FAIL, error.message, "; ".join(error.help))]
    except OSError as error:
        return [Check(getattr(probe, "__name__", "check"), WARN, f"could not be looked at: {error}")]


def user() -> list[Check]:
    """Who runs this."""
    return [Check("user", OK, "root")]


def namespaces(directory: str) -> list[Check]:
    """Make a child in all namespaces of a container, map its ids, give it an idmapped layer, let it stack an overlay.

    The same calls in the same order as :mod:`containust.runtime.spawn`.
    """
    from containust.core import idmap
    from containust.runtime.ranges import FIRST

    try:
        layer = syscalls.open_tree(syscalls.AT_FDCWD, directory, syscalls.OPEN_TREE_CLONE)
    except OSError as error:
        layer = -1
        refused = f"open_tree of {directory}: {os.strerror(error.errno or 0)}"
    go_reader, go = os.pipe2(os.O_CLOEXEC)
    answer, answer_writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = syscalls.clone3(
            syscalls.CLONE_NEWUSER
            | syscalls.CLONE_NEWPID
            | syscalls.CLONE_NEWNS
            | syscalls.CLONE_NEWNET
            | syscalls.CLONE_NEWIPC
            | syscalls.CLONE_NEWUTS
            | syscalls.CLONE_NEWCGROUP
        )
    except OSError as error:
        for fd in (go_reader, go, answer, answer_writer, layer):
            if fd >= 0:
                os.close(fd)
        text = os.strerror(error.errno or 0)
        return [
            Check(
                "namespaces",
                FAIL,
                f"clone3 with a user, PID, mount, network, IPC, UTS and cgroup namespace: {text}",
                "raise the sysctls user.max_*_namespaces, and see whether an outer container or a security "
                "module forbids namespaces",
            )
        ]
    if pid == 0:
        _stack(go_reader, go, answer_writer, layer)
    os.close(answer_writer)
    os.close(go_reader)
    found = [Check("namespaces", OK, "user, PID, mount, network, IPC, UTS and cgroup")]
    try:
        step = "idmapped mounts"
        on = f"on the file system of {directory}"
        try:
            idmap.write_maps(pid, FIRST)
            if layer < 0:
                raise OSError(0, refused)
            userns = idmap.open_userns(pid)
            try:
                idmap.idmap(layer, userns)
            finally:
                os.close(userns)
            found.append(Check(step, OK, on))
        except OSError as error:
            found.append(
                Check(
                    step,
                    FAIL,
                    f"{on}: {error.strerror}",
                    'put the project on ext4, xfs, btrfs or tmpfs, or set userns = "host" on each component',
                )
            )
            return found
        os.write(go, b"M")
        text = os.read(answer, 512).decode()
        if text == "ok":
            found.append(Check("overlayfs", OK, "over an idmapped layer, mounted inside a user namespace"))
        else:
            found.append(
                Check("overlayfs", FAIL, text or "the probe ended early", "it needs Linux 6.5 or later, with overlayfs")
            )
        return found
    finally:
        for fd in (go, answer, layer):
            if fd >= 0:
                os.close(fd)
        os.waitpid(pid, 0)
        os.close(pidfd)


def _stack(go_reader: int, go: int, answer: int, layer: int) -> None:
    """The probe's child: an overlay over the layer, as a read-only container has it. Never returns."""
    try:
        from containust.core.calls import Calls
        from containust.core.filesystem import rootfs

        os.close(go)
        if os.read(go_reader, 1) == b"M":
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            calls = Calls()
            rootfs.isolate_mounts(calls)
            rootfs.stack_on_root(calls, layer)
            rootfs.scratch_overlay(calls, layer, rootfs.spare_numbers(layer))
            calls.run()
            os.write(answer, b"ok")
    except OSError as error:
        os.write(answer, str(error.strerror).encode()[:500])
    finally:
        os._exit(0)


def user_namespace_limit() -> list[Check]:
    """How many user namespaces the host allows (user_namespaces(7))."""
    limit = _read("/proc/sys/user/max_user_namespaces")
    if limit and int(limit) < 16:
        return [
            Check(
                "user.max_user_namespaces",
                FAIL if limit == "0" else WARN,
                limit,
                "sysctl -w user.max_user_namespaces=15000",
            )
        ]
    return [Check("user.max_user_namespaces", OK, limit or "not limited by this kernel")]


def cgroups() -> list[Check]:
    """Version of the control groups, controllers, and whether groups may be made."""
    from containust.core import cgroup

    manager = cgroup.detect()
    root = "/sys/fs/cgroup"
    if manager.version == 2:
        present = _read(f"{root}/cgroup.controllers").split()
        wanted, places = ["cpu", "memory", "pids", "io"], [root]
    else:
        wanted = ["cpu", "memory", "pids", "cpuacct", "blkio"]
        present = [name for name in wanted if os.path.isdir(f"{root}/{name}")]
        places = [f"{root}/{name}" for name in present]
    detail = f"version {manager.version}, controllers {' '.join(name for name in wanted if name in present)}"
    lacking = [name for name in wanted if name not in present]
    closed = [place for place in places if not os.access(place, os.W_OK)]
    if closed:
        return [Check("cgroups", FAIL, f"{detail}; no permission in {', '.join(closed)}", "run ctst as root")]
    if "memory" in lacking or "pids" in lacking:
        return [
            Check(
                "cgroups", FAIL, f"{detail}; without {' '.join(lacking)}", "boot with cgroup_enable=memory or cgroup v2"
            )
        ]
    if lacking:
        return [
            Check(
                "cgroups",
                WARN,
                f"{detail}; without {' '.join(lacking)}: limits of that kind are refused (R002)",
                "boot with systemd.unified_cgroup_hierarchy=1, or mount the controllers",
            )
        ]
    return [Check("cgroups", OK, detail)]


def images() -> list[Check]:
    """Which rung of :mod:`containust.image.mounting` this kernel reaches, by a real mount of a small EROFS image.

    It lies where images lie: a file on tmpfs or on an overlay is no device for EROFS, whatever the kernel.
    """
    import tempfile

    from containust.image import erofs
    from containust.image.loop import attach
    from containust.image.tree import Tree

    forced = os.environ.get("CONTAINUST_IMAGE_MOUNT")
    told = f"; CONTAINUST_IMAGE_MOUNT demands {forced}" if forced else ""
    places = [os.environ.get("CONTAINUST_IMAGE_STORE", ""), ".containust", os.path.expanduser("~"), "/var/tmp"]
    place = next((place for place in places if os.access(place, os.W_OK)), None)
    reasons = []
    with tempfile.NamedTemporaryFile(prefix="containust-doctor-", dir=place) as file:
        file.write(erofs.write(Tree(), []))
        file.flush()
        try:
            os.close(syscalls.new_mount("erofs", {"source": file.name, "ro": None}, syscalls.MOUNT_ATTR_RDONLY))
            return [Check("images", OK, f"erofs-file: EROFS straight from files{told}")]
        except OSError as error:
            reasons.append(f"EROFS from files: {error.strerror}")
        try:
            device, fd = attach(file.name)
            try:
                os.close(syscalls.new_mount("erofs", {"source": device, "ro": None}, syscalls.MOUNT_ATTR_RDONLY))
            finally:
                os.close(fd)
            return [
                Check(
                    "images",
                    WARN,
                    f"erofs-loop: EROFS over loop devices ({reasons[0]}){told}",
                    "Linux 6.12 mounts files themselves, unless they lie on tmpfs or an overlay",
                )
            ]
        except OSError as error:
            reasons.append(f"over loop devices: {error.strerror}")
    return [
        Check(
            "images",
            WARN,
            f"extract: each image is unpacked into a directory ({'; '.join(reasons)}){told}",
            "modprobe erofs, or a kernel from 6.12 with CONFIG_EROFS_FS and CONFIG_EROFS_FS_BACKED_BY_FILE",
        )
    ]


def nf_tables() -> list[Check]:
    """Whether rules of networks and published ports can be made."""
    from containust.core import nftables

    connection = nftables.connect()
    try:
        count = len(nftables.tables(connection))
    except OSError as error:
        return [
            Check(
                "nf_tables",
                FAIL,
                f"not reachable: {error.strerror or error}",
                "modprobe nf_tables (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET, CONFIG_NF_NAT), and run as root",
            )
        ]
    finally:
        connection.close()
    return [Check("nf_tables", OK, f"reachable, {count} tables of family inet")]


def forwarding_changes() -> list[Check]:
    """Which host settings containust has switched on while networks that lead out exist."""
    from containust.core import nftables
    from containust.runtime.network import forwarding

    connection = nftables.connect()
    try:
        changed = forwarding.changed(connection)
    finally:
        connection.close()
    parts = [f"IPv4 on {', '.join(changed['forwarding4'])}"] if changed["forwarding4"] else []
    parts += [f"IPv6 on {', '.join(changed['forwarding6'])}"] if changed["forwarding6"] else []
    parts += ["IPv6 on all interfaces"] if changed["all6"] else []
    if not parts:
        return [Check("forwarding", OK, "no setting of the host is changed by containust")]
    detail = f"switched on by containust, guarded, until the last network goes: {'; '.join(parts)}"
    return [Check("forwarding", OK, detail)]


def firewall() -> list[Check]:
    """What the host's own rules mean for published ports and for what containers send."""
    from containust.core import nftables
    from containust.runtime.network.firewall import Firewall

    connection = nftables.connect()
    try:
        rules = Firewall(connection)
        forward = rules.denies_by_default(rules.forward, nftables.NFPROTO_IPV4)
        incoming = rules.denies_by_default(rules.input, nftables.NFPROTO_IPV4)
    finally:
        connection.close()
    if forward:
        into = f'nft insert rule {forward} iifname "ctb*" accept'
        back = f'nft insert rule {forward} oifname "ctb*" ct state established,related accept'
        detail = f"`{forward}` denies by default: containers reach nothing outside, and published ports are closed to "
        return [Check("firewall", WARN, detail + "other hosts, except for what it admits", f"{into}; {back}")]
    if incoming:
        detail = f"`{incoming}` denies by default: published ports that it does not admit stay closed to other hosts"
        return [Check("firewall", OK, detail)]
    if _read("/proc/net/ip_tables_names").split():
        detail = "rules of iptables-legacy are in force; what they deny in INPUT is not seen for published ports"
        return [Check("firewall", WARN, detail, "use iptables-nft, or deny in FORWARD")]
    return [Check("firewall", OK, "no chain of this host denies by default")]


def seccomp() -> list[Check]:
    """Whether the kernel filters system calls."""
    actions = _read("/proc/sys/kernel/seccomp/actions_avail")
    if actions:
        return [Check("seccomp", OK, actions)]
    try:
        syscalls.prctl(PR_GET_SECCOMP)
    except OSError:
        return [Check("seccomp", FAIL, "not in this kernel", "use a kernel with CONFIG_SECCOMP_FILTER")]
    return [Check("seccomp", OK, "available")]


def landlock() -> list[Check]:
    """The second wall's version."""
    from containust.core import landlock as core

    version = core.abi()
    if version < 2:
        return [
            Check(
                "landlock",
                WARN,
                f"version {version}" if version else "not in this kernel, or switched off",
                "Linux 5.19 with landlock in the boot parameter lsm= has it; containers start without it",
            )
        ]
    scopes = "" if version >= 6 else "; abstract sockets are not scoped before version 6"
    return [Check("landlock", OK, f"version {version}{scopes}")]


def bytecode() -> list[Check]:
    """Modules of the installed package that each start has to compile anew."""
    from importlib.util import cache_from_source

    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    total = lacking = 0
    for parent, _, names in os.walk(package):
        for name in names:
            if name.endswith(".py"):
                total += 1
                lacking += not os.path.exists(cache_from_source(f"{parent}/{name}"))
    if lacking:
        return [
            Check(
                "bytecode",
                WARN,
                f"{lacking} of {total} modules are compiled at each start",
                f"{_python()} -m compileall -q {package}",
            )
        ]
    return [Check("bytecode", OK, f"all {total} modules are compiled")]


def path_files() -> list[Check]:
    """``.pth`` files of this interpreter's site directories that run code at every start (site(3))."""
    import sys

    if sys.flags.no_site:
        return [Check("start-up files", OK, "not read: ctst starts without the site module")]
    running = []
    for directory in dict.fromkeys(sys.path):
        if os.path.basename(directory) not in ("site-packages", "dist-packages") or not os.path.isdir(directory):
            continue
        for name in sorted(os.listdir(directory)):
            path = f"{directory}/{name}"
            if name.endswith(".pth"):
                text = _read(path)
                if any(line.startswith(("import ", "import\t")) for line in text.splitlines()):
                    running.append(path)
    if running:
        return [
            Check(
                "start-up files",
                WARN,
                f"run at each start of ctst: {', '.join(running)}",
                "install ctst in a virtual environment of its own, and remove there the packages these belong to",
            )
        ]
    return [Check("start-up files", OK, "no .pth file runs code")]


def _python() -> str:
    import sys

    return sys.executable or "python3"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
