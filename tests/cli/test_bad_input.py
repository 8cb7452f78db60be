"""Bad input gets the error of the table, and nothing is started."""

from __future__ import annotations

import os
import subprocess

import pytest

from harness import BOX, COMMAND, SOURCE, Ctst

GOOD = 'COMPONENT a {\n    image = "host:///bin/busybox"\n    command = ["sleep", "1000"]\n}\n'


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (("run",), 4, "S004"),
        (("run", "missing.ctst"), 4, "S004"),
        (("plan",), 4, "S004"),
        (("check",), 4, "S004"),
        (("run", "-d", "a-directory"), 4, "S004"),
        (("-C", "/nowhere", "ps"), 4, "S004"),
        (("run", "--image", "file:///no/such/directory"), 4, "I001"),
        (("run", "--image", "host:///no/such/program"), 4, "I001"),
        (("run", "--image", "tar:///no/such.tar"), 4, "I001"),
        (("run", "--image", "nonsense"), None, None),
        (("run", "--image", "ftp://x/y"), None, None),
        (("inspect", "nobody"), 4, "R005"),
        (("logs", "nobody"), 4, "R005"),
        (("exec", "nobody", "--", "true"), 4, "R005"),
        (("stop", "nobody"), 4, "R005"),
        (("start", "nobody"), 4, "R005"),
        (("restart", "nobody"), 4, "R005"),
        (("rm", "nobody"), 4, "R005"),
        (("frobnicate",), 2, "U001"),
        (("run", "--frobnicate"), 2, "U001"),
        (("--backend", "none", "ps"), 2, "U001"),
        (("ps", "extra"), 2, "U001"),
        (("inspect",), 2, "U001"),
        (("exec", "a"), 2, "U001"),
        (("logs", "--tail", "x", "a"), 2, "U001"),
        (("logs", "--since", "yesterday", "a"), 2, "U001"),
        (("run", "a.ctst", "b.ctst"), 2, "U001"),
        (("run", "--name", "x"), 2, "U001"),
        (("run", "--memory", "1KiB", "--image", BOX), 2, "U001"),
        (("run", "--memory", "lots", "--image", BOX), 2, "U001"),
        (("run", "--cpus", "0", "--image", BOX), 2, "U001"),
        (("run", "--cpus", "nan", "--image", BOX), 2, "U001"),
        (("run", "--pids", "x", "--image", BOX), 2, "U001"),
        (("run", "-v", "nothing", "--image", BOX), 2, "U001"),
        (("run", "-p", "99999:1", "--image", BOX), 2, "U001"),
        (("run", "-e", "=x", "--image", BOX), 2, "U001"),
        (("run", "-t", "--image", BOX), 2, "U001"),
        (("run", "--name", "../x", "-d", "--image", BOX), 2, "U001"),
        (("run", "--name", "", "-d", "--image", BOX), 2, "U001"),
        (("run", "--network", "a/b", "-d", "--image", BOX), 2, "U001"),
        (("stop", "-t", "soon"), 2, "U001"),
        (("stop", "-t", "-1"), 2, "U001"),
        ((), 2, None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_the_table(ctst: Ctst, words: tuple[str, ...], status: int | None, code: str | None) -> None:
    (ctst.directory / "a-directory").mkdir()
    done = ctst(*words)
    assert done.status != 0, done
    if status is not None:
        assert done.status == status, done
    if code is not None:
        assert done.err.startswith(f"error[{code}]: "), done
        assert done.out == "", done
    if status == 4 and "-C" not in words:
        assert "help:" in done.err, done
    ctst.assert_clean()
    assert ctst.rows() == {}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("COMPONENT", "E001"),
        ("CONNECT a -> b", "E002"),
        ("COMPONENT a {\n}", "E005"),
        (GOOD.replace("command", "comand"), "E006"),
        (GOOD + GOOD, "E003"),
        ("\udcff\udcfe", None),
        ("{" * 10000, "E001"),
    ],
)
def test_a_bad_file_starts_nothing(ctst: Ctst, text: str, code: str | None) -> None:
    (ctst.directory / "containust.ctst").write_bytes(text.encode(errors="surrogateescape"))
    for words in (("run",), ("run", "-d"), ("plan",), ("check",)):
        done = ctst(*words)
        assert done.status == 1, done
        assert code is None or f"error[{code}]" in done.err + done.out, done
    assert not (ctst.directory / ".containust" / "state").exists()
    ctst.assert_clean()


def test_an_unreadable_image_in_a_stack_starts_nothing(ctst: Ctst) -> None:
    ctst.write(GOOD + 'COMPONENT b {\n image = "file:///no/such"\n}\nCONNECT b -> a\n')
    for words in (("run",), ("run", "-d")):
        done = ctst(*words)
        assert done.status == 4 and "error[I001]" in done.err and "help:" in done.err, done
        assert ctst.rows() == {}
    ctst.assert_clean()


def test_a_program_that_is_not_in_the_image_starts_nothing(ctst: Ctst) -> None:
    ctst.write(GOOD + 'COMPONENT b {\n image = "host:///bin/busybox"\n command = ["nope"]\n}\nCONNECT b -> a\n')
    for words in (("run",), ("run", "-d")):
        done = ctst(*words)
        assert "error[R004]" in done.err and "nope" in done.err and "help:" in done.err, done
        assert done.status == 127, done
        assert ctst.rows() == {}
        ctst.assert_clean()


@pytest.mark.parametrize("words", [("run",), ("run", "-d"), ("run", "--rm", "--image", BOX, "--", "true")])
def test_an_ordinary_user_is_told_what_to_do(ctst: Ctst, words: tuple[str, ...]) -> None:
    ctst.write(GOOD)
    for path in (ctst.directory, ctst.home):
        os.chown(path, 65534, 65534)
    path = ctst.directory
    while path != path.parent and not path.stat().st_mode & 0o001:
        path.chmod(path.stat().st_mode | 0o011)
        path = path.parent
    command = COMMAND
    if not os.access("/root", os.X_OK) or COMMAND[0].startswith("/"):
        # The interpreter of a virtual environment may lie where nobody else can go.
        code = f"import sys; sys.path.insert(0, {SOURCE!r})\nfrom containust.cli.main import run\nrun()"
        command = ["/usr/bin/python3", "-ISB", "-c", code]
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *command, *words],
        cwd=ctst.directory,
        env=ctst.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=ctst.enter,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 3, done
    assert done.stderr.startswith("error[S003]: ") and "help:" in done.stderr
    ctst.assert_clean()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff\xfe", b"null"])
def test_a_damaged_state_is_told_and_kept(ctst: Ctst, content: bytes) -> None:
    ctst.write(GOOD)
    state = ctst.directory / ".containust" / "state" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_bytes(content)
    for words in (("ps",), ("run", "-d"), ("stop",), ("rm", "--force"), ("inspect", "a"), ("plan",)):
        done = ctst(*words)
        assert done.status == 1 and "error[S001]" in done.err, done
    assert state.read_bytes() == content
    state.unlink()


def test_a_newer_state_is_refused(ctst: Ctst) -> None:
    ctst.write(GOOD)
    state = ctst.directory / ".containust" / "state" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_bytes(b'{"schema_version": 99}')
    done = ctst("run", "-d")
    assert done.status != 0 and "error[S006]" in done.err, done
    state.unlink()


@pytest.mark.parametrize(
    "command", ["run", "ps", "logs", "exec", "plan", "inspect", "events", "stop", "start", "rm", "restart"]
)
def test_help_has_two_examples(ctst: Ctst, command: str) -> None:
    text = ctst.ok(command, "--help")
    assert text.startswith(f"Usage: ctst {command}")
    examples = text[text.index("Examples:") :].splitlines()[1:]
    assert sum(line.strip().startswith(("ctst ", "sudo ctst ")) for line in examples) >= 2


@pytest.mark.parametrize("name", ["CONTAINUST_OFFLINE", "CONTAINUST_BACKEND"])
def test_a_bad_value_of_a_variable_is_an_error(ctst: Ctst, name: str) -> None:
    ctst.environ[name] = "perhaps"
    done = ctst("ps")
    assert done.status == 2 and name in done.err, done
    del ctst.environ[name]


@pytest.mark.parametrize("words", [("plan",), ("plan", "--json"), ("run",), ("run", "-d"), ("build",)])
def test_every_command_that_reads_a_file_shows_all_that_is_wrong_in_it(ctst: Ctst, words: tuple[str, ...]) -> None:
    ctst.write('COMPONENT a {\n    image = "host:///bin/busybox"\n    prot = 1\n}\nCONNECT a -> b\n')
    done = ctst(*words)
    assert (done.status, done.out) == (1, "")
    assert "error[E006]" in done.err and ":3:5\n" in done.err and "did you mean port?" in done.err
    assert "error[E002]" in done.err and ":5:14\n" in done.err and "  |              ^\n" in done.err
