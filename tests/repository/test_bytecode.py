"""The bundle of bytecode: written by the first run of a command, used by the next, ignored when it does not fit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import containust

SOURCE = Path(containust.__file__).parent
SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(params=["script", "shipped launcher", "built launcher"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tree as an installer leaves it: bin/ctst, bin/python3, lib/pythonX.Y/site-packages/containust.

    The command is the script, or the launcher, as it is shipped and as its source gives it, and the script behind it.
    """
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/ctst"
    if request.param == "script":
        shutil.copy(SCRIPTS / "ctst", command)
    else:
        (tmp_path / "share/containust").mkdir(parents=True)
        shutil.copy(SCRIPTS / "ctst", tmp_path / "share/containust/ctst")
        if request.param == "built launcher":
            subprocess.run(["gcc", *BUILD.split(), "-o", command, SCRIPTS / "launcher.c"], check=True)
        else:
            shutil.copy(SCRIPTS / f"launcher-{os.uname().machine}", command)
    os.symlink(os.path.realpath(sys.executable), tmp_path / "bin/python3")
    shutil.copytree(SOURCE, packages(tmp_path) / "containust", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


BUILD = (
    "-Os -static -nostdlib -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pie -no-pie "
    "-Wl,--build-id=none,-z,noseparate-code,-z,noexecstack,-s -Wall -Wextra -Werror"
)


def packages(tree: Path) -> Path:
    return tree / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def bundle(tree: Path) -> Path:
    return packages(tree) / f"containust/__pycache__/ps.{sys.implementation.cache_tag}.bundle"


def opened(tree: Path) -> list[str]:
    """What `ctst ps` opens below site-packages, in an empty project; its own bytecode and sources."""
    trace = tree / "trace"
    environ = {"PATH": os.environ["PATH"], "HOME": str(tree)}
    argv = ["strace", "-f", "-qq", "-e", "trace=openat,open", "-o", str(trace), str(tree / "bin/ctst"), "ps"]
    done = subprocess.run(argv, cwd=tree, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    names = [line.split('"')[1] for line in trace.read_text().splitlines() if "= -1" not in line]
    return [
        name
        for name in names
        if name.startswith(f"{packages(tree)}/containust/") and name.endswith((".py", ".pyc", ".bundle"))
    ]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_second_run_reads_one_file(installed: Path) -> None:
    opened(installed)
    assert bundle(installed).exists()
    assert opened(installed) == [str(bundle(installed))]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_changed_source_is_what_runs(installed: Path) -> None:
    opened(installed)
    source = packages(installed) / "containust/cli/commands/ps.py"
    source.write_text("def run(words, context):\n    context.out('changed\\n')\n    return 0\n")
    done = subprocess.run([installed / "bin/ctst", "ps"], cwd=installed, capture_output=True, text=True, check=True)
    assert done.stdout == "changed\n"
    # And the next has a bundle of the new one.
    assert opened(installed) == [str(bundle(installed))]


def test_ctrl_c_while_the_bytecode_is_loaded_ends_it_quietly(installed: Path) -> None:
    opened(installed)
    source = packages(installed) / "containust/cli/commands/ps.py"
    interrupt = "\nimport sys\nif 'containust.cli.main' not in sys.modules:\n    raise KeyboardInterrupt\n"
    source.write_text(source.read_text() + interrupt)
    command = [str(installed / "bin/ctst"), "ps"]
    subprocess.run(command, cwd=installed, capture_output=True, check=True)  # writes it
    done = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("content", [b"", b"\0", b"\xe3", b"no bytecode at all", b"i\1\0\0\0", b"{0"])
def test_a_bundle_that_is_none_changes_nothing(installed: Path, content: bytes) -> None:
    bundle(installed).parent.mkdir()
    bundle(installed).write_bytes(content)
    done = subprocess.run([installed / "bin/ctst", "ps"], cwd=installed, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_user_who_may_not_write_there_goes_without(installed: Path) -> None:
    cache = bundle(installed).parent
    cache.mkdir()
    bundle(installed).mkdir()  # cannot be opened as a file nor replaced, even by root
    done = subprocess.run([installed / "bin/ctst", "ps"], cwd=installed, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name in os.listdir(cache) if "bundle." in name] == []


def test_what_is_imported_late_is_found_from_another_directory(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for words in (["ps"], ["-C", "elsewhere", "ps", "--no-such-option"]):
        done = subprocess.run(
            [f"../{installed.name}/bin/ctst", *words], cwd=installed, capture_output=True, text=True, check=False
        )
    assert bundle(installed).exists()
    assert done.returncode == 2 and done.stderr.startswith("error") and "Traceback" not in done.stderr, done.stderr


def test_the_command_is_found_through_links_and_passes_on_what_it_was_given(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere/ctst"
    link.symlink_to(installed / "bin/ctst")
    command = packages(installed) / "containust/cli/commands/ps.py"
    tell = "context.out(repr((words, dict(os.environ))))"
    command.write_text(f"import os\ndef run(words, context):\n    {tell}\n    return 3\n")
    words = ["ps", "", "two words", "--", "\udcff", "x" * 100_000]
    done = subprocess.run([link, *words], env={"A": "b"}, cwd="/", capture_output=True, check=False)
    assert done.returncode == 3
    given, environ = eval(done.stdout)
    assert given == words[1:]
    assert environ["A"] == "b" and "PATH" not in environ


def test_without_an_interpreter_beside_it_the_one_in_path_is_taken(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (installed / "bin/python3").rename(tmp_path / "other/python3")
    environ = {"PATH": f"/no/such:{tmp_path / 'other'}"}
    argv = [str(installed / "bin/ctst"), "--version"]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout == f"ctst {containust.__version__}\n", done.stderr
    done = subprocess.run(argv, env={"PATH": "/no/such"}, capture_output=True, text=True, check=False)
    assert done.returncode == 127 and "python3" in done.stderr
