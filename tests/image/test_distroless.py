"""Distroless images from the command line: of programs of the host, and of a larger root; each is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from containust.image.distroless import Collection
from containust.image.rooted import Root
from harness import Ctst, eventually


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def copy_closure(root: Path, *programs: str, extra: tuple[str, ...] = ()) -> None:
    """A root file system of ``programs`` made by the loader's own word, with ``extra`` files and some ballast."""
    wanted = [*programs, *extra]
    for program in programs:
        out = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        wanted += [word for word in out.split() if word.startswith("/")]
    for path in wanted:
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(path), target)
    (root / "usr/share/doc").mkdir(parents=True)
    for number in range(40):
        (root / f"usr/share/doc/{number}").write_bytes(os.urandom(200_000))
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:7000:7000::/:/bin/sh\n")


def test_python_verifies_certificates_and_knows_time_zones(ctst: Ctst) -> None:
    program = (
        "import ssl, json, sqlite3, asyncio, ctypes, zoneinfo;"
        "print(len(ssl.create_default_context().get_ca_certs()) > 0, zoneinfo.ZoneInfo('Europe/Vienna'))"
    )
    if not os.path.exists("/etc/ssl/certs/ca-certificates.crt") or not os.path.isdir("/usr/share/zoneinfo"):
        pytest.skip("ca-certificates or tzdata is not installed")
    done = ctst("run", "--rm", "--image", "host:///usr/bin/python3", "--", "/usr/bin/python3", "-c", program)
    assert done.out == "True Europe/Vienna\n", done


def test_git_clones_a_repository(ctst: Ctst) -> None:
    git = need("git")
    repository = ctst.directory / "repository"
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run([git, "init", "-q", repository], check=True)
    (repository / "file").write_text("content")
    subprocess.run([git, "-C", repository, "add", "."], check=True)
    subprocess.run([git, "-C", repository, *identity, "commit", "-qm", "first words"], check=True)
    words = ("-e", "GIT_CONFIG_COUNT=1", "-e", "GIT_CONFIG_KEY_0=safe.directory", "-e", "GIT_CONFIG_VALUE_0=*")
    script = "git clone -q file:///repository /tmp/w && git -C /tmp/w log --oneline && read x < /tmp/w/file; echo $x"
    image = ("--image", "host:///usr/bin/git", "-v", "./repository:/repository:ro", *words)
    done = ctst("run", "--rm", *image, "--", "/bin/sh", "-c", script)
    assert "first words" in done.out, done
    assert done.out.endswith("content\n"), done


def test_nginx_stays_in_front_serves_and_stops_by_its_own_signal(ctst: Ctst) -> None:
    need("nginx")
    site = ctst.directory / "site"
    site.mkdir()
    (site / "index.html").write_text("served from a distroless root")
    ctst.write("""
        COMPONENT web {
            image = "host:///usr/sbin/nginx"
            port = 80
            tmpfs = ["/var/lib/nginx"]
            volumes = ["./site:/var/www/html:ro"]
        }
        EXPOSE 8080:80
    """)
    ctst.ok("run", "-d")
    get = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8080/').read().decode())"
    page = eventually(lambda: ctst.on_host(sys.executable, "-c", get))
    assert page == "served from a distroless root\n"
    assert "GET / HTTP/1.1" in eventually(lambda: ctst.ok("logs", "web"))
    ctst.ok("stop")
    assert json.loads(ctst.ok("inspect", "web"))["exit_code"] == 0


def test_a_musl_program_runs_and_its_closure_is_the_loader_s(ctst: Ctst) -> None:
    compiler = need("musl-gcc")
    (ctst.directory / "a.c").write_text('#include <stdio.h>\nint main(void) { puts("hello, musl"); }')
    for name, options in (("linked", []), ("static", ["-static"])):
        subprocess.run([compiler, *options, "-o", name, "a.c"], cwd=ctst.directory, check=True)
        image = f"host://{ctst.directory}/{name}"
        assert ctst.ok("run", "--rm", "--writable", "--image", image) == "hello, musl\n"
    collection = Collection()
    collection.add_program(f"{ctst.directory}/linked")
    files = {os.path.realpath(path) for path in collection.members if os.path.isfile(path)}
    assert files == {f"{ctst.directory}/linked", os.path.realpath("/lib/ld-musl-x86_64.so.1")}


@pytest.mark.parametrize(
    ("first", "text"),
    [
        ("#!/usr/bin/env python3", "import sys, json\nprint('ran', json.dumps(sys.argv[1:]))"),
        ("#!/bin/sh -e", 'echo "ran [\\"$1\\", \\"$2\\"]"'),
        ("#!/usr/bin/perl -w", 'use strict; use POSIX qw(floor); printf "ran [\\"%s\\", \\"%s\\"]\\n", @ARGV;'),
    ],
)
def test_a_script_runs_with_its_interpreter(ctst: Ctst, first: str, text: str) -> None:
    if "perl" in first and not os.path.exists("/usr/share/perl"):
        pytest.skip("perl is not installed")
    script = ctst.directory / "script"
    script.write_text(f"{first}\n{text}\n")
    script.chmod(0o755)
    words = ("--image", f"host://{script}", "--", str(script), "a", "b c")
    assert ctst.ok("run", "--rm", "--writable", *words) == 'ran ["a", "b c"]\n'


def test_a_program_that_the_container_s_tmpfs_hides_is_explained(ctst: Ctst) -> None:
    program = Path("/tmp") / f"ctst-test-{os.getpid()}"
    shutil.copy("/bin/true", program)
    try:
        done = ctst("run", "--rm", "--image", f"host://{program}")
    finally:
        program.unlink()
    assert done.status == 127
    assert "empty tmpfs" in done.err


def test_a_directory_is_reduced_to_what_its_component_runs(ctst: Ctst) -> None:
    root = ctst.directory / "root"
    copy_closure(root, "/bin/sh", "/bin/cat", "/bin/ls")
    (root / "srv").mkdir()
    (root / "srv/data").write_text("kept by include\n")
    os.chown(root / "srv", 7000, 7000)
    (root / "srv/start").write_text('#!/bin/sh\nread line < /srv/data; echo "$line"; /bin/cat /etc/passwd\n')
    (root / "srv/start").chmod(0o755)
    ctst.write("""
        COMPONENT job {
            image = "file://./root"
            distroless = true
            include = ["/srv/da*"]
            command = ["/srv/start", "/bin/cat"]
            network = "none"
        }
    """)
    (row,) = json.loads(ctst.ok("build", "--json"))["images"]
    report = row["distroless"]
    assert report["before"]["files"] > 40
    assert report["after"]["size"] < report["before"]["size"] - 40 * 200_000
    assert {"kind": "commands", "file": "/srv/start", "names": []} in report["unseen"]
    text = ctst.ok("build")
    assert "distroless:" in text
    assert "% less" in text
    assert "/srv/start may start other programs" in text
    assert "kept by include" in ctst.ok("run")
    assert "web:x:7000" in ctst.ok("logs", "job")
    listed = ctst.ok("run", "--rm", "--network", "none", "--image", row_reference(row), "--", "/bin/cat", "/etc/passwd")
    assert "web" in listed
    done = ctst("run", "--rm", "--network", "none", "--image", row_reference(row), "--", "/bin/ls")
    assert done.status == 127


def test_exec_and_probes_work_in_a_reduced_root(ctst: Ctst) -> None:
    root = ctst.directory / "root"
    copy_closure(root, "/bin/sh", "/bin/cat", "/bin/sleep")
    ctst.write("""
        COMPONENT job {
            image = "file://./root"
            distroless = true
            network = "none"
            command = ["sleep", "60"]
            healthcheck = { command = ["/bin/cat", "/etc/passwd"] interval = "100ms" }
        }
    """)
    ctst.ok("run", "-d")
    assert "web" in ctst.ok("exec", "job", "--", "/bin/cat", "/etc/passwd")
    assert eventually(lambda: ctst.rows()["job"]["health"] == "healthy")
    ctst.ok("stop", "-t", "1")


def row_reference(row: dict[str, str]) -> str:
    return f"image://{row['id']}"


def test_what_a_run_opened_is_kept_from_a_trace(ctst: Ctst) -> None:
    root = ctst.directory / "root"
    copy_closure(root, "/bin/sh", "/bin/cat")
    (root / "etc/app.conf").write_text("plugin\n")
    ctst.write("""
        COMPONENT job {
            image = "file://./root"
            distroless = true
            command = ["/bin/cat", "-u", "/etc/app.conf"]
            env = { WHO = "job" }
        }
    """)
    before = json.loads(ctst.ok("build", "--json"))["images"][0]
    assert not before["distroless"]["traced"]
    trace = ctst.directory / "trace.json"
    trace.write_text(json.dumps({"files": [{"path": "/usr/share/doc/7"}, {"path": "/no/such"}, "/proc/1/maps"]}))
    after = json.loads(ctst.ok("build", "--from-trace", str(trace), "--json"))["images"][0]
    assert after["imported"]
    assert after["id"] != before["id"]
    assert after["distroless"]["after"]["size"] == before["distroless"]["after"]["size"] + 200_000
    again = json.loads(ctst.ok("build", "--json"))["images"][0]
    assert (again["imported"], again["id"]) == (False, after["id"])
    os.utime(root / "etc/app.conf")
    kept = json.loads(ctst.ok("build", "--json"))["images"][0]
    assert kept["imported"]
    assert kept["distroless"]["traced"] == ["/no/such", "/usr/share/doc/7"]
    trace.write_text("{")
    assert "is no trace of files" in ctst("build", "--from-trace", str(trace)).err


def test_libraries_opened_by_name_are_listed(ctst: Ctst) -> None:
    compiler = need("cc")
    root = ctst.directory / "root"
    copy_closure(root, "/bin/sh")
    (ctst.directory / "plugin.c").write_text("int plugin(void) { return 1; }")
    (ctst.directory / "main.c").write_text(
        '#include <dlfcn.h>\nint main(void) { return dlopen("libplugin.so.3", RTLD_NOW) == 0; }'
    )
    library = root / "usr/lib/libplugin.so.3"
    library.parent.mkdir(exist_ok=True)
    subprocess.run([compiler, "-shared", "-o", library, "plugin.c"], cwd=ctst.directory, check=True)
    subprocess.run([compiler, "-o", root / "main", "main.c"], cwd=ctst.directory, check=True)
    component = 'COMPONENT job {{ image = "file://./root"\n distroless = true\n command = ["/main"]\n {} }}'
    ctst.write(component.format(""))
    text = ctst.ok("build")
    assert "/main opens libraries while it runs; it mentions libplugin.so.3" in text
    assert ctst("run").status == 1
    ctst.write(component.format('include = ["/usr/lib/libplugin.so.3"]'))
    assert "libplugin" not in ctst.ok("build")
    assert ctst("run").status == 0


def test_a_reduced_root_needs_a_program_that_is_there(ctst: Ctst) -> None:
    (ctst.directory / "root/etc").mkdir(parents=True)
    ctst.write('COMPONENT job { image = "file://./root"\n distroless = true }')
    done = ctst("build")
    assert done.status == 4
    assert "error[I001]" in done.err
    assert "no `command` says which program to keep" in done.err
    ctst.write('COMPONENT job { image = "file://./root"\n distroless = true\n command = ["/gone"] }')
    assert "there is no /gone in" in ctst("build").err


def test_links_do_not_lead_out_of_a_root(tmp_path: Path) -> None:
    (tmp_path / "root/deep").mkdir(parents=True)
    (tmp_path / "secret").write_text("of the host")
    (tmp_path / "root/deep/up").symlink_to("../../../../secret")
    (tmp_path / "root/absolute").symlink_to(tmp_path / "secret")
    (tmp_path / "root/loop").symlink_to("loop")
    (tmp_path / "root/etc").symlink_to("/etc")
    root = Root(str(tmp_path / "root"))
    for path in ("/deep/up", "/absolute", "/loop", "/etc/passwd", "/../secret"):
        assert root.real(path) is None
    assert root.glob("/etc/*") == []


@pytest.mark.skipif(
    not os.environ.get("CONTAINUST_TEST_DEBIAN"), reason="CONTAINUST_TEST_DEBIAN names no Debian root file system"
)
def test_debian_with_one_program_shrinks_by_nine_tenths(ctst: Ctst) -> None:
    (ctst.directory / "debian").symlink_to(os.environ["CONTAINUST_TEST_DEBIAN"])
    ctst.write("""
        COMPONENT job {
            image = "file://./debian"
            distroless = true
            command = ["/usr/bin/dpkg-query", "--version"]
        }
    """)
    report = json.loads(ctst.ok("build", "--json"))["images"][0]["distroless"]
    assert report["after"]["size"] < report["before"]["size"] / 10
    assert "query" in ctst.ok("run")
