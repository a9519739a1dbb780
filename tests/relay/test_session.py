"""What a client's messages lead to, as a dialogue."""

from __future__ import annotations

import json
from typing import Any

from spotd.relay.close_codes import CLOSE_CODES, TOO_MANY_MESSAGES
from spotd.relay.hub import Hub
from spotd.relay.limits import Limits
from spotd.relay.session import Answer, Session, refusal
from spotd.relay.wire import Wire


class Dialogue:
    """One client of one hub."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.hub = Hub(self.limits)
        self.client = self.hub.join(Wire.WEBSOCKET)
        self.session = Session(self.hub, self.client, self.limits, 0)

    def say(self, **message: Any) -> Answer:
        """Say something as a client does."""
        return self.session.receive_text(json.dumps(message).encode(), 0)


def told(answer: Answer) -> list[Any]:
    """Return what the client reads."""
    return [json.loads(message) for message in answer.messages]


def test_subscribing_names_what_is_new_to_the_relay() -> None:
    """The first client's symbols are to be demanded, the second's only where they are others."""
    one = Dialogue()
    assert one.say(action="subscribe", symbols=["spy", "QQQ"]) == Answer(new=["SPY", "QQQ"])
    other = Session(one.hub, one.hub.join(Wire.WEBSOCKET), one.limits, 0)
    raw = b'{"action":"subscribe","symbols":["SPY","AAPL"]}'
    assert other.receive_text(raw, 0) == Answer(new=["AAPL"])


def test_refused_symbols_are_told_and_the_others_are_subscribed() -> None:
    """An error names each with its reason; the code is the reason where all have the same."""
    dialogue = Dialogue(symbols=1)
    answer = dialogue.say(action="subscribe", symbols=["SPY", "9", "QQQ"])
    assert answer.new == ["SPY"]
    [error] = told(answer)
    assert error["type"] == "error"
    assert error["code"] == "refused"
    assert error["refused"] == {"9": "invalid_symbol", "QQQ": "symbol_limit"}
    [error] = told(dialogue.say(action="subscribe", symbols=["AAPL"]))
    assert error["code"] == "symbol_limit"
    [error] = told(dialogue.say(action="unsubscribe", symbols=["SPY", "*"]))
    assert error["code"] == "wildcard_not_allowed"
    assert not dialogue.client.slots


def test_batches_are_kept_until_they_are_named_again() -> None:
    """A subscription that does not name them leaves them alone."""
    dialogue = Dialogue()
    seen = []
    for batch in ({"batch": True}, {}, {"batch": False}):
        dialogue.say(action="subscribe", symbols=[], **batch)
        seen.append(dialogue.client.batch)
    assert seen == [True, True, False]


def test_a_ping_is_answered_and_a_wrong_message_explained() -> None:
    """Neither ends the connection."""
    dialogue = Dialogue()
    assert told(dialogue.say(action="ping")) == [{"type": "pong"}]
    answers = [dialogue.say(action="sell"), dialogue.session.receive_binary()]
    assert [told(answer)[0]["code"] for answer in answers] == ["wrong_message", "not_text"]
    assert [answer.close for answer in answers] == [None, None]


def test_too_many_messages_end_the_connection() -> None:
    """A burst is allowed, then the rate; beyond it: an error, and 4101."""
    dialogue = Dialogue(message_burst=3, messages_per_s=1)
    session = dialogue.session
    assert [session.admit(0) for _ in range(3)] == [None, None, None]
    assert session.admit(1) is None
    refused = session.admit(1)
    assert refused is not None
    assert refused.close is TOO_MANY_MESSAGES
    assert told(refused)[0]["code"] == "too_many_messages"


def test_a_refusal_is_a_sentence() -> None:
    """Grouped by reason."""
    refused = {"A9": "invalid_symbol", "B9": "invalid_symbol", "SPY": "symbol_limit"}
    assert refusal(refused) == "not a symbol: 'A9', 'B9'; no room for more symbols: 'SPY'"
    assert refusal({}) == ""
    many = {f"S{letter}": "symbol_limit" for letter in "ABCDEFGHIJKL"}
    assert refusal(many).endswith("'SI', 'SJ' and 2 more")


def test_close_codes_keep_the_contracts_ranges() -> None:
    """4000 to 4099 try again, 4100 to 4199 do not; a reason fits a close frame; none twice."""
    for code in CLOSE_CODES:
        if code.code >= 4000:
            assert code.try_again is (code.code < 4100)
        assert len(code.reason.encode()) <= 123
    assert len({code.code for code in CLOSE_CODES}) == len(CLOSE_CODES)
