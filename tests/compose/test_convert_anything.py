"""Whatever stands in a Compose file: it is refused with a code, or becomes a file that checks and says what is lost."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from containust.common.errors import ContainustError
from containust.compose.convert import convert
from containust.compose.load import load_checked

FILES = 6000 if os.environ.get("CONTAINUST_FULL") else 200
KEYS = [
    "image",
    "build",
    "command",
    "entrypoint",
    "environment",
    "env_file",
    "ports",
    "expose",
    "volumes",
    "tmpfs",
    "depends_on",
    "healthcheck",
    "deploy",
    "mem_limit",
    "cpus",
    "pids_limit",
    "cpu_shares",
    "networks",
    "network_mode",
    "cap_add",
    "cap_drop",
    "security_opt",
    "userns_mode",
    "init",
    "restart",
    "stop_signal",
    "stop_grace_period",
    "labels",
    "links",
    "secrets",
    "configs",
    "profiles",
    "extends",
    "user",
    "working_dir",
    "hostname",
    "container_name",
    "read_only",
    "blkio_config",
    "ulimits",
    "sysctls",
    "logging",
    "extra_hosts",
    "x-foo",
    "privileged",
]
INNER = [
    "test",
    "interval",
    "timeout",
    "retries",
    "start_period",
    "disable",
    "resources",
    "limits",
    "cpus",
    "memory",
    "pids",
    "replicas",
    "restart_policy",
    "condition",
    "max_attempts",
    "path",
    "required",
    "target",
    "published",
    "host_ip",
    "protocol",
    "mode",
    "source",
    "type",
    "read_only",
    "bind",
    "volume",
    "size",
    "file",
    "service",
    "name",
    "weight",
    "a",
    "b",
    "A",
    "80",
]
SCALARS: list[Any] = [
    *(None, True, False, 0, -1, 1, 80, 1.5, 1e300, 10**25, "", "80", "a", "8080:80", "1-5:1-5", "[::1]:1:1"),
    *("./a:/b", "/a", "a:b:c:d", "${A}", "${A:-x}", "${A", "$$", "$", "${A:?x}", 'é\n"\\', "//", "=", "A=1", "K=V=W"),
    *("NONE", "CMD", "CMD-SHELL", "service_healthy", "bind", "tmpfs", "volume", "64m", "nan", "1m30s", "5", "0s"),
    *("SIGKILL", "9", "99999", "on-failure:3", "on-failure:x", "ALL", "NET_ADMIN", "seccomp:./x", "a/b/c", "b", "web"),
    *("x:1@sha256:00", "..", "../..", "~", "~/x", "\x7f", "\u2028", "${X:+y}", "a" * 3000, "host", "none", "service:b"),
]


def value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.random()
    if kind < 0.75 or depth > 3:
        return chance.choice(SCALARS)
    if kind < 0.9:
        return [value(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return {chance.choice(INNER + KEYS): value(chance, depth + 1) for _ in range(chance.randint(0, 4))}


def project(chance: random.Random) -> dict[str, Any]:
    services = {}
    for name in ("web", "b", chance.choice(["c.d", "1x", "FROM", "secret", "é", "", "a b"])):
        services[name] = {"image": "x"} if chance.random() < 0.7 else {}
        for _ in range(chance.randint(0, 2)):
            services[name][chance.choice(KEYS)] = value(chance)
    root: dict[str, Any] = {"services": services}
    if chance.random() < 0.2:
        sections = ["secrets", "configs", "networks", "volumes", "name", "version", "include", "x-y", "models"]
        root[chance.choice(sections)] = value(chance)
    return root


def test_anything_is_refused_with_a_code_or_checks(tmp_path: Path) -> None:
    path, target = tmp_path / "compose.yaml", tmp_path / "containust.ctst"
    environ = {"HOME": "/root", "A": "v"}
    done = 0
    for seed in range(FILES):
        path.write_text(json.dumps(project(random.Random(seed))))
        try:
            result = convert([str(path)], environ)
        except ContainustError as error:
            assert error.code[0] in "ES", path.read_text()
            continue
        target.write_text(result.text)
        _, found = load_checked(str(target), environ=environ)
        # ${A:?} of Compose asks for its variable here too.
        wrong = [one.render() for one in found if one.severity == "error" and one.code != "E014"]
        assert not wrong, path.read_text() + "\n".join(wrong)
        done += 1
    assert done > FILES // 5


DROPPED: dict[str, list[Any]] = {
    "deploy": [
        {"mode": "global"},
        {"endpoint_mode": "vip"},
        {"labels": {"a": "b"}},
        {"resources": {"limits": {"devices": [1]}}},
        {"resources": {"reservations": {"cpus": "1"}}},
        {"restart_policy": {"condition": "on-failure", "window": "5s"}},
    ],
    "healthcheck": [
        {"test": ["CMD", "x"], "start_interval": "5s"},
        {"interval": "5s"},
        {"test": ["x", "y"]},
        {"test": ["CMD", "x"], "retries": "x"},
    ],
    "ports": [[80], ["1:1/sctp"], ["0:80"], ["x:1:1"], [{"target": 80, "published": "1", "name": "x"}]],
    "volumes": [
        [{"type": "bind", "source": "./a", "target": "/b", "bind": {"propagation": "shared"}}],
        [{"type": "bind", "source": "./a", "target": "/b", "bind": {"selinux": "z"}}],
        [{"type": "bind", "source": "./a", "target": "/b", "consistency": "cached"}],
        [{"type": "volume", "source": "a", "target": "/b", "volume": {"subpath": "x"}}],
        [{"type": "tmpfs", "target": "/b", "tmpfs": {"size": "x"}}],
        ["/a:/b:z"],
        ["/a:/b:ro:x"],
    ],
    "tmpfs": ["/x:mode=755", "/x:size=q"],
    "depends_on": [{"b": {"condition": "x"}}, {"b": {"restart": True}}, ["nobody"]],
    "env_file": ["missing.env", [{"path": "missing.env", "required": False}]],
    "networks": [{"x": {"aliases": ["y"]}}],
    "secrets": [["nope"]],
    "security_opt": [["no-new-privileges:false"], ["label:x"]],
    "hostname": ["a_b"],
    "working_dir": ["relative"],
    "user": ["a b"],
    "cpus": ["many"],
    "mem_limit": ["x", "1k"],
    "pids_limit": ["x"],
    "cpu_shares": ["x"],
    "stop_signal": ["SIGX"],
    "stop_grace_period": ["x"],
    "restart": ["sometimes"],
    "links": [["b:q"]],
    "gpus": ["all"],
}


@pytest.mark.parametrize(("key", "written"), [(key, one) for key, all in DROPPED.items() for one in all])
def test_what_is_lost_in_part_is_a_comment_and_a_warning(key: str, written: object, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(json.dumps({"services": {"a": {"image": "x", key: written}, "b": {"image": "y"}}}, indent=1))
    result = convert([str(path)], {"HOME": "/root"})
    assert any("compose.yaml:" in warning and "a." in warning for warning in result.warnings), result.text
    assert any(line.strip().startswith("// a.") for line in result.text.splitlines()), result.text


def test_very_much_made_of_little_is_shown_in_part(tmp_path: Path) -> None:
    lines = ["x-0: &a0 [q, q, q, q, q, q, q, q, q, q]"]
    lines += [f"x-{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "c.yaml").write_text("\n".join(lines) + "\nservices: {a: {image: x, dns: *a8}}")
    assert len(convert([str(tmp_path / "c.yaml")], {}).text) < 100_000


def test_what_aliases_make_too_large_for_a_file_is_refused(tmp_path: Path) -> None:
    lines = [f"x-e: &e {{A: {'v' * 100_000}}}", "services:"]
    lines += [f"  s{i}: {{image: x, environment: *e}}" for i in range(700)]
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    with pytest.raises(ContainustError) as caught:
        convert([str(tmp_path / "c.yaml")], {})
    assert caught.value.code == "E006" and "MiB" in caught.value.message


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"services: {a: {image: caf\xe9}}\n", "E001", ["line 1", "not UTF-8"]),
        (b"services:\n\ta: 1\n", "E001", ["line 2", "tabs"]),
        (b"services: {a: {image: x, command: *n}}", "E001", ["line 1", "anchor"]),
        (b"services: {a: {image: x, environment: {? [a] : b}}}", "E006", ["line 1", "key"]),
        (b"services: {a: {image: x}, a: {image: y}}", "E003", ["line 1", "twice"]),
        (b"services: [a]", "E006", ["line 1", "no mapping"]),
        (b"services: " + b"[" * 100_000, "E001", ["line 1", "nesting"]),
        (b"services: {a: {image: x}}\n---\n- a\n", "E001", ["line 3", "no mapping"]),
        (b"#" * (17 << 20), "E001", ["larger than 16 MiB"]),
        (b"services: {a: {image: '\x01'}}", "E001", ["line 1", "control characters"]),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(data: bytes, code: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(data)
    with pytest.raises(ContainustError) as caught:
        convert([str(tmp_path / "c.yaml")], {})
    told = " ".join([caught.value.message, *caught.value.help])
    assert caught.value.code == code and all(word in told for word in words), told


def test_later_documents_override_earlier_ones(tmp_path: Path) -> None:
    text = "services: {a: {image: 'x:1', ports: ['1:1']}}\n---\nservices: {a: {image: 'x:2'}, b: {image: y}}\n"
    (tmp_path / "c.yaml").write_text(text)
    converted = convert([str(tmp_path / "c.yaml")], {}).text
    assert "x:2" in converted and "x:1" not in converted and "COMPONENT b" in converted and ":1:1 -> a" in converted


def test_nothing_in_a_compose_file_needs_recursion(tmp_path: Path) -> None:
    chain = "services:\n" + "".join(f"  s{i}: {{extends: s{i + 1}, environment: [K=s{i}]}}\n" for i in range(3000))
    (tmp_path / "chain.yaml").write_text(chain + "  s3000: {image: x}\n")
    assert convert([str(tmp_path / "chain.yaml")], {}).text.count('"oci://docker.io/library/x"') == 3001
    for text in ("${A:-" * 3000 + "}" * 3000, "${A:-" * 3000):
        (tmp_path / "c.yaml").write_text(json.dumps({"services": {"a": {"image": "x", "command": text}}}))
        try:
            convert([str(tmp_path / "c.yaml")], {})
        except ContainustError as error:
            assert error.code == "E006" and "nested" in error.message


def test_extending_in_a_circle_is_told_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("services: {a: {extends: b}, b: {extends: {service: c}}, c: {extends: a}}")
    with pytest.raises(ContainustError) as caught:
        convert([str(tmp_path / "c.yaml")], {})
    assert caught.value.code == "E004" and "a -> b -> c -> a" in caught.value.message


def test_names_that_become_the_same_are_told_apart(tmp_path: Path) -> None:
    names = ["a.b", "a-b", "a_b", "a b", "FROM", "1"]
    services = {name: {"image": "x"} for name in names}
    (tmp_path / "c.yaml").write_text(json.dumps({"services": services}))
    (tmp_path / "c.ctst").write_text(convert([str(tmp_path / "c.yaml")], {}).text)
    stack, _ = load_checked(str(tmp_path / "c.ctst"), environ={})
    assert stack is not None and len(stack.components) == len(names)


def test_services_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}")
    with pytest.raises(ContainustError) as caught:
        convert([str(tmp_path / "c.yaml")], {})
    assert caught.value.code == "E004"
