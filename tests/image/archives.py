"""Crafted archives: tar members exactly as a test wants them, good or bad."""

from __future__ import annotations

import hashlib
import json
import os

from containust.image import tar_writer
from containust.image.store import Image, ImageStore

DIRECTORY, REGULAR, SYMLINK, HARDLINK, FIFO = b"5", b"0", b"2", b"1", b"6"


def member(
    path: str | bytes,
    content: bytes = b"",
    kind: bytes = REGULAR,
    target: str = "",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1_600_000_000_000_000_000,
    xattrs: tuple[tuple[str, bytes], ...] = (),
) -> bytes:
    """One member with its content."""
    name = path.encode() if isinstance(path, str) else path
    head = tar_writer.header(name, kind, mode, uid, gid, len(content), mtime, target.encode(), xattrs)
    return head + content + tar_writer.padding(len(content))


def raw(**fields: bytes) -> bytes:
    """A header block from its fields' bytes; the checksum is right unless given."""
    values = {
        "name": b"f",
        "mode": b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": b"00000000000\0",
        "mtime": b"00000000000\0",
        "type": b"0",
        "link": b"",
        "magic": b"ustar\x0000",
        "owners": b"",
        "major": b"0000000\0",
        "minor": b"0000000\0",
        "prefix": b"",
        **fields,
    }
    widths = (("name", 100), ("mode", 8), ("uid", 8), ("gid", 8), ("size", 12), ("mtime", 12))
    tail = (
        ("type", 1),
        ("link", 100),
        ("magic", 8),
        ("owners", 64),
        ("major", 8),
        ("minor", 8),
        ("prefix", 155),
    )
    before = b"".join(values[name].ljust(width, b"\0") for name, width in widths)
    after = b"".join(values[name].ljust(width, b"\0") for name, width in tail) + bytes(12)
    checksum = values.get("checksum", b"%06o\0 " % (sum(before) + 8 * 32 + sum(after)))
    return before + checksum + after


def pax(records: dict[str, bytes], kind: bytes = b"x") -> bytes:
    """A pax header with the given records."""
    body = b"".join(tar_writer._record(key.encode(), value) for key, value in records.items())
    return raw(name=b"pax", type=kind, size=b"%011o\0" % len(body)) + body + tar_writer.padding(len(body))


def tar(*members: bytes) -> bytes:
    """The members as an archive."""
    return b"".join(members) + tar_writer.END


def sha(data: bytes) -> str:
    """The digest as documents write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def docker_archive(layers: list[bytes], config: dict[str, object] | None = None, names: tuple[str, ...] = ()) -> bytes:
    """What ``docker save`` would write for these layers."""
    document = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [sha(layer) for layer in layers]},
        }
    ).encode()
    paths = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": list(names), "Layers": paths}]).encode()
    return tar(
        member("config.json", document),
        member("manifest.json", manifest),
        *[member(path, layer) for path, layer in zip(paths, layers, strict=True)],
    )


def oci_layout(
    contents: list[bytes], config: dict[str, object] | None = None, name: str = "latest", **changes: object
) -> dict[str, bytes]:
    """The files of an OCI layout; ``changes`` replace keys of the manifest."""
    document = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [sha(layer) for layer in contents]},
        }
    ).encode()
    kind = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": sha(document), "size": len(document)},
            "layers": [
                {"mediaType": f"{kind}.layer.v1.tar", "digest": sha(layer), "size": len(layer)} for layer in contents
            ],
            **changes,
        }
    ).encode()
    index = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                {
                    "mediaType": f"{kind}.manifest.v1+json",
                    "digest": sha(manifest),
                    "size": len(manifest),
                    "annotations": {"org.opencontainers.image.ref.name": name},
                }
            ],
        }
    ).encode()
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": index}
    for data in (document, manifest, *contents):
        files[f"blobs/sha256/{sha(data)[7:]}"] = data
    return files


def tar_of(files: dict[str, bytes]) -> bytes:
    """Files as an archive."""
    return tar(*[member(name, data) for name, data in files.items()])


def import_bytes(store: ImageStore, data: bytes, name: str = "archive.tar") -> Image:
    """Write ``data`` beside the store and import it as tar://."""
    path = f"{os.path.dirname(store.directory)}/{name}"
    with open(path, "wb") as file:
        file.write(data)
    return store.ensure(f"tar://{path}")
