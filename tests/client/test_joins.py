"""What is subscribed, fetched and told, without Redis: tables, and a model of the server."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotd.client.channels import Channels
from spotd.client.joins import Batch, Joins, Reader, Told
from spotd.client.telling import Counts, Stored, Teller
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState
from tests.kit.properties import at_least
from tests.kit.publisher import KEYS, gap_of, state_of, status_of, update_of

SYMBOLS = ("SPY", "QQQ")
A, B = b"spot:A", b"spot:B"
EVENTS = KEYS.events.encode()


class Heard:
    """A listener that keeps the newest of each symbol, and asserts what must hold at each call."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.seqs: dict[str, int] = {}
        self.states: dict[str, bytes | None] = {}
        self.daemon: bytes | None = None
        self.may_hear: Callable[[str], bool] = lambda _: True

    def price(self, update: SpotPriceUpdate, raw: bytes) -> None:
        """Each price is of a followed symbol, and newer than the one before it."""
        assert self.may_hear(update.symbol)
        assert update.seq > self.seqs.get(update.symbol, -1)
        assert SpotPriceUpdate.from_json(raw) == update
        self.seqs[update.symbol] = update.seq
        self.calls.append(("price", update.symbol, update.seq))

    def state(self, state: SymbolState, raw: bytes) -> None:
        """Each state is of a followed symbol."""
        assert self.may_hear(state.symbol)
        assert SymbolState.from_json(raw) == state
        self.states[state.symbol] = raw
        self.calls.append(("state", state.symbol, state.reason))

    def ended(self, symbol: str) -> None:
        """Only a state that was told can end."""
        assert self.may_hear(symbol)
        assert self.states[symbol] is not None
        self.states[symbol] = None
        self.calls.append(("ended", symbol))

    def gap(self, gap: Gap, raw: bytes) -> None:
        """A gap comes with its bytes."""
        assert Gap.from_json(raw) == gap
        self.calls.append(("gap", gap.code))

    def status(self, status: DaemonStatus | None, raw: bytes) -> None:
        """A status comes with its bytes, and the lack of one without."""
        assert (status is None) == (raw == b"")
        self.daemon = raw or None
        self.calls.append(("status", None if status is None else status.reason))

    def connection(self, connected: bool, why: str) -> None:
        """Nothing here connects."""
        raise AssertionError

    def failed(self, defect: BaseException) -> None:
        """Nothing here fails."""
        raise AssertionError from defect


def reader_of(heard: Heard, **options: bool) -> Reader:
    """Return a reader that tells ``heard``."""
    return Reader(
        heard,
        heard.failed,
        events=options.get("events", False),
        everything=options.get("everything", False),
    )


def state_json(symbol: str, reason: str | None) -> bytes:
    """Return the JSON of a state; states differ by their reasons."""
    return state_of(symbol, "stale", reason).to_json()


class TestChannels:
    def test_confirmed_by_the_last_command(self) -> None:
        """The confirmation of an earlier SUBSCRIBE does not stand for a later one."""
        channels = Channels()
        wanted = {A}
        assert channels.commands([A], wanted.__contains__) == ([A], [])
        wanted.clear()
        assert channels.commands([A], wanted.__contains__) == ([], [A])
        wanted.add(A)
        assert channels.commands([A], wanted.__contains__) == ([A], [])
        for confirmations in range(3):
            assert not channels.is_subscribed(A), confirmations
            channels.confirmed(A)
        assert channels.is_subscribed(A)

    @pytest.mark.parametrize(
        ("asked", "wanted", "sent"),
        [
            ([], [A], ([A], [])),
            ([A], [A], ([], [])),
            ([A], [B], ([B], [A])),
            ([A, B], [], ([], [A, B])),
            ([], [], ([], [])),
        ],
    )
    def test_only_differences(
        self, asked: list[bytes], wanted: list[bytes], sent: tuple[list[bytes], list[bytes]]
    ) -> None:
        """Only what differs from what was asked for is sent."""
        channels = Channels()
        channels.commands([A, B], asked.__contains__)
        assert channels.commands([A, B], wanted.__contains__) == sent


class TestTold:
    @pytest.mark.parametrize(
        ("steps", "news"),
        [
            ([("fetched", b"1")], [True]),
            ([("fetched", None)], [False]),
            ([("fetched", b"1"), ("fetched", b"1")], [True, False]),
            ([("fetched", b"1"), ("hear", b"1")], [True, False]),
            ([("fetched", b"1"), ("hear", b"2")], [True, True]),
            ([("hear", b"2"), ("fetched", b"1")], [True, False]),
            ([("hear", b"2"), ("fetched", None)], [True, False]),
            ([("hear", b"2"), ("fetch", None), ("fetched", b"3")], [True, True]),
            ([("hear", b"2"), ("fetch", None), ("fetched", None)], [True, True]),
            ([("hear", b"2"), ("hear", None)], [True, True]),
        ],
    )
    def test_news(self, steps: list[tuple[str, bytes | None]], news: list[bool]) -> None:
        """What is stored gives way to a message that came since the fetch began."""
        told = Told()
        told.fetch()
        said = []
        for step, raw in steps:
            if step == "fetch":
                told.fetch()
            else:
                said.append(getattr(told, step)(raw))
        assert said == news


class TestJoins:
    def test_fetch_waits_for_all_channels(self) -> None:
        """A symbol is fetched when its channel and, for states, that of events is confirmed."""
        joins = Joins(KEYS)
        prices, both = reader_of(Heard()), reader_of(Heard(), events=True)
        joins.attach(prices, ["SPY"])
        joins.attach(both, ["SPY"])
        assert set(joins.commands().subscribe) == {b"spot:SPY", EVENTS}
        assert joins.due(10) is None
        joins.confirmed(b"spot:SPY")
        assert joins.due(10) == ([], [prices.follows["SPY"]])
        joins.confirmed(EVENTS)
        assert joins.due(10) == ([both], [both.follows["SPY"]])
        assert joins.due(10) is None

    def test_joined_channel_is_shared(self) -> None:
        """A second reader of a symbol sends nothing, and is due at once."""
        joins = Joins(KEYS)
        first, second = reader_of(Heard()), reader_of(Heard())
        joins.attach(first, ["SPY"])
        joins.commands()
        joins.confirmed(b"spot:SPY")
        joins.attach(second, ["SPY"])
        assert joins.commands() == ([], [])
        joins.detach(first)
        assert joins.commands() == ([], [])
        assert joins.due(10) == ([], [second.follows["SPY"]])
        joins.detach(second)
        assert joins.commands() == ([], [b"spot:SPY"])
        joins.detach(second)
        assert joins.commands() == ([], [])

    def test_at_most(self) -> None:
        """Symbols are fetched in batches, and a reader is joined after its last one."""
        joins = Joins(KEYS)
        reader = reader_of(Heard())
        joins.attach(reader, SYMBOLS)
        joins.commands()
        for symbol in SYMBOLS:
            joins.confirmed(KEYS.channel(symbol).encode())
        first = joins.due(1)
        assert first is not None
        assert list(first.by_symbol()) == ["SPY"]
        assert joins.joined(first) == []
        rest = joins.due(1)
        assert rest is not None
        assert joins.joined(rest) == [reader]
        assert reader.is_joined

    def test_checks(self) -> None:
        """Now and then, the status and the states are fetched of those who want these alone."""
        joins = Joins(KEYS)
        prices, everything = reader_of(Heard()), reader_of(Heard(), everything=True)
        joins.attach(prices, ["SPY"])
        joins.attach(everything)
        assert joins.checks(10) == []
        states = reader_of(Heard(), events=True)
        joins.attach(states, SYMBOLS)
        assert joins.checks(10) == [([states], [])]  # nothing is joined yet
        states.unjoined.clear()
        assert [len(batch.follows) for batch in joins.checks(1)] == [1, 1]

    def test_announced_end(self) -> None:
        """A state ``ended`` is told a follower as an end, and once; an event as it is."""
        heard, everything = Heard(), Heard()
        joins = Joins(KEYS)
        joins.attach(reader_of(heard, events=True), ["SPY"])
        joins.attach(reader_of(everything, everything=True))
        teller = Teller(joins, Counts())
        teller.message(EVENTS, state_json("SPY", None))
        for _ in range(2):
            teller.message(EVENTS, state_of("SPY", "ended").to_json())
        assert heard.calls == [("state", "SPY", None), ("ended", "SPY")]
        assert everything.calls == [("state", "SPY", None)] * 3

    def test_gap(self) -> None:
        """A gap is told each reader of events, and no reader of prices."""
        prices, follower, everything = Heard(), Heard(), Heard()
        joins = Joins(KEYS)
        joins.attach(reader_of(prices), ["SPY"])
        joins.attach(reader_of(follower, events=True), ["SPY"])
        joins.attach(reader_of(everything, everything=True))
        Teller(joins, Counts()).message(EVENTS, gap_of("mute").to_json())
        assert follower.calls == everything.calls == [("gap", "mute")]
        assert prices.calls == []

    def test_unknown_type(self) -> None:
        """An event of a type that is not known is ignored, and is not malformed; others are."""
        heard, counts = Heard(), Counts()
        joins = Joins(KEYS)
        joins.attach(reader_of(heard, everything=True))
        teller = Teller(joins, counts)
        teller.message(EVENTS, b'{"type":"weather","from":1,"symbol":[]}')
        assert counts.malformed == 0
        for malformed in (b'{"type":"gap"}', b'{"type":"symbol"}', b'{"type":1}', b"{}", b"["):
            teller.message(EVENTS, malformed)
        assert counts.malformed == 5
        assert heard.calls == []

    def test_listener_that_removes(self) -> None:
        """A listener may end the following of a symbol in a call, also for another listener."""
        joins = Joins(KEYS)
        second = Heard()
        readers: list[Reader] = []

        class Removing(Heard):
            def price(self, update: SpotPriceUpdate, raw: bytes) -> None:
                super().price(update, raw)
                for reader in readers:
                    joins.remove(reader, ["SPY"])

        first = Removing()
        readers += [reader_of(first), reader_of(second)]
        for reader in readers:
            joins.attach(reader, ["SPY"])
        Teller(joins, Counts()).message(b"spot:SPY", update_of("SPY", 1).to_json())
        assert first.calls == [("price", "SPY", 1)]
        assert second.calls == []


class Network:
    """Readers, a server, and what is under way between them, in any order of events.

    One queue leads to the server and one back, as on a connection. Stored values are fetched
    on another connection: each part is read at the server at some time, and arrives at some time.
    """

    def __init__(self) -> None:
        self.joins = Joins(KEYS)
        self.counts = Counts()
        self.teller = Teller(self.joins, self.counts)
        self.heard: dict[Reader, Heard] = {}
        self.seq = 0
        self.last: dict[str, bytes] = {}
        self.states: dict[str, bytes] = {}
        self.status: bytes | None = None
        self.unannounced: set[str] = set()  # symbols whose state ended without a message
        self._disconnect()
        self._attach()

    def _disconnect(self) -> None:
        self.subscribed: set[bytes] = set()
        self.to_server: deque[tuple[bool, bytes]] = deque()
        self.from_server: deque[tuple[bytes, bytes | None]] = deque()
        self.fetch: tuple[Batch, bool, list[Any]] | None = None

    def _attach(self) -> None:
        """Two followers, one reader of prices, and one of everything."""
        for options in ({"events": True}, {"events": True}, {}, {"everything": True}):
            heard = Heard()
            reader = reader_of(heard, **options)
            heard.may_hear = self._may_hear(reader)
            self.heard[reader] = heard
            self.joins.attach(reader, () if reader.everything else ("SPY",))

    def _may_hear(self, reader: Reader) -> Callable[[str], bool]:
        return lambda symbol: reader.everything or symbol in reader.follows

    # What readers do

    def add(self, number: int, symbol: str) -> None:
        """Follow a symbol."""
        self.joins.add(tuple(self.heard)[number], [symbol])

    def remove(self, number: int, symbol: str) -> None:
        """Follow a symbol no longer; what was told of it counts no more."""
        reader = tuple(self.heard)[number]
        self.joins.remove(reader, [symbol])
        self.heard[reader].seqs.pop(symbol, None)
        self.heard[reader].states.pop(symbol, None)

    # What the daemon does

    def publish(self, symbol: str) -> None:
        """Store and publish a price."""
        self.seq += 1
        self.last[symbol] = update_of(symbol, self.seq).to_json()
        self._send(KEYS.channel(symbol).encode(), self.last[symbol])

    def announce(self, symbol: str, reason: str | None) -> None:
        """Store and publish a state, perhaps one that was there before."""
        self.unannounced.discard(symbol)
        self.states[symbol] = state_json(symbol, reason)
        self._send(EVENTS, self.states[symbol])

    def refresh(self, reason: str | None, told: bool) -> None:
        """Store the status; only a change of it is published."""
        self.status = status_of("waiting", reason).to_json()
        if told:
            self._send(EVENTS, self.status)

    def drop(self, symbol: str) -> None:
        """Remove a symbol's fields, which is not published."""
        self.last.pop(symbol, None)
        if self.states.pop(symbol, None):
            self.unannounced.add(symbol)

    def lapse(self) -> None:
        """No daemon refreshes the status any more."""
        self.status = None

    def _send(self, channel: bytes, raw: bytes) -> None:
        if channel in self.subscribed:
            self.from_server.append((channel, raw))

    # What the network does

    def send(self) -> None:
        """Send what is to be sent."""
        commands = self.joins.commands()
        self.to_server += [(True, channel) for channel in commands.subscribe]
        self.to_server += [(False, channel) for channel in commands.unsubscribe]

    def serve(self) -> None:
        """The server takes one command, and confirms it."""
        if not self.to_server:
            return
        subscribe, channel = self.to_server.popleft()
        (self.subscribed.add if subscribe else self.subscribed.discard)(channel)
        self.from_server.append((channel, None))

    def read(self) -> None:
        """The client reads one message or confirmation."""
        if not self.from_server:
            return
        channel, raw = self.from_server.popleft()
        if raw is None:
            self.joins.confirmed(channel)
        else:
            self.teller.message(channel, raw)

    def begin_fetch(self, most: int) -> None:
        """Fetch what is due, if no fetch is under way."""
        batch = None if self.fetch else self.joins.due(most)
        if batch is not None:
            batch.begin()
            self.fetch = (batch, True, [])

    def begin_check(self, number: int) -> None:
        """Check for ends that were not published, if no fetch is under way."""
        batches = self.joins.checks(2)
        if self.fetch is None:
            batch = batches[number % len(batches)]
            batch.begin()
            self.fetch = (batch, False, [])

    def fetch_on(self) -> None:
        """The server answers one part of a fetch; after the last, the client takes it."""
        if self.fetch is None:
            return
        batch, prices, parts = self.fetch
        symbols = list(batch.by_symbol()) if prices else []
        stateful = list(batch.by_symbol(events=True))
        if len(parts) == 0:
            parts.append(self.status if batch.readers else None)
        elif len(parts) == 1:
            parts.append(list(self.states.values()) if batch.everything else [])
        elif len(parts) == 2:
            parts.append([self.last.get(symbol) for symbol in symbols])
        elif len(parts) == 3:
            parts.append([self.states.get(symbol) for symbol in stateful])
        else:
            self.fetch = None
            for _ in self.teller.stored(batch, Stored(*parts)):
                pass
            if prices:
                self.joins.joined(batch)

    def lose(self) -> None:
        """The connection is lost with all that is under way, and made anew."""
        self._disconnect()
        self.joins.reconnect()

    def check(self) -> None:
        """Once everything has arrived, each reader was told the newest of all that it follows."""
        self._settle()
        for reader, heard in self.heard.items():
            assert reader.is_joined
            for symbol in reader.follows:
                stored = self.last.get(symbol)
                if stored is not None:
                    assert heard.seqs[symbol] == SpotPriceUpdate.from_json(stored).seq
                if reader.events and symbol not in self.unannounced:
                    assert heard.states.get(symbol) == self.states.get(symbol)
            if reader.everything:
                assert self.states.items() <= heard.states.items()
        wanted = {KEYS.channel(s).encode() for reader in self.heard for s in reader.follows}
        assert self.subscribed == wanted | {EVENTS}
        self._check_what_is_not_announced()

    def _check_what_is_not_announced(self) -> None:
        for batch in self.joins.checks(2):
            batch.begin()
            self.fetch = (batch, False, [])
            self._settle()
        for reader, heard in self.heard.items():
            if reader.events and not reader.everything:
                assert heard.daemon == self.status
                for symbol in reader.follows:
                    assert heard.states.get(symbol) == self.states.get(symbol)
        assert self.counts.malformed == 0

    def _settle(self) -> None:
        while True:
            self.send()
            if self.to_server:
                self.serve()
            elif self.from_server:
                self.read()
            elif self.fetch is not None:
                self.fetch_on()
            else:
                self.begin_fetch(2)
                if self.fetch is None:
                    return


def random_step(network: Network, chance: random.Random) -> None:
    """Let one thing happen; what moves the network happens most often."""
    symbol = chance.choice(SYMBOLS)
    reader = chance.randrange(3)
    reason = chance.choice((None, "a", "b"))
    steps: dict[Callable[[], None], int] = {
        network.send: 10,
        network.serve: 15,
        network.read: 20,
        lambda: network.begin_fetch(chance.randint(1, 3)): 10,
        network.fetch_on: 20,
        lambda: network.begin_check(reader): 2,
        lambda: network.add(reader, symbol): 5,
        lambda: network.remove(reader, symbol): 4,
        lambda: network.publish(symbol): 6,
        lambda: network.announce(symbol, reason): 6,
        lambda: network.drop(symbol): 1,
        lambda: network.refresh(reason, chance.random() < 0.5): 2,
        network.lapse: 1,
        network.lose: 1,
    }
    chance.choices(tuple(steps), tuple(steps.values()))[0]()


@settings(max_examples=at_least(300))
@given(seed=st.integers(0, 2**32), length=st.integers(1, 150))
def test_any_order(seed: int, length: int) -> None:
    """Whatever the order of events, nobody is told an older price, and everybody the newest."""
    network = Network()
    chance = random.Random(seed)  # drawn steps would be too few, and mostly without effect
    for _ in range(length):
        random_step(network, chance)
    network.check()
