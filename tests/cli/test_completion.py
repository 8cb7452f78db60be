"""Completion: what a shell is told, and that the shells take the scripts."""

from __future__ import annotations

import shlex
import shutil
import subprocess

import pytest

from harness import BOX, COMMAND, Ctst


def answers(ctst: Ctst, *words: str) -> list[str]:
    done = ctst("__complete", *words)
    assert (done.status, done.err) == (0, "")
    return [line.partition("\t")[0] for line in done.out.splitlines()]


@pytest.fixture
def project(ctst: Ctst) -> Ctst:
    ctst.ok("run", "-d", "--name", "one", "--image", BOX, "--", "true")
    ctst.ok("run", "-d", "--name", "other", "--image", BOX, "--", "true")
    return ctst


def test_commands_and_global_options(ctst: Ctst) -> None:
    assert answers(ctst, "st") == ["start", "stop"]
    assert {"run", "ps", "exec", "doctor"} <= set(answers(ctst, ""))
    assert {"--offline", "--state-file", "-C"} <= set(answers(ctst, "-"))
    assert answers(ctst, "--backend", "l") == ["linux"]
    assert answers(ctst, "--offline", "expl") == ["explain"]


def test_options_are_those_of_the_command_s_help(ctst: Ctst) -> None:
    assert answers(ctst, "ps", "--") == ["--all", "--help", "--json", "--watch"]
    assert {"--image", "--detach", "--memory"} <= set(answers(ctst, "run", "--"))
    assert "--check" in answers(ctst, "fmt", "--")


def test_names_of_containers_and_images(project: Ctst) -> None:
    assert answers(project, "stop", "") == ["one", "other"]
    assert answers(project, "stop", "one", "") == ["other"]
    assert answers(project, "exec", "on") == ["one"]
    assert answers(project, "exec", "one", "") == []
    assert answers(project, "run", "--image", "host") == [BOX]
    assert answers(project, "-C", str(project.directory), "logs", "o") == ["one", "other"]


def test_file_names_are_left_to_the_shell(ctst: Ctst) -> None:
    assert answers(ctst, "check", "") == []
    assert answers(ctst, "nonsense", "x", "") == []


def test_nothing_goes_wrong_visibly(ctst: Ctst) -> None:
    state = ctst.directory / "broken.json"
    state.write_text("no JSON")
    assert answers(ctst, "--state-file", str(state), "stop", "") == []
    assert answers(ctst) != []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_of_that_shell(ctst: Ctst, shell: str) -> None:
    script = ctst.ok("completion", shell)
    assert "ctst __complete" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=20)


def test_bash_completes_words_with_colons(project: Ctst) -> None:
    script = project.ok("completion", "bash")
    call = shlex.join(COMMAND)
    program = f"""{script}
ctst() {{ {call} "$@"; }}
complete_line() {{ COMP_LINE="$1"; COMP_POINT=${{#1}}; COMPREPLY=(); _ctst; printf '%s\\n' "${{COMPREPLY[@]}}"; }}
complete_line 'ctst stop '
complete_line 'ctst run --image host:///bin/b'
complete_line 'ctst sto'
"""
    done = subprocess.run(
        ["bash", "-c", program], cwd=project.home, env=project.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["one", "other", "///bin/busybox", "stop"]


def test_an_unknown_shell_is_refused(ctst: Ctst) -> None:
    done = ctst("completion", "tcsh")
    assert done.status == 2
    assert "bash, zsh, fish" in done.err
