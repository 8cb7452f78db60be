"""What a user is told when a stack does not come up, and what stays."""

from __future__ import annotations

from pathlib import Path

from harness import Ctst

STACK = """
    COMPONENT db {{
        image = "host:///bin/busybox"
        command = ["sh", "-c", "{script}"]
        healthcheck = {{ command = ["false"] interval = "1s" }}
        restart = "{restart}"
    }}
    COMPONENT web {{
        image = "host:///bin/busybox"
        command = ["sleep", "1000"]
    }}
    CONNECT web -> db
"""


def test_the_reason_is_in_the_error_since_the_log_goes(ctst: Ctst) -> None:
    ctst.write(
        STACK.format(script="seq 100; printf 'no \\\\033[31mdata\\\\n'; printf unfinished; exit 3", restart="never")
    )
    done = ctst("run", "-d")
    assert done.status == 1
    assert "error[R015]: web was not started: its dependency db ended with exit status 3\n" in done.err
    shown = [line.split("db | ", 1)[1] for line in done.err.splitlines() if "db | " in line]
    assert shown == [*map(str, range(93, 101)), "no \\x1b[31mdata", "unfinished"]
    assert ctst.rows() == {}
    ctst.assert_clean()


def test_silence_is_said_too(ctst: Ctst) -> None:
    ctst.write(STACK.format(script="exit 3", restart="never"))
    done = ctst("run", "-d")
    assert "  help: db wrote nothing\n" in done.err


def test_in_the_foreground_nothing_is_shown_twice(ctst: Ctst) -> None:
    ctst.write(STACK.format(script="echo so; exit 3", restart="never"))
    done = ctst("run")
    assert done.out.count("so") + done.err.count("so\n") == 1


def test_a_project_directory_is_private_whatever_makes_it(ctst: Ctst) -> None:
    def modes() -> dict[str, str]:
        found = [ctst.directory / ".containust", *(ctst.directory / ".containust").glob("*/")]
        return {path.name: oct(path.stat().st_mode & 0o777) for path in found if path.is_dir()}

    ctst.write(STACK.format(script="exit 3", restart="never"))
    ctst.ok("build")  # makes the image store first
    assert set(modes().values()) == {"0o700"}
    ctst("run", "-d")
    assert set(modes().values()) == {"0o700"}
    Path(ctst.directory / ".containust").chmod(0o755)
    ctst("run", "-d")
    assert modes()[".containust"] == "0o755", "what somebody has opened on purpose stays open"
