"""--offline: no packet leaves for anywhere else. Counters, and a test host that would answer, are the witnesses."""

from __future__ import annotations

import json

import pytest
from outside import HOST, OUTSIDE, OUTSIDE6, Outside, ask, ask_inside, component

from harness import Ctst

# What the kernel's own neighbour discovery sends is no packet of anybody.
COUNTERS = """
table inet witness {
    chain leaves {
        type filter hook postrouting priority 300
        oifname "up0" icmpv6 type { mld2-listener-report, nd-router-solicit } accept
        oifname "up0" icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        oifname "up0" counter
    }
    chain arrives {
        type filter hook prerouting priority -300
        iifname "eth0" meta l4proto != icmpv6 counter
    }
}
"""
RESOLVER = "print(open('/etc/resolv.conf').read())"
AWAY = ((OUTSIDE, 80, "tcp", 0.5), (OUTSIDE, 53, "udp", 0.3), (OUTSIDE6, 80, "tcp", 0.5), (OUTSIDE6, 53, "udp", 0.3))


@pytest.fixture
def witnesses(ctst: Ctst, outside: Outside) -> Outside:
    for enter in (ctst.on_host, outside.run):
        enter("nft", COUNTERS)
    for port in (80, 53):
        outside.serve(outside.enter, port)
    return outside


def seen(ctst: Ctst, outside: Outside) -> int:
    """Packets that have left the host or come to the test host."""
    texts = [run("nft", "-j", "list", "ruleset") for run in (ctst.on_host, outside.run)]
    rules = [one for text in texts for one in json.loads(text)["nftables"]]
    counted = [
        part["counter"]["packets"]
        for one in rules
        if one.get("rule", {}).get("table") == "witness"
        for part in one["rule"]["expr"]
        if "counter" in part
    ]
    assert len(counted) == 4
    return sum(counted)


def test_run(ctst: Ctst, witnesses: Outside) -> None:
    stack = component("web", "port = 80") + component("app") + "EXPOSE 8080:80 -> web\n"
    path = str(ctst.write(stack))
    ctst.ok("--offline", "run", "-d", path)
    pid = ctst.rows()["web"]["pid"]
    assert all(ask_inside(ctst, "app", ("web", 80), ("web", 80, "udp")))
    assert all(ask(ctst.enter, ("127.0.0.1", 8080), ("::1", 8080)))
    assert "offline" in ctst.ok("exec", "app", "/usr/bin/python3", "-c", RESOLVER)
    assert ask_inside(ctst, "app", *AWAY, ("away.example", 80)) == [""] * 4 + ["no such name"]
    # It is what the stack was started with that counts, not what a later command is given.
    ctst.ok("restart", "-t", "0", "app")
    other = str(ctst.write(component("other", 'network = "elsewhere"'), "other.ctst"))
    assert ask_inside(ctst, "app", *AWAY) == [""] * 4
    assert seen(ctst, witnesses) == 0
    ctst.ok("run", "-d", other)
    assert ask_inside(ctst, "other", *AWAY) == [HOST, HOST, *ask_inside(ctst, "other", *AWAY)[2:]]
    assert ask_inside(ctst, "app", *AWAY) == [""] * 4
    # Until it is run again without --offline; and back. Nothing is restarted for it.
    ctst.ok("run", "-d", path)
    assert ask_inside(ctst, "web", *AWAY)[:2] == [HOST, HOST]
    assert seen(ctst, witnesses) > 0, "the witnesses are not blind"
    ctst.ok("--offline", "run", "-d", path)
    assert ask_inside(ctst, "web", *AWAY) == [""] * 4
    assert "offline" in ctst.ok("exec", "web", "/usr/bin/python3", "-c", RESOLVER)
    assert ctst.rows()["web"]["pid"] == pid


def test_build_pull_and_imports(ctst: Ctst, witnesses: Outside) -> None:
    image = f"{OUTSIDE}/library/thing:1"
    stack = f'COMPONENT web {{\n    image = "oci://{image}"\n}}\n'
    path = str(ctst.write(stack))
    for words in (("build", path), ("run", "-d", path), ("pull", image), ("run", "--image", f"oci://{image}")):
        done = ctst("--offline", *words)
        assert "error[I005]" in done.err, done
    imported = str(ctst.write(f'IMPORT "https://{OUTSIDE}/parts.ctst" AS parts\n' + component("web"), "imports.ctst"))
    for command in ("check", "build", "run"):
        assert "error[E017]" in ctst("--offline", command, imported).err
    assert seen(ctst, witnesses) == 0
    assert "error[I005]" not in ctst("pull", image).err
    assert seen(ctst, witnesses) > 0, "the witnesses are not blind"
