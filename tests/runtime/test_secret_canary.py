"""A secret's value reaches its container and nothing else: no file, no argument list, no output of a command."""

from __future__ import annotations

import os
from pathlib import Path

from harness import Ctst, eventually

CANARY = "c4nary-0f-th3-t3st"
STACK = """
COMPONENT keeper {
    image   = "host:///bin/busybox"
    command = ["busybox", "sh", "-c", "echo got $TOKEN; exec busybox sleep 1000"]
    env     = { TOKEN = "${secret.token}" }
}
"""


def holders(directory: Path) -> list[Path]:
    """Files below ``directory`` with the canary in them, but for the secret's own."""
    found = []
    for folder, _, names in os.walk(directory):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and path.parent.name != "secrets":
                found += [path] if CANARY.encode() in path.read_bytes() else []
    return found


def arguments_of_all() -> bytes:
    """Every process's argument list on this host."""
    lines = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                lines.append(Path("/proc", pid, "cmdline").read_bytes())
            except OSError:
                continue
    return b"\n".join(lines)


def test_a_secret_stays_in_its_container(ctst: Ctst) -> None:
    secrets = ctst.directory / ".containust" / "secrets"
    secrets.mkdir(parents=True, mode=0o700)
    (secrets / "token").write_text(CANARY + "\n")
    (secrets / "token").chmod(0o600)
    ctst.write(STACK)
    outputs = [ctst.ok("plan"), ctst.ok("run", "-d")]
    assert eventually(lambda: "got ***" in ctst.ok("logs", "keeper")), "not masked in logs"
    got = ctst.ok(
        "exec", "keeper", "--", "busybox", "sh", "-c", 'test "$TOKEN" = "' + CANARY[:5] + '"* || echo "$TOKEN"'
    )
    assert got.strip() == CANARY, "an exec has the container's environment"
    for words in (["ps", "-a", "--json"], ["inspect", "keeper"], ["events", "--json"], ["logs"], ["plan", "--json"]):
        outputs.append(ctst.ok(*words))
    assert CANARY not in "".join(outputs)
    assert CANARY.encode() not in arguments_of_all()
    assert holders(ctst.directory) == []
    ctst.ok("stop")
    assert holders(ctst.directory) == []


PASSWORD = "p@ss:w/rd?#% é"
ENCODED = "p%40ss%3Aw%2Frd%3F%23%25%20%C3%A9"
URLS = """
COMPONENT keeper {
    image   = "host:///bin/busybox"
    command = [
        "busybox", "sh", "-c", "echo 1 $DSN; echo 2 $PLAIN; echo 3 $0; exec busybox sleep 1000",
        "amqp://guest:${secret.token}@queue/${secret.token}",
    ]
    env     = {
        DSN   = "postgres://shop:${secret.token}@db:5432/shop"
        PLAIN = "${secret.token}"
    }
}
"""


def test_a_password_in_a_url_is_percent_encoded_and_masked(ctst: Ctst) -> None:
    """None of its characters may end the password and begin a host, a path or a query."""
    secrets = ctst.directory / ".containust" / "secrets"
    secrets.mkdir(parents=True, mode=0o700)
    (secrets / "token").write_text(PASSWORD + "\n")
    (secrets / "token").chmod(0o600)
    ctst.write(URLS)
    ctst.ok("run", "-d")
    given = ctst.ok("exec", "keeper", "--", "busybox", "env")
    assert f"DSN=postgres://shop:{ENCODED}@db:5432/shop\n" in given
    assert f"PLAIN={PASSWORD}\n" in given
    lines = ["1 postgres://shop:***@db:5432/shop", "2 ***", "3 amqp://guest:***@queue/***"]
    assert eventually(lambda: all(line in ctst.ok("logs", "keeper") for line in lines)), ctst.ok("logs", "keeper")


def test_no_secret_no_start(ctst: Ctst) -> None:
    ctst.write(STACK)
    done = ctst("run", "-d")
    assert done.status == 1
    assert "E020" in done.err
    assert ctst.rows("-a") == {}
