"""`spotd run` against Alpaca itself, with the keys of whoever runs this. Read-only.

    pytest -m live -n 0 -s tests/live

The account needs a free connection: end its other daemons before. What the market's hours decide
is skipped while it is closed. CONTRIBUTING.md says more.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from spotd.models import SpotPriceUpdate
from tests.e2e.setup import say
from tests.live.setup import GUARD_S, Daemon, Live

pytestmark = [pytest.mark.live, pytest.mark.timeout(10 * GUARD_S)]

FAKEPACA = "FAKEPACA"  # of the feed `test`, day and night
FEEDS = {"test": (FAKEPACA,), "iex": ("SPY", "QQQ", "AAPL")}
MADE_UP = {"ALPACA_API_KEY": "PKSPOTDMADEUPKEY0000", "ALPACA_SECRET_KEY": "spotdMadeUpSecret0000"}
# More than the free plan allows: 30, or 15 with trades.
MANY = (
    "AAPL", "ABBV", "ABT", "ADBE", "AMD", "AMGN", "AMZN", "AVGO", "AXP", "BA", "BAC", "BLK",
    "BRK.B", "C", "CAT", "CMCSA", "COST", "CRM", "CSCO", "CVX", "DIS", "F", "GE", "GM",
    "GOOG", "GOOGL", "GS", "HD", "HON", "IBM", "INTC", "JNJ", "JPM", "KO", "LLY", "LOW",
    "MA", "MCD", "META", "MMM", "MRK", "MS", "MSFT", "NFLX", "NKE", "NVDA", "ORCL", "PEP",
    "PFE", "PG", "QCOM", "QQQ", "SBUX", "SPY", "T", "TGT", "TSLA", "TXN", "UNH", "V", "VZ",
    "WFC", "WMT", "XOM",
)  # fmt: skip
FEW = MANY[:14]  # fit into every plan
SOON_S = 20.0  # for a quote that need not come


def check_updates(daemon: Daemon, symbol: str) -> None:
    """Check every update of a symbol by the contract's section 2."""
    daemon.recorder.check_order()
    for raw in daemon.recorder.raw(symbol):
        update = SpotPriceUpdate.from_json(raw)
        assert update.symbol == symbol
        assert update.bid_price > 0
        assert update.ask_price > 0
        assert update.mid_price == pytest.approx(
            (update.bid_price + update.ask_price) / 2, abs=1e-6
        )


async def test_fakepaca_arrives(live: Live) -> None:
    """The feed `test` is subscribed to, and its quotes are published, day and night."""
    daemon = await live.daemon("test")
    await daemon.live(FAKEPACA)
    await daemon.until(lambda: len(daemon.recorder.of(FAKEPACA)) >= 3, "three updates")

    status = await daemon.status()
    assert (status["state"], status["feed"]) == ("streaming", "test")
    assert status["quotes_received"] >= 3
    check_updates(daemon, FAKEPACA)
    say(f"FAKEPACA: {daemon.recorder.updates(FAKEPACA)[-1]}")


async def test_wrong_keys_end_it_with_3(live: Live) -> None:
    """Keys that do not exist are refused for good: exit code 3 after one try."""
    daemon = await live.daemon("test", **MADE_UP)
    await daemon.values.want(FAKEPACA)

    await daemon.until(lambda: not daemon.command.running, "the end of the daemon")
    assert await daemon.command.ends() == 3
    assert "402" in daemon.command.stderr
    assert "check ALPACA_API_KEY and ALPACA_SECRET_KEY" in daemon.command.stderr
    assert daemon.recorder.updates(FAKEPACA) == []


@pytest.mark.parametrize("feed", FEEDS)
async def test_a_stop_frees_the_connection(live: Live, feed: str) -> None:
    """After an orderly stop, the next daemon connects at its first try."""
    first = await live.daemon(feed)
    await first.live(*FEEDS[feed])
    assert await first.stop() == 0

    second = await live.daemon(feed)
    await second.live(*FEEDS[feed])

    assert await second.reconnects() == {}


@pytest.mark.parametrize("feed", FEEDS)
async def test_a_second_connection_waits(live: Live, feed: str) -> None:
    """A second session gets 406 and waits. It takes nothing from the first, and follows it."""
    first = await live.daemon(feed)
    await first.live(*FEEDS[feed])
    second = await live.daemon(feed, "two")
    await second.values.want(*FEEDS[feed])

    async def answered() -> bool:
        status = await second.status()
        waits = (status.get("state"), status.get("code")) == ("waiting", "connection_limit")
        return waits or await second.values.live(*FEEDS[feed])

    await second.until(answered, "Alpaca's answer to a second session")
    if (await second.status())["state"] != "waiting":
        pytest.skip(f"Alpaca grants this account a second connection to the feed {feed}")
    assert (await first.status())["state"] == "streaming"
    assert await first.reconnects() == {}
    for symbol in FEEDS[feed]:
        assert "stale" not in first.recorder.states(symbol)

    assert await first.stop() == 0
    await second.live(*FEEDS[feed])


async def test_check_tries_the_keys(live: Live) -> None:
    """`spotd check` fetches a quote by REST, and ends with 3 where Alpaca refuses the keys."""
    good = await live.check("iex")
    assert good.process.returncode == 0, good.output
    [alpaca] = [one for one in json.loads(good.output)["findings"] if one["name"] == "alpaca"]
    assert alpaca["text"].startswith("feed iex: SPY bid ")
    say(f"REST: {alpaca['text']}")

    wrong = await live.check("iex", **MADE_UP)
    assert wrong.process.returncode == 3, wrong.output


async def test_iex_snapshots(live: Live) -> None:
    """Each new symbol has a price at once by REST, also while the market is closed.

    A quote that is older than the demand cannot come from the stream.
    """
    daemon = await live.daemon("iex")
    await daemon.until(daemon.command.ready, "the daemon is ready")
    demanded_at = datetime.now(UTC)
    await daemon.live(*FEW)

    async def have_prices() -> bool:
        return (await daemon.values.all_last()).keys() == set(FEW)

    await daemon.until(have_prices, "a price of each symbol")
    assert (await daemon.command.metrics())["spotd_snapshots_failed_total"] == 0
    first = [SpotPriceUpdate.from_json(daemon.recorder.raw(symbol)[0]) for symbol in FEW]
    assert min(update.timestamp for update in first) < demanded_at - timedelta(seconds=1)
    for symbol in FEW:
        check_updates(daemon, symbol)


async def test_iex_quotes(live: Live) -> None:
    """In market hours, quotes of the feed `iex` are published as they arrive."""
    daemon = await live.daemon("iex")
    await daemon.live(*FEEDS["iex"])
    is_open = (await daemon.status())["market"] == "open"

    async def quoted() -> bool:
        return bool((await daemon.status())["quotes_received"] >= 3)

    try:
        await daemon.until(quoted, "three quotes", GUARD_S if is_open else min(SOON_S, GUARD_S))
    except AssertionError:
        if is_open:
            raise
        pytest.skip("the market is not open, and no quote came: run this again in its hours")
    await daemon.until(lambda: len(daemon.recorder.of("SPY")) >= 2, "two updates of SPY")
    check_updates(daemon, "SPY")
    say(f"lag_ms: {(await daemon.status())['lag_ms']}")


async def test_the_plans_symbol_limit(live: Live) -> None:
    """Beyond the plan's limit (405) symbols are refused with a reason; the others stay live."""
    daemon = await live.daemon("iex")
    await daemon.values.want(*MANY)

    async def settled() -> bool:
        await daemon.status()
        states = await daemon.values.states()
        return len(states) == len(MANY) and "pending" not in {
            state["state"] for state in states.values()
        }

    await daemon.until(settled, "an answer for each symbol")
    states = (await daemon.values.states()).values()
    refused = [state for state in states if state["state"] == "refused"]
    say(f"symbols: {len(MANY) - len(refused)} live, {len(refused)} refused")
    if not refused:
        pytest.skip(f"this plan allows {len(MANY)} symbols")
    assert {state["code"] for state in refused} == {"symbol_limit"}
    assert {state["state"] for state in states} <= {"live", "halted", "refused"}
    assert len(refused) < len(MANY)
    assert (await daemon.status())["state"] == "streaming"
