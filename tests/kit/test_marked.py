"""The search for marked secrets finds them however they are written, and nothing else."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote_plus

import pytest

from tests.kit.marked import found_in, marked

SECRET = marked("somePw")
TEXT = SECRET.text


@pytest.mark.parametrize(
    "text",
    [
        f"a {TEXT} b",
        SECRET.quoted,
        quote_plus(TEXT),
        json.dumps({"a": TEXT}),
        repr([TEXT]),
        *(b64encode(f"{'u' * size}:{TEXT}".encode()).decode() for size in range(3)),
        urlsafe_b64encode(TEXT.encode()).decode().rstrip("="),
        TEXT[: len(TEXT) // 2],
        TEXT[len(TEXT) // 2 :],
    ],
)
def test_a_secret_is_found(text: str) -> None:
    """A secret is found as it is, escaped, in base64 at any offset, and in halves."""
    assert found_in([("it", text)], [SECRET]) == [f"somePw in it: …{text}…"]


def test_nothing_else_is_found() -> None:
    """A text that holds another secret alone holds none of this one."""
    other = marked("otherPw")
    assert (
        found_in([("it", other.text), ("it", b64encode(other.text.encode()).decode())], [SECRET])
        == []
    )
