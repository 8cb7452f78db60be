"""Mutated archives and documents, through the whole import: an error of ours with nothing kept, or an image that holds.

CONTAINUST_FULL=1 python -m pytest tests/image/test_archive_fuzz.py
"""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from archives import DIRECTORY, FIFO, HARDLINK, SYMLINK, docker_archive, member, oci_layout, pax, tar, tar_of

from conftest import listing
from containust.common.errors import ContainustError
from containust.image import extract, mounting
from containust.image.store import ImageStore
from containust.image.verify import verify_root
from harness import FULL

pytestmark = pytest.mark.timeout(3600 if FULL else 120)

CODES = ("I001", "I002", "I003", "I004")
LAYERS = [
    tar(
        member("dir/", kind=DIRECTORY, mode=0o755),
        pax({"path": b"dir/long", "SCHILY.xattr.user.a": b"1", "mtime": b"1.5"}) + member("x", b"content"),
        member("link", kind=SYMLINK, target="../dir"),
        member("hard", kind=HARDLINK, target="dir/long"),
        pax({"GNU.sparse.map": b"0,5", "GNU.sparse.size": b"5000"}) + member("sparse", b"bytes"),
        member("fifo", kind=FIFO),
        member("dir/" + "n" * 150, b"named"),
    ),
    tar(member("dir/.wh.long"), member("dir/.wh..wh..opq"), member("link/below", b"through"), member("dir", b"file")),
]
CONFIG: dict[str, object] = {
    "Cmd": ["/bin/sh"],
    "Env": ["A=1"],
    "Volumes": {"/v": {}},
    "User": "1:1",
    "Labels": {"a": "b"},
}
VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**70,
    1.5,
    "",
    "x",
    "../../up",
    "sha256:" + "0" * 64,
    "sha512:00",
    [],
    {},
    [[]],
]


def outcome(base: Path, data: bytes) -> str:
    """Import ``data`` and use it by extraction; the code of the error, or empty. Fails on anything else."""
    work = base / "work"
    work.mkdir()
    (work / "archive.tar").write_bytes(data)
    before = listing(str(base), times=False)
    store = ImageStore(str(work / "images"))
    try:
        try:
            image = store.ensure(f"tar://{work}/archive.tar")
        except ContainustError as error:
            assert error.code in CODES and error.help, error
            kept = [
                name
                for part in ("layers", "roots", "records", "catalog", "staging")
                for name in os.listdir(f"{store.directory}/{part}")
            ]
            assert kept == []
            return error.code
        assert verify_root(store, image.layer) == []
        os.close(mounting.open_root(store, image))
        extract.extract_root(store, image)
        return ""
    finally:
        shutil.rmtree(store.directory, ignore_errors=True)
        assert listing(str(base), times=False) == before
        shutil.rmtree(work)


def sealed(data: bytearray) -> bytes:
    """With right header checksums, so that damage reaches what is behind them."""
    for at in range(0, len(data) - 511, 512):
        header = data[at : at + 512]
        if header[257:262] == b"ustar":
            data[at + 148 : at + 156] = b"%06o\0 " % (sum(header[:148]) + 256 + sum(header[156:]))
    return bytes(data)


def damaged(generator: random.Random, data: bytes) -> bytes:
    """``data`` with some bytes changed, or blocks repeated, removed, exchanged, or the end cut off."""
    out = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        blocks = max(len(out) // 512, 1)
        at = 512 * generator.randrange(blocks)
        other = 512 * generator.randrange(blocks)
        kind = generator.randrange(8)
        if kind == 0:
            out[at:at] = out[other : other + 512]
        elif kind == 1:
            del out[at : at + 512]
        elif kind == 2:
            out[at : at + 512], out[other : other + 512] = out[other : other + 512], out[at : at + 512]
        elif kind == 3:
            del out[at + generator.randrange(512) :]
        else:
            position = at + generator.choice((0, 100, 124, 156, 157, 345, generator.randrange(512)))
            if position < len(out):
                out[position] = generator.choice((0, 0xFF, 0x2E, 0x2F, 0x78, 0x30, 0x37, generator.randrange(256)))
        if not out:
            out += bytes(512)
    return sealed(out) if generator.random() < 0.8 else bytes(out)


def twisted(generator: random.Random, value: Any) -> Any:
    """``value`` with one of its parts replaced, removed or repeated."""
    if isinstance(value, dict) and value and generator.random() < 0.9:
        key = generator.choice(sorted(value))
        changed = dict(value)
        if generator.random() < 0.2:
            del changed[key]
        elif generator.random() < 0.1:
            changed[generator.choice(("manifests", "layers", "rootfs", "config"))] = value[key]
        else:
            changed[key] = twisted(generator, value[key])
        return changed
    if isinstance(value, list) and value and generator.random() < 0.9:
        at = generator.randrange(len(value))
        if generator.random() < 0.3:
            return [*value, value[at]]
        return [*value[:at], twisted(generator, value[at]), *value[at + 1 :]]
    return generator.choice(VALUES)


def test_mutated_archives(tmp_path: Path) -> None:
    generator = random.Random(7)
    seeds = [*LAYERS, docker_archive(LAYERS, dict(CONFIG)), tar_of(oci_layout(LAYERS, dict(CONFIG)))]
    found = [outcome(tmp_path, damaged(generator, generator.choice(seeds))) for _ in range(20_000 if FULL else 250)]
    assert {"", "I004"} <= set(found)  # both ends of it were tried


def test_mutated_documents(tmp_path: Path) -> None:
    """Documents that are twisted, with digests that are right again: what stands in them is believed or refused."""
    generator = random.Random(8)
    found = []
    for number in range(10_000 if FULL else 200):
        if number % 2:
            members = docker_archive(LAYERS, dict(CONFIG))
            name = generator.choice((b"config.json", b"manifest.json"))
            found.append(outcome(tmp_path, _with_document(members, name, generator)))
            continue
        files = oci_layout(LAYERS, dict(CONFIG))
        manifest_name = f"blobs/{json.loads(files['index.json'])['manifests'][0]['digest'].replace(':', '/')}"
        manifest = json.loads(files[manifest_name])
        config_name = f"blobs/{manifest['config']['digest'].replace(':', '/')}"
        which = generator.randrange(3)
        if which == 0:
            config = twisted(generator, json.loads(files[config_name]))
            manifest["config"] = _stored(files, config)
        elif which == 1:
            manifest = twisted(generator, manifest)
        index = json.loads(files["index.json"])
        index["manifests"][0].update(_stored(files, manifest))
        files["index.json"] = json.dumps(twisted(generator, index) if which == 2 else index).encode()
        found.append(outcome(tmp_path, tar_of(files)))
    assert {"", "I004"} <= set(found)


def _stored(files: dict[str, bytes], document: Any) -> dict[str, object]:
    from archives import sha

    data = json.dumps(document).encode()
    files[f"blobs/{sha(data).replace(':', '/')}"] = data
    return {"digest": sha(data), "size": len(data)}


def _with_document(archive: bytes, name: bytes, generator: random.Random) -> bytes:
    """The docker archive with the document ``name`` twisted: a second member of that name, which counts."""
    at = archive.index(name)
    size = int(archive[at + 124 : at + 135], 8)
    document = twisted(generator, json.loads(archive[at + 512 : at + 512 + size]))
    text = json.dumps(document).encode()
    if generator.random() < 0.2:
        text = text.replace(b"{", b'{"config":1,', 1)
    return bytes(archive[:-1024] + member(name, text) + bytes(1024))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_mutated_streams(tmp_path: Path, kind: str) -> None:
    import gzip
    import sys
    from importlib import import_module

    zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    packed = gzip.compress(LAYERS[0]) if kind == "gzip" else zstd.compress(LAYERS[0])
    generator = random.Random(9)
    found = []
    for _ in range(5_000 if FULL else 60):
        out = bytearray(packed)
        for _ in range(generator.randint(1, 3)):
            out[generator.randrange(len(out))] = generator.randrange(256)
        if generator.random() < 0.3:
            del out[generator.randrange(len(out)) :]
        found.append(outcome(tmp_path, bytes(out)))
    assert "I004" in found
