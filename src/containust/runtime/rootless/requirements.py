"""What an ordinary user needs: subordinate ids, newuidmap and newgidmap, user namespaces. Each lack with its remedy."""

from __future__ import annotations

from containust.common import os
from containust.common.errors import ContainustError

SUBUID, SUBGID = "/etc/subuid", "/etc/subgid"
PACKAGES = {"pasta": "passt", "slirp4netns": "slirp4netns"}
TUN = "/dev/net/tun"
NEEDED = 65535  # beside the user's own id: an image may use any id up to that
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Sysctls by which distributions keep ordinary users from user namespaces, with the value that does.
SWITCHES = (
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),  # Debian until 11, Arch
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu
)


def find(program: str) -> str | None:
    """Path of a program in the caller's PATH or in the usual directories."""
    for directory in f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}".split(":"):
        path = f"{directory}/{program}"
        if directory.startswith("/") and os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return None


def login() -> str:
    """The caller's name, or the number where there is none."""
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        return str(os.geteuid())


def subordinate(path: str, id: int, name: str) -> list[tuple[int, int]]:
    """First ids and counts that subuid(5) or subgid(5) gives the user, up to what is needed."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    found = []
    left = NEEDED
    for line in lines:
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in (name, str(id)) and fields[1].isdigit() and fields[2].isdigit():
            count = min(int(fields[2]), left)
            if count:
                found.append((int(fields[1]), count))
            left -= count
    return found


def missing_ids(path: str, name: str, ranges: list[tuple[int, int]]) -> tuple[str, str] | None:
    """What is wrong with the ranges of ``path`` and what to do; None when they suffice."""
    count = sum(size for _, size in ranges)
    if count >= NEEDED:
        return None
    option = "--add-subuids" if path == SUBUID else "--add-subgids"
    first = _free(path)
    return (
        f"{name} has {count or 'no'} subordinate ids in {path}, and a container needs {NEEDED}",
        f"as root: usermod {option} {first}-{first + 65535} {name}",
    )


def _free(path: str) -> int:
    """The first id after all ranges that are given out."""
    end = 100000
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
                    end = max(end, int(fields[1]) + int(fields[2]))
    except OSError:
        pass
    return end


def switched_off() -> tuple[str, str] | None:
    """A sysctl that forbids user namespaces and the command that allows them."""
    for name, off, on in SWITCHES:
        try:
            with open(f"/proc/sys/{name.replace('.', '/')}") as file:
                value = file.read().strip()
        except OSError:
            continue
        if value == off:
            return (f"user namespaces are switched off for ordinary users ({name} = {value})",
                    f"as root: sysctl -w {name}={on}")  # fmt: skip
    return None


def missing_helper() -> tuple[str, str] | None:
    """newuidmap or newgidmap, if one is not installed."""
    lacking = [name for name in ("newuidmap", "newgidmap") if find(name) is None]
    if not lacking:
        return None
    return (
        f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed",
        "as root: apt-get install uidmap (Fedora: shadow-utils)",
    )


def lacks() -> list[tuple[str, str]]:
    """All that is missing, each with its remedy."""
    name, uid = login(), os.geteuid()
    found = [
        switched_off(),
        missing_helper(),
        *(missing_ids(path, name, subordinate(path, uid, name)) for path in (SUBUID, SUBGID)),
    ]
    return [one for one in found if one]


def check() -> None:
    """Raise ContainustError (S003, exit status 3) that names what is missing and the commands that mend it."""
    found = lacks()
    if found:
        raise ContainustError(
            "S003",
            f"containers without root: {'; '.join(what for what, _ in found)}",
            *dict.fromkeys(remedy for _, remedy in found),
            "`ctst doctor` lists all that this host offers; with root's rights none of it is needed",
        )


def missing_network(names: list[str]) -> tuple[str, str] | None:
    """What keeps containers from a network, with the remedy; ``names`` are the programs of which one is needed."""
    if not any(map(find, names)):
        if len(names) > 1:
            package = "slirp4netns (or passt, if it is from the end of 2024 or later)"
            return "neither pasta nor slirp4netns is installed", f"as root: apt-get install {package}"
        return f"{names[0]} is not installed", f"as root: apt-get install {PACKAGES[names[0]]}"
    if not os.path.exists(TUN):
        return f"there is no {TUN}", "as root: modprobe tun"
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"{TUN} is closed to ordinary users", f"as root: chmod 666 {TUN}"
    return None
