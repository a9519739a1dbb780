"""Every setting of the web tier: its default, its sources, and what is said when it is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spotd.errors import SettingsError
from spotd.relay.limits import Limits
from spotd.relay.settings import RelaySettings
from spotd.settings import RELAY_NAMES, Settings, names_of
from tests.relay.examples import settings_of

OWN = [name for name in RelaySettings.model_fields if name not in Settings.model_fields]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty the environment, and work in a directory without a `.env`."""
    for name in os.environ:
        if name.upper().startswith(("SPOTD_", "ALPACA_", "APCA_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.chdir(tmp_path)


def test_the_names_are_those_that_the_daemon_tolerates() -> None:
    """One file may serve both."""
    assert {names_of(name, RelaySettings)[0] for name in OWN} == set(RELAY_NAMES)


def test_the_defaults_are_the_contracts() -> None:
    """Section 8."""
    settings = RelaySettings.load()
    assert (settings.relay_host, settings.relay_port) == ("127.0.0.1", 9811)
    assert settings.tokens == settings.relay_origins == ()
    assert settings.relay_demand
    assert settings.limits == Limits(
        symbols=200, total_symbols=None, clients=10_000, connects_per_s=1_000
    )


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside those that it shares with the daemon."""
    for name, text in {
        "SPOTD_RELAY_HOST": "0.0.0.0",  # noqa: S104 - read, not bound
        "SPOTD_RELAY_PORT": "80",
        "SPOTD_RELAY_TOKEN": " old , new ",
        "SPOTD_RELAY_DEMAND": "false",
        "SPOTD_RELAY_ORIGINS": "https://a.example, http://localhost:5173",
        "SPOTD_RELAY_MAX_SYMBOLS": "1",
        "SPOTD_RELAY_MAX_TOTAL_SYMBOLS": "2",
        "SPOTD_RELAY_MAX_CLIENTS": "3",
        "SPOTD_RELAY_MAX_CONNECTS_PER_S": "4",
        "SPOTD_REDIS_URL": "redis://elsewhere:1/2",
        "SPOTD_KEY_PREFIX": "other:",
    }.items():
        monkeypatch.setenv(name, text)
    settings = RelaySettings.load()
    assert (settings.relay_host, settings.relay_port) == ("0.0.0.0", 80)  # noqa: S104
    assert settings.tokens == ("old", "new")
    assert not settings.relay_demand
    assert settings.relay_origins == ("https://a.example", "http://localhost:5173")
    assert settings.limits == Limits(symbols=1, total_symbols=2, clients=3, connects_per_s=4)
    assert settings.redis_url.get_secret_value() == "redis://elsewhere:1/2"
    assert settings.keys.last == "other:last"


def test_a_token_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As systemd's credentials do, with a line feed at its end; it is never shown."""
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "SPOTD_RELAY_TOKEN").write_text("tell-nobody\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    settings = RelaySettings.load()
    assert settings.tokens == ("tell-nobody",)
    assert "tell-nobody" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("SPOTD_RELAY_HOST", "tell nobody..x", "SPOTD_RELAY_HOST: holds what is no host name"),
        ("SPOTD_RELAY_PORT", "70000", "SPOTD_RELAY_PORT: "),
        ("SPOTD_RELAY_TOKEN", "a,b,c", "SPOTD_RELAY_TOKEN: must be one token, or two"),
        ("SPOTD_RELAY_TOKEN", ",", "SPOTD_RELAY_TOKEN: must be one token, or two"),
        ("SPOTD_RELAY_TOKEN", "tell nobody", "SPOTD_RELAY_TOKEN: a token must be printable"),
        ("SPOTD_RELAY_ORIGINS", "app.example.com", "SPOTD_RELAY_ORIGINS: an origin is scheme://"),
        ("SPOTD_RELAY_ORIGINS", "https://a/b", "SPOTD_RELAY_ORIGINS: an origin is scheme://"),
        ("SPOTD_RELAY_MAX_SYMBOLS", "0", "SPOTD_RELAY_MAX_SYMBOLS: "),
        ("SPOTD_RELAY_ORIGIN", "x", "did you mean SPOTD_RELAY_ORIGINS?"),
        ("SPOTD_LOG_LEVEL", "loud", "SPOTD_LOG_LEVEL: "),
    ],
)
def test_what_is_wrong_is_told_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, words: str
) -> None:
    """The error never holds its value."""
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as error:
        RelaySettings.load()
    assert words in str(error.value)
    assert "tell nobody" not in str(error.value)


@pytest.mark.parametrize(
    ("host", "exposed"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),  # noqa: S104 - read, not bound
        ("::", True),
        ("10.0.0.7", True),
        ("prices.example.com", True),
    ],
)
def test_what_other_machines_may_reach_is_known(host: str, exposed: bool) -> None:
    """An address that is not loopback, or a name that may be one."""
    assert settings_of(relay_host=host).is_exposed is exposed
