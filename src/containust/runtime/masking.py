"""Secrets in output: what is shown of them, also where they come in pieces."""

from __future__ import annotations


def masked(text: bytes, secrets: list[bytes]) -> tuple[bytes, bytes]:
    """``text`` without its secrets (longest first), and the end of it that may be the beginning of one."""
    done = b""
    while True:
        held = min((_beginning(text, secret) for secret in secrets), default=len(text))
        if held == len(text):
            for secret in secrets:
                text = text.replace(secret, b"***")
            return done + text, b""
        # A match before it is masked first: what may begin a secret may as well be the end of one.
        at, _, found = min(
            (at, -len(secret), secret) for secret in secrets for at in [text.find(secret) % (len(text) + 1)]
        )
        if at >= held:
            return done + text[:held], text[held:]
        done += text[:at] + b"***"
        text = text[at + len(found) :]


def _beginning(text: bytes, secret: bytes) -> int:
    """Where the end of ``text`` begins that a secret begins with; its length when there is none."""
    at = text.find(secret[:1], max(0, len(text) - len(secret) + 1))
    while at >= 0 and not secret.startswith(text[at:]):
        at = text.find(secret[:1], at + 1)
    return at % (len(text) + 1)
