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
    text = text.replace("\r\n", "\n")
    at = 0
    number = 0
    while at < len(text):
        number += 1
        start = at
        at = _line_end(text, start) + 1
        line = text[start : at - 1].strip()
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
            start = text.index(quote, text.index("=", start)) + 1
            end = _closing(text, quote, start)
            if end < 0:
                return [f"{path}, line {number}: the quote is not closed"]
            value = text[start:end]
            at = _line_end(text, end) + 1
            number += value.count("\n")
            if quote == '"':
                value = _unescaped(value)
        else:
            comment = value.find(" #")
            value = value[:comment].rstrip() if comment >= 0 else value
        if "\0" in value:
            return [f"{path}, line {number}: a variable cannot hold a zero byte"]
        variables[key] = value
    return []


def _line_end(text: str, at: int) -> int:
    """Offset of the next line break, or of the end."""
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _closing(text: str, quote: str, start: int) -> int:
    """Offset of the closing quote from ``start`` on, or -1."""
    i = text.find(quote, start)
    while i >= 0 and quote == '"' and _escaped(text, i):
        i = text.find(quote, i + 1)
    return i


def _escaped(text: str, at: int) -> bool:
    backslashes = 0
    while text[at - 1 - backslashes] == "\\":
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
