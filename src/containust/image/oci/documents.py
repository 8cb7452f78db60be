"""The JSON documents of OCI and Docker images, read as what they are: bytes from strangers.

A document has one form only: an object, of bounded size and depth, no key twice (two readers could take
different
ones), never a manifest and an index at once (CVE-2021-41190). image-spec: manifest.md, image-index.md,
config.md;
Docker Image Specification v1.2.
"""

from __future__ import annotations

from containust.common.errors import ContainustError
from containust.common.types import Healthcheck, ImageConfig, Port
from containust.image.limits import DOCUMENT_MAX
from containust.image.members import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "i686": "386"}
HEX = frozenset("0123456789abcdef")


def document(data: bytes, what: str) -> dict[str, Any]:
    """The object in ``data``. Raises I004 naming ``what``."""
    value = parsed(data, what)
    if not isinstance(value, dict):
        raise invalid(what, "is not a JSON object")
    return value


def parsed(data: bytes, what: str) -> Any:
    """The JSON value in ``data``, in which nothing can be read in two ways. Raises I004 naming ``what``."""
    from json import loads

    if len(data) > DOCUMENT_MAX:
        raise invalid(what, f"is larger than {DOCUMENT_MAX >> 20} MiB")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key occurs twice")
        return found

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON number")

    try:
        return loads(data.decode(), object_pairs_hook=unique, parse_constant=constant)
    except RecursionError:
        raise invalid(what, "is nested too deeply") from None
    except ValueError as error:
        raise invalid(what, f"is no valid JSON: {error}") from None


def invalid(what: str, why: str) -> ContainustError:
    """The I004 error of a document."""
    return ContainustError("I004", f"{what} {why}", "make the image again, or get it from another place")


def digest_of(value: Any, what: str) -> str:
    """The hexadecimal part of a ``sha256:`` digest. Raises I004 for anything else, sha512 included."""
    if isinstance(value, str) and value.startswith("sha256:") and len(value) == 71 and HEX.issuperset(value[7:]):
        return value[7:]
    raise invalid(what, f"has the digest {show(str(value).encode())!r}, which is no sha256 digest")


def descriptors(value: Any, what: str) -> list[dict[str, Any]]:
    """A list of OCI descriptors whose digests and sizes are well-formed. Raises I004."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise invalid(what, "has no list of descriptors")
    for item in value:
        digest_of(item.get("digest"), what)
        size = item.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise invalid(what, "has a descriptor without a size")
    return value


def kind_of(manifest: dict[str, Any], what: str, media_type: str = "") -> str:
    """``index`` or ``manifest``; a document that could be both, or is neither, is I004."""
    if "layers" in manifest and "manifests" in manifest:
        raise invalid(what, "is a manifest and an index at once")
    named = manifest.get("mediaType") or media_type
    kind = "index" if "manifests" in manifest else "manifest" if "layers" in manifest else ""
    if not kind:
        raise invalid(what, "is neither an image manifest nor an index (schema 1 is not supported)")
    if named and named in INDEXES + MANIFESTS and (named in INDEXES) != (kind == "index"):
        raise invalid(what, f"says that it is {show(str(named).encode())}, but is the other kind")
    return kind


def choose_platform(index: dict[str, Any], what: str) -> dict[str, Any]:
    """The descriptor of an index that fits this machine. Raises I001 when none does."""
    import os

    machine = os.uname().machine
    wanted = ARCHITECTURES.get(machine, machine)
    found = descriptors(index.get("manifests"), what)
    images = [item for item in found if not _is_attestation(item)]
    seen = []
    for item in images:
        platform = item.get("platform")
        if not isinstance(platform, dict):
            continue
        seen.append(f"{platform.get('os')}/{platform.get('architecture')}")
        if platform.get("os") == "linux" and platform.get("architecture") == wanted:
            return item
    if len(images) == 1 and not isinstance(images[0].get("platform"), dict):
        return images[0]
    if not images:
        raise invalid(what, "lists no image")
    raise ContainustError(
        "I001",
        f"{what} has no image for linux/{wanted}",
        f"it has {show(', '.join(seen).encode()) or 'images without a platform'}",
    )


def _is_attestation(item: dict[str, Any]) -> bool:
    annotations = item.get("annotations")
    return isinstance(annotations, dict) and annotations.get("vnd.docker.reference.type") == "attestation-manifest"


def image_config(document: dict[str, Any], what: str) -> ImageConfig:
    """What a container's start takes from an image configuration. Raises I004 for values of wrong types."""
    inner = document.get("config")
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise invalid(what, "has a `config` that is no object")
    ports = []
    for key in sorted(_keys(inner, "ExposedPorts", what)):
        number, _, protocol = key.partition("/")
        if not number.isdecimal() or not 0 < int(number) < 65536:
            continue  # ranges, which Docker's builder never writes
        ports.append(Port(int(number), protocol or "tcp"))
    return ImageConfig(
        _strings(inner, "Entrypoint", what),
        _strings(inner, "Cmd", what),
        _strings(inner, "Env", what),
        _text(inner, "WorkingDir", what),
        _text(inner, "User", what),
        ports,
        sorted(_keys(inner, "Volumes", what)),
        _text(inner, "StopSignal", what),
        _healthcheck(inner.get("Healthcheck")),
        {key: value for key, value in _keys(inner, "Labels", what).items() if _is_text(value)},
    )


def diff_ids(document: dict[str, Any], what: str) -> list[str]:
    """The hexadecimal DiffIDs of the configuration's layers, lowest first. Raises I004."""
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict) or not isinstance(rootfs.get("diff_ids"), list):
        raise invalid(what, "lists no rootfs.diff_ids")
    return [digest_of(item, what) for item in rootfs["diff_ids"]]


def oci_config(config: ImageConfig) -> dict[str, Any]:
    """The ``config`` object that says what ``config`` does."""
    inner: dict[str, Any] = {}
    if config.entrypoint:
        inner["Entrypoint"] = config.entrypoint
    if config.command:
        inner["Cmd"] = config.command
    if config.env:
        inner["Env"] = config.env
    if config.workdir:
        inner["WorkingDir"] = config.workdir
    if config.user:
        inner["User"] = config.user
    if config.exposed_ports:
        inner["ExposedPorts"] = {f"{port.number}/{port.protocol}": {} for port in config.exposed_ports}
    if config.volumes:
        inner["Volumes"] = {path: {} for path in config.volumes}
    if config.stop_signal:
        inner["StopSignal"] = config.stop_signal
    if config.labels:
        inner["Labels"] = config.labels
    probe = config.healthcheck
    if probe:
        inner["Healthcheck"] = {
            "Test": ["CMD", *probe.command],
            "Interval": int(probe.interval * 1e9),
            "Timeout": int(probe.timeout * 1e9),
            "StartPeriod": int(probe.start_period * 1e9),
            "Retries": probe.retries,
        }
    return inner


def _healthcheck(value: Any) -> Healthcheck | None:
    if not isinstance(value, dict) or not isinstance(value.get("Test"), list) or not value["Test"]:
        return None
    kind, *rest = [str(item) for item in value["Test"]]
    if not all(_is_text(item) for item in rest):
        return None
    if kind == "CMD" and rest:
        command: list[Any] = rest
    elif kind == "CMD-SHELL" and rest:
        command = ["/bin/sh", "-c", rest[0]]
    else:
        return None  # NONE, or a form that nobody has

    def seconds(key: str, default: float) -> float:
        number = value.get(key)
        return number / 1e9 if isinstance(number, int) and 0 < number < 1 << 63 else default

    retries = value.get("Retries")
    return Healthcheck(
        command,
        seconds("Interval", 30.0),
        seconds("Timeout", 30.0),
        retries if isinstance(retries, int) and 0 < retries < 1 << 31 else 3,
        seconds("StartPeriod", 0.0),
    )


def _strings(inner: dict[str, Any], key: str, what: str) -> list[str]:
    value = inner.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(_is_text(item) for item in value):
        raise invalid(what, f"has a {key} that is no list of strings")
    return value


def _text(inner: dict[str, Any], key: str, what: str) -> str | None:
    value = inner.get(key)
    if value is None or value == "":
        return None
    if not _is_text(value):
        raise invalid(what, f"has a {key} that is no string")
    return str(value)


def _keys(inner: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    value = inner.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(_is_text(name) for name in value):
        raise invalid(what, f"has a {key} that is no object with strings for keys")
    return value


def _is_text(value: Any) -> bool:
    """Whether it is a string that a program can be given: no NUL, and no halves of surrogate pairs."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)
