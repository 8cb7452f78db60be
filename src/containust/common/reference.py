"""Image references: ``scheme://location[@sha256:<64 hex>]`` (images.md, "Sources").

Parsing is syntax alone, without any I/O: whether the thing exists is found out by who opens it. Names of
repositories and tags follow the OCI distribution specification, "Pulling manifests".
"""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.common.types import Record

SCHEMES = ("file", "tar", "host", "image", "oci", "https", "preset")
PATHS = ("file", "tar", "host")
PIN = "@sha256:"
LONGEST_SHOWN = 160  # characters of a wrong reference in a message

HEX = frozenset("0123456789abcdef")
LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
TAG = WORD | frozenset(".-")
# What people write that means one of ours.
ALIASES = {"docker": "oci", "container": "oci", "registry": "oci", "dir": "file", "oci-archive": "tar"}
ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Reference(Record):
    """One parsed reference.

    ``scheme`` is one of :data:`SCHEMES`; ``location`` the text between ``://`` and the pin, as written;
    ``digest`` is ``"sha256:<64 lower-case hex>"`` or None. ``str()`` gives the reference back.
    """

    __slots__ = ("digest", "location", "scheme")

    def __init__(self, scheme: str, location: str, digest: str | None = None) -> None:
        self.scheme = scheme
        self.location = location
        self.digest = digest

    def __str__(self) -> str:
        pin = f"@{self.digest}" if self.digest else ""
        return f"{self.scheme}://{self.location}{pin}"

    def paths(self) -> list[str]:
        """The host paths of a ``file``, ``tar`` or ``host`` reference; ``host`` may list several by comma."""
        return self.location.split(",") if self.scheme == "host" else [self.location]

    def absolute(self, directory: str) -> Reference:
        """The same with a relative ``file`` or ``tar`` path resolved against ``directory``."""
        if self.scheme not in ("file", "tar") or self.location.startswith("/"):
            return self
        from containust.common import os

        return Reference(self.scheme, os.path.normpath(os.path.join(directory, self.location)), self.digest)


def parse_reference(text: str) -> Reference:
    """Split and validate ``text``; a wrong one is a ContainustError E007 whose help shows a right one."""
    rest, pin, hexadecimal = text.rpartition(PIN)
    digest = None
    if not pin:
        rest = text
        if "@" in text and "://" in text and ":" in text.rpartition("@")[2]:
            algorithm = text.rpartition("@")[2].partition(":")[0]
            if algorithm and TAG.issuperset(algorithm) and algorithm.startswith(("sha", "md5", "blake")):
                _invalid(text, f"digest algorithm {algorithm!r} is not supported", "pin it with @sha256:<64 hex>")
    else:
        hexadecimal = hexadecimal.lower()
        if len(hexadecimal) != 64 or not HEX.issuperset(hexadecimal):
            _invalid(
                text,
                f"a sha256 digest has 64 hexadecimal digits, this one has {len(hexadecimal)} characters",
                "write @sha256: and the 64 digits, or leave the pin away",
            )
        digest = f"sha256:{hexadecimal}"
    scheme, separator, location = rest.partition("://")
    if not separator:
        _bare(text, rest)
    if scheme not in SCHEMES:
        _unknown_scheme(text, scheme, location)
    if not location:
        _invalid(text, f"nothing follows {scheme}://", _example(scheme))
    for character in location:
        if character < " " or character == "\x7f" or (character == " " and scheme not in PATHS):
            _invalid(text, "white space or a control character in the location", _example(scheme))
    _CHECKS[scheme](text, location)
    if scheme == "https" and digest is None:
        _invalid(text, "an image fetched by https:// must be pinned", f"write {rest}@sha256:<64 hex>")
    return Reference(scheme, location, digest)


def _invalid(text: str, why: str, *help: str) -> NoReturn:
    shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
    raise ContainustError(
        "E007",
        f"invalid image reference {shown!r}: {why[:LONGEST_SHOWN]}",
        *[line for line in help if len(line) <= 2 * LONGEST_SHOWN],
    )


def _example(scheme: str) -> str:
    examples = {
        "file": "file://./rootfs or file:///srv/rootfs",
        "tar": "tar://./image.tar.gz or tar:///srv/image.tar",
        "host": "host:///usr/bin/python3",
        "image": "image://NAME, a name or id that `ctst images` lists",
        "oci": "oci://docker.io/library/alpine:3.21",
        "https": "https://example.org/rootfs.tar.gz@sha256:<64 hex>",
        "preset": "preset://alpine; `ctst images --presets` lists them",
    }
    return f"for example {examples[scheme]}"


def _bare(text: str, rest: str) -> NoReturn:
    """A reference without a scheme: say which one was probably meant."""
    if not rest:
        _invalid(text, "it is empty", _example("oci"))
    if rest.startswith(("/", "./", "../")):
        scheme = "tar" if rest.endswith(ARCHIVES) else "file"
        _invalid(text, "it has no scheme", f"for this path write {scheme}://{rest}")
    scheme, colon, path = rest.partition(":")
    if colon and scheme in SCHEMES:
        _invalid(text, "a scheme is followed by ://", f"write {scheme}://{path.lstrip('/')}")
    repository = rest.lower()
    first, slash, _ = repository.partition("/")
    if not slash:
        repository = f"docker.io/library/{repository}"
    elif "." not in first and ":" not in first and first != "localhost":
        repository = f"docker.io/{repository}"
    _invalid(
        text,
        "it has no scheme",
        f"for an image of a registry write oci://{repository}",
        f"or fetch it once with `ctst pull {repository}` and use it without a network",
    )


def _unknown_scheme(text: str, scheme: str, location: str) -> NoReturn:
    if scheme == "http":
        _invalid(text, "http:// is not protected against changes on the way", "use https:// with a pin")
    near = ALIASES.get(scheme.lower()) or (scheme.lower() if scheme.lower() in SCHEMES else None)
    if near is None:
        from containust.common.suggest import nearest

        near = nearest(scheme, SCHEMES)
    known = "the schemes are " + ", ".join(f"{name}://" for name in SCHEMES)
    if near:
        _invalid(text, f"unknown scheme {scheme}://", f"did you mean {near}://{location}?", known)
    _invalid(text, f"unknown scheme {scheme}://", known)


def _check_path(text: str, location: str) -> None:
    if not location.startswith(("/", "./", "../")) and location not in (".", ".."):
        scheme = text.partition("://")[0]
        _invalid(text, "the path is neither absolute nor starts with ./", f"write {scheme}://./{location}")


def _check_programs(text: str, location: str) -> None:
    for program in location.split(","):
        if not program.startswith("/"):
            _invalid(text, f"{program!r} is not an absolute path", _example("host"))
        if ".." in program.split("/"):
            _invalid(text, f"{program!r} contains ..", _example("host"))


def _check_name(text: str, location: str) -> None:
    if location[0] not in WORD or not (TAG | {"/", ":", "@"}).issuperset(location):
        _invalid(text, "a name consists of letters, digits and . _ - / :", _example("image"))


def _check_preset(text: str, location: str) -> None:
    if location[0] not in LOWER or not (LOWER | {".", "_", "-", ":"}).issuperset(location):
        _invalid(text, "a preset is a lower-case name", _example("preset"))


def _check_https(text: str, location: str) -> None:
    host = location.partition("/")[0].rpartition("@")[2]
    if not host or location.partition("/")[0] != host:
        _invalid(text, "the host is missing or carries a password", _example("https"))


def _check_repository(text: str, location: str) -> None:
    """``[registry/]repository[:tag]``, by the grammar of the OCI distribution specification."""
    name, slash, last = location.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and (not tag or len(tag) > 128 or tag[0] in ".-" or not TAG.issuperset(tag)):
        _invalid(text, f"{tag!r} is not a tag", "a tag has up to 128 letters, digits and . _ -")
    components = f"{name}{slash}{last}".split("/")
    if len(components) > 1 and is_registry(components[0]):
        host, _, port = components.pop(0).rpartition(":") if _has_port(components[0]) else (components.pop(0), "", "")
        if port and not (port.isascii() and port.isdigit() and 0 < len(port) < 6 and 0 < int(port) < 65536):
            _invalid(text, f"{port!r} is not a port", "a port is 1 to 65535")
        if not host or not (TAG | {"[", "]", ":"}).issuperset(host):
            _invalid(text, f"{host!r} is not the name of a registry", _example("oci"))
    for component in components:
        if not _is_component(component):
            upper = component.lower() != component and _is_component(component.lower())
            why = "repository names are lower case" if upper else "a part of the repository's name is wrong"
            fixed = location.replace(component, component.lower()) if upper else ""
            _invalid(text, f"{component!r}: {why}", f"write oci://{fixed}" if upper else _example("oci"))


def is_registry(component: str) -> bool:
    """Whether the first part of a repository's path is a host: it has a dot or a port, or is localhost."""
    return "." in component or ":" in component or component == "localhost"


def _has_port(host: str) -> bool:
    return ":" in host and not host.endswith("]")


def _is_component(text: str) -> bool:
    """Lower-case letters and digits, joined by one ``.``, one or two ``_``, or any number of ``-``."""
    if not text or text[0] not in LOWER or text[-1] not in LOWER:
        return False
    run = ""
    for character in text:
        if character in LOWER:
            if run and not (run in (".", "_", "__") or run == "-" * len(run)):
                return False
            run = ""
        elif character in "._-":
            run += character
        else:
            return False
    return True


_CHECKS = {
    "file": _check_path,
    "tar": _check_path,
    "host": _check_programs,
    "image": _check_name,
    "oci": _check_repository,
    "https": _check_https,
    "preset": _check_preset,
}
