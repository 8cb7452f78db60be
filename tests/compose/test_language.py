"""The rules of language.md, section by section: a file in, a stack or diagnostics out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from containust.common.errors import ContainustError
from containust.common.types import Expose, Port, Ref, Restart, Stack, Tmpfs, Volume
from containust.compose.diagnostics import CheckFailed, Diagnostic
from containust.compose.graph import levels, order, protocol, stages
from containust.compose.interpolation import render
from containust.compose.load import load_checked, load_stack

IMAGE = 'image = "preset://busybox"\n'


class Files:
    """A directory of sources; ``check`` the entry, ``stack`` it when it must be right."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def check(self, text: str | bytes, **environ: str) -> tuple[Stack | None, list[Diagnostic]]:
        path = self.directory / "main.ctst"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_checked(str(path), environ=environ, offline=True)

    def codes(self, text: str | bytes, **environ: str) -> list[str]:
        return [one.code for one in self.check(text, **environ)[1]]

    def stack(self, text: str, **environ: str) -> Stack:
        stack, found = self.check(text, **environ)
        assert stack is not None, "\n".join(one.render() for one in found)
        return stack

    def other(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def one(properties: str) -> str:
    return f"COMPONENT a {{\n{IMAGE}{properties}\n}}\n"


def two(a: str = "", b: str = "") -> str:
    return f"COMPONENT a {{\n{IMAGE}{a}\n}}\nCOMPONENT b {{\n{IMAGE}{b}\n}}\n"


# 1 Lexical rules


def test_byte_order_mark_and_crlf_are_fine(files: Files) -> None:
    assert files.codes(b"\xef\xbb\xbf" + one("port = 80").replace("\n", "\r\n").encode()) == []


def test_invalid_utf8_is_reported_at_its_place_and_once(files: Files) -> None:
    _, found = files.check(b'// ok\nCOMPONENT a {\n  \xff\xfe image = "preset://x"\n}\n')
    assert [(d.code, d.place.line, d.place.column) for d in found] == [("E001", 3, 3)]


@pytest.mark.parametrize("comment", ["# no", "/* no */"])
def test_other_comments_name_the_right_one(files: Files, comment: str) -> None:
    _, found = files.check(one(f"port = 80 {comment}"))
    assert [d.code for d in found] == ["E001"] and "//" in found[0].help[0]


def test_a_dash_belongs_to_a_name_only_inside(files: Files) -> None:
    stack = files.stack("COMPONENT my-a {\n" + IMAGE + "}\nCOMPONENT b {\n" + IMAGE + "}\nCONNECT my-a->b")
    assert stack.components["my-a"].depends_on == ["b"]


@pytest.mark.parametrize("name", ["FROM", "secret", "env", "NETWORK", "1a", "_a", "true"])
def test_names_that_are_none(files: Files, name: str) -> None:
    assert set(files.codes(f"COMPONENT {name} {{\n{IMAGE}}}\n")) == {"E001"}


def test_keywords_can_be_keys(files: Files) -> None:
    stack = files.stack(one('env = { FROM = "1", CONNECT = "2"\n EXPOSE = "3" }'))
    assert stack.components["a"].env == {"FROM": "1", "CONNECT": "2", "EXPOSE": "3"}


def test_strings(files: Files) -> None:
    text = r'env = { A = "\" \\ \n \t \r \u{E9} \u{1F600} $${x} $x" }'
    assert files.stack(one(text)).components["a"].env["A"] == '" \\ \n \t \r é 😀 ${x} $x'


@pytest.mark.parametrize(
    "value",
    [
        r'"\x"',
        '"open',
        r'"\u{110000}"',
        r'"\u{}"',
        r'"\u{D800}"',
        "-5",
        "1.5",
        "512MiB",
        "9223372036854775808",
        "'x'",
        "[1 2]",
        "yes",
    ],
)
def test_wrong_literals(files: Files, value: str) -> None:
    assert "E001" in files.codes(one(f"x = {value}\nport = 80"))


def test_every_error_of_a_file_in_one_run_sorted(files: Files) -> None:
    _, found = files.check(
        "COMPONENT a {\n x = \n port 80\n memory = [\n}\nCONNECT a > b\nEXPOSE x\nCOMPONENT b {\n foo = 1\n}\n"
    )
    lines = [d.place.line for d in found]
    assert lines == sorted(lines) and {2, 3, 6, 7, 9} <= set(lines) | {3}
    assert len(found) >= 6


MISTAKES = {
    'COMPONENT a {\n HEALTHCHECK { x = 1 }\n restart: "always"\n env { A = 1 }\n x [1]\n}': [2, 3, 4, 5],
    "EXPOSE 80\nconnect a -> b\nEXPOSE 80 => a\nCONNECT a > b\n": [2, 3, 4],
    'COMPONENT a {\n port = 80, x = 1\n y = "a" "b"\n z = [1 2]\n w = yes\n}': [2, 3, 4, 5],
    "component a {\n prot = 1\n}\nCOMPONET b {}\nconnect a -> b\nfoo\nExpose 1 -> a\n": [1, 4, 5, 6, 7],
    "CONNECT a - > b\nCONNECT a ->\nCONNECT\nEXPOSE 80:\nEXPOSE\nIMPORT\nCOMPONENT\nEXPOSE 127.0.0.1:1:1\n": [
        *range(1, 9)
    ],
    "COMPONENT a {\n port =\n env = \n}\nEXPOSE 99999999999999999999:80\nEXPOSE 1 -> a\n": [2, 3, 5],
    'IMPORT x.ctst\nIMPORT "x" as y\nCOMPONENT a from b {}\nCOMPONENT {}\nEXPOSE\n': [1, 2, 3, 4, 6],
}


@pytest.mark.parametrize("text", MISTAKES)
def test_each_mistake_is_told_once_and_the_next_line_too(files: Files, text: str) -> None:
    _, found = files.check(text)
    assert [d.place.line for d in found if d.code == "E001"] == MISTAKES[text]


def test_what_was_meant_is_named(files: Files) -> None:
    def help(text: str) -> str:
        return " ".join(line for one in files.check(text)[1] for line in one.help)

    assert "an arrow is written ->" in help("EXPOSE 80 => a") and "an arrow" in help("CONNECT a > b")
    assert "upper case: CONNECT" in help("EXPOSE 80\nconnect a -> b") and "upper case: FROM" in help(
        "COMPONENT a from b {}"
    )
    assert "upper case: AS" in help('IMPORT "x" as y') and "did you mean COMPONENT" in help("COMPONNT a {}")


@pytest.mark.parametrize("character", "\u202a\u202e\u2066\u2069")
def test_text_that_is_shown_in_another_order_is_refused(files: Files, character: str) -> None:
    """Trojan Source (CVE-2021-42574): in strings and comments, where other invisible characters are harmless."""
    assert files.codes(one(f'hostname = "a" // {character} b')) == ["E001"]
    assert files.codes(one(f'labels = {{ a = "{character}" }}')) == ["E001"]
    assert files.codes(one(f'labels = {{ a = "\\u{{{ord(character):X}}}" }}')) == []


def test_a_letter_that_only_looks_like_one_is_named(files: Files) -> None:
    _, found = files.check(one("").replace("COMPONENT a", "COMPONENT w\u0435b"))
    assert [(one.code, one.place.column) for one in found] == [("E001", 12)] and "U+0435" in found[0].message


def test_at_most_a_hundred(files: Files) -> None:
    assert len(files.codes(one("x = 1\n" * 1000))) == 100


@pytest.mark.parametrize("bracket", "[{(")
def test_nested_brackets_are_one_error(files: Files, bracket: str) -> None:
    assert files.codes("COMPONENT a { x = " + bracket * 100_000).count("E001") == 1


# 3 Properties

GOOD = {
    "port = 80": ("ports", [Port(80)]),
    'ports = [80, "53/udp"]': ("ports", [Port(80), Port(53, "udp")]),
    'memory = "64MB"': ("memory", 64_000_000),
    'memory = "1.5GiB"': ("memory", 3 << 29),
    "cpu = 512": ("cpu_shares", 512),
    'cpu = "0.5"': ("cpu_shares", 512),
    'cpus = "1.5"': ("cpus", 1.5),
    "env = { A = 1, B = true }": ("env", {"A": "1", "B": "true"}),
    'volume = "data:/d"': ("volumes", [Volume("managed", "data", "/d")]),
    'volumes = ["/srv:/d//x/:ro"]': ("volumes", [Volume("bind", "/srv", "/d/x", True)]),
    'tmpfs = ["/t", "/u:size=1MiB"]': ("tmpfs", [Tmpfs("/t"), Tmpfs("/u", 1 << 20)]),
    'restart = "on-failure:5"': ("restart", Restart("on-failure", 5)),
    'capabilities = ["net_admin", "CAP_KILL"]': ("capabilities", ["CAP_NET_ADMIN", "CAP_KILL"]),
    "capabilities = []": ("capabilities", []),
    'network = ["x", "y"]': ("networks", ["x", "y"]),
    'stop_signal = "INT"': ("stop_signal", "SIGINT"),
    'stop_timeout = "1m30s"': ("stop_timeout", 90.0),
    'user = "1000:1000"': ("user", "1000:1000"),
    'labels = { "a.b" = "c" }': ("labels", {"a.b": "c"}),
    'seccomp = "unconfined"': ("seccomp", "unconfined"),
}


@pytest.mark.parametrize("text", GOOD)
def test_properties(files: Files, text: str) -> None:
    field, value = GOOD[text]
    assert getattr(files.stack(one(text)).components["a"], field) == value


def test_paths_are_relative_to_the_file(files: Files) -> None:
    files.other("sub/x.ctst", 'COMPONENT t {\n image = "file://./root"\n volume = "./v:/v"\n}')
    a = files.stack('IMPORT "sub/x.ctst"\nCOMPONENT a FROM t {}').components["a"]
    assert a.image == f"file://{files.directory}/sub/root"
    assert a.volumes[0].source == f"{files.directory}/sub/v"


BAD = [
    "port = 0",
    "port = 65536",
    'port = "80"',
    "port = [80]",
    'ports = ["53/sctp"]',
    "memory = 512",
    'memory = "1KiB"',
    'memory = "512M"',
    'cpu = "fast"',
    "cpus = 2",
    "io_weight = 0",
    'io_max = "1KiB"',
    'io_max = "20"',
    "pids = 0",
    "env = { A = [1] }",
    'env = { "" = "x" }',
    'volume = "x"',
    'volume = "a:b"',
    'volume = "a:/b/../c"',
    'volume = "a:/b:rx"',
    'tmpfs = ["/t:size=big"]',
    'command = "echo hi"',
    "command = [1]",
    'readonly = "true"',
    'workdir = "x"',
    'user = "a b"',
    'hostname = "-x"',
    'capabilities = ["NET_ADMN"]',
    'userns = "none"',
    'seccomp = "uncnfined"',
    'restart = "sometimes"',
    'restart = "always:3"',
    'network = ["host", "x"]',
    "network = []",
    "healthcheck = { comand = [] }",
    'healthcheck = { command = ["x"], interval = "5" }',
    'healthcheck = { command = ["x"], retries = 0 }',
    'stop_signal = "SIGFOO"',
    'stop_timeout = "10"',
    "live = true",
    'include = ["/etc"]',
    "prot = 80",
    'env_file = "missing.env"',
    'workdir = "/${secret.x}"',
    'ports = ["${a.port}/udp"]',
    'network = "${a.host}"',
    'env = { A = "${a.hots}" }',
]


@pytest.mark.parametrize("text", BAD)
def test_wrong_properties_are_one_e006_with_help(files: Files, text: str) -> None:
    _, found = files.check(one(text))
    assert [d.code for d in found if d.code != "E020"] == ["E006"]
    assert found[0].help or text in ("live = true",)


def test_did_you_mean(files: Files) -> None:
    assert "did you mean port?" in files.check(one("prot = 80"))[1][0].help
    assert "did you mean memory?" in files.check(one('mem_limit = "1GiB"'))[1][0].help
    assert "CONNECT a -> other" in files.check(one('depends_on = ["b"]'))[1][0].help[0]


def test_env_file_is_under_env(files: Files) -> None:
    files.other("x.env", "A=1\nexport B='2 3'\n# c\nC=\"4\\n5\" # no\n")
    a = files.stack(one('env_file = "./x.env"\nenv = { A = "own" }')).components["a"]
    assert a.env == {"A": "own", "B": "2 3", "C": "4\n5"}


@pytest.mark.parametrize("content", [b"A\n=1", b"A B=1", b'A="x', b'A="x\n\0"', b"\xff=1", b"=x"])
def test_wrong_env_files_are_e006_with_their_line(files: Files, content: bytes) -> None:
    (files.directory / "x.env").write_bytes(content)
    _, found = files.check(one('env_file = "x.env"'))
    assert [d.code for d in found] == ["E006"] and "x.env" in found[0].message


def test_a_zero_byte_is_a_mistake_in_any_quotes(files: Files) -> None:
    for quote in "\"'":
        assert set(files.codes(one(f"env_file = {quote}a\0b{quote}"))) <= {"E001", "E006"}


def test_an_env_file_that_is_none_is_told(files: Files) -> None:
    os.mkfifo(files.directory / "pipe")
    for name in ("pipe", ".", "/dev/null"):
        assert files.codes(one(f'env_file = "{name}"')) == ["E006"]


def test_healthcheck_forms(files: Files) -> None:
    a = files.stack(one('healthcheck = { command = "test -e /x", interval = "1s" }')).components["a"]
    assert a.healthcheck is not None and a.healthcheck.command == ["/bin/sh", "-c", "test -e /x"]
    assert files.codes(one('healthcheck = { interval = "1s" }')) == ["E005"]


# 4 IMPORT and 5 FROM


def test_imports_look_next_to_the_file_then_next_to_the_entry(files: Files) -> None:
    files.other("sub/a.ctst", 'IMPORT "b.ctst"\nIMPORT "c.ctst"\nCOMPONENT t FROM b {}\nCOMPONENT u FROM c {}')
    files.other("sub/b.ctst", "COMPONENT b {\n" + IMAGE + "}")
    files.other("c.ctst", "COMPONENT c {\n" + IMAGE + "}")
    stack = files.stack('IMPORT "sub/a.ctst" AS l\nCOMPONENT x FROM l.t {}\nCOMPONENT y FROM l.u {}\nCONNECT x -> y')
    assert list(stack.components) == ["x", "y"]


def test_a_component_may_have_the_name_of_its_template(files: Files) -> None:
    files.other("db.ctst", "COMPONENT db {\n" + IMAGE + "}")
    assert list(files.stack('IMPORT "db.ctst"\nCOMPONENT db FROM db {}').components) == ["db"]


def test_circular_imports_print_the_chain(files: Files) -> None:
    files.other("b.ctst", 'IMPORT "main.ctst"')
    _, found = files.check('IMPORT "b.ctst"\n' + one(""))
    assert [d.code for d in found if d.severity == "error"] == ["E008"]
    assert "main.ctst -> b.ctst -> main.ctst" in found[0].message + found[-1].message


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('IMPORT "no.ctst"', "E008"),
        ('IMPORT "http://x/y.ctst"', "E008"),
        ('IMPORT "https://x.invalid/y.ctst"', "E017"),
        ('IMPORT "t.ctst" AS x\nIMPORT "t.ctst" AS x', "E003"),
        ('IMPORT "t.ctst"\nCOMPONENT q FROM t {}', "E018"),
        ('IMPORT "t.ctst"\nCOMPONENT q FROM t.nope {}', "E002"),
        ("COMPONENT q FROM nope.x {}", "E002"),
        ("COMPONENT q FROM q {}", "E004"),
        ("COMPONENT q FROM r {}\nCOMPONENT r FROM q {}", "E004"),
    ],
)
def test_import_and_from_errors(files: Files, text: str, code: str) -> None:
    files.other("t.ctst", "COMPONENT one {\n" + IMAGE + "}\nCOMPONENT two {\n" + IMAGE + "}")
    codes = files.codes(text + "\n" + one(""))
    assert [c for c in codes if c[0] == "E"] == [code]


def test_inheritance(files: Files) -> None:
    text = f"""
COMPONENT base {{
    {IMAGE}
    port = 80
    env = {{ A = "1", B = "1" }}
    healthcheck = {{ command = ["x"], retries = 5 }}
    memory = "64MiB"
}}
COMPONENT a FROM base {{
    ports = [81, 82]
    env = {{ B = "2" }}
    healthcheck = {{ retries = 6 }}
}}
"""
    stack = files.stack(text)
    a = stack.components["a"]
    assert stack.templates == ["base"]
    assert a.ports == [Port(81), Port(82)] and a.env == {"B": "2", "A": "1"} and a.memory == 64 << 20
    assert a.healthcheck is not None and (a.healthcheck.command, a.healthcheck.retries) == (["x"], 6)


def test_required_params_add_up(files: Files) -> None:
    text = 'COMPONENT t {\n required_params = ["image", "KEY"]\n}\n'
    text += 'COMPONENT u FROM t {\n required_params = ["port"]\n}\n'
    assert files.codes(text + "COMPONENT a FROM u {}").count("E005") >= 3
    assert files.codes(text + "COMPONENT a FROM u {\n" + IMAGE + 'port = 80\nenv = { KEY = "1" }\n}') == []


def test_what_is_a_template(files: Files) -> None:
    base = one("") + "COMPONENT b FROM a {}\n"
    assert files.stack(base).templates == ["a"]
    assert files.stack(base + "CONNECT b -> a").templates == []
    assert files.stack(one("template = false") + "COMPONENT b FROM a {}\n").templates == []
    assert files.codes(one("template = true") + "COMPONENT b FROM a {}\nCONNECT b -> a") == ["E002"]


# 6 CONNECT


def test_wiring(files: Files) -> None:
    text = (
        'COMPONENT my-db {\nimage = "oci://docker.io/library/postgres:16"\nport = 5432\n}\n'
        + one('env = { MY_DB_PORT = "own" }')
        + "CONNECT a -> my-db"
    )
    env = files.stack(text).components["a"].env
    host = Ref("component", "my-db", "host")
    assert env == {
        "MY_DB_HOST": (host,),
        "MY_DB_PORT": "own",
        "MY_DB_CONNECTION_STRING": ("postgres://", host, ":5432"),
    }
    assert render(env["MY_DB_CONNECTION_STRING"], lambda ref: "10.0.0.2") == "postgres://10.0.0.2:5432"


@pytest.mark.parametrize(
    ("image", "scheme"),
    [
        ("oci://docker.io/library/postgres:16", "postgres"),
        ("oci://ghcr.io/me/pgvector-postgresql@sha256:" + "0" * 64, "postgres"),
        ("oci://docker.io/library/mariadb", "mysql"),
        ("oci://docker.io/valkey/valkey:8", "redis"),
        ("oci://docker.io/library/mongo:7", "mongodb"),
        ("oci://docker.io/library/rabbitmq:4", "amqp"),
        ("oci://docker.io/library/nats", "nats"),
        ("oci://redis.example/app:postgres", "http"),
        ("host:///usr/bin/redis-server", "redis"),
        ("tar:///images/mysql.tar", "mysql"),
    ],
)
def test_the_scheme_of_a_connection_string(image: str, scheme: str) -> None:
    assert protocol(image) == scheme


def test_cycles_have_their_path_and_are_found_each(files: Files) -> None:
    _, found = files.check(
        two()
        + two().replace("a {", "c {").replace("b {", "d {")
        + "CONNECT a -> b\nCONNECT b -> a\nCONNECT c -> d\nCONNECT d -> c"
    )
    assert [d.code for d in found] == ["E004", "E004"]
    assert "a -> b -> a" in found[0].message and len(found[0].related) == 1


def test_self_connection_is_a_cycle(files: Files) -> None:
    assert files.codes(one("") + "CONNECT a -> a") == ["E004"]


def test_stages_and_order(files: Files) -> None:
    stack = files.stack(
        two() + two().replace("a {", "c {").replace("b {", "d {") + "CONNECT a -> b, c\nCONNECT b -> d\nCONNECT c -> d"
    )
    assert stages(stack) == [["d"], ["b", "c"], ["a"]]
    assert order(stack) == ["d", "b", "c", "a"]


@pytest.mark.parametrize(
    ("a", "b", "wrong"),
    [
        ('network = "x"', 'network = "y"', True),
        ('network = "x"', 'network = ["y", "x"]', False),
        ('network = "host"', 'network = "y"', False),
        ('network = "none"', 'network = "none"', True),
    ],
)
def test_shared_networks(files: Files, a: str, b: str, wrong: bool) -> None:
    assert files.codes(two(a, b) + "CONNECT a -> b") == (["E019"] if wrong else [])


# 7 EXPOSE


def test_expose_forms(files: Files) -> None:
    text = one('ports = [80, 8080, "53/udp"]')
    stack = files.stack(
        text
        + 'EXPOSE 8080\nEXPOSE 81:80\nEXPOSE "127.0.0.2":81:80/tcp -> a\n'
        + 'EXPOSE 53/udp\nEXPOSE "[::1]":90:91 -> a'
    )
    assert stack.exposes == [
        Expose("a", 8080, 8080),
        Expose("a", 81, 80),
        Expose("a", 81, 80, "tcp", "127.0.0.2"),
        Expose("a", 53, 53, "udp"),
        Expose("a", 90, 91, "tcp", "::1"),
    ]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("EXPOSE 81", ["E011"]),
        ("EXPOSE 80", ["E011"]),
        ("EXPOSE 80 -> nope", ["E002"]),
        ("EXPOSE 1:80 -> a\nEXPOSE 1:80 -> b", ["E012"]),
        ('EXPOSE 1:80 -> a\nEXPOSE "0.0.0.0":1:80 -> b', ["W015", "E012"]),
        ("EXPOSE 1:53/udp -> a\nEXPOSE 1:53 -> b", []),
        ("EXPOSE 70000:80 -> a", ["E006"]),
        ('EXPOSE "localhost":80:80 -> a', ["E006"]),
        ('EXPOSE "8080:80"', ["E001"]),
    ],
)
def test_expose_errors(files: Files, text: str, codes: list[str]) -> None:
    found = files.codes(two("port = 80", "port = 80") + "CONNECT a -> b\n" + text)
    assert sorted(found) == sorted(codes)


# 8 Interpolation


def test_interpolation(files: Files) -> None:
    text = two('env = { U = "x${b.host}:${b.port}/${env.N:-d}/${env.M}" }', "port = 90") + "CONNECT a -> b"
    value = files.stack(text, M="m").components["a"].env["U"]
    assert render(value, lambda ref: {"host": "h", "port": "90"}[ref.attribute]) == "xh:90/d/m"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("${nope.host}", "E002"),
        ("${b.port}", "E005"),
        ("${env.NOPE}", "E014"),
        ("${env.A:-${env.B}}", "E001"),
        ("${A}", "E001"),
        ("${env.A", "E001"),
        ("${b.host}", "W014"),
        ("${secret.nope}", "E020"),
    ],
)
def test_interpolation_errors(files: Files, value: str, code: str) -> None:
    codes = files.codes(two(f'env = {{ U = "{value}" }}') + "EXPOSE 1:1 -> a\nEXPOSE 2:2 -> b")
    assert code in codes and set(codes) <= {code, "W014"}


EVERYWHERE = {
    'labels = { at = "${b.host}", s = "${secret.s}" }': (
        "labels",
        {"at": (Ref("component", "b", "host"),), "s": (Ref("secret", "s"),)},
    ),
    'hostname = "to-${b.port}"': ("hostname", "to-90"),
    'workdir = "/srv/${b.host}/${env.M}"': ("workdir", "/srv/b/m"),
    'volumes = ["${b.host}-data:/d"]': ("volumes", [Volume("managed", "b-data", "/d")]),
    'tmpfs = ["/t/${b.host}"]': ("tmpfs", [Tmpfs("/t/b")]),
    'workdir = "/x/${b.connection_string}"': ("workdir", "/x/http://b:90"),
    'memory = "${b.port}MiB"': ("memory", 90 << 20),
    'stop_timeout = "${b.port}s"': ("stop_timeout", 90.0),
    'user = "${b.port}"': ("user", "90"),
    'restart = "on-failure:${b.port}"': ("restart", Restart("on-failure", 90)),
}


@pytest.mark.parametrize("text", EVERYWHERE)
def test_references_in_every_kind_of_string(files: Files, text: str) -> None:
    field, value = EVERYWHERE[text]
    a = files.stack(two(text, "port = 90") + "CONNECT a -> b", M="m", CONTAINUST_SECRET_S="x").components["a"]
    assert getattr(a, field) == value


def test_a_healthcheck_s_times_can_refer_too(files: Files) -> None:
    text = two('healthcheck = { command = "x", interval = "${b.port}s" }', "port = 90") + "CONNECT a -> b"
    check = files.stack(text).components["a"].healthcheck
    assert check is not None and check.interval == 90


@pytest.mark.parametrize(
    ("a", "b", "codes"),
    [
        ('hostname = "${c.host}"', "port = 90", ["E002"]),
        ('hostname = "${b.port}"', "", ["E005"]),
        ('memory = "${b.port}"', "port = 90", ["E006"]),
        ('hostname = "${b.host}"', 'network = "host"', ["E006"]),
        ('volumes = ["x:/${b.port}", "y:/90"]', "port = 90", ["E012"]),
    ],
)
def test_references_are_checked_in_every_kind_of_string(files: Files, a: str, b: str, codes: list[str]) -> None:
    assert files.codes(two(a, b) + "CONNECT a -> b") == codes


def test_what_waits_is_inherited(files: Files) -> None:
    text = two('hostname = "x-${b.port}"', "port = 90") + "COMPONENT c FROM a {}\nCONNECT c -> b"
    stack = files.stack(text)
    assert stack.templates == ["a"] and stack.components["c"].hostname == "x-90"


@pytest.mark.parametrize("text", ['EXPOSE "${b.host}":90 -> b', 'IMPORT "${b.host}.ctst"'])
def test_statements_refer_to_the_host_s_environment_only(files: Files, text: str) -> None:
    assert files.codes(text + "\n" + two("", "port = 90") + "CONNECT a -> b") == ["E006"]


# 10 Checks


def test_missing_file_is_s004(tmp_path: Path) -> None:
    with pytest.raises(ContainustError) as caught:
        load_stack(str(tmp_path / "no.ctst"))
    assert (caught.value.code, caught.value.status) == ("S004", 4)


def test_load_stack_raises_with_everything(files: Files) -> None:
    files.check(one("prot = 80\nmemory = 1"))
    with pytest.raises(CheckFailed) as caught:
        load_stack(str(files.directory / "main.ctst"))
    assert [d.code for d in caught.value.diagnostics] == ["E006", "E006"]


def test_columns_count_characters(files: Files) -> None:
    _, found = files.check(
        'COMPONENT a {\n\timage = "preset://x"\n\tenv = { É = "é" }\n\tlabels = { x = "éé", y = "\\q" }\n}'
    )
    assert [(d.place.line, d.place.column) for d in found] == [(3, 10), (4, 28)]


def test_json_form_is_stable(files: Files) -> None:
    _, found = files.check(two() + "CONNECT a -> c, b")
    assert found[0].as_dict() == {
        "code": "E002",
        "severity": "error",
        "message": "no component is called 'c'",
        "file": str(files.directory / "main.ctst"),
        "line": 9,
        "column": 14,
        "end_line": 9,
        "end_column": 15,
        "help": ["components here: a, b"],
        "related": [],
    }


# What site would have imported in any ordinary start.
STARTED = {
    "__future__",
    "_socket",
    "_collections_abc",
    "_stat",
    "abc",
    "_abc",
    "errno",
    "gc",
    "genericpath",
    "os",
}
STARTED |= {"os.path", "posixpath", "stat"}


def test_loading_imports_little(files: Files) -> None:
    files.check(two() + "CONNECT a -> b\nEXPOSE 1:1 -> a")
    program = (
        "import sys; before = set(sys.modules); from containust.compose.load import load_stack\n"
        f"load_stack({str(files.directory / 'main.ctst')!r}); print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n" + program],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(output.stdout.split())
    compose = {name for name in loaded if name.startswith("containust.compose.")}
    assert len(compose) <= 10
    assert not {name for name in loaded if not name.startswith("containust")} - STARTED


def graph(n: int) -> str:
    text = "".join(f"COMPONENT c{i} {{\n{IMAGE}port = 80\n}}\n" for i in range(n))
    return text + "".join(f"CONNECT c{i} -> c{i + 1}\n" for i in range(n - 1))


def chain(properties: str) -> Callable[[int], str]:
    def make(n: int) -> str:
        own = "".join(f"COMPONENT c{i} FROM c{i + 1} {{ {properties.replace('#', str(i))} }}\n" for i in range(n))
        return own + f"COMPONENT c{n} {{\n{IMAGE}}}\n"

    return make


def heirs(name: str, entry: str) -> Callable[[int], str]:
    """As many components as their template has entries."""

    def make(n: int) -> str:
        entries = ", ".join(entry.replace("#", str(i)) for i in range(n))
        template = f"COMPONENT t {{\n{IMAGE}template = true\n{name} = [{entries}]\n}}\n"
        return template + "".join(f"COMPONENT c{i} FROM t {{}}\n" for i in range(n))

    return make


LINEAR: dict[str, Callable[[int], str]] = {
    "graph": graph,
    "chain": chain(""),
    "chain with env": chain("env = { K# = 1 }"),
    "chain with parameters": chain('required_params = ["P#"] port = 1'),
    "errors": lambda n: "".join(f"CONNECT a{i} -> b{i}\n" for i in range(n)),
    "one port": lambda n: "".join(f"COMPONENT c{i} {{ port = 80 }}\nEXPOSE {i}:80\n" for i in range(n)),
    "ports": lambda n: one(f"ports = [{', '.join(map(str, range(1, n)))}]"),
    "unreadable": lambda n: "'a @ => -1 /**/ " * n,
    "templates that are not there": lambda n: "".join(f"COMPONENT c{i} FROM x{i} {{}}\n" for i in range(n)),
    "inherited references": heirs("command", '"${c#.host}"'),
    "inherited references to nothing": heirs("command", '"${x#.host}"'),
    "inherited secrets": heirs("command", '"${secret.x#}"'),
    "inherited mounts": heirs("volumes", '"v#:/v#"'),
    "inherited variables": lambda n: (
        heirs("env", 'K# = "${c#.host}"')(n).replace("env = [", "env = {").replace("]", "}")
    ),
    "references": lambda n: two('hostname = "a${b.port}"', "port = 9") + "COMPONENT c FROM a {}\nCONNECT c -> b\n" * n,
}


@pytest.mark.parametrize("case", LINEAR)
def test_work_is_linear(files: Files, case: str) -> None:
    """Counted in executed lines, which no other load on the machine changes."""

    def lines(n: int) -> int:
        (files.directory / "main.ctst").write_text(LINEAR[case](n))
        count = 0

        def trace(frame: object, event: str, argument: object) -> object:
            nonlocal count
            count += 1
            return trace

        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            load_checked(str(files.directory / "main.ctst"), environ={})
        finally:
            sys.settrace(None)
        return count

    assert lines(400) <= 9 * lines(50)


@pytest.mark.parametrize("lines", [1, 1000])
def test_a_problem_keeps_and_shows_little_of_a_long_line(files: Files, lines: int) -> None:
    _, found = files.check(("CONNECT a -> b " * (100_000 // lines) + "\n") * lines)
    assert len(found) == 100 and sum(len(one.place.text) for one in found) < 100 * 200
    assert all("^" in one.render() and len(one.render()) < 600 for one in found)


def test_of_very_many_problems_the_first_are_shown_errors_before_warnings(files: Files) -> None:
    text = "".join(f"COMPONENT c{i} {{\n{IMAGE}}}\n" for i in range(3000)) + "CONNECT a -> b\n" * 3000
    _, found = files.check(text)
    assert [one.place.line for one in found] == [9001 + i // 2 for i in range(100)]
    _, found = files.check("CONNECT a -> b\n" * 3000 + "CONNECT ;\n")
    assert [one.place.line for one in found] == [1 + i // 2 for i in range(100)]


def test_marks_stand_below_wide_characters(files: Files) -> None:
    _, found = files.check(one('labels = { a = "日本 é", b = 1, b = 2 }'))
    shown = found[0].render().splitlines()
    assert shown[3].startswith("3 | ") and shown[4].index("^") == shown[3].index("b = 2") + 2


def test_a_long_chain_of_everything_needs_no_recursion(files: Files) -> None:
    n = 5000
    text = one("") + "".join(f"COMPONENT c{i} FROM {f'c{i - 1}' if i else 'a'} {{}}\n" for i in range(n))
    assert len(files.stack(text).templates) == n
    assert len(levels({str(i): [str(i + 1)] for i in range(n)} | {str(n): []})) == n + 1
