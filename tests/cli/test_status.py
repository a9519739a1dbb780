"""``spotd status``: the daemon's own words, for people and for programs."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest
import redis

from spotd.cli.status import lines_of
from tests.cli.conftest import Call
from tests.kit.ports import free_port
from tests.kit.publisher import AT, KEYS, status_of


def test_lines(spotd: Call, server: redis.Redis) -> None:
    """Every fact has its line."""
    server.set(KEYS.status, status_of().to_json())
    outcome = spotd("status")
    assert outcome.code == 0
    assert outcome.err == ""
    told = {line[:13].strip(): line[13:] for line in outcome.out.splitlines()}
    assert told["state"] == "streaming"
    assert told["instance"] == "host-1-ab, version 1.2.3"
    assert told["market"] == "unknown"
    assert told["symbols"] == "3 desired, 2 live, 1 refused"
    assert told["lag"] == "12.5 ms"
    assert told["quotes"] == "1,234 received"


def test_market() -> None:
    """The state of the market has the time of its next change, where that is known."""
    status = msgspec.structs.replace(status_of(), market="open")
    assert ("market", "open") in lines_of(status, AT)
    status = msgspec.structs.replace(status, market_changes_at=AT)
    assert ("market", "open, until 2026-01-20T05:12:00.000000Z") in lines_of(status, AT)


def test_json(spotd: Call, server: redis.Redis) -> None:
    """Programs get the object of the contract."""
    raw = status_of().to_json()
    server.set(KEYS.status, raw)
    assert json.loads(spotd("status", "--json").out) == json.loads(raw)


def test_other_prefix(spotd: Call, server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix of the settings says which daemon is asked."""
    monkeypatch.setenv("SPOTD_KEY_PREFIX", "sip:")
    server.set("sip:status", status_of().to_json())
    assert spotd("status").code == 0


def test_no_daemon(spotd: Call, server: redis.Redis) -> None:
    """Without a daemon there is a sentence, and exit code 1."""
    outcome = spotd("status")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: no daemon runs here")
    assert outcome.out == ""


@pytest.mark.parametrize("as_option", [True, False])
def test_no_redis(spotd: Call, monkeypatch: pytest.MonkeyPatch, as_option: bool) -> None:
    """A Redis that is not there is named without its password."""
    url = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    if not as_option:
        monkeypatch.setenv("SPOTD_REDIS_URL", url)
    outcome = spotd("status", *(["--redis-url", url] if as_option else []))
    assert outcome.code == 1
    assert outcome.err.startswith("Error: Redis at 127.0.0.1:")
    assert outcome.err.count("\n") == 1
    assert "hunter2" not in outcome.err


def test_unreadable_address(spotd: Call) -> None:
    """An address of another kind is a matter of settings."""
    assert spotd("status", "--redis-url", "http://h").code == 2


@pytest.mark.parametrize(
    ("age", "words"),
    [(0.4, "(0 s ago)"), (-5, "(0 s ago)"), (61, "(1 min ago)"), (7320, "(2 h 2 min ago)")],
)
def test_ages(age: float, words: str) -> None:
    """A time is shown with how long ago it was."""
    told = dict(lines_of(status_of("waiting", "no answer"), AT + timedelta(seconds=age)))
    assert told["since"] == f"2026-01-20T05:12:00.000000Z {words}"
    assert told["state"] == "waiting: no answer"
