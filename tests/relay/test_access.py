"""Which requests may be answered: tokens and origins."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.relay.access import Origins, Tokens, bearer_of, offered_token


@pytest.mark.parametrize("given_", [None, "", "anything"])
def test_without_tokens_everybody_may_ask(given_: str | None) -> None:
    """No token is set: none is needed, and one that is sent does no harm."""
    assert Tokens([]).accept(given_)


@pytest.mark.parametrize(
    ("given_", "accepted"),
    [
        ("old", True),
        ("new", True),
        ("old,new", False),
        ("", False),
        (None, False),
        ("ol", False),
        ("OLD", False),
        ("öld", False),
        ("\udcff", False),
    ],
)
def test_each_of_two_tokens_is_accepted(given_: str | None, accepted: bool) -> None:
    """During a rotation both hold; nothing else does."""
    assert Tokens(["old", "new"]).accept(given_) is accepted


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer secret", "secret"),
        ("bearer  secret ", "secret"),
        ("Basic secret", None),
        ("secret", None),
        ("", None),
        (None, None),
    ],
)
def test_a_token_stands_in_the_authorization_header(header: str | None, token: str | None) -> None:
    """Behind ``Bearer``, in any case."""
    assert bearer_of(header) == token


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_token_may_be_offered_as_a_subprotocol(token: str) -> None:
    """Base64url with or without padding, beside others."""
    written = urlsafe_b64encode(token.encode()).decode()
    for form in (written, written.rstrip("=")):
        assert offered_token(["spotd.v1", f"bearer.{form}"]) == token


@pytest.mark.parametrize("offered", [[], ["spotd.v1"], ["bearer.A"], ["bearer.ä"]])
def test_other_subprotocols_hold_no_token(offered: list[str]) -> None:
    """None is offered, or what is offered is no base64."""
    assert offered_token(offered) is None


@pytest.mark.parametrize(
    ("origin", "host", "accepted"),
    [
        (None, "prices.example.com", True),  # not a page
        ("https://prices.example.com", "prices.example.com", True),
        ("http://prices.example.com", "prices.example.com:80", True),
        ("https://prices.example.com:443", "prices.example.com", True),
        ("http://127.0.0.1:9811", "127.0.0.1:9811", True),
        ("http://[::1]:9811", "[::1]:9811", True),
        ("https://PRICES.example.com", "prices.example.com", True),
        ("http://127.0.0.1:3000", "127.0.0.1:9811", False),
        ("https://evil.example", "prices.example.com", False),
        ("https://prices.example.com.evil.example", "prices.example.com", False),
        ("null", "prices.example.com", False),
        ("null", "", False),
        ("https://prices.example.com:x", "prices.example.com", False),
    ],
)
def test_a_page_of_the_relay_itself_may_ask(origin: str | None, host: str, accepted: bool) -> None:
    """The same host and port; the scheme is a proxy's matter."""
    assert Origins([]).accept(origin, host) is accepted


def test_origins_that_are_allowed_may_ask_too() -> None:
    """Exactly those that are named, or all."""
    origins = Origins(["https://app.example.com/", "http://localhost:5173"])
    assert origins.accept("https://app.example.com", "prices.example.com")
    assert origins.accept("http://localhost:5173", "prices.example.com")
    assert not origins.accept("http://app.example.com", "prices.example.com")
    assert not origins.accept("https://app.example.com:8443", "prices.example.com")
    assert Origins(["*"]).accept("https://any.example", "prices.example.com")
