"""docker-compose as an oracle: what `config` says of Compose files, and the same of a converted stack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from containust.common.types import Component, Stack

ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/home/someone", "LEVEL": "debug"}
ORACLE = (
    os.environ.get("CONTAINUST_DOCKER_COMPOSE")
    or shutil.which("docker-compose", path=os.path.dirname(sys.executable))
    or shutil.which("docker-compose")
)


def config(directory: Path, names: list[str]) -> dict[str, Any]:
    """The services of the Compose files ``names`` of ``directory``, by docker-compose."""
    assert ORACLE
    chosen = [word for name in names for word in ("-f", name)]
    done = subprocess.run(
        [ORACLE, *chosen, "config", "--format", "json"],
        cwd=directory,
        env=ENVIRON,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    for service in services.values():
        for key in ("command", "entrypoint"):
            if service.get(key):
                service[key] = [word.replace("$$", "$") for word in service[key]]
    return services


def seconds(text: str) -> float:
    from containust.compose.quantities import parse_duration

    return parse_duration(text) or 0.0


def compare(name: str, service: dict[str, Any], component: Component, stack: Stack, directory: Path) -> None:
    image = component.image.removeprefix("oci://").removeprefix("docker.io/").removeprefix("library/")
    assert image == service["image"], name
    for ours, theirs in ((component.command, "command"), (component.entrypoint, "entrypoint")):
        assert (ours or None) == (service.get(theirs) or None), (name, theirs)
    theirs_env = {k: v.replace("$$", "$") for k, v in (service.get("environment") or {}).items() if v is not None}
    wired = {
        f"{target.upper()}_{end}" for target in component.depends_on for end in ("HOST", "PORT", "CONNECTION_STRING")
    }
    assert {k: v for k, v in component.env.items() if k not in wired} == theirs_env, name
    ports = {
        (p.get("host_ip", "0.0.0.0"), int(p["published"]), p["target"], p["protocol"])
        for p in service.get("ports", [])
        if "published" in p
    }
    assert ports == {
        (e.address, e.host_port, e.container_port, e.protocol) for e in stack.exposes if e.component == name
    }, name
    mounts = set()
    for volume in service.get("volumes", []):
        if volume["type"] != "tmpfs":
            mounts.add((volume["source"], volume["target"], bool(volume.get("read_only"))))
    for secret in service.get("secrets", []):
        mounts.add((str(directory / "tok.txt"), f"/run/secrets/{secret['source']}", True))
    assert {(v.source, v.target, v.readonly) for v in component.volumes} == mounts, name
    assert set(component.depends_on) == set(service.get("depends_on", {})), name
    check = service.get("healthcheck")
    if check and check.get("test") != ["NONE"] and not check.get("disable"):
        assert component.healthcheck is not None
        kind, *words = check["test"]
        words = [word.replace("$$", "$") for word in words]
        assert component.healthcheck.command == (words if kind == "CMD" else ["/bin/sh", "-c", *words])
        assert component.healthcheck.interval == seconds(check.get("interval", "30s"))
    assert component.readonly == bool(service.get("read_only")), name
    assert component.user == service.get("user") and component.workdir == service.get("working_dir"), name
