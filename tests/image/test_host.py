"""host:// images hold exactly what their programs need: the loader's own answer is the oracle, running them
the proof.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from containust.common.errors import ContainustError
from containust.image.distroless import Collection
from containust.image.elf import read_elf
from containust.image.libraries import read_cache
from containust.image.store import Image, ImageStore


def run(root: str, *argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program with ``root`` as its root directory and nothing else of the host but /dev/null."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)

    def enter() -> None:
        os.fchdir(fd)
        os.chroot(".")

    try:
        return subprocess.run(
            argv,
            preexec_fn=enter,
            env={"PATH": "/usr/bin:/bin", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    finally:
        os.close(fd)


def loader_list(path: str) -> set[str]:
    """Real paths of the libraries that the dynamic loader says it would load."""
    elf = read_elf(path)
    assert elf is not None
    if not elf.interpreter:
        return set()
    out = subprocess.run([elf.interpreter, "--list", path], capture_output=True, text=True, check=True).stdout
    found = set()
    for line in out.splitlines():
        words = line.split()
        file = words[2] if "=>" in words else words[0]
        if file.startswith("/"):
            found.add(os.path.realpath(file))
    return found


PROGRAMS = [
    "/bin/sh",
    "/usr/bin/python3",
    "/usr/bin/git",
    "/usr/bin/openssl",
    "/usr/bin/curl",
    "/usr/bin/gcc",
    "/usr/bin/psql",
    "/usr/bin/ssh",
]


def is_elf(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


@pytest.mark.parametrize("program", [path for path in PROGRAMS if os.path.exists(path) and is_elf(path)])
def test_libraries_are_those_that_the_loader_lists(program: str) -> None:
    collection = Collection()
    collection.add_program(program)
    found = {os.path.realpath(path) for path in collection.members if os.path.isfile(path)}
    expected = loader_list(os.path.realpath(program))
    assert expected <= found
    extra = {os.path.basename(path).partition(".")[0] for path in found - expected - {os.path.realpath(program)}}
    assert extra <= {
        "libnss_files",
        "libnss_dns",
        "libgcc_s",
        "libresolv",
        "ld-linux-x86-64",
        "libc",
        "libpthread",
    }


def test_a_shell_runs_and_its_links_are_kept(store: ImageStore, rung: str, opened: Callable[[Image], str]) -> None:
    image = store.ensure("host:///bin/sh")
    assert (image.config.entrypoint, image.config.command) == ([], ["/bin/sh"])
    assert any(value.startswith("PATH=") for value in image.config.env)
    assert image.standard_targets
    root = opened(image)
    assert os.readlink(f"{root}/bin") == os.readlink("/bin")
    assert run(root, "/bin/sh", "-c", "echo hi").stdout == "hi\n"


def test_python_runs_with_its_standard_library(store: ImageStore, opened: Callable[[Image], str]) -> None:
    root = opened(store.ensure("host:///usr/bin/python3"))
    done = run(
        root,
        "/usr/bin/python3",
        "-c",
        "import ssl, json, http.server, ctypes, pwd; print(pwd.getpwuid(0).pw_name)",
    )
    assert (done.stdout, done.returncode) == ("root\n", 0), done.stderr
    assert not os.path.exists(f"{root}/usr/lib/python3.11/test")


def test_python_with_include_has_what_is_installed(store: ImageStore, opened: Callable[[Image], str]) -> None:
    root = opened(store.ensure("host:///usr/bin/python3", ["/usr/lib/python3*"]))
    assert run(root, "/usr/bin/python3", "-c", "import json, sqlite3; print('ok')").stdout == "ok\n"
    assert os.path.isdir(f"{root}/usr/lib/python3/dist-packages")


def test_busybox_has_its_applets(store: ImageStore, opened: Callable[[Image], str]) -> None:
    root = opened(store.ensure("host:///bin/busybox"))
    assert run(root, "/bin/sh", "-c", "id -u; ls / | wc -l").stdout.startswith("0\n")


def test_several_programs_share_one_root(store: ImageStore, opened: Callable[[Image], str]) -> None:
    image = store.ensure("host:///usr/bin/env,/bin/cat")
    assert image.config.command == ["/usr/bin/env"]
    root = opened(image)
    assert run(root, "/usr/bin/env", "cat", "/etc/nsswitch.conf").stdout.startswith("passwd:")


def test_git_runs(store: ImageStore, opened: Callable[[Image], str]) -> None:
    root = opened(store.ensure("host:///usr/bin/git"))
    assert os.path.isdir(f"{root}/usr/lib/git-core")


def test_a_script_brings_its_interpreter(store: ImageStore, opened: Callable[[Image], str], tmp_path: Path) -> None:
    script = tmp_path / "hello"
    script.write_text("#!/usr/bin/env -S sh\necho hello $1\n")
    script.chmod(0o755)
    root = opened(store.ensure(f"host://{script}"))
    assert run(root, str(script), "you").stdout == "hello you\n"


def test_rpath_runpath_and_origin_are_followed(
    store: ImageStore, opened: Callable[[Image], str], tmp_path: Path
) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "libs/deep").mkdir(parents=True)
    (tmp_path / "deep.c").write_text("int deep(void) { return 42; }")
    (tmp_path / "lib.c").write_text("int deep(void); int value(void) { return deep(); }")
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\nint value(void); int main(void) { printf("%d\\n", value()); }'
    )
    for tag in ("--enable-new-dtags", "--disable-new-dtags"):
        shutil.rmtree(tmp_path / "libs")
        (tmp_path / "libs/deep").mkdir(parents=True)
        for command in (
            "-shared -o libs/deep/libdeep.so deep.c -Wl,-soname,libdeep.so",
            f"-shared -o libs/libvalue.so lib.c -Llibs/deep -ldeep -Wl,{tag},-rpath,$ORIGIN/deep",
            f"-o main main.c -Llibs -lvalue -Wl,{tag},-rpath,${{ORIGIN}}/libs,-rpath-link,libs/deep",
        ):
            subprocess.run([compiler, *command.split()], cwd=tmp_path, check=True)
        root = opened(store.ensure(f"host://{tmp_path}/main"))
        # The loader asks /proc for a program's $ORIGIN, and there is no /proc in this root.
        done = run(root, f"{tmp_path}/main", env={"LD_ORIGIN_PATH": str(tmp_path)})
        assert done.stdout == "42\n", done.stderr


def test_a_missing_library_is_named(store: ImageStore, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "lib.c").write_text("int value(void) { return 1; }")
    (tmp_path / "main.c").write_text("int value(void); int main(void) { return value(); }")
    subprocess.run([compiler, "-shared", "-o", "libgone.so", "lib.c"], cwd=tmp_path, check=True)
    subprocess.run([compiler, "-o", "main", "main.c", "-L.", "-lgone"], cwd=tmp_path, check=True)
    with pytest.raises(ContainustError) as error:
        store.ensure(f"host://{tmp_path}/main")
    assert error.value.code == "I001"
    assert "libgone.so" in error.value.message


def test_what_is_no_program_is_told(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("data")
    for uri, word in (
        (f"host://{tmp_path}", "not a program"),
        (f"host://{tmp_path}/data", "not executable"),
        ("host:///no/such", "no /no/such"),
    ):
        with pytest.raises(ContainustError) as error:
            store.ensure(uri)
        assert error.value.code == "I001"
        assert word in error.value.message
    with pytest.raises(ContainustError) as error:
        store.ensure("host:///bin/sh", ["/no/such*"])
    assert "/no/such*" in error.value.message


def test_a_changed_program_is_imported_again(store: ImageStore, tmp_path: Path) -> None:
    shutil.copy("/usr/bin/busybox" if os.path.exists("/usr/bin/busybox") else "/bin/true", tmp_path / "program")
    first = store.ensure(f"host://{tmp_path}/program")
    assert store.find(f"host://{tmp_path}/program") == first
    with open(tmp_path / "program", "ab") as file:
        file.write(b"x")
    assert store.find(f"host://{tmp_path}/program") is None
    assert store.ensure(f"host://{tmp_path}/program").id != first.id


def test_set_user_id_bits_of_the_host_are_not_carried_over(
    store: ImageStore, opened: Callable[[Image], str], tmp_path: Path
) -> None:
    shutil.copy("/bin/true", tmp_path / "suid")
    os.chown(tmp_path / "suid", 1000, 1000)
    os.chmod(tmp_path / "suid", 0o6755)
    s = os.stat(f"{opened(store.ensure(f'host://{tmp_path}/suid'))}{tmp_path}/suid")
    assert (s.st_mode & 0o7777, s.st_uid) == (0o755, 0)


def test_damaged_elf_files_are_no_elf_files(tmp_path: Path) -> None:
    import random

    data = bytearray(Path("/bin/true").read_bytes())
    generator = random.Random(3)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(20):
            damaged[generator.randrange(2048)] = generator.randrange(256)
        (tmp_path / "f").write_bytes(damaged)
        read_elf(str(tmp_path / "f"))
    (tmp_path / "f").write_bytes(b"\x7fELF")
    assert read_elf(str(tmp_path / "f")) is None


def test_the_loader_cache_is_read() -> None:
    if not os.path.exists("/etc/ld.so.cache"):
        pytest.skip("no ld.so.cache")
    assert any(path.startswith("/") for path in read_cache("/etc/ld.so.cache")["libc.so.6"])
    assert read_cache("/etc/passwd") == {}
