"""Programs of every kind run under the default filter, and the filter is what the file says it is."""

from __future__ import annotations

import errno
import glob
import json
import os

import pytest

from harness import BOX, PYTHON, Ctst

POSTGRES = next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)), "/usr/lib/postgresql/15/bin")
SHELL = "/bin/busybox"
NGINX = """\
daemon off; error_log /dev/stderr; pid /tmp/nginx.pid; worker_processes 2;
events {}
http {
    access_log /dev/stdout; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;
    uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
    server { listen 80; location / { return 200 "nginx"; } }
}
"""
JAVASCRIPT = """
require('http').createServer((request, answer) =>
    require('fs').readFile('/etc/hosts', (error, data) => answer.end(data))).listen(80)
"""
WGET = [SHELL, "wget", "-qO-", "http://127.0.0.1/"]
# name -> programs, what else is included, command, what its health is asked by
SERVICES: dict[str, tuple[list[str], list[str], list[str], list[str]]] = {
    "nginx": (["/usr/sbin/nginx"], [], ["/usr/sbin/nginx", "-c", "/conf/nginx.conf", "-e", "/dev/stderr"], WGET),
    "redis": (
        ["/usr/bin/redis-server", "/usr/bin/redis-cli"],
        [],
        ["/usr/bin/redis-server", "--dir", "/tmp", "--io-threads", "2", "--appendonly", "yes"],
        ["/usr/bin/redis-cli", "bgsave"],
    ),
    "postgresql": (
        [f"{POSTGRES}/postgres", f"{POSTGRES}/initdb", f"{POSTGRES}/psql"],
        [f"{os.path.dirname(POSTGRES)}/lib", *glob.glob("/usr/share/postgresql/*")],
        [SHELL, "sh", "-c", f"{POSTGRES}/initdb -N -A trust >/dev/null && exec {POSTGRES}/postgres -k /tmp"],
        [f"{POSTGRES}/psql", "-h", "/tmp", "-U", "service", "-c", "create temp table t as select 1", "postgres"],
    ),
    "python": (["/usr/bin/python3"], [], ["/usr/bin/python3", "-m", "http.server", "80", "-d", "/tmp"], WGET),
    "node": (["/usr/bin/node"], [], ["/usr/bin/node", "-e", JAVASCRIPT], WGET),
}  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs_under_the_default_filter(ctst: Ctst, name: str) -> None:
    programs, include, command, probe = SERVICES[name]
    if not os.path.exists(programs[0]):
        pytest.skip(f"{name} is not installed")
    (ctst.directory / "nginx.conf").write_text(NGINX)
    (ctst.directory / "passwd").write_text("root:x:0:0::/:\nservice:x:1000:1000::/:\nnobody:x:65534:65534::/:\n")
    (ctst.directory / "group").write_text("root:x:0:\nservice:x:1000:\nnogroup:x:65534:\n")
    ctst.write(
        f'''
        COMPONENT service {{
            image = "host://{",".join([*programs, SHELL])}"
            include = {json.dumps(include)}
            command = {json.dumps(command)}
            user = "{"1000:1000" if name == "postgresql" else "0"}"
            env = {{ PGDATA = "/tmp/data" }}
            volumes = ["./:/conf:ro", "./passwd:/etc/passwd:ro", "./group:/etc/group:ro"]
            healthcheck = {{ command = {json.dumps(probe)}, interval = "1s", retries = 30 }}
        }}
        COMPONENT after {{
            image = "{BOX}"
            command = ["true"]
        }}
        CONNECT after -> service
        '''
    )
    done = ctst("run", "-d", "containust.ctst", seconds=100)
    assert done.status == 0, (done, ctst("logs", "service"))
    assert ctst.rows()["service"]["health"] == "healthy"
    with open(f"/proc/{ctst.rows()['service']['pid']}/status") as file:
        assert "Seccomp:\t2" in file.read()


CHMOD = "import os\ntry: os.chmod('/tmp', 0o777); print('ok')\nexcept OSError as e: print(e.errno)"
PROFILE = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
    "syscalls": [
        {
            "names": ["chmod", "fchmod", "fchmodat", "fchmodat2"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": errno.EXDEV,
        }
    ],
}


@pytest.mark.parametrize(("seccomp", "said"), [("./profile.json", str(errno.EXDEV)), ("unconfined", "ok")])
def test_a_profile_file_in_the_oci_format_is_the_filter(ctst: Ctst, seccomp: str, said: str) -> None:
    (ctst.directory / "profile.json").write_text(json.dumps(PROFILE))
    ctst.write(
        f'''
        COMPONENT one {{
            image = "{PYTHON}"
            command = {json.dumps(["/usr/bin/python3", "-c", CHMOD])}
            seccomp = "{seccomp}"
        }}
        '''
    )
    ctst.ok("run", "containust.ctst")
    assert ctst.ok("logs", "one").split()[-1] == said
