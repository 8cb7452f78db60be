"""Networks and ports as a user meets them: the installed command, a host, and a test host beside it."""

from __future__ import annotations

from outside import HOST, HOST6, OUTSIDE, OUTSIDE6, Outside, ask, ask_inside, component

from harness import BOX, Ctst


def addresses(ctst: Ctst, name: str) -> dict[str, tuple[str, str]]:
    """IPv4 and IPv6 address of a container by network."""
    import json

    found = json.loads(ctst.ok("inspect", name))
    return {one["network"]: (one["address"], one["address6"]) for one in found["attachments"]}


def hosts(ctst: Ctst, name: str) -> dict[str, list[str]]:
    """What a container's /etc/hosts says: addresses by name."""
    text = ctst.ok("exec", name, "/usr/bin/python3", "-c", "print(open('/etc/hosts').read())")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        address, *names = line.split() or [""]
        for one in names:
            found.setdefault(one, []).append(address)
    return found


def test_names_networks_and_ports(ctst: Ctst, outside: Outside) -> None:
    stack = (
        component("web", 'network = ["front", "middle"]\n port = 80')
        + component("app", 'network = ["middle", "back"]')
        + component("db", 'network = "back"\n hostname = "database"')
        + component("lone")
        + component("island", 'network = "none"')
        + 'EXPOSE 8080:80 -> web\nEXPOSE "0.0.0.0":8081:80 -> web\nEXPOSE "0.0.0.0":8081:80/udp -> web\n'
        + f'EXPOSE "[::]":8082:80 -> db\nEXPOSE "[::]":8082:80/udp -> db\nEXPOSE "{HOST}":8083:80 -> lone\n'
    )
    said = ctst.ok("run", "-d", str(ctst.write(stack)))
    assert "[::]:8082/udp -> db:80" in said
    at = {name: addresses(ctst, name) for name in ("web", "app", "db", "lone", "island")}

    # Names: one's own and those of peers on shared networks, in both families, by hostname too.
    assert hosts(ctst, "web")["web"] == [*at["web"]["front"], *at["web"]["middle"]]
    assert hosts(ctst, "web")["app"] == [*at["app"]["middle"]]
    assert not {"db", "lone", "island"} & set(hosts(ctst, "web"))
    assert hosts(ctst, "app")["db"] == hosts(ctst, "app")["database"] == [*at["db"]["back"]]
    assert "web" not in hosts(ctst, "db")
    assert hosts(ctst, "island")["island"] == ["127.0.0.1"]
    assert all(six for networks in at.values() for _, six in networks.values())

    # Who reaches whom, and where it comes from.
    web, app, db = at["web"]["middle"], at["app"]["middle"], at["db"]["back"]
    assert ask_inside(ctst, "web", ("app", 80), (app[1], 80), ("app", 80, "udp")) == [web[0], web[1], web[0]]
    for name, others in {"web": [db, at["lone"]["bridge"]], "lone": [web, app, db], "db": [web]}.items():
        questions = [(address, 80, protocol, 0.2) for one in others for address in one for protocol in ("tcp", "udp")]
        assert not any(ask_inside(ctst, name, *questions)), name
    assert ask_inside(ctst, "island", (web[0], 80), ("127.0.0.1", 80)) == ["", "127.0.0.1"]

    # Published ports, from the host: 127.0.0.1 and ::1, and addresses that were named.
    gateway = at["web"]["front"][0].rpartition(".")[0] + ".1"
    assert ask(ctst.enter, ("127.0.0.1", 8080), ("127.0.0.1", 8081), ("127.0.0.1", 8081, "udp")) == [gateway] * 3
    six = ask(ctst.enter, ("::1", 8080), ("::1", 8082), ("::1", 8082, "udp"))
    assert all(one.startswith("fd63:") and one.endswith("::1") for one in six), six
    mine = ask(ctst.enter, (HOST, 8083), (HOST6, 8082), (HOST6, 8082, "udp"), ("127.0.0.1", 8083))
    assert mine == [HOST, HOST6, HOST6, ""]
    # From a test host: the container sees its address; what is published on 127.0.0.1 is closed to it.
    theirs = ask(
        outside.enter,
        *((HOST, 8081), (HOST, 8081, "udp"), (HOST, 8082), (HOST, 8083), (HOST6, 8082), (HOST6, 8082, "udp")),
        *((HOST, 8080, "tcp", 0.3), (HOST6, 8080, "tcp", 0.3)),
    )
    assert theirs == [OUTSIDE] * 4 + [OUTSIDE6] * 2 + ["", ""]
    # From containers: of another network by their own address, of the same one and itself (hairpin) by the gateway's.
    assert ask_inside(ctst, "lone", (HOST, 8081), (HOST, 8081, "udp")) == [at["lone"]["bridge"][0]] * 2
    assert ask_inside(ctst, "web", (HOST, 8081), (HOST, 8081, "udp")) == [gateway] * 2
    assert all(ask_inside(ctst, "db", (HOST, 8082), (HOST6, 8082), (HOST6, 8082, "udp")))

    # A restart keeps the address, and peers find it again.
    ctst.ok("restart", "-t", "0", "app")
    assert addresses(ctst, "app") == at["app"]
    assert ask_inside(ctst, "web", ("app", 80), (app[1], 80)) == [*web]
    row = ctst.rows()["web"]
    assert row["net_received"] > 0
    assert row["net_sent"] > 0
    assert "[::]:8082->80/udp" in ctst.ok("ps")


def test_host_and_none(ctst: Ctst, outside: Outside) -> None:
    stack = (
        component("rich", 'network = "host"\n port = 8000', "8000")
        + component("near")
        + component("far")
        + "CONNECT near -> rich\nCONNECT rich -> far\nEXPOSE 8001:8000 -> rich\nEXPOSE 8002:80 -> far\n"
    )
    path = str(ctst.write(stack.replace('component("far")', "")))
    assert "W013" in ctst("check", path).err
    ctst.ok("run", "-d", path)
    assert ask(ctst.enter, ("127.0.0.1", 8000), ("127.0.0.1", 8001), ("127.0.0.1", 8002))[:2] == ["127.0.0.1", ""]
    assert ask(outside.enter, (HOST, 8000)) == [OUTSIDE]
    # Connected components reach the port that was declared, at the address they are told, and nothing else there.
    outside.serve(ctst.enter, 8003)
    env = "import os; print(os.environ['RICH_HOST'])"
    gateway = ctst.ok("exec", "near", "/usr/bin/python3", "-c", env).strip()
    said = ask_inside(ctst, "near", (gateway, 8000), (gateway, 8003), (HOST, 8000), (gateway, 8000, "udp", 0.2))
    assert said == [addresses(ctst, "near")["bridge"][0], "", "", ""]
    assert ask_inside(ctst, "far", (gateway, 8000), (gateway, 8003)) == ["", ""]
    reach = ctst.ok("exec", "rich", "/usr/bin/python3", "-c", "import os; print(os.environ['FAR_HOST'])").strip()
    assert ask_inside(ctst, "rich", (reach, 80)) == [gateway]
    done = ctst("--offline", "run", "-d", path)
    assert done.status == 1
    assert "error[R013]: rich is on the host's network" in done.err
    for network in ("host", "none"):
        assert ctst("run", "--image", BOX, "--network", network, "-p", "80:80").status == 2
    assert "IP address" in ctst("run", "--image", BOX, "-p", "here:80:80").err
