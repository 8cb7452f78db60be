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
    document = json.loads(done.stdout)
    services: dict[str, Any] = document["services"]
    for service in services.values():
        service["files"] = [
            (document[kind][one["source"]]["file"], one.get("target"), kind, one["source"])
            for kind in ("secrets", "configs")
            for one in service.get(kind, [])
        ]
        for key in ("command", "entrypoint"):
            if service.get(key):
                service[key] = [word.replace("$$", "$") for word in service[key]]
    return services


def seconds(text: str) -> float:
    from containust.compose.quantities import parse_duration

    return parse_duration(text) or 0.0


def compare(name: str, service: dict[str, Any], component: Component, stack: Stack, directory: Path) -> None:
    image = component.image.removeprefix("oci://").removeprefix("docker.io/").removeprefix("library/")
    assert image == service["image"].removeprefix("docker.io/"), name
    for ours, theirs in ((component.command, "command"), (component.entrypoint, "entrypoint")):
        assert (ours or None) == (service.get(theirs) or None), (name, theirs)
    theirs_env = {k: v.replace("$$", "$") for k, v in (service.get("environment") or {}).items() if v is not None}
    wired = {
        f"{target.upper().replace('-', '_')}_{end}"
        for target in component.depends_on
        for end in ("HOST", "PORT", "CONNECTION_STRING")
    }
    assert {k: v for k, v in component.env.items() if k not in wired or k in theirs_env} == theirs_env, name
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
            if "source" not in volume:  # anonymous
                volume["source"] = next(v.source for v in component.volumes if v.target == volume["target"])
            mounts.add((volume["source"], volume["target"], bool(volume.get("read_only"))))
    for file, target, kind, source in service["files"]:
        target = target or source
        if not target.startswith("/"):
            target = f"{'/run/secrets' if kind == 'secrets' else ''}/{target}"
        mounts.add((file, target, True))
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
    rest(name, service, component)
    assert component.user == service.get("user") and component.workdir == service.get("working_dir"), name


def rest(name: str, service: dict[str, Any], component: Component) -> None:
    """What more of a service has a counterpart."""
    listening = {(p["target"], p["protocol"]) for p in service.get("ports", [])}
    for text in service.get("expose", []):
        number, _, protocol = str(text).partition("/")
        listening.add((int(number), protocol or "tcp"))
    assert {(p.number, p.protocol) for p in component.ports} == listening, name
    if "network_mode" in service:
        mode = service["network_mode"]
        assert component.networks == [mode if mode in ("host", "none") else "bridge"], name
    else:
        named = {"bridge" if key == "default" else key for key in service.get("networks") or {}}
        assert set(component.networks) == named, name
    policy = (service.get("restart") or "no").partition(":")
    assert component.restart.policy == {"no": "never"}.get(policy[0], policy[0]), name
    assert component.restart.limit == (int(policy[2]) if policy[2] else None), name
    assert {key: str(value) for key, value in component.labels.items()} == service.get("labels", {}), name
    assert component.hostname == service.get("hostname"), name
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    memory = int(service.get("mem_limit") or limits.get("memory") or 0)
    assert (component.memory or 0) == memory, name
    cpus = float(service.get("cpus") or limits.get("cpus") or 0)
    assert (component.cpus or 0) == cpus, name
    tmpfs = {text.partition(":")[0] for text in service.get("tmpfs", [])}
    tmpfs |= {volume["target"] for volume in service.get("volumes", []) if volume["type"] == "tmpfs"}
    assert {mount.target for mount in component.tmpfs} == tmpfs, name
    if "stop_grace_period" in service:
        assert component.stop_timeout == seconds(service["stop_grace_period"]), name
    assert component.init == bool(service.get("init")), name
