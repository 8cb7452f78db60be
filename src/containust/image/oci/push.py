"""A stored image to a registry: gzip layers, configuration, manifest."""

from __future__ import annotations

import os

from containust.image.oci.documents import MANIFESTS
from containust.image.oci.registry import Repository, split
from containust.image.oci.save import KIND, documents
from containust.image.staging import Staging, canonical
from containust.image.store import config_of, missing
from containust.image.verify import read_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from containust.image.store import ImageStore, Progress


def push(store: ImageStore, entry: dict[str, Any], location: str, progress: Progress | None = None) -> str:
    """Send the image of a catalog entry to ``[registry/]repository[:tag]``; the manifest's digest. Raises
    I006.
    """
    from hashlib import sha256
    from io import BytesIO
    from json import loads

    registry, name, tag = split(location)
    root = read_manifest(store, entry["image"]["layer"])
    if root is None:
        raise missing(f"the store has lost the layers of {entry['reference']}", "import or pull the image again")
    configuration, text = documents(config_of(entry["image"]["config"]), root["layers"])
    manifest = loads(text)
    repository = Repository(registry, name)
    try:
        with Staging(store) as staging:
            for number, layer in enumerate(root["layers"]):
                path = f"{staging.path}/layer.gz"
                digest = compress(f"{store.directory}/layers/{layer['digest'][7:]}/layer.tar", path)
                size = os.path.getsize(path)
                if not repository.has_blob(digest):
                    with open(path, "rb") as body:
                        repository.upload(digest, size, body)
                os.unlink(path)
                manifest["layers"][number] = {
                    "mediaType": f"{KIND}.layer.v1.tar+gzip",
                    "digest": digest,
                    "size": size,
                }
                if progress:
                    progress("pushing", number + 1, len(root["layers"]))
        digest = manifest["config"]["digest"]
        if not repository.has_blob(digest):
            repository.upload(digest, len(configuration), BytesIO(configuration))
        data = canonical(manifest)
        repository.put_manifest(tag, data, MANIFESTS[0])
        return f"sha256:{sha256(data).hexdigest()}"
    finally:
        repository.close()


def compress(source: str, target: str) -> str:
    """gzip ``source`` into the new file ``target``, the same bytes for the same input; the digest of the
    result.
    """
    import zlib
    from hashlib import sha256

    whole = sha256()
    encoder = zlib.compressobj(6, zlib.DEFLATED, 31)  # a gzip header without time and name
    with open(source, "rb") as data, open(target, "xb") as out:
        while piece := data.read(1 << 20):
            packed = encoder.compress(piece)
            whole.update(packed)
            out.write(packed)
        packed = encoder.flush()
        whole.update(packed)
        out.write(packed)
    return f"sha256:{whole.hexdigest()}"
