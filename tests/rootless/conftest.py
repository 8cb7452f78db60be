"""The user of the tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ordinary_user import User


@pytest.fixture
def user() -> Iterator[User]:
    one = User()
    yield one
    one.close()
