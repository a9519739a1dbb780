"""The simulated market: its prices, its trades and its activity."""

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotd.simulator import MarketModel, Simulator
from spotd.simulator.instrument import MINUTE_NS, Instrument
from spotd.simulator.market import Market, traded_symbols
from spotd.simulator.universe import listing, symbols, universe
from tests.simulator.dialogue import dial
from tests.simulator.manual_clock import START_NS

PLAIN = MarketModel(
    one_sided_p=0, locked_p=0, crossed_p=0, two_flags_p=0, received_at_p=0, duplicate_time_p=0,
    out_of_order_p=0, bursts_per_min=0,
)  # fmt: skip


def ticks(
    model: MarketModel, wanted: set[str], number: int, feed: str = "iex", dt_s: float = 0.01
) -> list[dict[str, Any]]:
    """Return the messages of this number of ticks."""
    market, frozen = Market(model), frozenset(wanted)
    step_ns = int(dt_s * 1e9)
    return [
        message
        for tick in range(number)
        for message in market.tick(feed, frozen, dt_s, START_NS + tick * step_ns)
    ]


@settings(max_examples=50, deadline=None)
@given(symbol=st.from_regex(r"[A-Z]{1,5}(\.[A-Z])?", fullmatch=True), seed=st.integers(0, 99))
def test_any_symbol_has_a_plausible_market(symbol: str, seed: int) -> None:
    """Its quotes are two-sided, on its tick, near its listing, with sizes in whole lots."""
    instrument = Instrument(symbol, MarketModel(seed=seed))
    price = listing(symbol, seed).price
    for step in range(200):
        quote = instrument.quote("sip", START_NS + step, 0.0)
        assert 0 < quote["bp"] < quote["ap"]
        scale = 100 if price >= 1 else 10_000
        assert quote["bp"] == round(quote["bp"] * scale) / scale
        assert price * 0.6 < quote["bp"] < price * 1.5
        assert quote["bs"] > 0
        assert quote["bs"] % 100 == 0


def test_the_same_seed_is_the_same_market() -> None:
    """Prices depend on seed and symbol, not on other subscribed symbols."""
    one = ticks(MarketModel(seed=7), {"SPY", "QQQ"}, 50)
    assert one == ticks(MarketModel(seed=7), {"SPY", "QQQ"}, 50)
    assert one != ticks(MarketModel(seed=8), {"SPY", "QQQ"}, 50)
    alone = [one["bp"] for one in ticks(PLAIN, {"SPY"}, 20) if one["T"] == "q"]
    among = [one["bp"] for one in ticks(PLAIN, {"SPY", "QQQ"}, 60)
             if one["T"] == "q" and one["S"] == "SPY"]  # fmt: skip
    assert alone[:5] == among[:5]


def test_prices_walk() -> None:
    """They move by small steps, and often not at all."""
    bids = [one["bp"] for one in ticks(PLAIN, {"SPY"}, 5000) if one["T"] == "q"]
    steps = [abs(b - a) for a, b in itertools.pairwise(bids)]
    assert len(set(bids)) > 50
    assert max(steps) < 0.10
    assert sum(step == 0 for step in steps) > len(steps) * 0.3


def test_spreads_grow_with_price_and_quietness() -> None:
    """A busy, cheap symbol has a spread of a cent; a dear or quiet one has more."""

    def spread(symbol: str) -> float:
        quote = Instrument(symbol, PLAIN).quote("iex", START_NS, 0.0)
        return float(quote["ap"] - quote["bp"])

    assert spread("F") < 0.02
    assert spread("SPY") < spread("COST") < spread("BRK.A")
    assert spread("MULN") < 0.01


def test_activity_is_uneven() -> None:
    """A few symbols have most of the quotes; most symbols have few."""
    model = MarketModel(quotes_per_s=20_000, bursts_per_min=0)
    counts = Counter(one["S"] for one in ticks(model, set(symbols(2000)), 100))
    busiest = [number for _, number in counts.most_common()]
    assert sum(busiest[:20]) > 0.3 * sum(busiest)
    assert len(counts) > 1000


def test_the_rate_holds() -> None:
    """It is quotes per second over all symbols; trades are a share; fractions are carried."""
    model = MarketModel(quotes_per_s=130, bursts_per_min=0, trades_per_quote=0.5)
    counts = Counter(one["T"] for one in ticks(model, {"A", "B"}, 1000))
    assert counts["q"] == pytest.approx(1300, abs=1)
    assert 500 < counts["t"] < 800


def test_bursts_make_one_symbol_hot() -> None:
    """In a burst the whole rate is multiplied, and the added quotes are of one symbol."""
    model = MarketModel(quotes_per_s=1000, bursts_per_min=6000, burst_factor=10, burst_lasts_s=5)
    wanted = set(symbols(100))
    messages = ticks(model, wanted, 20)
    [(_, most)] = Counter(one["S"] for one in messages).most_common(1)
    assert most > len(messages) * 0.7
    assert len(messages) > 1500


@pytest.mark.parametrize("oddity", [name for name, _ in MarketModel().oddities()])
def test_every_oddity_comes_with_its_chance(oddity: str) -> None:
    """With probability 1 each quote is odd in exactly that way."""
    chances: dict[str, Any] = {f"{name}_p": 0.0 for name, _ in MarketModel().oddities()}
    model = MarketModel(**chances | {f"{oddity}_p": 1.0})
    instrument = Instrument("SPY", model)
    instrument.quote("iex", START_NS, 0.0)
    quotes = [instrument.quote("iex", START_NS + step * 1000, model.odd_p) for step in range(1, 9)]
    for step, quote in enumerate(quotes, 1):
        match oddity:
            case "one_sided":
                assert ("", 0, 0) in [
                    (quote[x].strip(), quote[p], quote[s])
                    for x, p, s in (("ax", "ap", "as"), ("bx", "bp", "bs"))
                ]
            case "locked":
                assert quote["bp"] == quote["ap"]
            case "crossed":
                assert quote["bp"] > quote["ap"]
            case "two_flags":
                assert len(quote["c"]) == 2
            case "received_at":
                assert quote["r"] > quote["t"]
            case "duplicate_time":
                assert quote["t"] == START_NS + (step - 1) * 1000
            case "out_of_order":
                assert quote["t"] < START_NS
            case "int_price":
                assert type(quote["bp"]) is int


def test_oddities_do_not_hide_each_other() -> None:
    """With several oddities, each still happens with about its probability."""
    model = MarketModel(one_sided_p=0.2, locked_p=0.2, crossed_p=0.2)
    quotes = [one for one in ticks(model, {"SPY"}, 2000) if one["T"] == "q"]
    assert len(quotes) > 1500
    for odd in (
        sum(not one["bp"] * one["ap"] for one in quotes),
        sum(one["bp"] == one["ap"] for one in quotes),
        sum(one["bp"] > one["ap"] > 0 for one in quotes),
    ):
        assert 0.14 < odd / len(quotes) < 0.26


def test_trades_hit_the_market_with_the_conditions_of_their_tape() -> None:
    """Odd lots have I, extended hours T; a price off the market must not set the last sale."""
    for symbol, regular, never in (("AAPL", "@", "4CPUWZ"), ("BAC", " ", "4CPUVZ")):
        instrument = Instrument(symbol, MarketModel())
        kinds = Counter[str]()
        for step in range(10_000):
            trade = instrument.trade("sip", START_NS + step)
            assert trade["c"][0] == regular
            assert ("I" in trade["c"]) is (trade["s"] < 100)
            special = set(trade["c"]) & set(never)
            if not special:
                assert trade["p"] in (instrument.bid, instrument.ask)
            kinds.update(trade["c"])
            kinds["special"] += bool(special)
        assert set(kinds) == {regular, "I", "T", "special", *never}
        assert 50 < kinds["special"] < 150  # about 1 %
        assert trade["i"] == instrument.trade("iex", START_NS)["i"] - 1


def test_the_feed_decides_the_exchanges() -> None:
    """On IEX all is of exchange V; the consolidated feed has several."""
    assert {one.get("bx", "V") for one in ticks(PLAIN, {"SPY"}, 100, "iex")} == {"V"}
    assert len({one["bx"] for one in ticks(PLAIN, {"SPY"}, 900, "sip") if one["T"] == "q"}) > 4


def test_the_test_feed_knows_one_symbol() -> None:
    """It is FAKEPACA, also for the wildcard."""
    assert {one["S"] for one in ticks(PLAIN, {"*"}, 100, "test")} == {"FAKEPACA"}
    assert {one["S"] for one in ticks(PLAIN, {"FAKEPACA", "SPY"}, 100, "test")} == {"FAKEPACA"}
    assert ticks(PLAIN, {"SPY"}, 100, "test") == []


def test_the_wildcard_is_the_whole_universe() -> None:
    """The market then trades all its symbols, and those named besides."""
    assert traded_symbols("iex", frozenset({"*", "NAMED"})) == universe() | {"NAMED"}
    assert traded_symbols("iex", frozenset({"NAMED"})) == {"NAMED"}
    assert len(universe()) == 11_500


def test_a_halted_symbol_has_no_quotes() -> None:
    """Neither quotes nor trades come until it is resumed; other symbols go on."""
    market = Market(MarketModel(quotes_per_s=1000))
    both = frozenset({"SPY", "QQQ"})
    spy = market.instrument("SPY")
    for halted, expected in ((True, {"QQQ"}), (False, both)):
        spy.status(halted=halted, now_ns=START_NS)
        assert {one["S"] for one in market.tick("iex", both, 0.2, START_NS)} == expected


def test_minute_bars_come_at_the_minute() -> None:
    """Each comes once, and counts the round lots at the market of the minute that is over."""
    model = MarketModel(quotes_per_s=100, trades_per_quote=1.0)
    messages = ticks(model, {"SPY", "QUIET"}, 130, dt_s=1.0)
    bars = [one for one in messages if one["T"] == "b" and one["S"] == "SPY"]
    assert len(bars) == 3  # one of them of the second before the first tick
    for bar in bars:
        assert bar["t"] % MINUTE_NS == 0
        minute = bar["t"] // MINUTE_NS
        trades = [
            one
            for one in messages
            if (one["T"], one["S"], one["t"] // MINUTE_NS) == ("t", "SPY", minute)
            and not set(one["c"]) & set("I4CPUVZ")
        ]
        assert bar["n"] == len(trades)
        assert bar["v"] == sum(one["s"] for one in trades)
        assert bar["h"] == max(one["p"] for one in trades)
        assert bar["l"] <= bar["vw"] <= bar["h"]


async def test_the_market_streams_what_is_subscribed() -> None:
    """A frame has at most the messages that the model says; a closed market sends none."""
    model = MarketModel(quotes_per_s=5000, quotes_per_frame=20, trades_per_quote=0.5)
    async with Simulator(market=model) as sim, dial(sim, feed="sip") as talk:
        await talk.subscribe(quotes=["SPY", "BRK.B"], trades=["SPY"])
        kinds = Counter[tuple[str, str]]()
        while set(kinds) != {("q", "SPY"), ("q", "BRK.B"), ("t", "SPY")}:
            frame = await talk.hear()
            assert len(frame) <= 20
            kinds.update((one["T"], one["S"]) for one in frame)
        await talk.say({"action": "subscribe", "quotes": ["QQQ"]})
        while ("q", "QQQ") not in kinds:
            kinds.update((one["T"], one.get("S", "")) for one in await talk.hear())
        sim.faults.market_closed = True
        await talk.say({"action": "unsubscribe", "quotes": ["SPY"]})
        while (await talk.hear())[0]["T"] != "subscription":
            pass
        assert (await talk.subscribe(quotes=["SPY"]))["T"] == "subscription"
