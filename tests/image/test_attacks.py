"""The A-lines of the attack list: no archive writes outside the store, escapes the image, or exhausts the
host.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import (
    DIRECTORY,
    HARDLINK,
    REGULAR,
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import listing
from containust.common.errors import ContainustError
from containust.image import erofs
from containust.image.limits import Limits
from containust.image.oci.documents import document
from containust.image.store import Image, ImageStore
from containust.image.tar_index import scan
from containust.image.tree import Tree

PAYLOAD = b"owned"


@pytest.fixture
def surroundings(tmp_path: Path, store: ImageStore) -> Callable[[], object]:
    """A victim beside the store, and a function that lists everything outside of the store."""
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "victims").mkdir()

    def outside() -> object:
        return {
            key: value
            for key, value in listing(str(tmp_path)).items()
            if not key.startswith("images") and not key.endswith(".tar")
        }

    return outside


def refused(store: ImageStore, data: bytes, *codes: str) -> ContainustError:
    with pytest.raises(ContainustError) as error:
        import_bytes(store, data)
    assert error.value.code in (codes or ("I003",)), str(error.value)
    assert error.value.help
    for part in ("layers", "roots", "records", "catalog", "staging"):
        assert os.listdir(f"{store.directory}/{part}") == [], part
    return error.value


@pytest.mark.parametrize(
    "name",
    [
        "../victim",
        "a/../../victim",
        "./../victim",
        "/../victim",
        "..",
        "a/..",
        "//../victim",
        "x" * 256,
        "a/" * 2500 + "b",
    ],
)
def test_a1_paths_that_leave_the_image_are_refused(
    store: ImageStore, surroundings: Callable[[], object], name: str
) -> None:
    before = surroundings()
    refused(store, tar(member(name, PAYLOAD)))
    assert surroundings() == before


@pytest.mark.parametrize("name", ["/victim", "//victim", "./victim", "C:\\victim", "a/./victim", "victim\n\x1b[31m"])
def test_a1_absolute_and_odd_paths_stay_inside(
    store: ImageStore,
    rung: str,
    surroundings: Callable[[], object],
    opened: Callable[[Image], str],
    name: str,
) -> None:
    before = surroundings()
    root = opened(import_bytes(store, tar(member(name, PAYLOAD))))
    assert Path(root + "/" + name.lstrip("/")).read_bytes() == PAYLOAD
    assert surroundings() == before


def test_a2_writing_through_a_symbolic_link_stays_inside(
    store: ImageStore,
    rung: str,
    surroundings: Callable[[], object],
    opened: Callable[[Image], str],
    tmp_path: Path,
) -> None:
    before = surroundings()
    for target in (f"{tmp_path}", "../" * 20 + str(tmp_path), "/proc/self/cwd", "/proc/self/root/tmp"):
        data = tar(member("out", kind=SYMLINK, target=target), member("out/victim", PAYLOAD))
        refused(store, data)  # the link leads nowhere in the image
    inside = tar(
        member("real/", kind=DIRECTORY),
        member("out", kind=SYMLINK, target="../../../real"),
        member("out/victim", PAYLOAD),
    )
    assert Path(opened(import_bytes(store, inside)) + "/real/victim").read_bytes() == PAYLOAD
    assert surroundings() == before


def test_a2_a_file_never_writes_through_a_link_of_its_own_name(
    store: ImageStore,
    rung: str,
    surroundings: Callable[[], object],
    opened: Callable[[Image], str],
    tmp_path: Path,
) -> None:
    before = surroundings()
    data = tar(member("f", kind=SYMLINK, target=f"{tmp_path}/victim"), member("f", PAYLOAD))
    root = opened(import_bytes(store, data))
    assert stat.S_ISREG(os.lstat(f"{root}/f").st_mode)
    assert surroundings() == before


def test_a2_loops_of_links_end(store: ImageStore) -> None:
    refused(
        store,
        tar(
            member("a", kind=SYMLINK, target="b"),
            member("b", kind=SYMLINK, target="a"),
            member("a/f", PAYLOAD),
        ),
    )


@pytest.mark.parametrize("target", ["../victim", "/../victim", "missing", "", "/etc/passwd"])
def test_a3_hard_links_out_of_the_image_are_refused(
    store: ImageStore, surroundings: Callable[[], object], target: str
) -> None:
    before = surroundings()
    refused(store, tar(member("h", kind=HARDLINK, target=target), member("h", PAYLOAD)))
    assert surroundings() == before


def test_a3_a_hard_link_to_a_link_writes_nothing_through_it(
    store: ImageStore,
    rung: str,
    surroundings: Callable[[], object],
    opened: Callable[[Image], str],
    tmp_path: Path,
) -> None:
    before = surroundings()
    data = tar(
        member("s", kind=SYMLINK, target=f"{tmp_path}/victim"),
        member("h", kind=HARDLINK, target="s"),
        member("h", PAYLOAD),
    )
    root = opened(import_bytes(store, data))
    assert Path(f"{root}/h").read_bytes() == PAYLOAD
    assert os.path.islink(f"{root}/s")
    assert surroundings() == before


def test_a3_a_hard_link_to_a_directory_is_refused(store: ImageStore) -> None:
    refused(store, tar(member("d/", kind=DIRECTORY), member("h", kind=HARDLINK, target="d")))
    refused(store, tar(member("h", kind=HARDLINK, target=".")))


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh..", "../.wh.x"])
def test_a4_whiteouts_of_no_name_are_refused(store: ImageStore, name: str) -> None:
    refused(store, docker_archive([tar(member("a/f")), tar(member(name))]))


def test_a4_whiteouts_in_odd_places_do_no_harm(store: ImageStore, opened: Callable[[Image], str]) -> None:
    upper = tar(
        member(".wh..wh..opq"),
        member("missing/.wh.x"),
        member("f/.wh.x"),
        member(".wh..wh.aufs"),
        member("link/.wh.passwd"),
        member("kept"),
    )
    base = tar(member("f"), member("link", kind=SYMLINK, target="/etc"), member("etc/passwd"))
    root = opened(import_bytes(store, docker_archive([base, upper])))
    assert os.path.exists("/etc/passwd")
    assert set(os.listdir(root)) & {"f", "link", "kept"} == {"kept"}


def test_a5_device_nodes_and_sockets_are_left_out(store: ImageStore, rung: str, opened: Callable[[Image], str]) -> None:
    data = tar(
        member("dev/", kind=DIRECTORY, mode=0o755),
        raw(name=b"dev/null", type=b"3", major=b"0000001\0", minor=b"0000003\0"),
        raw(name=b"dev/sda", type=b"4", major=b"0000010\0"),
        raw(name=b"kmem", type=b"3", major=b"0000001\0", minor=b"0000002\0", mode=b"0000666\0"),
        member("kept"),
    )
    root = opened(import_bytes(store, data))
    assert os.listdir(f"{root}/dev") == []
    assert not os.path.exists(f"{root}/kmem")


def test_a6_modes_and_capabilities_are_kept_and_overlay_attributes_are_not(
    store: ImageStore, rung: str, opened: Callable[[Image], str]
) -> None:
    capability = bytes.fromhex("0100000202040000000000000000000000000000"[:40])
    data = tar(
        member("ping", b"x", mode=0o6755, xattrs=(("security.capability", capability), ("user.a", b"1"))),
        member(
            "d/",
            kind=DIRECTORY,
            mode=0o1777,
            xattrs=(
                ("trusted.overlay.opaque", b"y"),
                ("trusted.overlay.redirect", b"/etc"),
                ("user.overlay.metacopy", b""),
                ("security.selinux", b"system_u:object_r:shadow_t:s0"),
                ("system.posix_acl_bogus", b"1"),
            ),
        ),
    )
    root = opened(import_bytes(store, data))
    assert stat.S_IMODE(os.stat(f"{root}/ping").st_mode) == 0o6755
    assert stat.S_IMODE(os.stat(f"{root}/d").st_mode) == 0o1777
    assert os.getxattr(f"{root}/ping", "security.capability") == capability
    assert [name for name in os.listxattr(f"{root}/d") if "overlay" in name or "selinux" in name] == []


def test_a7_bombs_stop_at_their_limits(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINUST_IMAGE_MAX_SIZE", str(1 << 20))
    assert "CONTAINUST_IMAGE_MAX_SIZE" in refused(store, tar(member("big", bytes(2 << 20)))).help[0]
    refused(store, gzip.compress(bytes(2 << 30 if os.environ.get("CONTAINUST_FULL") else 1 << 21)), "I003", "I004")
    monkeypatch.delenv("CONTAINUST_IMAGE_MAX_SIZE")
    monkeypatch.setattr("containust.image.decompress.RATIO_FLOOR", 1 << 20)
    monkeypatch.setenv("CONTAINUST_IMAGE_MAX_RATIO", "100")
    bomb = gzip.compress(tar(member("zeros", bytes(64 << 20))), 9)
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = refused(store, bomb)
    assert "CONTAINUST_IMAGE_MAX_RATIO" in error.help[0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - usage < 64 << 10


@pytest.mark.parametrize(
    "records",
    [
        {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.realsize": b"99999999999999"},
        {"GNU.sparse.map": b"0,10,5,10", "GNU.sparse.size": b"100"},
        {"GNU.sparse.map": b"0,10,20", "GNU.sparse.size": b"100"},
        {"GNU.sparse.map": b"0,600", "GNU.sparse.size": b"100"},
        {"GNU.sparse.map": b"0,513", "GNU.sparse.size": b"1000"},
        {"GNU.sparse.map": b"-1,5", "GNU.sparse.size": b"100"},
        {"GNU.sparse.map": b"0,5", "GNU.sparse.size": b"99999999999999"},
    ],
)
def test_a7_sparse_maps_that_lie_are_refused(store: ImageStore, records: dict[str, bytes]) -> None:
    refused(store, tar(pax(records), member("f", b"x" * 512)))


@pytest.mark.parametrize(
    "field",
    [
        {"size": b"77777777777\0"},
        {"size": b"-0000000001\0"},
        {"size": b"\xff" * 12},
        {"size": b"\x80" + b"\xff" * 11},
        {"size": b"0x123456789\0"},
        {"size": b"1_000\0"},
        {"size": b"9999\0"},
        {"mode": b"nonsense"},
        {"uid": b"\xff" * 8},
        {"mtime": b"\x80" + b"\xff" * 11},
        {"checksum": b"000000\0 "},
        {"checksum": b"\0" * 8},
    ],
)
def test_a7_numbers_that_lie_are_refused(store: ImageStore, field: dict[str, bytes]) -> None:
    refused(store, tar(raw(**field)), "I004")


def test_a8_too_many_entries_stop(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINUST_IMAGE_MAX_ENTRIES", "100")
    error = refused(store, tar(*[member(f"file-{number}") for number in range(101)]))
    assert "file-100" in error.message


def test_a8_deep_directories_and_names_that_differ_in_case(
    store: ImageStore, rung: str, opened: Callable[[Image], str]
) -> None:
    path = "/".join(["d" * 100] * 38)
    data = tar(
        member(path + "/leaf", PAYLOAD),
        member("Name", b"1"),
        member("name", b"2"),
        member("é", b"3"),
        member("é", b"4"),
    )
    root = opened(import_bytes(store, data))
    assert len(os.listdir(root)) >= 5
    fd = os.open(root, os.O_RDONLY)
    for _ in range(38):
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    assert os.listdir(fd) == ["leaf"]
    os.close(fd)


@pytest.mark.parametrize(
    "records",
    [
        {"path": b"../victim"},
        {"path": b"a/../../victim"},
        {"path": b"nul\0byte"},
        {"path": b"x" * 5000},
        {"GNU.sparse.name": b"../victim", "GNU.sparse.map": b"0,5", "GNU.sparse.size": b"5"},
        {"size": b"-5"},
        {"uid": b"4294967295"},
        {"uid": b"99999999999999999999"},
        {"mtime": b"1e9"},
    ],
)
def test_a9_pax_records_are_checked_after_they_apply(
    store: ImageStore, surroundings: Callable[[], object], records: dict[str, bytes]
) -> None:
    before = surroundings()
    refused(store, tar(pax(records), member("good", PAYLOAD)))
    refused(store, tar(pax(records, b"g"), member("good", PAYLOAD)))
    assert surroundings() == before


def test_a9_a_pax_size_counts_for_what_follows(store: ImageStore) -> None:
    refused(store, tar(pax({"size": b"1000000"}), member("f", PAYLOAD)), "I004")
    refused(store, tar(pax({"path": b"a"}) + b"garbage" * 100), "I004")
    refused(
        store,
        tar(raw(name=b"pax", type=b"x", size=b"%011o\0" % 11) + b"99 path=a\n\0".ljust(512, b"\0")),
        "I004",
    )


def test_a9_links_by_pax_stay_inside(store: ImageStore, surroundings: Callable[[], object]) -> None:
    before = surroundings()
    refused(store, tar(pax({"linkpath": b"../victim"}), member("h", kind=HARDLINK, target="a")))
    assert surroundings() == before


def test_a10_the_last_of_several_entries_of_a_name_counts(
    store: ImageStore, rung: str, opened: Callable[[Image], str]
) -> None:
    data = tar(
        member("a", b"1"),
        member("a/", kind=DIRECTORY, mode=0o755),
        member("a/in", b"2"),
        member("a", kind=SYMLINK, target="b"),
        member("b", b"3"),
        member("a", b"4"),
        member("a", b"5"),
    )
    root = opened(import_bytes(store, data))
    assert Path(f"{root}/a").read_bytes() == b"5"
    assert Path(f"{root}/b").read_bytes() == b"3"
    with pytest.raises(ContainustError):
        import_bytes(store, tar(member("f"), member("f/in")), "below-a-file.tar")


def test_a11_digests_and_media_types_are_believed_only_when_they_hold(store: ImageStore) -> None:
    layer = tar(member("f"))
    good = oci_layout([layer])
    import_bytes(ImageStore(store.directory + "-good"), tar_of(good))
    blob = f"blobs/sha256/{sha(layer)[7:]}"
    refused(store, tar_of({**good, blob: tar(member("f", b"other"))}), "I002")
    missing = {name: data for name, data in good.items() if name != blob}
    refused(store, tar_of(missing), "I004")
    refused(store, tar_of(oci_layout([layer], manifests=[])), "I004")
    refused(store, tar_of(oci_layout([layer], mediaType="application/vnd.oci.image.index.v1+json")), "I004")
    sha512 = {"mediaType": "x", "digest": "sha512:" + "0" * 128, "size": 1}
    refused(store, tar_of(oci_layout([layer], layers=[sha512])), "I004")
    path = {"mediaType": "x", "digest": "sha256:../../../../etc/passwd", "size": 1}
    refused(store, tar_of(oci_layout([layer], layers=[path])), "I004")
    refused(store, tar_of(oci_layout([layer], layers=[])), "I004")


def test_a11_a_diff_id_that_lies_is_refused(store: ImageStore) -> None:
    data = docker_archive([tar(member("f"))])
    index = data.index(b"diff_ids")
    at = data.index(b"sha256:", index) + 7
    forged = data[:at] + (b"0" if data[at : at + 1] != b"0" else b"1") + data[at + 1 :]
    refused(store, forged, "I002")


def test_a11_an_index_that_contains_itself_ends(store: ImageStore) -> None:
    good = oci_layout([tar(member("f"))])
    inner = json.dumps({"schemaVersion": 2, "manifests": [{"digest": "sha256:" + "0" * 64, "size": 1}]}).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [{"digest": sha(inner), "size": len(inner)}]}).encode()
    refused(store, tar_of({**good, "index.json": index, f"blobs/sha256/{sha(inner)[7:]}": inner}), "I004")


def test_a11_another_platform_is_not_taken(store: ImageStore) -> None:
    good = oci_layout([tar(member("f"))])
    index = json.loads(good["index.json"])
    platform = {"os": "linux", "architecture": "s390x"}
    inner = json.dumps({"schemaVersion": 2, "manifests": [{**index["manifests"][0], "platform": platform}]}).encode()
    outer = json.dumps({"schemaVersion": 2, "manifests": [{"digest": sha(inner), "size": len(inner)}]}).encode()
    error = refused(store, tar_of({**good, "index.json": outer, f"blobs/sha256/{sha(inner)[7:]}": inner}), "I001")
    assert "s390x" in error.help[0]


@pytest.mark.parametrize("cut", [25, 511, 513, 700, 1024])
def test_a12_truncated_archives_are_refused(store: ImageStore, cut: int) -> None:
    data = tar(member("f", b"x" * 1000), member("g", b"y" * 1000))[:-1024]
    refused(store, data[:-cut], "I004")


@pytest.mark.parametrize("cut", [1, 24])
def test_a12_a_last_block_that_is_not_full_is_enough(
    store: ImageStore, rung: str, opened: Callable[[Image], str], cut: int
) -> None:
    data = tar(member("f", b"x" * 1000), member("g", b"y" * 1000))[: -1024 - cut]
    root = opened(import_bytes(store, data))
    assert Path(f"{root}/g").read_bytes() == b"y" * 1000


def test_a12_damaged_and_foreign_streams_are_refused(store: ImageStore) -> None:
    packed = gzip.compress(tar(member("f", os.urandom(100_000))))
    refused(store, packed[: len(packed) // 2], "I004")
    refused(store, packed[:1000] + bytes([packed[1000] ^ 255]) + packed[1001:], "I004")
    refused(store, packed[:-3], "I004")
    refused(store, b"", "I004")
    refused(store, b"hello, this is no archive\n" * 100, "I004")
    refused(store, b"\x28\xb5\x2f\xfd" + os.urandom(500), "I004")
    refused(store, bytes(10_240), "I004")


def test_a13_an_owner_beyond_the_kernels_range_is_refused(store: ImageStore) -> None:
    refused(store, tar(pax({"gid": b"4294967295"}), member("f")))


def test_a14_documents_with_two_meanings_or_no_end_are_refused() -> None:
    for data in (
        b'{"a": 1, "a": 2}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"[1]",
        b"\xff\xfe",
        b'{"a": "' + b"x" * (17 << 20) + b'"}',
    ):
        with pytest.raises(ContainustError) as error:
            document(data, "it")
        assert error.value.code == "I004"


def test_a14_a_configuration_of_wrong_types_is_refused(store: ImageStore) -> None:
    layer = tar(member("f"))
    for config in (
        {"Env": "A=1"},
        {"Cmd": [1]},
        {"Entrypoint": {"a": 1}},
        {"User": 5},
        {"Volumes": ["/"]},
        {"Cmd": ["a\0b"]},
    ):
        refused(store, docker_archive([layer], dict(config)), "I004")


@settings(
    max_examples=2000 if os.environ.get("CONTAINUST_FULL") else 150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_any_damage_to_an_archive_is_an_error_of_ours_or_harmless(data: st.DataObject) -> None:
    blob = bytearray(
        tar(
            pax({"path": b"dir/long", "SCHILY.xattr.user.a": b"1", "mtime": b"1.5"}) + member("x", PAYLOAD),
            member("l", kind=SYMLINK, target="dir"),
            member("h", kind=HARDLINK, target="dir/long"),
            pax({"GNU.sparse.map": b"0,5", "GNU.sparse.size": b"5000"}) + member("s", PAYLOAD),
            member("dir/" + "n" * 150, PAYLOAD, kind=REGULAR),
        )
    )
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at] = data.draw(st.integers(0, 255))
        block = at // 512 * 512
        header = bytes(blob[block : block + 512])
        if header[257:262] == b"ustar":  # keep the checksum right, so that the damage reaches the parser
            total = sum(header[:148]) + 256 + sum(header[156:])
            blob[block + 148 : block + 156] = b"%06o\0 " % total
    try:
        tree = Tree()
        tree.add_layer(scan(bytes(blob), Limits()), 0)
        erofs.write(tree, [len(blob)])
    except ContainustError as error:
        assert error.code in ("I003", "I004")
        return
    for node in tree.nodes():
        assert not {b"", b".", b".."} & set(node.children or ())
