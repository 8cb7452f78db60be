"""Files of environment variables, as dotenv and Compose write them."""

from __future__ import annotations

import os
import stat

LARGEST = 4 * 2**20


def read_dotenv(path: str, variables: dict[str, str]) -> list[str]:
    """Add the ``KEY=value`` lines of the file at ``path`` to ``variables``.

    Empty lines and ``#`` comments are skipped, ``export`` before a key is allowed. Double quotes know the
    escapes of n, t, r, the quote, the backslash and the dollar sign, single quotes know none; both may span
    lines. Without quotes the value ends before `` #``. Nothing is interpolated. Returns a message and help
    lines when the file cannot be used, else an empty list.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait for a writer
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return [f"{path} is no regular file", "a file of KEY=value lines"]
            data = file.read(LARGEST + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        return [f"cannot read {path}: {error.strerror}", "write its path relative to this file"]
    except UnicodeDecodeError:
        return [f"{path} is not UTF-8"]
    if len(data) > LARGEST:
        return [f"{path} is larger than {LARGEST >> 20} MiB"]
    lines = text.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        number = at + 1
        at += 1
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.removeprefix("export ").partition("=")
        key = key.rstrip()
        if not key or any(c.isspace() for c in key) or "\0" in line or (not equals and "=" in key):
            return [f"{path}, line {number}: not KEY=value", "one variable a line"]
        if not equals:
            continue  # a bare KEY takes the host's value in Compose; nothing passes unasked here
        value = value.strip()
        if value[:1] in ("'", '"'):
            quote = value[0]
            body = value[1:]
            end = _closing(body, quote)
            while end < 0 and at < len(lines):
                body += "\n" + lines[at]
                at += 1
                end = _closing(body, quote, len(body) - len(lines[at - 1]) - 1)
            if end < 0:
                return [f"{path}, line {number}: the quote is not closed"]
            value = _unescaped(body[:end]) if quote == '"' else body[:end]
        else:
            comment = value.find(" #")
            value = value[:comment].rstrip() if comment >= 0 else value
        if "\0" in value:
            return [f"{path}, line {number}: a variable cannot hold a zero byte"]
        variables[key] = value
    return []


def _closing(body: str, quote: str, start: int = 0) -> int:
    """Index of the closing quote in ``body``, from ``start`` on, or -1."""
    i = body.find(quote, start)
    while i >= 0 and quote == '"' and _escaped(body, i):
        i = body.find(quote, i + 1)
    return i


def _escaped(body: str, at: int) -> bool:
    backslashes = 0
    while at > backslashes and body[at - 1 - backslashes] == "\\":
        backslashes += 1
    return backslashes % 2 == 1


def _unescaped(body: str) -> str:
    if "\\" not in body:
        return body
    result = []
    i = 0
    while i < len(body):
        c = body[i]
        if c == "\\" and i + 1 < len(body):
            i += 1
            c = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}.get(body[i], "\\" + body[i])
        result.append(c)
        i += 1
    return "".join(result)
