"""Archives that are small and become large: in entries, directories, attributes, members of a stream, documents."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import (
    DIRECTORY,
    SYMLINK,
    docker_archive,
    import_bytes,
    member,
    oci_layout,
    pax,
    raw,
    sha,
    tar,
    tar_of,
)

from containust.common.errors import ContainustError
from containust.image.limits import DEFAULTS, Limits
from containust.image.store import Image, ImageStore
from containust.image.tar_index import scan
from containust.image.tree import Tree
from harness import FULL, Ctst


def refused(store: ImageStore, data: bytes, code: str) -> ContainustError:
    with pytest.raises(ContainustError) as error:
        import_bytes(store, data)
    assert error.value.code == code, str(error.value)
    for part in ("layers", "roots", "records", "catalog", "staging"):
        assert os.listdir(f"{store.directory}/{part}") == [], part
    return error.value


def compressors() -> dict[str, Callable[[bytes], bytes]]:
    from importlib import import_module

    zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    return {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_a12_members_of_a_stream_are_one_and_garbage_after_them_is_not_read(
    store: ImageStore, opened: Callable[[Image], str], kind: str
) -> None:
    compress = compressors()[kind]
    data = tar(member("f", b"x" * 5000), member("g", b"y" * 5000))
    ids = set()
    for number, packed in enumerate(
        (
            compress(data),
            b"".join(compress(data[at : at + 700]) for at in range(0, len(data), 700)),
            compress(data) + bytes(5000),
            compress(data) + b"gar",
            compress(data) + b"garbage" * 1000,
        )
    ):
        image = import_bytes(store, packed, f"{number}.tar")
        ids.add(image.id)
    assert len(ids) == 1
    assert Path(opened(image) + "/g").read_bytes() == b"y" * 5000
    other = ImageStore(f"{store.directory}-other")
    refused(other, compress(data) + compress(data)[:40], "I004")  # a second member that is cut off


def test_a12_what_follows_the_end_of_a_tar_is_not_read(store: ImageStore, opened: Callable[[Image], str]) -> None:
    root = opened(import_bytes(store, tar(member("f")) + b"garbage" * 1000))
    assert os.path.exists(f"{root}/f")
    root = opened(import_bytes(store, tar(member("f")) + tar(member("g")), "two.tar"))
    assert not os.path.exists(f"{root}/g")


def test_a7_compressed_twice_is_no_archive(store: ImageStore) -> None:
    refused(store, gzip.compress(gzip.compress(tar(member("f")))), "I004")


def test_a8_a_million_entries_are_read_and_one_more_is_not() -> None:
    # A thousand directories that no entry describes count too.
    count = DEFAULTS["CONTAINUST_IMAGE_MAX_ENTRIES"] - 2_000 if FULL else 20_000
    limits = Limits()
    limits.entries = count
    data = b"".join(raw(name=b"%d/%d" % (number // 1000, number)) for number in range(count - 1))
    tree = Tree()
    tree.add_layer(scan(data, limits), 0)
    tree = Tree(limits)
    with pytest.raises(ContainustError, match="one-more"):
        tree.add_layer(scan(data + raw(name=b"x") + raw(name=b"one-more"), limits), 0)


def test_a8_directories_that_no_entry_describes_count_too(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINUST_IMAGE_MAX_ENTRIES", "1000")
    data = tar(*[raw(name=b"%d" % number + b"/x" * 40) for number in range(100)])
    error = refused(store, data, "I003")
    assert "CONTAINUST_IMAGE_MAX_ENTRIES" in error.help[0]
    layers = [tar(*[member(f"{layer}-{number}") for number in range(400)]) for layer in range(3)]
    refused(store, docker_archive(layers), "I003")


def test_a8_links_do_not_lead_deeper_than_a_path_can_name(store: ImageStore) -> None:
    deep = "/".join(["d" * 200] * 15)
    data = tar(
        member(f"{deep}/leaf"),
        member("s", kind=SYMLINK, target=deep),
        member(f"s/{deep}/leaf"),
        member("t", kind=SYMLINK, target=f"s/{deep}"),
        member(f"t/{deep}/leaf"),
    )
    assert "CONTAINUST_IMAGE_MAX_PATH" in refused(store, data, "I003").help[0]


def test_a8_names_of_255_bytes_and_paths_of_4095_work(
    store: ImageStore, rung: str, opened: Callable[[Image], str]
) -> None:
    longest = "/".join(["n" * 255] * 15) + "/" + "m" * (4094 - 16 * 255)
    root = opened(import_bytes(store, tar(member(longest, b"deep"))))
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    with open(os.open(longest, os.O_RDONLY, dir_fd=fd), "rb") as file:
        assert file.read() == b"deep"
    os.close(fd)
    refused(ImageStore(f"{store.directory}-other"), tar(member("n" * 256)), "I003")


def test_extended_headers_are_bounded(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(store, tar(*[pax({f"comment{n}": b"x" * 1_000_000}) for n in range(5)], member("f")), "I004")
    monkeypatch.setenv("CONTAINUST_IMAGE_MAX_METADATA", "1000000")
    heavy = [pax({"SCHILY.xattr.user.a": b"x" * 60_000}) + member(f"f{number}") for number in range(20)]
    assert "CONTAINUST_IMAGE_MAX_METADATA" in refused(store, tar(*heavy), "I003").help[0]
    layers = [tar(*heavy[at : at + 5]) for at in range(0, 20, 5)]
    refused(store, docker_archive(layers), "I003")  # each is within the bound, all are not
    monkeypatch.setenv("CONTAINUST_IMAGE_MAX_METADATA", "100000")
    refused(store, tar(*[member("d" * 100 + f"/{'n' * 200}{number}") for number in range(400)]), "I003")


def test_a_global_header_gives_no_member_attributes(
    store: ImageStore, rung: str, opened: Callable[[Image], str]
) -> None:
    data = tar(pax({"SCHILY.xattr.user.a": b"x", "mtime": b"5"}, b"g"), member("f"), member("g"))
    root = opened(import_bytes(store, data))
    assert os.listxattr(f"{root}/f") == []
    assert os.stat(f"{root}/g").st_mtime == 5


def test_more_attributes_than_the_file_system_takes_do_not_stop_a_start(
    store: ImageStore, rung: str, opened: Callable[[Image], str]
) -> None:
    records = {f"SCHILY.xattr.user.a{number}": b"x" * 300 for number in range(300)}
    root = opened(import_bytes(store, tar(pax(records), member("f", b"1"))))
    assert Path(f"{root}/f").read_bytes() == b"1"
    assert rung == "extract" or len(os.listxattr(f"{root}/f")) == 300


def test_the_same_layer_may_be_there_many_times(
    store: ImageStore, rung: str, opened: Callable[[Image], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As buildkit writes it: every step that changes nothing has the same empty layer."""
    empty = tar()
    image = import_bytes(store, docker_archive([empty, tar(member("f", b"1")), empty, empty]))
    assert Path(f"{opened(image)}/f").read_bytes() == b"1"
    import_bytes(store, tar_of(oci_layout([empty, tar(member("f", b"1")), empty])), "oci.tar")
    monkeypatch.setenv("CONTAINUST_IMAGE_MAX_LAYERS", "3")
    refused(ImageStore(f"{store.directory}-other"), docker_archive([empty] * 4), "I003")


def test_a10_types_flip_across_layers(store: ImageStore, rung: str, opened: Callable[[Image], str]) -> None:
    layers = [
        tar(member("a", b"1"), member("b/", kind=DIRECTORY, mode=0o755), member("b/in", b"2"), member("c", b"0")),
        tar(
            member("a/", kind=DIRECTORY, mode=0o755),
            member("a/in", b"3"),
            member("b", kind=SYMLINK, target="../../../a"),
            member("c", kind=SYMLINK, target="/etc/shadow"),
        ),
        tar(member("b/through", b"4"), member("c", b"5")),
        tar(member("a", kind=SYMLINK, target="c"), member("b", b"6")),
    ]
    root = opened(import_bytes(store, docker_archive(layers)))
    assert os.readlink(f"{root}/a") == "c"
    assert [Path(f"{root}/{name}").read_bytes() for name in "abc"] == [b"5", b"6", b"5"]
    third = opened(import_bytes(store, docker_archive(layers[:3]), "three.tar"))
    assert sorted(os.listdir(f"{third}/a")) == ["in", "through"]
    assert Path(f"{third}/c").read_bytes() == b"5"


@pytest.mark.parametrize(
    "manifest",
    [
        b'[{"Config":"config.json","Config":"other.json","RepoTags":[],"Layers":["0/layer.tar"]}]',
        b'[{"Layers":' + b"[" * 200_000,
        b'[{"Config":"config.json","Layers":[NaN]}]',
        b'[{"Config":"config.json","Layers":["0/layer.tar"],"RepoTags":[5]}]',
        b'[{"Config":"config.json","Layers":["0/layer.tar"],"RepoTags":["../../up"]}]',
        b'[{"Config":"config.json","Layers":["0/layer.tar"],"RepoTags":["\\u001b[31m"]}]',
        b'[{"Config":["config.json"],"Layers":["0/layer.tar"]}]',
        b'[{"Layers":["0/layer.tar"]}, 5]',
    ],
)
def test_a14_manifests_with_two_meanings_are_refused(store: ImageStore, manifest: bytes) -> None:
    layer = tar(member("f"))
    config = json.dumps({"rootfs": {"diff_ids": [sha(layer)]}}).encode()
    members = member("config.json", config), member("manifest.json", manifest), member("0/layer.tar", layer)
    refused(store, tar(*members), "I004")


@pytest.mark.parametrize(
    "config",
    [
        b'{"Cmd": ["\\ud800"]}',
        b'{"Env": ["A=\\udfff"]}',
        b'{"User": "\\ud800"}',
        b'{"Volumes": {"/\\ud800": {}}}',
        b'{"Env": ["A=1"], "Env": ["A=2"]}',
        b'{"Env": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}",
        b'{"X": ' + b"9" * 10_000 + b"}",
        b'{"X": "' + b"x" * (17 << 20) + b'"}',
    ],
)
def test_a14_configurations_that_no_program_can_be_given_are_refused(store: ImageStore, config: bytes) -> None:
    layer = tar(member("f"))
    text = b'{"rootfs": {"diff_ids": ["' + sha(layer).encode() + b'"]}, "config": ' + config + b"}"
    manifest = b'[{"Config":"config.json","RepoTags":[],"Layers":["0/layer.tar"]}]'
    members = member("config.json", text), member("manifest.json", manifest), member("0/layer.tar", layer)
    refused(store, tar(*members), "I004")


def test_a14_numbers_beyond_any_clock_are_not_used(store: ImageStore) -> None:
    probe = {"Test": ["CMD", "x"], "Interval": 10**400, "Timeout": -1, "Retries": 10**30}
    image = import_bytes(store, docker_archive([tar(member("f"))], {"Healthcheck": probe}))
    found = image.config.healthcheck
    assert found is not None and (found.interval, found.timeout, found.retries) == (30.0, 30.0, 3)


def test_a13_an_owner_outside_of_the_container_is_nobody_and_gives_nothing(ctst: Ctst, tmp_path: Path) -> None:
    box = Path("/bin/busybox").read_bytes()
    archive = tmp_path / "owners.tar"
    archive.write_bytes(
        tar(
            member("bin/", kind=DIRECTORY, mode=0o755),
            member("bin/busybox", box, mode=0o755),
            member("bin/sh", kind=SYMLINK, target="busybox"),
            member("theirs", b"secret", mode=0o600, uid=4_000_000_000, gid=3_000_000_000),
            member("bin/id", box, mode=0o4755, uid=4_000_000_000, gid=3_000_000_000),
        )
    )
    script = "stat -c '%u %a' /theirs; cat /theirs || echo refused; chmod 644 /theirs || echo refused; /bin/id -u"
    done = ctst("run", "--rm", "--image", f"tar://{archive}", "--", "/bin/sh", "-c", script.replace("; ", "\n"))
    assert done.out.split() == ["65534", "600", "refused", "refused", "0"], done
