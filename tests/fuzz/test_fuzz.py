"""Whatever comes from outside, nothing crashes, hangs or grows, and nothing is made up from it.

``--hypothesis-profile=long`` tries each with 5,000 inputs, ``fuzz`` with 100,000.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from spotd.alpaca.frames import FrameDecoder
from spotd.alpaca.rest import Snapshots
from spotd.core.conflate import Conflator
from spotd.core.demand import MAX_REFUSED_SHOWN
from spotd.core.demand_reader import DemandReader
from spotd.core.prices import PriceCache
from spotd.core.publishing import SeqCounter
from spotd.daemon.publish import render
from spotd.errors import AlpacaRefusedError, SnapshotError
from spotd.keys import Keys
from spotd.models import MAX_ENTRY_CHARS, DaemonStatus, SpotPriceUpdate, SymbolState
from spotd.relay import protocol
from spotd.settings import Settings
from spotd.symbols import is_symbol
from tests.fuzz.strategies import ACTIONS, ENTRIES, FRAMES, JSON, MEMBERS, damaged
from tests.kit.properties import at_least
from tests.kit.waiting import GUARD_S

WANTED = frozenset({"SPY"})
KINDS = {"frame", "message", "quote", "trade", "unknown_type"}

fuzz = settings(
    max_examples=at_least(300),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

pytestmark = pytest.mark.long  # `.ci/run` has a step for it


class Intake:
    """Where frames end up: decoder, price cache, and what would be published of them."""

    def __init__(self) -> None:
        self.decoder = FrameDecoder()
        self.conflator = Conflator(0.0)
        self.prices = PriceCache(self.conflator, WANTED.__contains__)
        self.seq = SeqCounter()
        self.now = 0.0

    def take(self, payload: bytes) -> None:
        """Take a frame in, and check what would go out."""
        self.now += 1.0
        self.prices.receive(self.decoder.decode(payload), self.now)
        taken = self.conflator.take(self.now, 100)
        lines, _ = render(taken, self.seq)
        self.conflator.settle(taken, self.now, delivered=True)
        for line in lines.splitlines():
            update = SpotPriceUpdate.from_json(line)
            assert update.symbol in WANTED
            assert 0 < update.bid_price < math.inf
            assert 0 < update.ask_price < math.inf
            assert update.last_price is None or math.isfinite(update.last_price)

    def sizes(self) -> dict[str, int]:
        """Return how large everything is that is kept."""
        return {
            "slots": len(self.prices.slots),
            "dropped": len(self.prices.dropped),
            "ignored": len(self.prices.ignored),
            "malformed": len(self.decoder.malformed),
        }


INTAKE = Intake()


@fuzz
@given(FRAMES)
def test_any_frame(payload: bytes) -> None:
    """A frame is decoded or counted; only sound prices of wanted symbols go out; nothing grows."""
    INTAKE.take(payload)
    assert INTAKE.decoder.malformed.keys() <= KINDS
    sizes = INTAKE.sizes()
    assert sizes["slots"] <= len(WANTED)
    assert max(sizes.values()) <= 10


@fuzz
@given(st.lists(ENTRIES, max_size=6), st.lists(MEMBERS, max_size=6), st.booleans())
def test_any_demand(entries: list[bytes], members: list[bytes], wildcard: bool) -> None:
    """Each entry is a symbol or refused as text; what leaves leaves nothing behind."""
    reader = DemandReader(allow_wildcard=wildcard)
    reader.add(entries)
    reader.add_leases(members)
    demand = reader.result(1)
    keys = Keys()
    for symbol in demand.symbols - {"*"}:
        assert is_symbol(symbol)
        assert keys.channel(symbol).removeprefix("spot:").isascii()
    for name, refusal in demand.refused.items():
        assert len(name) <= MAX_ENTRY_CHARS
        name.encode()  # what is written to Redis is UTF-8
        assert "\n" not in json.dumps({name: refusal.reason})
    assert len(demand.refused) <= MAX_REFUSED_SHOWN
    reader.remove(entries)
    reader.remove_leases(members)
    empty = reader.result(2)
    assert not empty.symbols
    assert not empty.refused
    assert empty.refused_count == 0


class _Answer(requests.Response):
    def __init__(self, status: int, body: bytes) -> None:
        super().__init__()
        self.status_code = status
        self._content = body
        self.url = "http://127.0.0.1:1/v2/stocks/snapshots"


_SIDE = st.dictionaries(
    st.sampled_from(("bp", "ap", "p", "t", "c", "z", "T", "S")),
    JSON | st.sampled_from(("2026-01-20T15:00:00.123456789Z", "2026-01-20T15:00:00Z", "9999")),
    max_size=5,
)
_SNAPSHOTS = st.dictionaries(
    st.sampled_from(("SPY", "QQQ", "spy", "", "snapshots")),
    JSON | st.fixed_dictionaries({}, optional={"latestQuote": _SIDE | JSON, "latestTrade": _SIDE}),
    max_size=3,
)
_WHOLE = (_SNAPSHOTS | JSON).map(msgspec.json.encode)
BODIES = st.binary(max_size=64) | _WHOLE | damaged(_WHOLE)


@pytest.fixture(scope="module")
def rest() -> Snapshots:
    """Return REST that asks nobody."""
    values: dict[str, Any] = {
        "api_key": SecretStr("key"),
        "secret_key": SecretStr("secret"),
        "data_url": "http://127.0.0.1:1",
    }
    return Snapshots(Settings(**values))


@fuzz
@given(body=BODIES, status=st.sampled_from((200, 200, 200, 200, 400, 401, 404, 500)))
def test_any_answer_of_rest(rest: Snapshots, body: bytes, status: int) -> None:
    """It is read, or it is one of our errors; what is read can be published."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "request", lambda *_, **__: _Answer(status, body))
        try:
            found = asyncio.run(rest.fetch(["SPY", "QQQ"], deadline_s=GUARD_S))
        except (SnapshotError, AlpacaRefusedError):
            return
    conflator = Conflator(0.0)
    prices = PriceCache(conflator, WANTED.__contains__)
    for symbol, snapshot in found.items():
        prices.take_snapshot(symbol, snapshot.quote, snapshot.trade, 1.0)
    lines, _ = render(conflator.take(2.0, 10), SeqCounter())
    for line in lines.splitlines():
        assert SpotPriceUpdate.from_json(line).symbol in WANTED


@fuzz
@given(ACTIONS)
def test_any_message_of_a_browser(raw: bytes) -> None:
    """It is an action or a problem that is told in JSON, and its symbols are symbols."""
    found = protocol.parse(raw)
    if isinstance(found, protocol.Problem):
        assert json.loads(protocol.error(found))["type"] == "error"
        return
    if isinstance(found, protocol.Ping):
        return
    symbols, refused = protocol.symbols_of(found.symbols)
    assert all(map(is_symbol, symbols))
    assert all(len(name) <= MAX_ENTRY_CHARS for name in refused)
    json.dumps(refused).encode()


_TOLD = (JSON.map(msgspec.json.encode)) | st.binary(max_size=64)


@fuzz
@given(damaged(_TOLD) | _TOLD)
def test_anything_that_others_write_to_redis(raw: bytes) -> None:
    """What a client or a relay reads is the message it should be, or not JSON of that kind."""
    readers: tuple[Callable[[bytes], Any], ...] = (
        SpotPriceUpdate.from_json, SymbolState.from_json, DaemonStatus.from_json,
    )  # fmt: skip
    for read in readers:
        try:
            read(raw)
        except msgspec.DecodeError:
            continue


def test_the_inputs_are_worth_trying() -> None:
    """Among them are sound messages, malformed ones, and prices that go out."""
    intake = Intake()

    @settings(fuzz, max_examples=1_000)
    @given(FRAMES)
    def look(payload: bytes) -> None:
        intake.take(payload)

    look()
    assert intake.decoder.malformed.keys() >= {"frame", "message", "quote"}
    assert intake.prices.quotes_received > 10
    assert intake.seq.highest > 0
