"""Logs: what a container writes is what `ctst logs` gives, whatever it is, however fast, whoever dies meanwhile."""

from __future__ import annotations

import os
import pty
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from containust.runtime import logs, takeover, transcript
from containust.runtime.logs import Capture, Writer
from harness import BOX, FULL, PYTHON, Ctst, eventually, marked, read

MEGABYTE = 1 << 20


class Stopped(Exception):
    """Where a test lets a supervisor die."""


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A FIFO's reading and writing side, as a container's output has them."""
    path = tmp_path / "stdout"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_RDWR)
    yield reader, writer
    os.close(writer)
    os.close(reader)


def capture(tmp_path: Path, reader: int, *secrets: bytes) -> Capture:
    return Capture(Writer(str(tmp_path / "log")), {reader: b"stdout"}, list(secrets), str(tmp_path / "journal"))


def content(path: Path) -> bytes:
    """The program's bytes out of a log."""
    reader = transcript.Reader(str(path))
    data = b"".join(line.data + b"\n" * line.full for _, line in transcript.merged({"": reader}))
    reader.close()
    return data


def test_any_bytes_come_back_as_they_were_written(tmp_path: Path) -> None:
    random.seed(7)
    writer = Capture(Writer(str(tmp_path / "log")), {}, [])
    written = b""
    for _ in range(200):
        kind = random.randrange(4)
        size = random.choice((0, 1, 5, 300, logs.PIECE - 1, logs.PIECE, logs.PIECE + 1, 50_000))
        data = random.randbytes(size) if kind else b"\n" * min(size, 300)
        data += b"\n" * random.randrange(2)
        writer.write(b"stdout", data)
        written += data
    writer.close()
    assert content(tmp_path / "log") == written
    records = (tmp_path / "log").read_bytes().split(b"\n")
    assert max(map(len, records)) < logs.PIECE + 64
    assert all(transcript.parse(record) for record in records[:-1])


@pytest.mark.parametrize("seed", range(20 if FULL else 4))
def test_records_that_are_read_together_are_the_same_records(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "log"
    writer = Capture(Writer(str(path)), {}, [])
    for _ in range(60):
        stream = chance.choice(logs.STREAMS)
        lines = [
            chance.randbytes(chance.choice((0, 1, 90, 90, 90, 3000))) for _ in range(chance.choice((1, 2, 3, 900)))
        ]
        if not chance.randrange(8):
            lines.append(bytes(logs.PIECE * 2 + 5))
        if lines[0] and not chance.randrange(4):  # a program that writes what looks like the head of a record
            lines[0] = writer.writer.prefix(stream) + b"F " + lines[0]
        writer.write(stream, b"\n".join(lines) + b"\n" * chance.randrange(2))
    writer.close()
    written = path.read_bytes()
    torn = chance.randrange(len(written))  # and a disk that was full
    path.write_bytes(written[:torn] + written[torn + 700 :])
    for since, until in (
        (b"", b""),
        (path.read_bytes()[:26], b""),
        (b"", path.read_bytes()[-2000:].split(b"\n")[1][:29]),
    ):
        single, fast = (
            transcript.Reader(str(path), None, since, until),
            transcript.Reader(str(path), None, since, until, True),
        )
        one = [line for _, line in transcript.merged({"": single})]
        several = [line for _, line in transcript.merged({"": fast})]
        assert [(line.stamp, line.stream, line.full, line.data) for line in one] == [
            (line.stamp, line.stream, line.full, data) for line in several for data in line.data.split(b"\n")
        ]
        assert len(several) < len(one) / 3, "next to nothing was read together"
        single.close()
        fast.close()


def test_a_secret_is_masked_wherever_a_read_cuts_it(tmp_path: Path) -> None:
    secret, other = b"tiger-tiger\nburning", b"tiger"
    text = b"a tiger-tiger\nburning b tige c tiger-tiger\nburnin d tiger\n"
    expected = text.replace(secret, b"***").replace(other, b"***")
    for cut in range(len(text)):
        path = tmp_path / f"log{cut}"
        one = Capture(Writer(str(path)), {}, [other, secret])
        one.write(b"stdout", text[:cut])
        one.write(b"stderr", b"-")
        one.write(b"stdout", text[cut:])
        one.close()
        assert content(path).replace(b"-", b"") == expected.replace(b"-", b""), cut


@pytest.mark.parametrize(("again", "pauses"), [(0.0, 0), (1e9, 13)])
def test_a_pause_follows_output_that_comes_often_and_not_output_that_comes_now_and_then(
    tmp_path: Path, fifo: tuple[int, int], monkeypatch: pytest.MonkeyPatch, again: float, pauses: int
) -> None:
    monkeypatch.setattr(logs, "AGAIN", again)
    reader, program = fifo
    one = capture(tmp_path, reader)
    busy = []
    for _ in range(12 + logs.OFTEN):
        os.write(program, b"line\n")
        one.pump(reader)
        busy.append(one.busy)
    assert busy == [False] * (len(busy) - pauses) + [True] * pauses
    one.pump(reader)  # nothing there
    assert not one.busy


@pytest.mark.parametrize("where", ["before", "torn", "written", "taken"])
def test_a_killed_supervisor_s_batch_is_in_the_log_once(
    tmp_path: Path, fifo: tuple[int, int], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    reader, program = fifo
    first = capture(tmp_path, reader)
    os.write(program, b"one\n")
    first.pump(reader)
    os.write(program, b"two\nthree\n")
    append, take = Writer.append, logs.take

    def dying_append(self: Writer, views: list[bytes | memoryview], length: int) -> None:
        if where == "torn":
            append(self, [b"".join(views)[: length // 2]], length // 2)
        raise Stopped

    def dying_take(fd: int, count: int) -> None:
        if where == "taken":
            take(fd, count)
        raise Stopped

    with monkeypatch.context() as patch:
        if where in ("before", "torn"):
            patch.setattr(Writer, "append", dying_append)
        else:
            patch.setattr(logs, "take", dying_take)
        with pytest.raises(Stopped):
            first.pump(reader)
    second = capture(tmp_path, reader)
    takeover.settle(second)
    os.write(program, b"four\n")
    while second.pump(reader) and content(tmp_path / "log").count(b"four") < 1:
        pass
    assert content(tmp_path / "log") == b"one\ntwo\nthree\nfour\n"


def test_output_is_lost_but_never_torn_on_a_full_disk(ctst: Ctst, tmp_path: Path, fifo: tuple[int, int]) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], check=True)
    try:
        one = Capture(Writer(str(small / "log")), {}, [])
        for _ in range(100):
            one.write(b"stdout", b"x" * 999 + b"\n")
        one.close()
        records = (small / "log").read_bytes().split(b"\n")
        assert records[-1] == b""
        assert len(records) > 40
        assert {len(record) for record in records[:-1]} == {len(records[0])}
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_tail_is_found_from_the_end_and_through_rotated_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_SIZE", 2500)
    one = Capture(Writer(str(tmp_path / "log")), {}, [])
    for number in range(150):
        one.write(b"stdout", b"line %d\n" % number)
    one.write(b"stdout", b"begun ")
    one.write(b"stdout", b"and not ended")
    one.close()
    assert (tmp_path / "log.2").exists()
    for wanted in (0, 1, 2, 60, 100, 140):
        reader = transcript.Reader(str(tmp_path / "log"), tail=wanted)
        lines = reader.poll()
        while more := reader.poll():
            lines += more
        text = b"".join(line.data + b"\n" * line.full for line in lines)
        expected = [b"line %d\n" % number for number in range(151 - wanted, 150)] if wanted else []
        assert text == (b"".join(expected) + b"begun and not ended" if wanted else b""), wanted
        reader.close()


COUNTER = """
import sys, zlib
for number in range({count}):
    body = b"%d %s" % (number, b"x" * (number % 150))
    sys.stdout.buffer.write(b"%s %d\\n" % (body, zlib.crc32(body)))
"""


def test_a_follower_sees_each_line_once_through_rotation_under_load(ctst: Ctst, tmp_path: Path) -> None:
    import zlib

    count = 3_000_000 if FULL else 220_000
    ctst.ok("run", "--rm", "--image", PYTHON, "--", "/usr/bin/python3", "-c", "pass")
    out = (tmp_path / "seen").open("wb")
    script = "import time; time.sleep(0.5)" + COUNTER.format(count=count)
    ctst.ok("run", "-d", "--name", "w", "--image", PYTHON, "--", "/usr/bin/python3", "-c", script)
    follower = ctst.popen("logs", "-f", "w", stdout=out)
    assert follower.wait(100) == 0, follower.communicate()
    out.close()
    log = next(Path(ctst.home, ".containust/logs").glob("*.log"))
    assert Path(f"{log}.2").exists(), "it was to be rotated"
    with (tmp_path / "seen").open("rb") as lines:
        for number, line in enumerate(lines):
            body, _, crc = line.rstrip(b"\n").rpartition(b" ")
            assert int(body.split()[0]) == number
            assert int(crc) == zlib.crc32(body)
    assert number == count - 1


def test_an_endless_line_is_kept_in_pieces(ctst: Ctst) -> None:
    size = (1 << 30) if FULL else 48 * MEGABYTE
    ctst.ok("run", "-d", "--name", "w", "--image", BOX, "--", "sh", "-c", f"head -c {size} /dev/zero; echo end")
    eventually(lambda: ctst.rows()["w"]["state"] == "stopped", 120)
    data = ctst("logs", "w").out
    assert data.endswith("\0end\n")
    assert set(data[:-4]) == {"\0"}
    assert 15 * MEGABYTE < len(data) <= 31 * MEGABYTE
    for path in Path(ctst.home, ".containust/logs").glob("*.log*"):
        assert path.stat().st_size <= logs.MAX_SIZE


def test_logs_of_several_containers_are_interleaved_and_bounded_in_time(ctst: Ctst) -> None:
    script = "for i in 1 2 3; do echo $0$i; sleep 0.1; done"
    for name in "ab":
        ctst.ok("run", "-d", "--name", name, "--image", BOX, "--", "sh", "-c", script, name)
    followed = ctst.ok("logs", "-f")
    stamped = [line.split(" | ")[1].split() for line in ctst.ok("logs", "-t", "a", "b").splitlines()]
    stamps = [stamp for stamp, _ in stamped]
    assert stamps == sorted(stamps)
    assert sorted(word for _, word in stamped) == ["a1", "a2", "a3", "b1", "b2", "b3"]
    assert sorted(followed.split()) == sorted(ctst.ok("logs").split())

    def texts(*options: str) -> list[str]:
        return [line.split(" | ")[1] for line in ctst.ok("logs", *options, "a", "b").splitlines()]

    middle = stamps[3]
    assert texts("--since", middle) == [word for _, word in stamped[3:]]
    assert texts("--until", middle) == [word for _, word in stamped[:4]]
    assert texts("--since", stamps[1], "--until", middle) == [word for _, word in stamped[1:4]]
    assert texts("--tail", "1") == ["a3", "b3"] or texts("--tail", "1") == ["b3", "a3"]
    before = [word for _, word in stamped[:4]]
    assert sorted(texts("--tail", "1", "--until", middle)) == [
        max(word for word in before if word[0] == name) for name in "ab"
    ]
    assert texts("--since", "1h30m") == [word for _, word in stamped]
    assert texts("--until", "2020-01-01T00:00:00+02:00") == []
    assert ctst("logs", "--since", "yesterday").status == 2
    assert ctst("logs", "--tail", "-1").status == 2


def test_following_goes_on_through_a_restart(ctst: Ctst) -> None:
    ctst.write(f"""
        COMPONENT again {{
            image = "{BOX}"
            command = ["sh", "-c", "echo here; sleep 0.1; exit 3"]
            restart = "on-failure:2"
        }}
    """)
    ctst.ok("run", "-d")
    assert ctst.ok("logs", "-f", "again") == "here\n" * 3


def on_terminal(ctst: Ctst, *words: str, **environ: str) -> bytes:
    """Output of a command whose streams are a terminal."""
    master, slave = pty.openpty()
    process = ctst.popen(*words, stdout=slave, stderr=slave, env={**ctst.environ, **environ})
    os.close(slave)
    data = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        data += piece
    process.wait(20)
    os.close(master)
    return data


ESCAPES = r"\033]52;c;ZXZpbA==\007 \033[2J \302\2332J \2332J \r \010 umlaut \303\274 tab\tend"


@pytest.mark.parametrize("environ", [{}, {"NO_COLOR": "1"}])
def test_escapes_of_a_container_do_not_reach_the_terminal(ctst: Ctst, environ: dict[str, str]) -> None:
    ctst.write(f"""
        COMPONENT evil {{
            image = "{BOX}"
            command = ["sh", "-c", "printf '{ESCAPES.replace(chr(92), chr(92) * 2)}\\\\n'"]
        }}
    """)
    for shown in (on_terminal(ctst, "run", **environ), on_terminal(ctst, "logs", "evil", **environ)):
        line = shown.rstrip(b"\r\n").rpartition(b"| ")[2].removeprefix(b"\x1b[0m")
        assert "umlaut ü tab".encode() in line
        assert b"\\x1b]52;c;ZXZpbA==\\x07" in line
        assert not {byte for byte in line if byte < 32 or byte == 127} - {9}
        assert b"\xc2\x9b" not in line and b"\x9b" not in line.replace("ü".encode(), b"")
    raw = ctst.popen("logs", "evil").communicate()[0]
    assert raw == b"\x1b]52;c;ZXZpbA==\x07 \x1b[2J \xc2\x9b2J \x9b2J \r \x08 umlaut \xc3\xbc tab\tend\n"


def test_a_secret_stays_masked_when_another_process_takes_the_logs_over(ctst: Ctst) -> None:
    value = "s3cr3t-of-the-first"
    ctst.write(f"""
        COMPONENT app {{
            image = "{BOX}"
            command = ["sh", "-c", "trap 'echo bye $URL; exit 0' TERM; while :; do echo url $URL; sleep 0.05; done"]
            env = {{ URL = "db://me:${{secret.pw}}@host" }}
        }}
    """)
    ctst.ok("run", "-d", env={**ctst.environ, "CONTAINUST_SECRET_PW": value})
    eventually(lambda: "***" in ctst.ok("logs"))
    (holder,) = marked(ctst.token)
    os.kill(holder, signal.SIGKILL)
    before = len(ctst.ok("logs").splitlines())
    time.sleep(0.3)  # what it writes now waits in its FIFO
    ctst.ok("stop")
    lines = ctst.ok("logs").splitlines()
    assert len(lines) > before + 2
    assert lines[-1] == "bye db://me:***@host"
    assert set(lines[:-1]) == {"url db://me:***@host"}
    assert not [p for p in Path(ctst.directory, ".containust").rglob("*") if p.is_file() and value in read(str(p))]


def test_killed_supervisors_lose_and_double_no_line(ctst: Ctst) -> None:
    rounds = 60 if FULL else 6
    script = "import time\\nfor i in range(10**9):\\n  print(i, flush=True)\\n  if not i % 20: time.sleep(0.002)"
    ctst.write(f"""
        COMPONENT w {{
            image = "{PYTHON}"
            command = ["/usr/bin/python3", "-c", "{script}"]
        }}
    """)
    ctst.ok("run", "-d")
    pid = ctst.rows()["w"]["pid"]
    random.seed(3)
    for _ in range(rounds):
        time.sleep(random.random() / 10)
        for holder in marked(ctst.token):
            os.kill(holder, signal.SIGKILL)
        ctst.ok("run", "-d")
        assert ctst.rows()["w"]["pid"] == pid
    ctst.ok("stop", "--force", "w")
    numbers = ctst.ok("logs", "w").split()
    first = int(numbers[0])
    assert len(numbers) > 1000
    assert [int(number) for number in numbers[:-1]] == list(range(first, first + len(numbers) - 1))
    assert first == 0 or os.path.exists(next(Path(ctst.home, ".containust/logs").glob("*.log.2")))
