"""Real services out of Debian's packages, as images whose configuration alone says how they run."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_other_tools import apart, output

from harness import Ctst, eventually, read

POSTGRES = next(iter(sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))), "/usr/lib/postgresql/15/bin/postgres")
VERSION = POSTGRES.split("/")[4]
BINARIES = os.path.dirname(POSTGRES)
BASE = ("base-files", "busybox-static", "libc-bin", "tzdata")
UNUSED = ("/usr/share/doc", "/usr/share/locale", "/usr/share/man", "/usr/share/zoneinfo/right")
OTHER = """
COMPONENT other {
    image = "host:///bin/busybox"
    command = ["sleep", "600"]
}
EXPOSE 8080 -> nginx
"""


class Service:
    """An image to be made: package names, programs, commands that finish its tree, buildah's options."""

    def __init__(self, packages: tuple[str, ...], programs: tuple[str, ...], script: str, *config: str) -> None:
        self.packages, self.programs, self.script, self.config = packages, programs, script, config


SERVICES = {
    "nginx": Service(
        ("nginx", "nginx-light", "nginx-common", "nginx-core"),
        ("/usr/sbin/nginx",),
        """
        mkdir -p $m/srv $m/var/log/nginx $m/var/lib/nginx
        rm -f $m/etc/nginx/modules-enabled/* $m/etc/nginx/sites-enabled/*
        sed -i 's#error.log;#error.log notice;#' $m/etc/nginx/nginx.conf
        echo it works > $m/srv/index.html
        printf 'server { listen 8080; root /srv; }' > $m/etc/nginx/conf.d/own.conf
        ln -sf /dev/stdout $m/var/log/nginx/access.log; ln -sf /dev/stderr $m/var/log/nginx/error.log
        """,
        *("--entrypoint", '["/usr/sbin/nginx"]', "--cmd", "-g 'daemon off;'", "--stop-signal", "SIGQUIT"),
        *("--port", "8080", "--env", "NGINX_OF=the image", "--workingdir", "/srv", "--volume", "/var/lib/nginx"),
    ),
    "redis": Service(
        ("redis-server", "redis-tools"),
        ("/usr/bin/redis-server", "/usr/bin/redis-cli"),
        "mkdir -p $m/var/lib/redis; chown redis:redis $m/var/lib/redis",
        *("--entrypoint", '["redis-server"]', "--cmd", "--dir /var/lib/redis --appendonly yes", "--user", "redis"),
        *("--workingdir", "/var/lib/redis", "--volume", "/var/lib/redis"),
        *("--healthcheck", "CMD redis-cli ping", "--healthcheck-interval", "1s"),
    ),
    "postgres": Service(
        (f"postgresql-{VERSION}", f"postgresql-client-{VERSION}"),
        (POSTGRES, f"{BINARIES}/initdb", f"{BINARIES}/psql"),
        f"""
        mkdir -p $m/var/lib/postgresql/data $m/usr/local/bin
        chown postgres:postgres $m/var/lib/postgresql/data; chmod 700 $m/var/lib/postgresql/data
        rm -rf $m/usr/lib/postgresql/*/lib/bitcode $m/usr/lib/postgresql/*/lib/llvmjit*
        ln -sf busybox $m/usr/bin/sh
        cat > $m/usr/local/bin/entry <<'END'
#!/bin/sh
set -e
PATH={BINARIES}:$PATH
[ -s "$PGDATA/PG_VERSION" ] || initdb -N -A trust -E UTF8 --locale=C >/dev/null
exec "$@"
END
        chmod 755 $m/usr/local/bin/entry
        """,
        *("--entrypoint", '["entry"]', "--cmd", "postgres -c fsync=off -c unix_socket_directories=/tmp"),
        *("--user", "postgres", "--env", "PGDATA=/var/lib/postgresql/data", "--stop-signal", "SIGINT"),
        *("--volume", "/var/lib/postgresql/data"),
    ),
}


def files_of(packages: tuple[str, ...], programs: tuple[str, ...]) -> set[str]:
    """The files of packages, and what the loader says that their programs need, below their real directories."""
    found = {"/etc/passwd", "/etc/group", *programs}
    for package in packages:
        listed = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=False).stdout
        found.update(line for line in listed.splitlines() if line.startswith("/") and not line.startswith(UNUSED))
    for program in programs:
        for word in output("ldd", program).split():
            if word.startswith("/"):
                found |= {word, os.path.realpath(word)}
    real = {os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)) for path in found}
    return {path for path in real if os.path.lexists(path)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One archive a service that is installed, ``NAME.tar``, written by buildah."""
    directory = tmp_path_factory.mktemp("services")

    def build() -> None:
        storage = ["--root", f"{directory}/root", "--runroot", f"{directory}/run", "--storage-driver", "overlay"]
        environ = {**os.environ, "HOME": str(directory)}

        def buildah(*words: str) -> str:
            done: str = output("buildah", *storage, *words, env=environ)
            return done

        for name, service in SERVICES.items():
            if not all(os.path.exists(path) for path in service.programs):
                continue
            container = buildah("from", "scratch")
            mounted = buildah("mount", container)
            paths = sorted(files_of((*BASE, *service.packages), service.programs))
            links = [path for path in ("/bin", "/sbin", "/lib", "/lib64") if os.path.islink(path)]
            archive = f"{directory}/files.tar"
            pack = ["tar", "--no-recursion", "-P", "-T", "-", "-cf", archive]
            subprocess.run(pack, input="\n".join([*paths, *links]), text=True, check=True)
            output("tar", "-C", mounted, "-xf", archive)
            output("sh", "-ec", service.script, env={**environ, "m": mounted})
            buildah("umount", container)
            buildah("config", *service.config, container)
            buildah("commit", "-q", "--format", "docker", container, f"docker-archive:{directory}/{name}.tar:{name}:1")
            buildah("rm", container)

    apart(build)
    shutil.rmtree(directory / "root")
    yield directory
    shutil.rmtree(directory)


def archive_of(images: Path, name: str) -> Path:
    if not (images / f"{name}.tar").exists():
        pytest.skip(f"{name} is not installed")
    return images / f"{name}.tar"


def started(ctst: Ctst, images: Path, name: str, properties: str = "", rest: str = "") -> int:
    """The service as a stack that names no command; its process."""
    ctst.write(f'COMPONENT {name} {{\n    image = "tar://{archive_of(images, name)}"\n{properties}\n}}\n{rest}')
    ctst.ok("run", "-d")
    return int(ctst.rows()[name]["pid"])


def test_nginx_serves_and_quits_gracefully(ctst: Ctst, images: Path) -> None:
    pid = started(ctst, images, "nginx", "    ports = [8080]", OTHER)
    program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/', timeout=2).read().decode())"
    fetch = [sys.executable, "-Ic", program]
    assert eventually(lambda: ctst.on_host(*fetch)).strip() == "it works"
    assert os.readlink(f"/proc/{pid}/cwd") == "/srv"
    assert "NGINX_OF=the image" in ctst.ok("exec", "nginx", "--", "busybox", "env").splitlines()
    eventually(lambda: '"GET / HTTP/1.1" 200' in ctst.ok("logs", "nginx"))
    ctst.ok("stop", "nginx")
    assert ctst.rows()["nginx"]["exit_code"] == 0
    assert "signal 3 (SIGQUIT)" in ctst("logs", "nginx").err


def test_redis_keeps_its_data_and_is_probed_as_its_image_says(ctst: Ctst, images: Path) -> None:
    pid = started(ctst, images, "redis")
    eventually(lambda: ctst.rows()["redis"]["health"] == "healthy")
    status = dict(line.split(":", 1) for line in read(f"/proc/{pid}/status").splitlines())
    assert int(status["Uid"].split()[0]) % 65536 == int(output("id", "-u", "redis"))
    assert os.readlink(f"/proc/{pid}/cwd") == "/var/lib/redis"
    assert ctst.ok("exec", "redis", "--", "redis-cli", "set", "key", "value").strip() == "OK"
    ctst.ok("stop")
    assert ctst.rows()["redis"]["exit_code"] == 0
    ctst.ok("rm")
    ctst.ok("run", "-d")
    pid = ctst.rows()["redis"]["pid"]
    ctst.ok("run", "-d")
    assert ctst.rows()["redis"]["pid"] == pid  # nothing changed
    eventually(lambda: ctst("exec", "redis", "--", "redis-cli", "get", "key").out.strip() == "value")
    volumes = ctst.directory / ".containust/volumes"
    assert os.listdir(volumes) == ["redis.var-lib-redis"]
    ctst.ok("rm", "--force", "--volumes")
    assert os.listdir(volumes) == []


def test_postgresql_makes_its_cluster_and_stops_fast(ctst: Ctst, images: Path) -> None:
    started(ctst, images, "postgres")
    psql = ("exec", "postgres", "--", f"{BINARIES}/psql", "-h", "/tmp", "-U", "postgres", "-Atc")
    eventually(lambda: ctst(*psql, "select 1").out.strip() == "1", 40)
    made = ctst.ok(*psql, "create table t as select generate_series(1, 1000) as n; select sum(n) from t")
    assert made.endswith("500500\n")
    ctst.ok("stop")
    assert ctst.rows()["postgres"]["exit_code"] == 0
    assert "received fast shutdown request" in ctst("logs", "postgres").err  # what SIGINT means to it
    ctst.ok("run", "-d")
    eventually(lambda: ctst(*psql, "select count(*) from t").out.strip() == "1000", 40)


def test_volumes_of_an_image_end_with_a_container_that_is_removed(ctst: Ctst, images: Path) -> None:
    ctst.ok("run", "--rm", "--image", f"tar://{archive_of(images, 'redis')}", "--", "--version")
    assert os.listdir(ctst.home / ".containust/volumes") == []
