"""Many components, networks, projects and cycles, by the installed command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from outside import Outside, ask, ask_inside, component

from harness import BOX, COMMAND, FULL, Ctst, eventually, read

SLEEP = f'image = "{BOX}"\n command = ["sleep", "1000"]\n'
SHORT = f'image = "{BOX}"\n command = ["sleep", "0.5"]\n'
HTTPD = f'image = "{BOX}"\n command = ["busybox", "httpd", "-f", "-p", "80"]\n port = 80\n'


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_ten_containers_on_three_networks_take_no_helper_process(ctst: Ctst, tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(10)]
    networks = ['["one"]', '["one", "two"]', '["two", "three"]']
    stack = "".join(
        f"COMPONENT {name} {{\n {SHORT} network = {networks[number % 3]}\n}}\n" for number, name in enumerate(names)
    )
    path = str(ctst.write(stack + "EXPOSE 8080:80 -> c1\n"))
    ctst.ok("build", path)
    trace = tmp_path / "trace"
    calls = ["strace", "-f", "-qq", "-e", "trace=clone,clone3,fork,vfork,execve", "-e", "signal=none", "-o", str(trace)]
    # In the foreground, with programs that end: strace ends with the last of what it follows.
    done = subprocess.run(
        [*calls, *COMMAND, "run", path],
        cwd=ctst.directory,
        env=ctst.environ,
        preexec_fn=ctst.enter,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(None, 1) for line in read(str(trace)).splitlines()]
    assert len([call for _, call in lines if call.startswith(("clone", "fork", "vfork"))]) == 10
    first = lines[0][0]
    ends = [call for pid, call in lines if pid != first and call.startswith(("execve", "<... execve resumed"))]
    assert len([call for call in ends if call.endswith("= 0")]) == 10, "nothing but the containers' programs"


def test_two_projects_with_the_same_names_at_once(ctst: Ctst, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    text = component("web", 'network = ["front", "back"]') + component("db", 'network = "back"')
    for directory, port in ((ctst.directory, 8080), (other, 8081)):
        (directory / "containust.ctst").write_text(text + f"EXPOSE {port}:80 -> web\n")
    runs = [ctst.popen("-C", str(directory), "run", "-d") for directory in (ctst.directory, other)]
    try:
        for one in runs:
            _, err = one.communicate(timeout=40)
            assert one.returncode == 0, err
        first = {name: row["networks"] for name, row in ctst.rows().items()}
        second = {name: row["networks"] for name, row in rows_of(ctst, other).items()}
        mine, theirs = ({a for row in rows.values() for a in row.values()} for rows in (first, second))
        assert len(mine) == len(theirs) == 3
        assert not mine & theirs
        assert ask_inside(ctst, "db", ("web", 80)) == [first["db"]["back"]]
        assert ask_inside(ctst, "db", *((address, 80, "tcp", 0.3) for address in sorted(theirs))) == [""] * 3
        assert all(ask(ctst.enter, ("127.0.0.1", 8080), ("127.0.0.1", 8081)))
        ctst.ok("rm", "--force")
        assert ask(ctst.enter, ("127.0.0.1", 8080), ("127.0.0.1", 8081))[1], "the other one goes on"
    finally:
        ctst.ok("-C", str(other), "rm", "--force")
    ctst.assert_clean()


def rows_of(ctst: Ctst, directory: Path) -> dict[str, dict[str, dict[str, str]]]:
    found = json.loads(ctst.ok("-C", str(directory), "ps", "--json"))["containers"]
    return {row["name"]: row for row in found}


def test_a_subnet_that_the_host_routes_is_not_chosen_and_a_lost_pool_is_said(ctst: Ctst, outside: Outside) -> None:
    ctst.environ["CONTAINUST_NETWORK_POOL"] = "10.66.0.0/22:24"
    for prefix in ("10.66.0.0/24", "10.66.1.128/25", "10.66.2.7/32"):
        ctst.on_host("ip", "route", "add", prefix, "via", "192.0.2.9")
    ctst.ok("run", "-d", str(ctst.write(f"COMPONENT web {{\n {SLEEP}}}\n")))
    assert ctst.rows()["web"]["networks"]["bridge"].startswith("10.66.3.")
    done = ctst("run", "-d", str(ctst.write(f'COMPONENT two {{\n {SLEEP} network = "more"\n}}\n', "more.ctst")))
    assert done.status == 1
    assert "error[R013]: no free subnet" in done.err
    assert set(ctst.rows()) == {"web"}


def test_figures_do_not_depend_on_whose_sysfs_is_mounted(ctst: Ctst) -> None:
    """The command's /sys is of another network namespace here: that of the test."""
    ctst.ok("run", "-d", str(ctst.write(f"COMPONENT web {{\n {HTTPD}}}\nEXPOSE 8080:80 -> web\n")))
    before = ctst.rows()["web"]
    at = before["networks"]["bridge"]
    assert not [name for name in os.listdir("/sys/class/net") if name.startswith(f"ctv{bridge(ctst)}")]
    ask(ctst.enter, *((at, 80, "tcp", 0.2),) * 3)
    after = ctst.rows()["web"]
    assert after["net_received"] > before["net_received"]
    assert after["net_sent"] > before["net_sent"]


def bridge(ctst: Ctst) -> str:
    return str(json.loads(ctst.ok("inspect", "web"))["attachments"][0]["bridge"])[3:10]


@pytest.mark.timeout(3600 if FULL else 120)
def test_many_components_of_a_stack_reach_each_other(ctst: Ctst) -> None:
    count = 200 if FULL else 25
    stack = "".join(f"COMPONENT c{n} {{\n {HTTPD}}}\n" for n in range(count)) + f"EXPOSE 8080:80 -> c{count - 1}\n"
    ctst.ok("run", "-d", str(ctst.write(stack)), seconds=110)
    rows = ctst.rows()
    assert len({row["networks"]["bridge"] for row in rows.values()}) == count
    hosts = ctst.ok("exec", "c0", "cat", "/etc/hosts")
    assert all(f"\tc{n}\n" in hosts for n in range(count))
    request = "printf 'GET /none HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5"
    eventually(lambda: "404" in ctst("exec", "c0", "sh", "-c", f"{request} c{count - 1} 80").out)
    eventually(lambda: "404" in ctst.on_host("sh", "-c", f"{request} 127.0.0.1 8080"))
    ctst.ok("rm", "--force", seconds=110)
    ctst.assert_clean()


@pytest.mark.timeout(3600 if FULL else 120)
def test_cycles_of_up_and_down_leave_nothing_and_use_the_same_addresses(ctst: Ctst) -> None:
    path = str(ctst.write(f"COMPONENT web {{\n {SLEEP}}}\nEXPOSE 8080:80 -> web\n"))
    before = ctst.on_host("ip", "-o", "link"), ctst.on_host("nft", "list", "ruleset")
    addresses = set()
    for cycle in range(1000 if FULL else 5):
        ctst.ok("run", "-d", path)
        addresses.add(ctst.rows()["web"]["networks"]["bridge"])
        ctst.ok(*(("rm", "--force") if cycle % 2 else ("stop", "-t", "0")))
        if cycle % 2:
            now = ctst.on_host("ip", "-o", "link"), ctst.on_host("nft", "list", "ruleset")
            assert now == before, "nothing is left when the command has returned"
    assert len(addresses) == 1
    ctst.ok("rm", "--force")
    ctst.assert_clean()


def test_networks_stay_while_another_unit_of_the_project_waits_to_start_again(ctst: Ctst) -> None:
    """One stack ends while the container of another is between two attempts; nothing is left when that ends, too."""
    failing = (
        f'image = "{BOX}"\n command = ["sh", "-c", "busybox ip addr show eth0 >&2; exit 3"]\n restart = "always"\n'
    )
    ctst.ok("run", "-d", str(ctst.write(f"COMPONENT again {{\n {failing}}}\n", "again.ctst")))
    ctst.ok("run", "-d", str(ctst.write(f"COMPONENT web {{\n {SLEEP}}}\nEXPOSE 8080:80 -> web\n")))
    eventually(lambda: ctst.rows()["again"]["restarts"] >= 2)
    eventually(lambda: ctst.rows()["again"]["state"] == "failed")
    ctst.ok("rm", "--force", "web")
    before = ctst.rows()["again"]["restarts"]
    eventually(lambda: ctst.rows()["again"]["restarts"] > before)
    assert ctst.rows()["again"]["error"] is None
    ctst.ok("rm", "--force")
    ctst.assert_clean()
