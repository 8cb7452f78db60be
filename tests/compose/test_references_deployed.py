"""References where the value has a type or is only recorded, from the file to the running container."""

from __future__ import annotations

import json

from harness import BOX, Ctst

CANARY = "canary-77b1e4"

STACK = f"""
COMPONENT base {{
    image = "{BOX}"
    command = ["sleep", "600"]
    hostname = "${{env.WORD:-of}}-${{db.port}}"
    workdir = "/srv/${{db.host}}"
    tmpfs = ["/srv/${{db.host}}:size=1MiB"]
    memory = "${{db.port}}KiB"
    labels = {{ reads = "${{db.connection_string}}", key = "${{secret.key}}" }}
}}
COMPONENT web FROM base {{
    labels = {{ own = "${{db.host}}:${{db.port}}" }}
}}
COMPONENT db {{
    image = "{BOX}"
    command = ["sleep", "600"]
    port = 12288
}}
CONNECT web -> db
"""


def test_references_are_filled_in_everywhere(ctst: Ctst) -> None:
    ctst.write(STACK)
    secrets = ctst.directory / ".containust" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "key").write_text(CANARY)
    (secrets / "key").chmod(0o600)
    ctst.ok("run", "-d")
    assert ctst.ok("exec", "web", "--", "sh", "-c", "hostname; pwd").split() == ["of-12288", "/srv/db"]
    assert ctst.rows()["web"]["state"] == "running"
    kept = [path for path in ctst.directory.rglob("*") if path.is_file() and secrets not in path.parents]
    shown = ctst.ok("inspect", "web") + ctst.ok("plan") + "".join(path.read_text(errors="replace") for path in kept)
    assert "connection_string" in shown and CANARY not in shown
    labels = json.dumps(json.loads(ctst.ok("inspect", "web")))
    assert '"own"' in labels and '"reads"' in labels and '"key"' in labels
    assert "2 unchanged" in ctst.ok("plan") or ctst("plan", "--detailed-exitcode").status == 0
    (secrets / "key").chmod(0o644)
    refused = ctst("run", "-d")
    assert refused.status != 0 and "S005" in refused.err and CANARY not in refused.err
    (secrets / "key").chmod(0o600)
    ctst.ok("rm", "--force", "web", "db")
