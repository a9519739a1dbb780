"""What the messages between relay and client mean."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.models import DaemonStatus, Gap, SymbolState
from spotd.reasons import MEANINGS, Reason
from spotd.relay import protocol
from spotd.relay.limits import Limits
from spotd.relay.protocol import Ping, Problem, Subscribe, Unsubscribe
from tests.kit.publisher import gap_of, state_of, status_of, update_of

LATE = msgspec.structs.replace(status_of(), feed="delayed_sip")


@pytest.mark.parametrize(
    ("message", "action"),
    [
        ('{"action":"subscribe","symbols":["SPY"]}', Subscribe(["SPY"])),
        (
            '{"action":"subscribe","symbols":[],"batch":true,"max_hz":2}',
            Subscribe([], batch=True, max_hz=2),
        ),
        ('{"symbols":["SPY"],"action":"unsubscribe"}', Unsubscribe(["SPY"])),
        ('{"action":"ping"}', Ping()),
        ('{"action":"ping","id":7,"later":{"version":2}}', Ping()),
    ],
)
def test_a_message_is_an_action(message: str, action: protocol.Action) -> None:
    """Fields that a later version adds are ignored."""
    assert protocol.parse(message.encode()) == action


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "not_json"),
        ("{", "not_json"),
        ('{"action":"ping","x":' + "[" * 100_000, "not_json"),
        ('{"action":"subscribe","symbols":["\xff', "not_json"),
        ("[]", "wrong_message"),
        ("{}", "wrong_message"),
        ('{"action":"buy"}', "wrong_message"),
        ('{"action":"subscribe"}', "wrong_message"),
        ('{"action":"subscribe","symbols":"SPY"}', "wrong_message"),
        ('{"action":"subscribe","symbols":[1]}', "wrong_message"),
        ('{"action":"subscribe","symbols":["SPY"],"max_hz":0}', "wrong_message"),
        ('{"action":"subscribe","symbols":["SPY"],"max_hz":"2"}', "wrong_message"),
    ],
)
def test_a_wrong_message_is_a_problem(message: str, code: str) -> None:
    """It has a code and a sentence, and nothing is raised."""
    found = protocol.parse(message.encode("latin-1"))
    assert isinstance(found, Problem)
    assert found.code == code
    assert found.message


@given(st.binary(max_size=200))
def test_no_bytes_raise(raw: bytes) -> None:
    """Whatever a client sends is an action or a problem."""
    assert isinstance(protocol.parse(raw), Subscribe | Unsubscribe | Ping | Problem)


def test_entries_become_symbols_or_are_refused() -> None:
    """Trimmed and upper-cased, each once; the others with their reason."""
    assert protocol.symbols_of([" spy ", "SPY", "BRK.B", "9", "*", "\ud800"]) == (
        ["SPY", "BRK.B"],
        {"9": "invalid_symbol", "*": "wildcard_not_allowed", "?": "invalid_symbol"},
    )


def decoded(raw: bytes) -> Any:
    """Return what a client reads."""
    return json.loads(raw)


def test_hello_tells_version_limits_feed_and_status() -> None:
    """The status is as the daemon wrote it; the feed stands for itself, with its delay."""
    raw = LATE.to_json()
    relay = protocol.relay_status([])
    hello = decoded(protocol.hello(Limits(symbols=7), LATE, raw, relay))
    assert hello == {
        "type": "hello",
        "version": 1,
        "limits": {
            "symbols": 7,
            "total_symbols": None,
            "message_bytes": 65_536,
            "messages_per_s": 10,
        },
        "feed": "delayed_sip",
        "delay_s": 900,
        "daemon": decoded(raw),
        "relay": {"type": "relay", "state": "ready", "reason": None},
    }


def test_hello_without_a_daemon_knows_no_feed() -> None:
    """Feed, delay and daemon are null; the relay says why."""
    relay = protocol.relay_status(
        [Reason("no_daemon", "no daemon runs"), Reason("stopping", "another")]
    )
    hello = decoded(protocol.hello(Limits(), None, b"", relay))
    assert (hello["feed"], hello["delay_s"], hello["daemon"]) == (None, None, None)
    assert hello["relay"] == {
        "type": "relay",
        "state": "no_daemon",
        "reason": "no_daemon: no daemon runs",
    }


@pytest.mark.parametrize("code", ["redis_away", "demand_unreadable"])
def test_clients_are_not_told_where_redis_is(code: str) -> None:
    """A sentence that may name its address gives way to the meaning of its code; the rest stays."""
    told = "Redis at 10.1.2.3:6379/0 answered with an error: LOADING"
    for value in (status_of("waiting"), state_of("SPY", "stale"), gap_of()):
        addressed = msgspec.structs.replace(value, code=code, reason=told)
        passed_on = decoded(protocol.for_clients(addressed.to_json(), addressed))
        meaning = MEANINGS[code].meaning  # type: ignore[index]
        assert f"{passed_on['reason']}." == meaning
        assert passed_on == {**decoded(addressed.to_json()), "reason": passed_on["reason"]}
    gap = msgspec.structs.replace(gap_of(), code=code, reason=told)
    status = msgspec.structs.replace(status_of(), gaps=(gap_of(), gap))
    passed_on = decoded(protocol.for_clients(status.to_json(), status))
    assert [each["reason"] for each in passed_on["gaps"]] == ["more words", meaning[:-1]]
    relay = protocol.relay_status([Reason(code, told)])  # type: ignore[arg-type]
    assert b"10.1.2.3" not in relay
    assert relay.startswith(b'{"type":"relay","state":"%b","reason":"%b: ' % ((code.encode(),) * 2))


@pytest.mark.parametrize(
    "value",
    [
        status_of("waiting", "HTTP 503"),
        msgspec.structs.replace(status_of("waiting", "HTTP 503"), code="backoff"),
        state_of("SPY", "stale", "more words"),
        state_of("SPY"),
        gap_of("a_newer_code"),
        msgspec.structs.replace(status_of(), gaps=(gap_of(), gap_of("a_newer_code"))),
    ],
)
def test_other_reasons_are_passed_on_as_they_are(value: DaemonStatus | SymbolState | Gap) -> None:
    """Byte by byte."""
    raw = value.to_json()
    assert protocol.for_clients(raw, value) is raw


def test_a_feed_that_is_not_late_has_no_delay() -> None:
    """All but one of Alpaca's feeds."""
    hello = protocol.hello(Limits(), status_of(), status_of().to_json(), b"{}")
    assert decoded(hello)["delay_s"] == 0


def test_updates_keep_the_bytes_of_spotd() -> None:
    """One update, and several in a batch, with the relay's time."""
    spy, qqq = update_of("SPY", 1).to_json(), update_of("QQQ", 2).to_json()
    assert decoded(protocol.update_message(spy, "2026-01-20T12:00:00.000000Z")) == {
        "type": "spot_price_update",
        "update": decoded(spy),
        "timestamp": "2026-01-20T12:00:00.000000Z",
    }
    assert decoded(protocol.batch_message([spy, qqq], "2026-01-20T12:00:00.000000Z")) == {
        "type": "spot_price_update_batch",
        "updates": [decoded(spy), decoded(qqq)],
        "timestamp": "2026-01-20T12:00:00.000000Z",
    }


def test_ends_refusals_and_errors_are_told() -> None:
    """A symbol that ended, one without room, a problem with and without symbols."""
    about = {"type": "symbol", "symbol": "SPY", "since": "1970-01-02T00:00:00.000000Z"}
    assert decoded(protocol.ended("SPY", 86_400)) == about | {
        "state": "ended",
        "reason": None,
        "code": None,
    }
    assert decoded(protocol.no_room("SPY", 86_400)) == about | {
        "state": "refused",
        "reason": "symbol_limit",
        "code": "symbol_limit",
    }
    assert decoded(protocol.error(Problem("code", "words"))) == {
        "type": "error",
        "code": "code",
        "message": "words",
    }
    refused = {"9": "invalid_symbol"}
    assert decoded(protocol.error(Problem("c", "w", refused)))["refused"] == refused
    assert decoded(protocol.NO_DAEMON)["state"] == "absent"
    assert decoded(protocol.PONG) == {"type": "pong"}


@pytest.mark.parametrize("value", [update_of("SPY", 1), state_of("SPY"), status_of(), gap_of()])
def test_what_spotd_wrote_is_sent_on_as_it_is(value: Any) -> None:
    """Fields that this version does not know are sent on, too."""
    raw = value.to_json()[:-1] + b',"later":1}'
    assert protocol.one_line(raw, value) is raw


@pytest.mark.parametrize("harm", [b"\n", b"\r", b"\xff"])
def test_what_would_break_a_stream_is_written_anew(harm: bytes) -> None:
    """A line break, or bytes that may not be UTF-8, of another publisher."""
    value = update_of("SPY", 1)
    assert protocol.one_line(value.to_json() + harm, value) == value.to_json()
