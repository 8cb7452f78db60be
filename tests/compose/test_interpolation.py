"""Secrets in URLs: what is percent-encoded, and what is left as it is (language.md, sections 8 and 9)."""

from __future__ import annotations

import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containust.common.types import Ref
from containust.compose.interpolation import percent_encoded, render

S = Ref("secret", "s")
HOST = Ref("component", "db", "host")


@pytest.mark.parametrize(
    ("parts", "encoded"),
    [
        (("postgres://u:", S, "@db/x"), True),
        (("postgres://", S, "@db"), True),
        (("postgres://", S, ":", S, "@", HOST), True),
        (("a=1 redis://:", S, "@h:6379/0"), True),
        (("jdbc:postgresql://u:x", S, "x@h"), True),
        ((S,), False),
        (("token ", S, "@home"), False),
        (("https://h/?key=", S, "&x=a@b"), False),
        (("https://h/", S, "@x"), False),
        (("https://", S), False),
        (("https://", S, "/@x"), False),
        (("https://h:80 u:", S, "@x"), False),
        (("://", S, "@x"), False),
    ],
)
def test_only_user_and_password_of_a_url_are_encoded(parts: tuple[str | Ref, ...], encoded: bool) -> None:
    text = render(parts, lambda ref: "a/b@c" if ref.kind == "secret" else "db")
    assert ("a%2Fb%40c" in text) == encoded and ("a/b@c" in text) != encoded


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_password_arrives(password: str) -> None:
    url = urllib.parse.urlsplit(render(("postgres://u:", S, "@db:5432/x"), lambda _: password))
    assert urllib.parse.unquote(url.password or "") == password
    assert (url.username, url.hostname, url.port, url.path) == ("u", "db", 5432, "/x")
    assert percent_encoded(password) == urllib.parse.quote(password, safe="")
