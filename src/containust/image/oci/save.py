"""Images into archives that others read: one tar that is an OCI layout and a ``docker save`` archive at
once.
"""

from __future__ import annotations

import os

from containust.image import tar_writer
from containust.image.oci.documents import ARCHITECTURES, MANIFESTS, oci_config
from containust.image.staging import canonical
from containust.image.store import config_of
from containust.image.verify import read_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    from containust.common.types import ImageConfig
    from containust.image.store import ImageStore

KIND = "application/vnd.oci.image"


def documents(config: ImageConfig, layers: list[dict[str, Any]]) -> tuple[bytes, bytes]:
    """The image configuration and the manifest over uncompressed ``layers`` (``digest``, ``size``),
    deterministic.
    """
    from hashlib import sha256

    machine = os.uname().machine
    configuration = canonical(
        {
            "architecture": ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": oci_config(config),
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "containust"} for _ in layers],
        }
    )
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFESTS[0],
            "config": {
                "mediaType": f"{KIND}.config.v1+json",
                "digest": f"sha256:{sha256(configuration).hexdigest()}",
                "size": len(configuration),
            },
            "layers": [
                {"mediaType": f"{KIND}.layer.v1.tar", "digest": layer["digest"], "size": layer["size"]}
                for layer in layers
            ],
        }
    )
    return configuration, manifest


def save(store: ImageStore, images: list[tuple[str, dict[str, Any]]], out: IO[bytes]) -> None:
    """Write images, (name, catalog entry) each, to the open file ``out``. Raises I001, I002 for a damaged
    store.
    """
    from hashlib import sha256

    from containust.image.store import missing

    blobs: dict[str, bytes | str] = {}
    index = []
    docker = []
    for name, entry in images:
        root = read_manifest(store, entry["image"]["layer"])
        if root is None:
            raise missing(f"the store has lost the layers of {name}", "import or pull the image again")
        configuration, manifest = documents(config_of(entry["image"]["config"]), root["layers"])
        for data in (configuration, manifest):
            blobs[sha256(data).hexdigest()] = data
        for layer in root["layers"]:
            blobs[layer["digest"][7:]] = f"{store.directory}/layers/{layer['digest'][7:]}/layer.tar"
        tag = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        index.append(
            {
                "mediaType": MANIFESTS[0],
                "digest": f"sha256:{sha256(manifest).hexdigest()}",
                "size": len(manifest),
                "annotations": {
                    "io.containerd.image.name": tag,
                    "org.opencontainers.image.ref.name": tag.rpartition(":")[2],
                },
            }
        )
        docker.append(
            {
                "Config": f"blobs/sha256/{sha256(configuration).hexdigest()}",
                "RepoTags": [tag],
                "Layers": [f"blobs/sha256/{layer['digest'][7:]}" for layer in root["layers"]],
            }
        )
    from json import dumps

    for directory in ("blobs", "blobs/sha256"):
        out.write(tar_writer.header(directory.encode(), tar_writer.DIRECTORY, 0o755, 0, 0, 0, 0))
    for digest in sorted(blobs):
        _member(out, f"blobs/sha256/{digest}", blobs[digest])
    index_mime = "application/vnd.oci.image.index.v1+json"
    _member(out, "index.json", canonical({"schemaVersion": 2, "mediaType": index_mime, "manifests": index}))
    _member(out, "manifest.json", dumps(docker, separators=(",", ":")).encode())
    _member(out, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    out.write(tar_writer.END)


def _member(out: IO[bytes], name: str, content: bytes | str) -> None:
    """One file, from its bytes or from the path of a file."""
    if isinstance(content, bytes):
        out.write(tar_writer.header(name.encode(), tar_writer.REGULAR, 0o644, 0, 0, len(content), 0))
        out.write(content + tar_writer.padding(len(content)))
        return
    with open(content, "rb") as source:
        size = os.fstat(source.fileno()).st_size
        out.write(tar_writer.header(name.encode(), tar_writer.REGULAR, 0o644, 0, 0, size, 0))
        while data := source.read(1 << 20):
            out.write(data)
        out.write(tar_writer.padding(size))
