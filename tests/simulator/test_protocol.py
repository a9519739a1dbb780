"""The conversation with a client, without a socket: a message in, an answer out."""

from typing import Any

import pytest

from spotd.simulator import Faults, Limits
from spotd.simulator.connection_slots import ConnectionSlots
from spotd.simulator.messages import FEEDS
from spotd.simulator.protocol import Answer, Conversation, Rules
from tests.simulator.dialogue import AUTHENTICATED, NOTHING, Message, refusal

AUTH = {"action": "auth", "key": "demo-key", "secret": "demo-secret"}
SYNTAX = refusal(400, "invalid syntax")
AUTH_FAILED = refusal(402, "auth failed")
NOT_AUTHENTICATED = refusal(401, "not authenticated")
CONNECTION_LIMIT = refusal(406, "connection limit exceeded")
SYMBOL_LIMIT = refusal(405, "symbol limit exceeded")
FEED = refusal(410, "invalid subscribe action for this feed")


class Plan:
    """Keys, limits, faults and connection slots that the conversations of a test share."""

    def __init__(
        self, *, keys: dict[str, str] | None = None, feeds: tuple[str, ...] = tuple(FEEDS)
    ) -> None:
        self.limits, self.faults, self.slots = Limits(), Faults(), ConnectionSlots()
        keys = keys or {"demo-key": "demo-secret"}
        self.rules = Rules(keys, feeds, self.limits, self.faults, self.slots)

    def client(self, number: int = 1, feed: str = "iex", *, login: bool = True) -> "Client":
        """Return a client of this plan, authenticated unless `login` is false."""
        client = Client(Conversation(number, feed, self.rules))
        if login:
            assert client.ask(AUTH) == AUTHENTICATED
        return client


class Client:
    """A client that sends one message at a time, and its conversation."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation

    def answer(self, message: object) -> Answer:
        """Return the whole answer."""
        return self.conversation.receive(message, 0.0)

    def ask(self, message: object) -> Message:
        """Return the only message of an answer that does not close."""
        answer = self.answer(message)
        assert not answer.close
        [only] = answer.messages
        assert answer.refused == only.get("code", 0)
        return only

    def subscribe(self, **channels: Any) -> Message:
        """Subscribe. Return the answer."""
        return self.ask({"action": "subscribe", **channels})

    def unsubscribe(self, **channels: Any) -> Message:
        """Unsubscribe. Return the answer."""
        return self.ask({"action": "unsubscribe", **channels})

    def takes(self, kind: str, symbol: str) -> bool:
        """Return whether a message of this type and symbol goes to the client."""
        return self.conversation.route.takes({"T": kind, "S": symbol})


# authentication


def test_the_right_key_is_authenticated_once() -> None:
    """A second auth is 403 and changes nothing."""
    client = Plan().client()
    assert client.ask(AUTH) == refusal(403, "already authenticated")
    assert client.conversation.authenticated


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (AUTH | {"secret": "wrong"}, AUTH_FAILED),
        (AUTH | {"key": "unknown"}, AUTH_FAILED),
        (AUTH | {"key": 1}, SYNTAX),
        ({"action": "auth"}, SYNTAX),
        ({"action": "subscribe", "quotes": ["SPY"]}, NOT_AUTHENTICATED),
        ({"action": "unsubscribe", "quotes": ["SPY"]}, NOT_AUTHENTICATED),
        ({"action": "listen"}, SYNTAX),
        ([1, 2], SYNTAX),
    ],
)
def test_what_is_refused_before_authentication(message: object, answer: Message) -> None:
    """Each refusal leaves the connection open for a right answer."""
    client = Plan().client(login=False)
    assert client.ask(message) == answer
    assert not client.conversation.authenticated
    assert client.ask(AUTH) == AUTHENTICATED


def test_a_feed_outside_the_plan_is_409() -> None:
    """The key is right, but its plan does not include the feed; another feed works."""
    plan = Plan(feeds=("iex",))
    sip = plan.client(feed="sip", login=False)
    assert sip.ask(AUTH) == refusal(409, "insufficient subscription")
    plan.client(feed="iex")


def test_a_refused_auth_may_close() -> None:
    """By its knob, 402 and 409 close; 406 never does."""
    plan = Plan(feeds=("iex",))
    plan.limits.close_after_refused_auth = True
    assert plan.client(login=False).answer(AUTH | {"secret": "wrong"}).close
    assert plan.client(feed="sip", login=False).answer(AUTH).close
    plan.limits.connections = 0
    assert plan.client(login=False).ask(AUTH) == CONNECTION_LIMIT
    plan.faults.auth_error = 406
    assert plan.client(login=False).ask(AUTH) == CONNECTION_LIMIT
    plan.faults.auth_error = 402
    assert plan.client(login=False).answer(AUTH).close


def test_the_newer_connection_is_refused_and_may_ask_again() -> None:
    """The older session keeps its slot; the newer succeeds once the slot is free."""
    plan = Plan()
    first, second = plan.client(1), plan.client(2, login=False)
    assert second.ask(AUTH) == CONNECTION_LIMIT
    assert second.ask(AUTH) == CONNECTION_LIMIT
    assert first.subscribe(quotes=["SPY"])["quotes"] == ["SPY"]
    plan.slots.free(1)
    assert second.ask(AUTH) == AUTHENTICATED


def test_the_connection_limit_counts_per_feed_and_key() -> None:
    """Another feed or another key is another endpoint; the limit is a knob."""
    plan = Plan(keys={"demo-key": "demo-secret", "b": "c"})
    plan.client(1)
    plan.client(2, feed="sip")
    other = plan.client(3, login=False)
    assert other.ask({"action": "auth", "key": "b", "secret": "c"}) == AUTHENTICATED
    plan.limits.connections = 2
    plan.client(4)


def test_auth_may_be_answered_with_any_error() -> None:
    """The fault decides, whatever the key is."""
    plan = Plan()
    client = plan.client(login=False)
    plan.faults.auth_error = 500
    assert client.ask(AUTH) == refusal(500, "internal error")
    plan.faults.auth_error = 0
    assert client.ask(AUTH) == AUTHENTICATED


# subscriptions


def test_subscriptions_add_up_and_acks_tell_all() -> None:
    """Each ack is the state of all channels in Alpaca's order; corrections follow trades."""
    client = Plan().client()
    ack = client.subscribe(quotes=["SPY"], trades=["SPY"])
    assert ack == NOTHING | {
        name: ["SPY"] for name in ("quotes", "trades", "corrections", "cancelErrors")
    }
    assert list(ack) == list(NOTHING)
    ack = client.subscribe(quotes=["BRK.B"], statuses=["*"], bars=[])
    assert ack["quotes"] == ["BRK.B", "SPY"]
    assert ack["statuses"] == ["*"]
    ack = client.unsubscribe(quotes=["SPY", "NVDA"], trades=["SPY"])
    assert ack == NOTHING | {"quotes": ["BRK.B"], "statuses": ["*"]}


def test_imbalances_are_acknowledged_when_asked_for() -> None:
    """The key is in the ack only then."""
    client = Plan().client()
    assert "imbalances" not in client.subscribe(quotes=["SPY"])
    assert client.subscribe(imbalances=["SPY"])["imbalances"] == ["SPY"]


def test_corrections_cannot_be_subscribed_to_by_themselves() -> None:
    """A request may name them, but they follow trades all the same."""
    client = Plan().client()
    assert client.subscribe(trades=["SPY"], corrections=["QQQ"])["corrections"] == ["SPY"]


@pytest.mark.parametrize(
    "symbol",
    ["spy", "BRK-B", "BRK.b", "UI2T", "", " SPY", "SPY ", "A.B.C", ".A", "ÄB", "**", "SPY\n", 7,
     None],
)  # fmt: skip
def test_a_malformed_symbol_refuses_the_whole_request(symbol: object) -> None:
    """The answer is 400, and the subscriptions are as before."""
    client = Plan().client()
    client.subscribe(quotes=["QQQ"])
    assert client.subscribe(quotes=["SPY", symbol]) == SYNTAX
    assert client.conversation.channels["quotes"] == {"QQQ"}
    assert client.subscribe(quotes=["SPY"])["quotes"] == ["QQQ", "SPY"]


def test_a_well_formed_symbol_may_be_refused() -> None:
    """A fault refuses well-formed symbols, so that a client has to find them among many."""
    plan = Plan()
    client = plan.client()
    plan.faults.bad_symbols = {"EVIL"}
    assert client.subscribe(quotes=["SPY", "EVIL"]) == SYNTAX
    assert client.subscribe(quotes=["SPY"])["quotes"] == ["SPY"]


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ({"action": "subscribe"}, SYNTAX),
        ({"action": "subscribe", "quotes": []}, SYNTAX),
        ({"action": "subscribe", "quotes": "SPY"}, SYNTAX),
        ({"action": "subscribe", "orderbooks": ["SPY"]}, FEED),
        ({"action": "unsubscribe", "orderbooks": ["SPY"]}, FEED),
        ({"action": "unsubscribe", "quotes": ["spy"]}, SYNTAX),
        ({"action": "unsubscribe"}, NOTHING | {"quotes": ["QQQ"]}),
        ({}, SYNTAX),
        ("subscribe", SYNTAX),
    ],
)
def test_what_is_refused_after_authentication(message: object, answer: Message) -> None:
    """Refusals leave the subscriptions as they were."""
    client = Plan().client()
    client.subscribe(quotes=["QQQ"])
    assert client.ask(message) == answer
    assert client.conversation.channels["quotes"] == {"QQQ"}


def test_an_empty_subscribe_may_be_acknowledged() -> None:
    """Alpaca does not document its answer, so it is a knob."""
    plan = Plan()
    plan.limits.empty_subscribe = True
    assert plan.client().subscribe() == NOTHING


@pytest.mark.parametrize(
    ("count", "channels", "refused"),
    [
        ("entries", {"quotes": ["A", "B", "C"]}, False),
        ("entries", {"quotes": ["A", "B"], "trades": ["A", "B"]}, True),
        ("symbols", {"quotes": ["A", "B"], "trades": ["A", "B"]}, False),
        ("symbols", {"quotes": ["A", "B"], "trades": ["C", "D"]}, True),
        ("entries", {"quotes": ["A"], "bars": ["A", "B", "C", "D"]}, False),
        ("entries", {"quotes": ["*"]}, True),
        ("entries", {"bars": ["*"]}, False),
    ],
)
def test_the_symbol_limit_is_atomic(
    count: str, channels: dict[str, list[str]], refused: bool
) -> None:
    """A request beyond the limit is refused as a whole; the subscriptions before it stay."""
    plan = Plan()
    plan.limits.symbols, plan.limits.count = 3, count
    client = plan.client()
    assert (client.subscribe(**channels) == SYMBOL_LIMIT) is refused
    if refused:
        assert client.conversation.channels["quotes"] == set()
        client.subscribe(quotes=["D", "E", "F"])
        assert client.subscribe(quotes=["G"]) == SYMBOL_LIMIT
        assert client.conversation.channels["quotes"] == {"D", "E", "F"}


def test_the_symbol_limit_changes_at_once() -> None:
    """A limit that changes counts from the next request on."""
    plan = Plan()
    client = plan.client()
    client.subscribe(quotes=["A", "B"])
    plan.limits.symbols = 2
    assert client.subscribe(quotes=["C"]) == SYMBOL_LIMIT
    plan.limits.symbols = None
    assert client.subscribe(quotes=["C"])["quotes"] == ["A", "B", "C"]
    assert client.subscribe(quotes=["*"])["quotes"] == ["*", "A", "B", "C"]


def test_channels_can_be_unavailable() -> None:
    """The feed or a fault answers 410; an empty list asks for nothing."""
    plan = Plan()
    client = plan.client(1, feed="test")
    assert client.subscribe(statuses=["FAKEPACA"]) == FEED
    ack = client.subscribe(quotes=["FAKEPACA"], statuses=[])
    assert ack == {"T": "subscription", "trades": [], "quotes": ["FAKEPACA"], "bars": []}
    plan.faults.unavailable_channels = {"statuses"}
    assert plan.client(2).subscribe(statuses=["*"]) == FEED


def test_acks_may_be_an_error_or_untrue() -> None:
    """The faults answer any subscribe with an error, or leave symbols out of it."""
    plan = Plan()
    client = plan.client()
    plan.faults.subscribe_error = 500
    assert client.subscribe(quotes=["A"]) == refusal(500, "internal error")
    plan.faults.subscribe_error = 0
    plan.faults.ack_omits = {"B"}
    assert client.subscribe(quotes=["A", "B"])["quotes"] == ["A"]


# which data goes to the client


def test_data_goes_by_channel_and_symbol() -> None:
    """`*` is every symbol; a message of an unknown type follows any subscription to its symbol."""
    client = Plan().client()
    client.subscribe(quotes=["SPY"], trades=["QQQ"], statuses=["*"])
    table = {
        ("q", "SPY"): True, ("q", "QQQ"): False, ("t", "QQQ"): True, ("t", "SPY"): False,
        ("c", "QQQ"): True, ("x", "SPY"): False, ("s", "IWM"): True, ("b", "SPY"): False,
    }  # fmt: skip
    assert {(kind, symbol): client.takes(kind, symbol) for kind, symbol in table} == table
    assert client.takes("new", "IWM")  # by statuses of *
    client.unsubscribe(statuses=["*"])
    assert not client.takes("new", "IWM")
    assert client.takes("new", "SPY")
    assert client.conversation.route.takes({"T": "newer"})


def test_late_data_goes_on_until_it_is_forgotten() -> None:
    """With the fault an unsubscribe is acknowledged, but its data still comes for a while."""
    plan = Plan()
    client = plan.client()
    client.subscribe(quotes=["SPY", "QQQ"])
    client.unsubscribe(quotes=["QQQ"])
    assert not client.takes("q", "QQQ")
    plan.faults.late_data_s = 1.0
    assert client.unsubscribe(quotes=["SPY"])["quotes"] == []
    assert client.takes("q", "SPY")
    client.conversation.forget_late()
    assert not client.takes("q", "SPY")
