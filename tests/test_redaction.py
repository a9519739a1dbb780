"""Secrets are cut out of a text in whichever form they appear in it."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.redaction import REDACTED, Mask, Redactor, without

SECRETS = ["hunter2", "p'a\"s\\s wörd/+%", "päss\nword"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", [str, repr, json.dumps, quote, quote_plus, lambda s: repr([s])])
def test_every_form_of_a_secret_is_cut_out(secret: str, form: object) -> None:
    """A text may hold it as it is, as Python or JSON escape it, or as a URL does."""
    assert callable(form)
    text = f"before {form(secret)} after"
    shown = without(["other-secret", secret], text)
    assert REDACTED in shown
    assert form(secret).strip("'\"[]") not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


@given(st.lists(st.text(max_size=8), max_size=4), st.text(max_size=60))
def test_no_secret_is_left(secrets: list[str], text: str) -> None:
    """Whatever the secrets are, none that is longer than its mark is in the result."""
    shown = without(secrets, text)
    assert not [each for each in secrets if len(each) > len(REDACTED) and each in shown]


def test_a_text_without_secrets_stays() -> None:
    """Where there is nothing to cut out, the text is the same."""
    assert without(["", "hunter2"], "nothing here") == "nothing here"


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", [str, repr, json.dumps, quote, quote_plus, lambda s: repr([s])])
def test_a_redactor_cuts_out_every_form(secret: str, form: object) -> None:
    """It knows its secrets once, and any number of texts pass it."""
    assert callable(form)
    redactor = Redactor(["other-secret", secret])
    for shown in (redactor(f"before {form(secret)} after"), redactor.kept(f"{form(secret)}")):
        assert REDACTED in shown
        assert form(secret).strip("'\"[]") not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://u:pass@h:1/0", "redis://u:***@h:1/0"),
        ("wss://h/?token=abc&x=1", "wss://h/?token=***&x=1"),
        ("rediss://h?ssl_password=abc", "rediss://h?ssl_password=***"),
        ("no secret, a=b", "no secret, a=b"),
        ("abc", "abc"),
    ],
)
def test_a_password_in_a_url_is_cut_out(text: str, shown: str) -> None:
    """It need not be known. A secret shorter than four characters is part of ordinary words."""
    assert Redactor(["abc"])(text) == shown


@pytest.mark.parametrize("length", range(6, 12))
def test_words_that_end_within_a_secret(length: int) -> None:
    """Others may have cut their words: a close reason of a websocket has 123 bytes."""
    secret = "key-7q8w9e0r"
    assert Redactor([secret]).words(f"bad {secret[:length]}", 100) == f"bad {REDACTED}"


def test_the_words_of_others_are_short_and_on_one_line() -> None:
    """A secret is cut out before the text is."""
    words = Redactor(["hunter2"]).words("a\nb\x1b[31m hunter2 and more", 12)
    assert words == "a b [31m ***"


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("form", [str, repr, json.dumps, quote, quote_plus])
def test_a_mask_keeps_the_length(secret: str, form: object) -> None:
    """Asterisks take the place of a secret, so that lengths that stand in front of it hold."""
    assert callable(form)
    written = form(secret).strip("'\"")
    data = msgspec.msgpack.encode({"msg": f"before {written} after", "more": [1, "SPY"]})
    shown = Mask(["other-secret", secret]).over(data)
    assert len(shown) == len(data)
    stars = "*" * len(written.encode())
    assert msgspec.msgpack.decode(shown) == {"msg": f"before {stars} after", "more": [1, "SPY"]}


def test_a_mask_leaves_short_words_alone() -> None:
    """A secret of three bytes may be part of ordinary data."""
    assert Mask(["SPY", ""]).over(b"SPY") == b"SPY"
    assert Mask(["SPYX"]).over(b"SPYX") == b"****"
