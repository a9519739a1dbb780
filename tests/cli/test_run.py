"""``spotd run``: settings are checked before anything is loaded, then the daemon's code counts."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from spotd.settings import Settings
from tests.cli.conftest import Call


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """A daemon that only notes with which settings it was run, and ends with 3."""
    seen: list[Settings] = []

    def run_daemon(settings: Settings) -> int:
        seen.append(settings)
        return 3

    module = ModuleType("spotd.daemon")
    module.run_daemon = run_daemon  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "spotd.daemon", module)
    return seen


@pytest.mark.parametrize(
    ("environment_", "words"),
    [
        ({}, "ALPACA_API_KEY is not set"),
        ({"ALPACA_API_KEY": "k"}, "ALPACA_SECRET_KEY is not set"),
        ({"SPOTD_FED": "iex"}, "did you mean SPOTD_FEED?"),
        ({"SPOTD_THROTTLE_MS": "fast"}, "SPOTD_THROTTLE_MS: "),
    ],
)
def test_wrong_settings(
    spotd: Call,
    daemon: list[Settings],
    monkeypatch: pytest.MonkeyPatch,
    environment_: dict[str, str],
    words: str,
) -> None:
    """What is missing or wrong is one line, exit code 2, and nothing is started."""
    for name, value in environment_.items():
        monkeypatch.setenv(name, value)
    outcome = spotd("run")
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.err.count("\n") == 1
    assert not daemon


def test_exit_code(spotd: Call, daemon: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon gets the settings, and its exit code is the command's."""
    monkeypatch.setenv("ALPACA_API_KEY", "k")
    monkeypatch.setenv("ALPACA_SECRET_KEY", "s")
    monkeypatch.setenv("SPOTD_FEED", "sip")
    assert spotd("run") == (3, "", "")
    assert [settings.feed for settings in daemon] == ["sip"]
