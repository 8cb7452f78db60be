"""Whether somebody whose key is trusted has signed an image: cosign's signatures with a key pair.

A signature lies beside its image, under the tag ``sha256-<hex of the manifest>.sig``: a manifest whose layers are small
JSON payloads (containers/image, "atomic container signature") that name the digest, each with the annotation
``dev.cosignproject.cosign/signature``. Trusted keys are ``*.pub`` files, ECDSA on P-256 in PEM as ``cosign
generate-key-pair`` and ``openssl`` write them, in ``.containust/trust/`` of the project and of the home directory, or
where ``CONTAINUST_TRUST`` says. Everything that is not a good signature of the very digest fails: no keys, no
signature, another digest, another kind of key.
"""

from __future__ import annotations

import os

from containust.common.errors import ContainustError, UsageError
from containust.image.oci import p256
from containust.image.oci.documents import descriptors, document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.image.oci.registry import Repository

VARIABLE = "CONTAINUST_REQUIRE_PROVENANCE"
SIGNATURE = "dev.cosignproject.cosign/signature"
PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURES_MAX = 64


def required() -> bool:
    """Whether this process may fetch signed images only. Raises UsageError for a value that says neither."""
    value = os.environ.get(VARIABLE, "")
    if value not in ("", "0", "1"):
        raise UsageError(f"{VARIABLE} is {value!r}", "set it to 1 or 0")
    return value == "1"


def trusted_keys(directory: str) -> dict[str, tuple[int, int]]:
    """Path to public key of every ``*.pub`` file that is trusted for the store ``directory``. Raises I008."""
    places = [f"{os.path.dirname(directory)}/trust", os.path.expanduser("~/.containust/trust")]
    if os.environ.get("CONTAINUST_TRUST"):
        places = [os.environ["CONTAINUST_TRUST"]]
    found: dict[str, tuple[int, int]] = {}
    for place in places:
        try:
            names = sorted(name for name in os.listdir(place) if name.endswith(".pub"))
        except OSError:
            continue
        for name in names:
            path = f"{place}/{name}"
            try:
                with open(path, "rb") as file:
                    found[path] = p256.public_key(file.read(1 << 16))
            except (OSError, ValueError) as error:
                raise refused(f"{path} is no public key: {error}", "ECDSA on P-256 in PEM is what is read") from None
    if not found:
        raise refused(
            "signatures are required, but no key is trusted",
            f"put the publisher's public key into {places[0]}/NAME.pub",
        )
    return found


def fingerprint(key: tuple[int, int]) -> str:
    """What names ``key`` in the catalog."""
    return f"p256:{key[0]:064x}{key[1]:064x}"


def vouched(directory: str, entry: dict[str, Any]) -> bool:
    """Whether an image of the catalog may be used: the key that has signed it is trusted still, if one is needed."""
    return not required() or entry.get("signer") in {fingerprint(key) for key in trusted_keys(directory).values()}


def check(repository: Repository, digests: list[str], directory: str) -> str:
    """The fingerprint of the key that has signed one of ``digests``. Raises I008 when none has, and I006.

    ``digests`` are those of the image's index and of its manifest: a signature of either vouches for the image.
    """
    keys = trusted_keys(directory)
    what = f"{repository.registry}/{repository.repository}"
    for digest in digests:
        try:
            data, _, _ = repository.manifest(f"{digest.replace(':', '-')}.sig")
        except ContainustError as error:
            if error.code != "I001":
                raise
            continue
        signatures = document(data, f"the signatures of {what}")
        for layer in descriptors(signatures.get("layers"), f"the signatures of {what}")[:SIGNATURES_MAX]:
            path = _signer(repository, layer, digest, keys)
            if path:
                return fingerprint(keys[path])
    raise refused(
        f"{what}@{digests[0]} has no signature of a trusted key",
        f"trusted are {', '.join(sorted(keys))}",
        "nothing of it was fetched",
    )


def _signer(repository: Repository, layer: dict[str, Any], digest: str, keys: dict[str, tuple[int, int]]) -> str:
    """The path of the key by which ``layer`` signs ``digest``, or empty."""
    from base64 import b64decode
    from hashlib import sha256

    annotations = layer.get("annotations")
    if layer.get("mediaType") != PAYLOAD or not isinstance(annotations, dict):
        return ""
    try:
        signature = b64decode(str(annotations.get(SIGNATURE, "")), validate=True)
    except ValueError:
        return ""
    payload = repository.small_blob(layer)
    hashed = int.from_bytes(sha256(payload).digest(), "big")
    for path, key in keys.items():
        if p256.verify(key, hashed, signature):
            # Only now is the text worth reading: a signature of another image says so here.
            critical = document(payload, "a signature").get("critical")
            image = critical.get("image") if isinstance(critical, dict) else None
            if isinstance(image, dict) and image.get("docker-manifest-digest") == digest:
                return path
    return ""


def refused(message: str, *help: str) -> ContainustError:
    """The I008 error."""
    return ContainustError("I008", message, *help)
