"""Networks of an ordinary user's stack: names, published ports, the way out, and what stays closed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import pytest
from ordinary_user import HOST, HOST6, OUTSIDE, OUTSIDE6, User

from harness import BOX, FULL, eventually

PROGRAMS = ("pasta", "slirp4netns")
SETTING = "CONTAINUST_ROOTLESS_NETWORK"


SERVER = """
import socket, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 53))
def datagrams():
    while True:
        data, client = udp.recvfrom(100)
        udp.sendto(b"udp " + client[0].encode(), client)
threading.Thread(target=datagrams, daemon=True).start()
server = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    connection, client = server.accept()
    connection.sendall(b"web " + client[0].removeprefix("::ffff:").encode())
    connection.close()
"""


REACH = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as client:
        while data := client.recv(100):
            sys.stdout.write(data.decode())
except OSError:
    pass
"""


@pytest.fixture(autouse=True)
def server(user: User) -> None:
    user.write(SERVER, "server.py")


# The one that is not chosen here is tested with --full.
CHOSEN = (
    "pasta"
    if shutil.which("pasta")
    and subprocess.run(["pasta", "--host-lo-to-ns-lo", "--version"], capture_output=True, check=False).returncode == 0
    else "slirp4netns"
)


@pytest.fixture(params=PROGRAMS if FULL or os.environ.get("CONTAINUST_TEST_PATH") else [CHOSEN])
def program(request: pytest.FixtureRequest, user: User) -> str:
    user.environ[SETTING] = request.param
    return str(request.param)


def recent(user: User) -> bool:
    """Whether the user's pasta is from the end of 2024 or later."""
    words = ["pasta", "--host-lo-to-ns-lo", "--version"]
    return subprocess.run(words, env=user.environ, capture_output=True, check=False).returncode == 0


def test_the_program_that_works_best_is_chosen(user: User) -> None:
    user.write(stack())
    user.ok("run", "-d", seconds=60)
    chosen = "pasta" if recent(user) else "slirp4netns"
    assert [len(user.running(f"/{name}")) for name in PROGRAMS] == [name == chosen for name in PROGRAMS]


def test_a_connection_that_is_closed_one_way_goes_on_the_other(user: User) -> None:
    user.listen(OUTSIDE, 7000, user.outside, "outside")
    user.write(stack())
    user.ok("run", "-d", seconds=60)
    for _ in range(5):
        script = f"import socket; c = socket.create_connection(('{OUTSIDE}', 7000), 5); c.shutdown(1)"
        script += "; print(c.recv(100), c.recv(100))"
        assert user.ok("exec", "web", "python3", "-c", script) == "b'outside' b''\n"


def stack(port: int = 8080, more: str = "") -> str:
    """Three connected components; ``web`` answers each connection with its client's address."""
    return f"""
        COMPONENT web {{
            image = "host:///usr/bin/python3"
            command = ["python3", "/server.py"]
            volumes = ["./server.py:/server.py:ro"]
            port = 80
            healthcheck = {{ command = ["python3", "-c", "import socket; socket.create_connection(('::1', 80))"] }}
        }}
        COMPONENT api {{
            image = "{BOX}"
            command = ["sh", "-c", "echo host $WEB_HOST; exec sleep 1000"]
        }}
        COMPONENT db {{
            image = "{BOX}"
            command = ["sh", "-c", "while :; do echo db | nc -l -p 5432; done"]
            port = 5432
        }}
        CONNECT api -> web
        CONNECT api -> db
        EXPOSE {port}:80 -> web
        {more}
        """


WIDE = """
        EXPOSE "0.0.0.0":8081:80 -> web
        EXPOSE "0.0.0.0":8053:53/udp -> web
        """


def test_a_stack_is_reached_and_its_names_resolve(user: User, program: str) -> None:
    user.write(stack(more=WIDE))
    user.ok("run", "-d", seconds=60)
    assert len(user.running(f"/{program}")) == 1
    assert user.ok("logs", "api") == "host web\n"
    assert user.ok("exec", "api", "nc", "web", "80").startswith("web 10.")
    assert user.ok("exec", "api", "nc", "db", "5432") == "db\n"
    # From the host itself, by its loopback and by its own address; from elsewhere by what is published for that.
    assert user.ask("127.0.0.1", 8080, user.network).startswith("web ")
    assert user.ask("127.0.0.1", 8081, user.network).startswith("web ")
    assert user.ask(HOST, 8080, user.outside) == ""
    if program == "pasta" and not recent(user):
        return  # it may not answer others than the loopback, and is not chosen
    assert user.ask(HOST, 8081, user.network).startswith("web ")
    assert user.ask(HOST, 8081, user.outside).startswith("web ")
    assert user.ask(HOST, 8053, user.outside, "udp").startswith("udp ")
    if program == "pasta":
        assert user.ask(HOST, 8081, user.outside) == f"web {OUTSIDE}"  # the client's own address
        assert user.ask(HOST, 8053, user.outside, "udp") == f"udp {OUTSIDE}"
    row = user.rows()["web"]
    assert row["net_received"] > 0 and row["net_sent"] > 0
    user.ok("stop", "-t", "1")
    assert user.ask("127.0.0.1", 8080, user.network) == ""
    user.clean()


def test_containers_reach_the_outside_but_not_the_host(user: User, program: str) -> None:
    user.listen(OUTSIDE, 7000, user.outside, "outside")
    user.listen("127.0.0.1", 7001, user.network, "loopback")
    user.listen(HOST, 7002, user.network, "host")
    user.listen("0.0.0.0", 7003, user.network, "any")
    user.write(stack())
    user.ok("run", "-d", seconds=60)

    def reach(address: str, port: int) -> str:
        return str(user("exec", "web", "python3", "-c", REACH, address, str(port)).out)

    assert reach(OUTSIDE, 7000) == "outside"
    gateway = user.ok("exec", "api", "ip", "route").split()[2]
    for address, port in (
        ("127.0.0.1", 7001), (HOST, 7002), (HOST, 7003), (gateway, 7001), (gateway, 7003),
        ("10.0.2.2", 7001), ("10.0.2.2", 7003), (OUTSIDE, 7001),
    ):  # fmt: skip
        assert reach(address, port) == "", (address, port)
    if program == "pasta":
        user.listen(OUTSIDE6, 7006, user.outside, "outside6")
        assert reach(OUTSIDE6, 7006) == "outside6"
        user.listen(HOST6, 7007, user.network, "host6")
        assert reach(HOST6, 7007) == ""


def test_offline_keeps_everything_in(user: User, program: str) -> None:
    user.listen(OUTSIDE, 7000, user.outside, "outside")
    user.write(stack())
    user.ok("--offline", "run", "-d", seconds=60)
    assert user("exec", "web", "python3", "-c", REACH, OUTSIDE, "7000").out == ""
    assert user.ok("exec", "api", "nc", "web", "80").startswith("web ")
    assert user.ask("127.0.0.1", 8080, user.network).startswith("web ")


def test_a_taken_port_is_found_before_anything_starts(user: User) -> None:
    user.listen("127.0.0.1", 8080, user.network, "mine")
    user.write(stack())
    done = user("run", "-d", seconds=60)
    assert done.status == 1 and "R011" in done.err, done
    assert user.rows() == {}
    user.clean()


def test_two_projects_cannot_publish_the_same_port(user: User) -> None:
    user.write(stack())
    user.ok("run", "-d", seconds=60)
    other = user.own("other")
    for name in ("containust.ctst", "server.py"):
        (other / name).write_text((user.directory / name).read_text())
    done = user("-C", str(other), "run", "-d", seconds=60)
    assert done.status == 1 and "R011" in done.err, done
    text = (other / "containust.ctst").read_text().replace("8080", "8090")
    (other / "containust.ctst").write_text(text)
    user.ok("-C", str(other), "run", "-d", seconds=60)
    try:
        assert user.ask("127.0.0.1", 8090, user.network).startswith("web ")
        assert user.ask("127.0.0.1", 8080, user.network).startswith("web ")
    finally:
        user.ok("-C", str(other), "rm", "--force")


def test_a_port_below_1024_says_what_to_do(user: User) -> None:
    user.write(stack(port=80))
    done = user("run", "-d", seconds=60)
    assert done.status == 3 and "S003" in done.err and "8080:80" in done.err, done
    user.clean()


def test_a_change_of_the_published_ports_is_followed(user: User, program: str) -> None:
    user.write(stack())
    user.ok("run", "-d", seconds=60)
    user.write(stack(port=8099))
    user.ok("run", "-d", seconds=60)
    assert user.ask("127.0.0.1", 8099, user.network).startswith("web ")
    assert user.ask("127.0.0.1", 8080, user.network) == ""
    assert len(user.running(f"/{program}")) == 1


def test_a_killed_network_program_comes_back(user: User, program: str) -> None:
    user.listen(OUTSIDE, 7000, user.outside, "outside")
    user.write(stack())
    user.ok("run", "-d", seconds=60)
    (one,) = user.running(f"/{program}")
    os.kill(one, signal.SIGKILL)
    eventually(lambda: user.ask("127.0.0.1", 8080, user.network).startswith("web "))
    eventually(lambda: user("exec", "web", "python3", "-c", REACH, OUTSIDE, "7000").out == "outside")
    assert len(user.running(f"/{program}")) == 1


def test_a_killed_keeper_and_supervisor_are_replaced(user: User, program: str) -> None:
    user.write(stack())
    user.ok("run", "-d", seconds=60)
    before = {name: row["pid"] for name, row in user.rows().items()}
    os.kill(user.keeper(), signal.SIGKILL)
    assert user.ok("exec", "api", "nc", "web", "80").startswith("web ")
    user.ok("stop", "-t", "0", "db")
    user.ok("start", "db")
    assert user.ok("exec", "api", "nc", "db", "5432") == "db\n"
    assert user.ask("127.0.0.1", 8080, user.network).startswith("web ")
    (supervisor,) = user.supervisors()
    os.kill(supervisor, signal.SIGKILL)
    assert user.ok("exec", "api", "nc", "web", "80").startswith("web ")
    user.ok("stop", "-t", "0", "db")
    user.ok("start", "db")
    assert user.ok("exec", "api", "nc", "db", "5432") == "db\n"
    now = {name: row["pid"] for name, row in user.rows().items()}
    assert {name: now[name] for name in ("web", "api")} == {name: before[name] for name in ("web", "api")}
    user.ok("stop", "-t", "0")
    user.clean()


def test_after_everything_is_killed_at_once_nothing_is_left(user: User, program: str) -> None:
    user.write(stack())
    user.ok("run", "-d", seconds=60)
    for pid, _ in user.processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    eventually(lambda: not user.processes())
    assert {row["state"] for row in user.rows().values()} == {"failed"}
    user.clean()
    user.ok("run", "-d", seconds=60)
    assert user.ask("127.0.0.1", 8080, user.network).startswith("web ")


def test_a_host_without_any_route_will_do(user: User) -> None:
    for command in ("ip route del default", "ip -6 route del default", "ip link set up0 down"):
        assert os.system(f"nsenter --net=/proc/{os.getpid()}/fd/{user.network} {command}") == 0
    user.write(stack())
    user.ok("run", "-d", seconds=60)
    assert user.ask("127.0.0.1", 8080, user.network).startswith("web ")


def test_the_host_s_network_is_the_host_s(user: User) -> None:
    pid = user.popen("run", "--rm", "--network", "host", "--image", BOX, "--", "ip", "-o", "address")
    out, err = pid.communicate(timeout=40)
    assert f"inet {HOST}/24" in out.decode(), (out, err)
    user.write(stack(more=f'COMPONENT on {{\n image = "{BOX}"\n command = ["true"]\n network = "host"\n }}'))
    done = user("run", "-d", seconds=60)
    assert done.status == 1 and 'network = "host" does not go with' in done.err, done
    assert user.rows() == {}


def test_a_subnet_that_the_host_routes_is_not_chosen(user: User) -> None:
    for prefix in ("10.201.0.0/16", "172.29.0.0/16"):
        assert os.system(f"nsenter --net=/proc/{os.getpid()}/fd/{user.network} ip route add {prefix} dev up0") == 0
    user.write(stack())
    user.ok("run", "-d", seconds=60)
    assert user.rows()["web"]["networks"]["bridge"].startswith("192.168.")


def test_other_projects_namespaces_are_apart(user: User) -> None:
    user.write(stack())
    user.ok("run", "-d", seconds=60)
    spaces = {os.readlink(f"/proc/{pid}/ns/net") for pid, _ in user.processes()}
    assert len(spaces) == 5  # the host's, the project's, and one a container
