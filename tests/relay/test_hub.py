"""Which client gets what, and when it is due: newest wins, everywhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from spotd.models import SymbolStateName
from spotd.relay.hub import LINGER_S, RESERVED_S, Hub
from spotd.relay.limits import Limits
from spotd.relay.slots import Client
from spotd.relay.tick import SLICES
from spotd.relay.wire import Wire
from tests.kit.publisher import gap_of, state_of, status_of, update_of

TIMESTAMP = "2026-01-20T12:00:00.000000Z"


class Setup:
    """A hub, whose clients are served as an edge serves them."""

    def __init__(self, **limits: Any) -> None:
        self.hub = Hub(Limits(**limits))
        self.now = 100.0

    def client(
        self, *symbols: str, max_hz: float | None = None, wire: Wire = Wire.MESSAGES
    ) -> Client:
        """Join a client, and subscribe it to symbols."""
        client = self.hub.join(wire)
        self.hub.subscribe(client, symbols, max_hz, self.now)
        return client

    def price(self, symbol: str, seq: int) -> None:
        """Have a price come."""
        self.hub.price(symbol, update_of(symbol, seq).to_json(), self.now, self.now)

    def state(self, symbol: str, name: SymbolStateName) -> None:
        """Have a state come."""
        self.hub.state(symbol, state_of(symbol, name).to_json(), self.now)

    def due(self) -> list[Client]:
        """Return the clients that a whole tick serves."""
        self.hub.release(self.now)
        return [client for slice_ in range(SLICES) for client in self.hub.due(slice_)]

    def tick(self) -> dict[Client, list[Any]]:
        """Serve all clients that are due. Return what each is told, decoded."""
        taken = {client: self.hub.take(client, self.now, TIMESTAMP) for client in self.due()}
        return {client: list(map(json.loads, parts)) for client, parts in taken.items()}


def told(messages: Iterable[Any]) -> list[Any]:
    """Return messages in short: prices as symbol and seq, the others by a word of theirs."""
    short: list[Any] = []
    for message in messages:
        if message["type"] == "spot_price_update":
            short.append((message["update"]["symbol"], message["update"]["seq"]))
        elif message["type"] == "spot_price_update_batch":
            short.append([(update["symbol"], update["seq"]) for update in message["updates"]])
        elif message["type"] == "symbol":
            short.append((message["symbol"], message["state"]))
        elif message["type"] == "gap":
            short.append(("gap", message["code"]))
        else:
            short.append((message["type"], message["state"]))
    return short


# Prices


def test_a_client_is_told_its_symbols_and_no_others() -> None:
    """Two clients with one symbol in common; a symbol that nobody wants is ignored."""
    setup = Setup()
    one, other = setup.client("SPY", "QQQ"), setup.client("SPY")
    for symbol in ("SPY", "QQQ", "AAPL"):
        setup.price(symbol, 1)
    found = setup.tick()
    assert told(found[one]) == [("SPY", 1), ("QQQ", 1)]
    assert told(found[other]) == [("SPY", 1)]
    assert setup.tick() == {}


def test_the_newest_price_wins_until_it_is_taken() -> None:
    """Three prices between two ticks are one message, and two that were skipped."""
    setup = Setup()
    client = setup.client("SPY")
    for seq in (1, 2, 3):
        setup.price("SPY", seq)
    assert told(setup.tick()[client]) == [("SPY", 3)]
    assert setup.hub.counts.skipped == 2
    assert (setup.hub.counts.messages, setup.hub.counts.updates) == (1, 1)


def test_a_new_client_is_told_at_once_what_is_known() -> None:
    """State and newest price of each symbol, before anything changes."""
    setup = Setup()
    setup.client("SPY")
    setup.state("SPY", "live")
    setup.price("SPY", 7)
    setup.tick()
    late = setup.client("SPY", "QQQ")
    assert told(setup.tick()[late]) == [("SPY", "live"), ("SPY", 7)]


def test_subscribing_again_tells_nothing_anew() -> None:
    """What the client has been told already is not repeated."""
    setup = Setup()
    client = setup.client("SPY")
    setup.price("SPY", 1)
    setup.tick()
    wanted = setup.hub.subscribe(client, ["SPY"], None, setup.now)
    assert (wanted.accepted, wanted.new) == (["SPY"], [])
    assert setup.tick() == {}


def test_a_client_that_unsubscribes_is_not_told_what_waits() -> None:
    """Neither price nor state, and others are told all the same."""
    setup = Setup()
    leaver, stayer = setup.client("SPY"), setup.client("SPY")
    setup.state("SPY", "live")
    setup.price("SPY", 1)
    setup.hub.unsubscribe(leaver, ["SPY", "QQQ"], setup.now)
    found = setup.tick()
    assert found.pop(leaver, []) == []
    assert told(found[stayer]) == [("SPY", "live"), ("SPY", 1)]


def test_batches_hold_all_prices_of_a_tick() -> None:
    """One message instead of one per symbol; states stand for themselves."""
    setup = Setup()
    client = setup.client("SPY", "QQQ")
    client.batch = True
    setup.price("SPY", 1)
    setup.price("QQQ", 2)
    setup.state("SPY", "live")
    assert told(setup.tick()[client]) == [("SPY", "live"), [("SPY", 1), ("QQQ", 2)]]


def test_each_wire_gets_its_form_of_the_same_message() -> None:
    """A frame for a websocket, an event for an event stream."""
    setup = Setup()
    websocket = setup.client("SPY", wire=Wire.WEBSOCKET)
    events = setup.client("SPY", wire=Wire.EVENTS)
    setup.price("SPY", 1)
    forms = {client: setup.hub.take(client, setup.now, TIMESTAMP) for client in setup.due()}
    assert forms[websocket][0].startswith(b"\x81")
    assert forms[events][0].startswith(b"event: spot_price_update\n")


# States and status


def test_the_newest_state_wins() -> None:
    """As of prices: each client is told the newest state of each of its symbols."""
    setup = Setup()
    client, paced = setup.client("SPY"), setup.client("SPY", max_hz=1)
    setup.state("SPY", "pending")
    setup.state("SPY", "live")
    setup.state("QQQ", "live")
    found = setup.tick()
    assert told(found[client]) == told(found[paced]) == [("SPY", "live")]


def test_an_ended_symbol_has_no_price_any_more() -> None:
    """A price that waits is not told, and a later client is told of the end alone."""
    setup = Setup()
    client, paced = setup.client("SPY"), setup.client("SPY", max_hz=1)
    setup.price("SPY", 1)
    setup.tick()
    setup.price("SPY", 2)
    setup.hub.ended("SPY", setup.now, setup.now)
    setup.hub.ended("QQQ", setup.now, setup.now)
    setup.now += 10
    found = setup.tick()
    assert told(found[client]) == told(found[paced]) == [("SPY", "ended")]
    assert told(setup.tick().get(paced, [])) == []
    late = setup.client("SPY")
    assert told(setup.tick()[late]) == [("SPY", "ended")]


def test_status_is_told_to_everybody() -> None:
    """That of the daemon, that there is none, and the relay's own."""
    setup = Setup()
    client = setup.client()
    setup.hub.daemon(status_of().to_json(), setup.now)
    assert told(setup.tick()[client]) == [("daemon", "streaming")]
    setup.hub.relay(b'{"type":"relay","state":"no_daemon","reason":null}', setup.now)
    setup.hub.daemon(None, setup.now)
    assert told(setup.tick()[client]) == [("relay", "no_daemon"), ("daemon", "absent")]


def test_a_gap_is_told_to_the_present_clients() -> None:
    """Once, with or without symbols; later clients are not told."""
    setup = Setup()
    client, other = setup.client("SPY"), setup.client()
    setup.hub.gap(gap_of("mute").to_json(), setup.now)
    found = setup.tick()
    assert told(found[client]) == told(found[other]) == [("gap", "mute")]
    assert setup.tick() == {}
    setup.client("QQQ")
    assert setup.tick() == {}


# max_hz


def test_max_hz_spaces_the_prices_of_one_client() -> None:
    """Two a second: the first at once, the newest of the rest after half a second."""
    setup = Setup()
    paced, other = setup.client("SPY", max_hz=2), setup.client("SPY")
    seen: list[Any] = []
    for seq in range(10):
        setup.price("SPY", seq)
        found = setup.tick()
        assert other in found
        seen.append(told(found.get(paced, [])))
        setup.now += 0.125
    assert seen == [[("SPY", 0)], [], [], [], [("SPY", 4)], [], [], [], [("SPY", 8)], []]
    setup.now += 0.5
    assert told(setup.tick()[paced]) == [("SPY", 9)]


def test_a_held_price_says_when_it_is_due() -> None:
    """A relay without anything else to do knows when to wake up."""
    setup = Setup()
    setup.client("SPY", max_hz=1)
    seen: list[tuple[bool, float | None]] = [(setup.hub.listed, setup.hub.held_until)]
    for seq in (1, 2):
        setup.price("SPY", seq)
        seen.append((setup.hub.listed, setup.hub.held_until))
        setup.tick()
    assert seen == [(False, None), (True, None), (False, setup.now + 1)]


def test_max_hz_may_be_changed_and_ended() -> None:
    """What was held back is told at once, and the new pace holds from then on."""
    setup = Setup()
    client = setup.client("SPY", max_hz=0.01)
    setup.price("SPY", 1)
    setup.tick()
    setup.price("SPY", 2)
    setup.hub.subscribe(client, ["SPY"], None, setup.now)
    assert told(setup.tick()[client]) == [("SPY", 2)]
    setup.price("SPY", 3)
    assert told(setup.tick()[client]) == [("SPY", 3)]
    setup.hub.subscribe(client, ["SPY"], 1, setup.now)
    setup.price("SPY", 4)
    setup.price("SPY", 5)
    assert told(setup.tick()[client]) == [("SPY", 5)]
    setup.price("SPY", 6)
    assert setup.tick() == {}


def test_a_symbol_given_up_while_its_price_is_held_back_is_not_told() -> None:
    """Its time comes, and nothing happens."""
    setup = Setup()
    client = setup.client("SPY", "QQQ", max_hz=1)
    setup.price("SPY", 1)
    setup.tick()
    setup.price("SPY", 2)
    setup.hub.unsubscribe(client, ["SPY"], setup.now)
    setup.now += 2
    assert setup.tick() == {}


def test_a_client_may_pace_one_symbol_and_not_another() -> None:
    """``max_hz`` belongs to a subscription."""
    setup = Setup()
    client = setup.client("SPY", max_hz=1)
    setup.hub.subscribe(client, ["QQQ"], None, setup.now)
    seen = []
    for seq in (1, 2):
        setup.price("SPY", seq)
        setup.price("QQQ", seq)
        seen.append(told(setup.tick()[client]))
    assert seen == [[("SPY", 1), ("QQQ", 1)], [("QQQ", 2)]]


# Clients that do not read


def test_a_blocked_client_is_passed_over_and_gets_the_newest_later() -> None:
    """Old prices are never told; others are not held up."""
    setup = Setup()
    blocked, other = setup.client("SPY", "QQQ"), setup.client("SPY")
    setup.hub.block(blocked)
    for seq in (1, 2, 3):
        setup.price("SPY", seq)
        assert told(setup.tick()[other]) == [("SPY", seq)]
    setup.hub.unblock(blocked, setup.now)
    assert told(setup.tick()[blocked]) == [("SPY", 3)]
    setup.hub.block(blocked)
    setup.hub.unblock(blocked, setup.now)
    assert setup.tick() == {}


def test_a_client_that_is_blocked_while_it_is_listed_is_not_served() -> None:
    """An answer to a message may have filled its connection."""
    setup = Setup()
    client = setup.client("SPY")
    setup.price("SPY", 1)
    setup.hub.block(client)
    assert not setup.hub.listed
    assert setup.tick() == {}


def test_a_client_that_has_left_wants_nothing() -> None:
    """Its first message may be read after its end, and nobody would end its demand."""
    setup = Setup()
    client = setup.hub.join(Wire.WEBSOCKET)
    setup.hub.leave(client, setup.now)
    wanted = setup.hub.subscribe(client, ["SPY"], None, setup.now)
    assert (wanted.new, wanted.refused) == ([], {})
    assert (setup.hub.symbols, client.slots) == (0, {})


def test_a_client_that_left_is_never_served() -> None:
    """This holds where it was listed or blocked, and where it leaves twice."""
    setup = Setup()
    listed, blocked = setup.client("SPY"), setup.client("SPY")
    setup.price("SPY", 1)
    setup.hub.block(blocked)
    for client in (listed, blocked, listed):
        setup.hub.leave(client, setup.now)
    setup.hub.unblock(blocked, setup.now)
    setup.price("SPY", 2)
    setup.hub.daemon(None, setup.now)
    assert setup.tick() == {}
    assert setup.hub.clients == 0


def test_a_listed_client_that_hears_more_is_listed_once() -> None:
    """States, status and prices that come before its tick come together."""
    setup = Setup()
    client = setup.client("SPY", max_hz=1)
    setup.state("SPY", "live")
    setup.price("SPY", 1)
    setup.hub.daemon(status_of().to_json(), setup.now)
    assert setup.due() == [client]


def test_clients_are_spread_over_the_slices() -> None:
    """Sixteen clients of one symbol: each slice serves two."""
    setup = Setup()
    for _ in range(2 * SLICES):
        setup.client("SPY")
    setup.price("SPY", 1)
    assert [len(setup.hub.due(slice_)) for slice_ in range(SLICES)] == [2] * SLICES


# Demand


def test_a_symbol_is_wanted_until_its_last_client_has_left() -> None:
    """It is wanted a moment longer, since a page that is loaded again wants it at once."""
    setup = Setup()
    one, other = setup.client("SPY"), setup.client("SPY", max_hz=1)
    setup.hub.leave(one, setup.now)
    setup.now += 60
    assert setup.hub.lapse(setup.now) == []
    setup.hub.leave(other, setup.now)
    assert setup.hub.lapse(setup.now + LINGER_S - 0.1) == []
    assert setup.hub.lapse(setup.now + LINGER_S) == ["SPY"]
    assert setup.hub.symbols == 0


def test_a_symbol_that_is_wanted_again_in_time_stays() -> None:
    """With its price, and nothing is new about it."""
    setup = Setup()
    client = setup.client("SPY")
    setup.price("SPY", 1)
    setup.hub.leave(client, setup.now)
    again = setup.client("SPY")
    assert setup.hub.lapse(setup.now + 100) == []
    assert told(setup.tick()[again]) == [("SPY", 1)]


def test_a_reserved_symbol_is_wanted_for_a_minute() -> None:
    """Each POST begins the minute anew; a client keeps the symbol longer."""
    setup = Setup()
    assert setup.hub.reserve(["SPY", "QQQ"], 0).new == ["SPY", "QQQ"]
    assert setup.hub.reserve(["SPY"], 30).new == []
    assert setup.hub.lapse(RESERVED_S) == ["QQQ"]
    client = setup.client("SPY")
    assert setup.hub.reserve(["SPY"], 40).new == []
    assert setup.hub.lapse(1_000) == []
    setup.now = 1_000
    setup.hub.leave(client, setup.now)
    assert setup.hub.lapse(setup.now + LINGER_S) == ["SPY"]


def test_leaving_does_not_shorten_a_reservation() -> None:
    """The minute of a POST lasts beyond a client that comes and goes."""
    setup = Setup()
    setup.hub.reserve(["SPY"], setup.now)
    setup.hub.leave(setup.client("SPY"), setup.now)
    assert setup.hub.lapse(setup.now + RESERVED_S - 1) == []
    assert setup.hub.lapse(setup.now + RESERVED_S) == ["SPY"]


def test_one_client_has_room_for_its_limit() -> None:
    """The rest is refused; it may name again the symbols that it has."""
    setup = Setup(symbols=2)
    client = setup.client("SPY", "QQQ")
    wanted = setup.hub.subscribe(client, ["AAPL", "SPY"], None, setup.now)
    assert wanted.refused == {"AAPL": "symbol_limit"}
    assert wanted.accepted == ["SPY"]
    setup.hub.unsubscribe(client, ["QQQ"], setup.now)
    assert setup.hub.subscribe(client, ["AAPL"], None, setup.now).accepted == ["AAPL"]


def test_all_clients_together_have_room_for_the_total() -> None:
    """A symbol that somebody has costs no room, one more does, also by POST."""
    setup = Setup(total_symbols=2)
    setup.client("SPY", "QQQ")
    other = setup.client()
    wanted = setup.hub.subscribe(other, ["SPY", "AAPL"], None, setup.now)
    assert (wanted.accepted, wanted.new) == (["SPY"], [])
    assert wanted.refused == {"AAPL": "symbol_limit"}
    assert setup.hub.reserve(["AAPL", "QQQ"], setup.now).refused == {"AAPL": "symbol_limit"}


# Whatever happens, in whatever order

SYMBOLS = ("SPY", "QQQ", "AAPL", "MSFT")
some_symbols = st.lists(st.sampled_from(SYMBOLS), max_size=4, unique=True)


class HubMachine(RuleBasedStateMachine):
    """Clients come, go, block and subscribe, while prices come and ticks pass."""

    def __init__(self) -> None:
        super().__init__()
        self.setup = Setup(symbols=3, total_symbols=3)
        self.seqs: dict[str, int] = {}
        self.known: dict[str, int] = {}  # symbol, while it is wanted: its newest seq
        self.wanted: set[str] = set()
        self.clients: dict[Client, dict[str, int]] = {}  # what each was told, by symbol
        self.blocked: set[Client] = set()

    def pick(self, number: int) -> Client | None:
        """Return one of the clients."""
        return [*self.clients][number % len(self.clients)] if self.clients else None

    @rule()
    def join(self) -> None:
        """A client comes."""
        self.clients[self.setup.client()] = {}

    @rule(number=st.integers(0, 9), blocked=st.booleans())
    def leave_or_block(self, number: int, *, blocked: bool) -> None:
        """A client stops reading, or leaves."""
        if (client := self.pick(number)) is None:
            return
        if blocked:
            self.setup.hub.block(client)
            self.blocked.add(client)
        else:
            self.setup.hub.leave(client, self.setup.now)
            del self.clients[client]
            self.blocked.discard(client)

    @rule()
    def unblock(self) -> None:
        """All clients read again."""
        for client in self.blocked:
            self.setup.hub.unblock(client, self.setup.now)
        self.blocked.clear()

    @rule(
        number=st.integers(0, 9),
        symbols=some_symbols,
        max_hz=st.sampled_from([None, None, 1.0, 9.0]),
    )
    def subscribe(self, number: int, symbols: list[str], max_hz: float | None) -> None:
        """A client asks for symbols."""
        if (client := self.pick(number)) is None:
            return
        wanted = self.setup.hub.subscribe(client, symbols, max_hz, self.setup.now)
        assert set(wanted.new) == set(wanted.accepted) - self.wanted
        assert wanted.accepted == [s for s in symbols if s not in wanted.refused]
        self.wanted.update(wanted.new)

    @rule(number=st.integers(0, 9), symbols=some_symbols)
    def unsubscribe(self, number: int, symbols: list[str]) -> None:
        """A client gives symbols up."""
        if (client := self.pick(number)) is None:
            return
        self.setup.hub.unsubscribe(client, symbols, self.setup.now)
        for symbol in symbols:
            self.clients[client].pop(symbol, None)

    @rule(symbol=st.sampled_from(SYMBOLS))
    def price(self, symbol: str) -> None:
        """A newer price comes."""
        self.seqs[symbol] = self.seqs.get(symbol, 0) + 1
        self.setup.price(symbol, self.seqs[symbol])
        if symbol in self.wanted:
            self.known[symbol] = self.seqs[symbol]

    @rule(symbol=st.sampled_from(SYMBOLS))
    def ended(self, symbol: str) -> None:
        """A symbol is streamed no longer."""
        self.setup.hub.ended(symbol, self.setup.now, self.setup.now)
        self.known.pop(symbol, None)

    @rule(pause_s=st.sampled_from([0.02, 0.2, 5.0]))
    def tick(self, pause_s: float) -> None:
        """Time passes, and everybody who is due is served."""
        self.setup.now += pause_s
        for client, messages in self.setup.tick().items():
            assert client in self.clients
            assert client not in self.blocked
            for message in messages:
                if message["type"] == "spot_price_update":
                    symbol, seq = message["update"]["symbol"], message["update"]["seq"]
                    assert symbol in client.slots
                    assert self.clients[client].get(symbol, 0) < seq == self.known[symbol]
                    self.clients[client][symbol] = seq
        for symbol in self.setup.hub.lapse(self.setup.now):
            self.wanted.remove(symbol)
            self.known.pop(symbol, None)

    @rule()
    def settle(self) -> None:
        """After a silence, everybody who reads holds the newest price of each of its symbols."""
        self.unblock()
        for _ in range(3):
            self.tick(5.0)
        for client, seen in self.clients.items():
            for symbol in client.slots:
                if symbol in self.known:
                    assert seen[symbol] == self.known[symbol]

    @invariant()
    def limits_hold(self) -> None:
        """Nobody has more symbols than allowed, and what is wanted is what the hub holds."""
        assert all(len(client.slots) <= 3 for client in self.clients)
        assert len(self.wanted) == self.setup.hub.symbols <= 3
        assert {symbol for client in self.clients for symbol in client.slots} <= self.wanted
        assert self.setup.hub.blocked == len(self.blocked)


TestHub = pytest.mark.timeout(120)(HubMachine.TestCase)
TestHub.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
