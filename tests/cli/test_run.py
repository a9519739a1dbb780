"""``spotd run``: settings are checked before anything is loaded, then the daemon's code counts."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from spotd.settings import Settings
from tests.cli.conftest import Call

KEYS = {"ALPACA_API_KEY": "k", "ALPACA_SECRET_KEY": "secretDoNotPrint0001"}


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """A daemon that records its settings, and ends with 3."""
    seen: list[Settings] = []

    def run_daemon(settings: Settings) -> int:
        seen.append(settings)
        return 3

    module = ModuleType("spotd.daemon.process")
    module.run_daemon = run_daemon  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spotd.daemon.process", module)
    return seen


@pytest.mark.parametrize(
    ("environment_", "words"),
    [
        ({}, "ALPACA_API_KEY is not set"),
        ({"ALPACA_API_KEY": "k"}, "ALPACA_SECRET_KEY is not set"),
        ({**KEYS, "ALPACA_API_KEY": ""}, "ALPACA_API_KEY is not set"),
        ({**KEYS, "SPOTD_FED": "iex"}, "did you mean SPOTD_FEED?"),
        ({**KEYS, "SPOTD_FEED": "nasdaq"}, "SPOTD_FEED: "),
        ({**KEYS, "SPOTD_THROTTLE_MS": "often"}, "SPOTD_THROTTLE_MS: "),
        ({**KEYS, "SPOTD_LEADER_TTL_S": "0"}, "SPOTD_LEADER_TTL_S: "),
        ({**KEYS, "SPOTD_REDIS_URL": "http://127.0.0.1/"}, "SPOTD_REDIS_URL"),
        ({**KEYS, "SPOTD_STREAM_URL": "ftp://127.0.0.1/"}, "SPOTD_STREAM_URL"),
        ({**KEYS, "SPOTD_KEY_PREFIX": "a b"}, "SPOTD_KEY_PREFIX"),
    ],
)
def test_wrong_settings(
    spotd: Call,
    daemon: list[Settings],
    monkeypatch: pytest.MonkeyPatch,
    environment_: dict[str, str],
    words: str,
) -> None:
    """A setting that is missing or wrong is one line and exit code 2, and nothing is started."""
    for name, value in environment_.items():
        monkeypatch.setenv(name, value)
    outcome = spotd("run")
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
    assert KEYS["ALPACA_SECRET_KEY"] not in outcome.err
    assert not daemon


def test_all_wrong_settings_are_told_at_once(
    spotd: Call, daemon: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One start names every setting that is wrong."""
    for name, value in {**KEYS, "SPOTD_FEED": "nasdaq", "SPOTD_THROTTLE_MS": "-1"}.items():
        monkeypatch.setenv(name, value)
    outcome = spotd("run")
    assert outcome.code == 2
    assert "SPOTD_FEED" in outcome.err
    assert "SPOTD_THROTTLE_MS" in outcome.err
    assert not daemon


def test_exit_code(spotd: Call, daemon: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon gets the settings, and its exit code is the command's."""
    monkeypatch.setenv("ALPACA_API_KEY", "k")
    monkeypatch.setenv("ALPACA_SECRET_KEY", "s")
    monkeypatch.setenv("SPOTD_FEED", "sip")
    assert spotd("run") == (3, "", "")
    assert [settings.feed for settings in daemon] == ["sip"]
