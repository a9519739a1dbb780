"""Redis addresses: which are valid, what they hide, and that every part reads the same ones."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from spotd.client import SpotClient
from spotd.errors import SettingsError
from spotd.redis.addresses import SCHEMES, check_address, secrets_in, without_secrets
from spotd.redis.clients import connect
from spotd.settings import Settings

GOOD = [
    "redis://h:1/0",
    "redis://h",
    "rediss://h:1/0?ssl_ca_certs=ca.crt",
    "unix:///run/redis.sock?db=1",
    "redis+sentinel://u:p@h:1,[::1]:2/prices/3?sentinel_password=x",
    "rediss+sentinel://h/prices?ssl_check_hostname=false",
    "redis+cluster://h:1,h:2",
    "rediss+cluster://u:p@h",
]
WRONG = [
    ("http://u:hunter2@host/0", "must start with one of redis://"),
    ("hunter2", "must start with one of redis://"),
    ("redis:hunter2", "must start with one of redis://"),
    ("redis://u:hunter2@host:port/0", "is not a valid URL"),
    ("redis://u:hunter2[@host", "is not a valid URL"),
    ("redis://u:hunter2@a:1,b:2", "is not a valid URL"),
    ("redis://", "names no host"),
    ("redis://u:hunter2@host/foo", "names a database that is no number"),
    ("rediss://host:1/-1", "names a database that is no number"),
    ("redis://host/1/2", "names a database that is no number"),
    ("redis+cluster://host/foo", "names a database that is no number"),
    ("redis+sentinel://u:hunter2@host:1", "names no service"),
    ("redis+sentinel://u:hunter2@host:1/prices/first", "names a database that is no number"),
    ("redis+sentinel://u:hunter2@host:port/prices", "is not a valid URL"),
    ("redis+sentinel://u:hunter2@/prices", "names no host"),
    ("redis+cluster://u:hunter2@host:1,", "names no host"),
    ("redis+cluster://u:hunter2@h?socket_timeout=hunter2", "is not a valid URL"),
]
REFUSED_OPTIONS = [
    "redis://u:hunter2@host:1/0?nonsense=hunter2",
    "redis://host:1/0?socket_timeout=hunter2",
    "redis+sentinel://u:hunter2@host:1/prices?nonsense=1",
    "redis+sentinel://u:hunter2@host:1/prices?sentinel_nonsense=1",
    "redis+cluster://u:hunter2@host:1?nonsense=1",
]


@pytest.mark.parametrize("url", GOOD)
def test_a_good_address_is_good_for_settings_and_client(url: str) -> None:
    """What the settings let through is what daemon and client connect to."""
    named: dict[str, Any] = {"redis_url": url}
    connect(Settings(**named).redis_url.get_secret_value())
    SpotClient(url, key_prefix="{spotd}:")


def test_every_scheme_has_an_example() -> None:
    """No form of address is left out above."""
    assert {url.partition("://")[0] for url in GOOD} == set(SCHEMES)


@pytest.mark.parametrize(("url", "words"), WRONG)
def test_a_wrong_address_is_refused_in_words(url: str, words: str) -> None:
    """The text says what is wrong, and holds no part of the address."""
    with pytest.raises(ValueError, match=words) as caught:
        check_address(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("url", [*(url for url, _ in WRONG), *REFUSED_OPTIONS])
def test_a_wrong_address_is_a_wrong_setting(url: str) -> None:
    """The error begins with the name of the setting, and its whole traceback hides the address."""
    with pytest.raises(SettingsError, match=r"^SPOTD_REDIS_URL ") as caught:
        connect(url, name="SPOTD_REDIS_URL")
    assert caught.value.exit_code == 2
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(SettingsError, match=r"^the Redis address "):
        SpotClient(url)


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("redis://h/0", []),
        ("redis://user@h/0", []),
        ("redis://:a%20b@h/0", ["a%20b", "a b"]),
        ("rediss://user:pw@h/0", ["pw"]),
        ("redis://user:p/w@h/0", ["p/w"]),
        ("redis://user:p@w:x@h/0", ["p@w:x"]),
        ("redis://h/0?password=a+b&db=1", ["a b", "a%20b", "a+b"]),
        ("unix://user:pw@/run/a@b.sock", ["pw", "pw@/run/a"]),
        ("unix:///run/a:c@b.sock", []),
        ("redis+sentinel://u:pw@h:1,[::1]:2/s?sentinel_password=x", ["pw", "x"]),
        ("redis+cluster://:pw@h:1,h:2", ["pw"]),
        ("hunter2", []),
        ("", []),
    ],
)
def test_the_secrets_of_an_address_are_found(url: str, secrets: list[str]) -> None:
    """Each password is found as it is written and as it is sent."""
    assert secrets_in(url) == secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:pw@h:1/0?password=pw", "redis://h:1/0"),
        ("redis://u:p@w@h:1/0", "redis://h:1/0"),
        ("unix:///run/a@b.sock?password=pw", "unix:///run/a@b.sock"),
        ("redis+sentinel://u:pw@h:1,h:2/s/0", "redis+sentinel://h:1,h:2/s/0"),
        ("redis+cluster://h:1", "redis+cluster://h:1"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    """What may hold a password is left out: the user part and the query."""
    assert without_secrets(url) == shown
