"""A real day of AMZN (21 June 2012, Nasdaq), replayed through the installed command.

The expected values are derived from the file alone, by the rules of the wire contract and without
any code of spotd's, and compared with what a subscriber heard. Simulator, daemon and server are
processes of their own. The file is used where it lies and never copied.
"""

from __future__ import annotations

import gzip
import json
import math
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.setup import KEY, SECRET, Setup, say
from tests.kit.ports import free_port
from tests.kit.processes import Command
from tests.kit.recorded_day import DAY, MISSING
from tests.kit.recorder import Heard
from tests.kit.waiting import until

QUOTES, TRADES = 55_064, 11_419
DAY_S = 6.5 * 3600
REPLAY_GUARD_S = 90.0  # ten times the longest replay
# The wall clock behind `seq` may differ by this from the monotonic one behind the throttle.
CLOCK_TOLERANCE_US = 500

NOT_LAST_SALE = {
    "A": set("BCHIMNPQRUVZ47"),
    "B": set("BCHIMNPQRUVZ47"),
    "C": set("CGHIMNPQRUVWZ47"),
    "O": set("CGHIMNPQRUVWZ47"),
}

pytestmark = pytest.mark.skipif(not DAY.is_file(), reason=MISSING)


@dataclass(frozen=True, slots=True)
class Price:
    """What may be published after one message of the file."""

    bid: float
    ask: float
    last: float | None
    at_ns: int
    """Newest of quote and last sale."""


@dataclass
class Reckoning:
    """The values that may be published of a file, and its counts."""

    quotes: int = 0
    trades: int = 0
    one_sided: int = 0
    not_finite: int = 0
    eligible: int = 0
    """Trades that set the last sale, and corrections and cancellations of trades."""
    prices: list[Price] = field(default_factory=list)
    begins_ns: int = 0


def nanoseconds(moment: str) -> int:
    """Return Unix nanoseconds of an RFC 3339 time with up to nine digits."""
    whole, _, digits = moment.removesuffix("Z").partition(".")
    seconds = datetime.fromisoformat(whole + "+00:00").timestamp()
    return int(seconds) * 10**9 + int(digits.ljust(9, "0") or 0)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the messages of a file."""
    with gzip.open(path, "rt") as file:
        for line in file:
            yield json.loads(line)


def reckon(messages: Iterable[dict[str, Any]]) -> Reckoning:
    """Apply the contract's rules to the messages."""
    out = Reckoning()
    quote: tuple[float, float, int] | None = None
    sales: list[tuple[tuple[int, str], float, int]] = []  # id and exchange, price, time; in order
    for message in messages:
        if message["T"] not in ("q", "t", "c", "x"):
            continue
        at_ns = nanoseconds(message["t"])
        out.begins_ns = out.begins_ns or at_ns
        if message["T"] == "q":
            out.quotes += 1
            bid, ask = float(message["bp"]), float(message["ap"])
            if bid <= 0 or ask <= 0:
                out.one_sided += 1
                continue
            if not math.isfinite(bid + ask):
                out.not_finite += 1
                continue
            quote = (bid, ask, at_ns)
        elif message["T"] == "t":
            out.trades += 1
            if NOT_LAST_SALE[message["z"]] & set(message["c"]):
                continue
            out.eligible += 1
            place = bisect_right([at for _, _, at in sales], at_ns)
            sales.insert(place, ((message["i"], message["x"]), float(message["p"]), at_ns))
        else:
            out.eligible += 1
            cancelled = message["T"] == "x"
            named = (message["i" if cancelled else "oi"], message["x"])
            sales = [
                (name, price if name != named else float(message["cp"]), at)
                for name, price, at in sales
                if not (cancelled and name == named)
            ]
        del sales[:-10]
        last = sales[-1] if sales else None
        if quote is not None:
            newest_ns = quote[2] if last is None else max(quote[2], last[2])
            out.prices.append(Price(quote[0], quote[1], last and last[1], newest_ns))
    return out


@pytest.fixture(scope="module")
def day() -> Reckoning:
    """Return the reckoning of the day's file."""
    return reckon(lines(DAY))


@dataclass(frozen=True, slots=True)
class Run:
    """One replay: the updates heard, the daemon's metrics, its duration."""

    heard: list[Heard]
    metrics: dict[str, float]
    took_s: float
    speed: float

    @property
    def updates(self) -> list[dict[str, Any]]:
        """The updates that were heard, decoded."""
        return [each.json for each in self.heard]

    @property
    def summary(self) -> str:
        """One line of figures."""
        number = self.metrics
        dropped = sum(v for k, v in number.items() if k.startswith("spotd_quotes_dropped_total"))
        return (
            f"in: {number['spotd_quotes_received_total']:,.0f} quotes, "
            f"{number['spotd_trades_received_total']:,.0f} trades; "
            f"out: {len(self.heard):,} updates; "
            f"conflated: {number['spotd_quotes_conflated_total']:,.0f}; "
            f"dropped: {dropped:,.0f}; duration: {self.took_s:.1f} s"
        )


async def replay(setup: Setup, path: Path, expected: Reckoning, speed: float, **env: str) -> Run:
    """Play a file into a daemon until all of it was taken in and the last of it came out."""
    port = free_port()
    simulator = await Command.start(
        "simulate", "--replay", str(path), "--speed", repr(speed), "--port", str(port),
        "--key", KEY, "--secret", SECRET,
        home=setup.home / "simulator", env={}, http_port=port,
    )  # fmt: skip
    setup.commands.append(simulator)
    await setup.until(partial(_answers, simulator), "the simulator listens")
    daemon = await setup.daemon(
        SPOTD_STREAM_URL=f"ws://127.0.0.1:{port}/v2/iex",
        SPOTD_DATA_URL=f"http://127.0.0.1:{port}",
        SPOTD_SNAPSHOTS="false",  # REST runs beside the stream, so its order is not the file's
        **env,
    )
    recorder = await setup.recorder("spot:AMZN")
    begins = time.monotonic()
    await setup.values.want("AMZN")
    taken_in = partial(_took_in, daemon, expected)
    await until(taken_in, "all was taken in", guard_s=REPLAY_GUARD_S, logs=setup.logs)
    took_s = time.monotonic() - begins
    is_out = partial(_is_out, daemon, recorder.of("AMZN"), expected.prices[-1])
    await setup.until(is_out, "all came out")
    run = Run([*recorder.of("AMZN")], await daemon.metrics(), took_s, speed)
    assert (await setup.values.last("AMZN")) == run.updates[-1]
    assert await daemon.stop() == 0
    assert len(recorder.of("AMZN")) == len(run.heard), "nothing was pending"
    return run


async def _answers(simulator: Command) -> bool:
    assert simulator.running, simulator.tail()
    return (await simulator.get("/v2/clock"))[0] != 0


async def _took_in(daemon: Command, expected: Reckoning) -> bool:
    metrics = await daemon.metrics()
    return (
        metrics["spotd_quotes_received_total"] >= expected.quotes
        and metrics["spotd_trades_received_total"] >= expected.trades
    )


async def _is_out(daemon: Command, heard: list[Heard], end: Price) -> bool:
    """Return whether all was heard, the end of the file too, and no window can still be open."""
    published = (await daemon.metrics())["spotd_updates_published_total"]
    if not heard or len(heard) != published:
        return False
    last = heard[-1].json
    ends = (last["bid_price"], last["ask_price"], last["last_price"]) == (
        end.bid,
        end.ask,
        end.last,
    )
    return ends and time.monotonic() - heard[-1].at > 0.5


# What is compared


def positions(run: Run, expected: Reckoning) -> list[int]:
    """Return for each update the place in the file that it shows, each later than the one before.

    With a speed, the place must also have the update's timestamp: the replay shifts the file's
    times by one offset, which follows from the first update, and divides them by the speed.
    """
    prices = expected.prices
    wanted = [
        (u["bid_price"], u["ask_price"], u["last_price"], nanoseconds(u["timestamp"]) // 1000)
        for u in run.updates
    ]
    known = {(p.bid, p.ask, p.last) for p in prices}
    assert {w[:3] for w in wanted} <= known, "a price that is not in the file"
    offsets = None
    if run.speed:
        offsets = [int((p.at_ns - expected.begins_ns) / run.speed) // 1000 for p in prices]
    furthest: list[int] = []
    for start, price in islice(enumerate(prices), 5_000):
        if (price.bid, price.ask, price.last) != wanted[0][:3]:
            continue
        found = _follow(wanted, prices, start, offsets)
        if len(found) == len(wanted):
            return found
        furthest = max(furthest, found, key=len)
    wrong = len(furthest)
    raise AssertionError(
        f"update {wrong} of {len(wanted)} is not in the file's order: {run.updates[wrong]} "
        f"after {run.updates[wrong - 1] if wrong else None}"
    )


def _follow(
    wanted: list[tuple[Any, ...]], prices: list[Price], start: int, offsets: list[int] | None
) -> list[int]:
    """Return the places of the updates that are found in order, the first of them at ``start``."""
    found: list[int] = []
    place = start
    for bid, ask, last, at_us in wanted:
        if offsets is not None and found:
            due = at_us - wanted[0][3] + offsets[start] - 3  # cut twice to microseconds
            place = max(place, bisect_left(offsets, due))
        while place < len(prices):
            price = prices[place]
            if (price.bid, price.ask, price.last) == (bid, ask, last):
                break
            place += 1
        else:
            return found
        if offsets is not None:
            shift = (at_us - offsets[place]) - (wanted[0][3] - offsets[start])
            if abs(shift) > 3:
                return found
        found.append(place)
        place += 1
    return found


def check_prices(run: Run, expected: Reckoning) -> list[int]:
    """Assert order, mid, last, seq and the last update. Return the places in the file."""
    places = positions(run, expected)
    for update in run.updates:
        mid = (update["bid_price"] + update["ask_price"]) / 2
        assert update["mid_price"] == round(mid, 6)
        assert update.keys() == {
            "symbol", "bid_price", "ask_price", "mid_price", "last_price", "timestamp", "seq",
        }  # fmt: skip
    final, end = run.updates[-1], expected.prices[-1]
    assert (final["bid_price"], final["ask_price"]) == (end.bid, end.ask)
    assert final["mid_price"] == round((end.bid + end.ask) / 2, 6)
    assert final["last_price"] == end.last
    stamps = [update["timestamp"] for update in run.updates]
    assert stamps == sorted(stamps)
    seqs = [update["seq"] for update in run.updates]
    assert all(b > a for a, b in pairwise(seqs))
    return places


def check_counts(run: Run, expected: Reckoning, *, trades: bool = True) -> None:
    """Assert that the metrics match the file, and that every quote is accounted for."""
    number = run.metrics
    received = number["spotd_quotes_received_total"]
    assert received == expected.quotes
    assert number["spotd_trades_received_total"] == (expected.trades if trades else 0)
    dropped = {
        name: number.get(f"spotd_quotes_dropped_total{{{name}}}", 0)
        for name in ("one_sided", "not_finite", "not_desired", "malformed")
    }
    assert dropped == {
        "one_sided": expected.one_sided,
        "not_finite": expected.not_finite,
        "not_desired": 0,
        "malformed": 0,
    }
    published = number["spotd_updates_published_total"]
    assert published == len(run.heard)
    # Each quote was dropped, or replaced one not yet published, or began an update of its own;
    # beside those, only a trade that sets the last sale begins one.
    begun = received - sum(dropped.values()) - number["spotd_quotes_conflated_total"]
    assert begun <= published <= begun + (expected.eligible if trades else 0)


def check_throttle(run: Run, throttle_s: float) -> None:
    """Assert that no two updates lie within one window, by the daemon's own clock."""
    seqs = [update["seq"] for update in run.updates]
    closest_us = min(b - a for a, b in pairwise(seqs))
    say(f"closest: {closest_us / 1e3:.2f} ms")
    assert closest_us >= throttle_s * 1e6 - CLOCK_TOLERANCE_US


# The tests


def test_the_file_holds_what_its_description_says(day: Reckoning) -> None:
    """The file holds 55,064 two-sided quotes and 11,419 trades, of which 4,638 set the last."""
    assert (day.quotes, day.trades) == (QUOTES, TRADES)
    assert (day.one_sided, day.not_finite, day.eligible) == (0, 0, 4_638)


@pytest.mark.parametrize(
    ("throttle_ms", "takes_s"), [(200, 4.0), pytest.param(20, 6.0, marks=pytest.mark.long)]
)
async def test_a_day_at_its_pace(
    setup: Setup, day: Reckoning, throttle_ms: int, takes_s: float
) -> None:
    """The whole day in seconds: every update is the file's, in its order, none too early."""
    run = await replay(setup, DAY, day, DAY_S / takes_s, SPOTD_THROTTLE_MS=str(throttle_ms))
    say(f"{throttle_ms} ms: {run.summary}")

    check_prices(run, day)
    check_counts(run, day)
    check_throttle(run, throttle_ms / 1000)
    assert len(run.heard) > 1  # not the last value alone


def _unblemished(day: Reckoning) -> Run:
    """Return what a faultless daemon may publish: every 50th message, and the last one."""
    shown = [*day.prices[::50], day.prices[-1]]
    heard = []
    for seq, price in enumerate(shown, 1):
        seconds, rest = divmod(price.at_ns, 10**9)
        stamp = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1000:06}Z"
        update = {
            "symbol": "AMZN", "bid_price": price.bid, "ask_price": price.ask,
            "mid_price": round((price.bid + price.ask) / 2, 6), "last_price": price.last,
            "timestamp": stamp, "seq": seq,
        }  # fmt: skip
        heard.append(Heard("spot:AMZN", json.dumps(update).encode(), float(seq)))
    return Run(heard, {}, 0.0, 1.0)


def _with(heard: Heard, **changed: object) -> Heard:
    return replace(heard, raw=json.dumps(heard.json | changed).encode())


def _swapped(heard: list[Heard]) -> None:
    early, late = heard[400], heard[700]
    for place, price, at in ((400, late, early.json), (700, early, late.json)):
        heard[place] = _with(price, seq=at["seq"], timestamp=at["timestamp"])


def _put(heard: list[Heard], place: int, **changed: object) -> None:
    heard[place] = _with(heard[place], **changed)


def _cut(heard: list[Heard]) -> None:
    heard.pop()


def _later(stamp: str) -> str:
    return (datetime.fromisoformat(stamp) + timedelta(milliseconds=1)).strftime(
        "%Y-%m-%dT%H:%M:%S.%fZ"
    )


BLEMISHES: dict[str, Callable[[list[Heard]], None]] = {
    "two prices swapped": _swapped,
    "a bid nobody made": lambda heard: _put(heard, 500, bid_price=1.0),
    "a last price from before": lambda heard: _put(
        heard, 700, last_price=heard[10].json["last_price"]
    ),
    "a millisecond off": lambda heard: _put(
        heard, 700, timestamp=_later(heard[700].json["timestamp"])
    ),
    "a seq that does not rise": lambda heard: _put(heard, 700, seq=heard[699].json["seq"]),
    "a mid of its own": lambda heard: _put(
        heard, 700, mid_price=heard[700].json["mid_price"] + 0.01
    ),
    "the last missing": _cut,
}


def test_the_comparison_accepts_what_is_right(day: Reckoning) -> None:
    """The comparison accepts a run without blemish."""
    run = _unblemished(day)
    places = check_prices(run, day)

    assert len(places) == len(run.heard)


@pytest.mark.parametrize("blemish", BLEMISHES)
def test_the_comparison_notices(day: Reckoning, blemish: str) -> None:
    """A run with one blemish does not pass."""
    run = _unblemished(day)
    BLEMISHES[blemish](run.heard)

    with pytest.raises(AssertionError):
        check_prices(run, day)


@pytest.mark.long  # quick: at its pace
async def test_a_day_as_fast_as_it_can_be_read(setup: Setup, day: Reckoning) -> None:
    """Without pauses and without a throttle, the order and the last update are the same."""
    run = await replay(setup, DAY, day, 0.0, SPOTD_THROTTLE_MS="0")
    say(f"no throttle: {run.summary}")

    check_prices(run, day)
    check_counts(run, day)


@pytest.mark.long  # quick: the day with trades
async def test_without_trades_every_quote_is_accounted_for(setup: Setup) -> None:
    """Published, conflated or dropped: the sum of the three is what came in, exactly."""
    quotes = reckon(each for each in lines(DAY) if each["T"] == "q")
    run = await replay(setup, DAY, quotes, 0.0, SPOTD_THROTTLE_MS="5", SPOTD_TRADES="false")
    say(f"no trades: {run.summary}")

    check_prices(run, quotes)
    check_counts(run, quotes, trades=False)
    number = run.metrics
    assert number["spotd_quotes_received_total"] == (
        number["spotd_quotes_conflated_total"] + number["spotd_updates_published_total"]
    )
    assert {update["last_price"] for update in run.updates} == {None}


@pytest.mark.long  # quick: tests/alpaca and tests/fuzz
async def test_odd_messages_in_between(setup: Setup, tmp_path: Path) -> None:
    """One-sided and infinite quotes are counted and never published; conditions count by tape."""
    mixed = tmp_path / "mixed.jsonl.gz"
    with gzip.open(mixed, "wt") as file:
        for message in _with_oddities(islice(lines(DAY), 15_000)):
            file.write(json.dumps(message) + "\n")
    expected = reckon(lines(mixed))
    first, last = (nanoseconds(t) for t in _ends(mixed))
    run = await replay(setup, mixed, expected, (last - first) / 1e9 / 3, SPOTD_THROTTLE_MS="10")
    say(f"odd: {run.summary}; of {expected.trades} trades {expected.eligible} set the last sale")

    assert expected.one_sided > 100
    assert expected.not_finite > 10
    check_prices(run, expected)
    check_counts(run, expected)
    assert all(0 < u["bid_price"] < 1e6 and 0 < u["ask_price"] < 1e6 for u in run.updates)
    assert any(u["bid_price"] >= u["ask_price"] for u in run.updates), "locked and crossed pass"
    assert run.metrics["spotd_trades_corrected_total"] > 10
    assert run.metrics["spotd_trades_cancelled_total"] > 10


def _ends(path: Path) -> tuple[str, str]:
    stamps = [message["t"] for message in lines(path)]
    return stamps[0], stamps[-1]


def _with_oddities(messages: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the messages, and after some of them a copy that was made odd."""
    seen: Counter[str] = Counter()
    conditions = ["@", *"BCGHIMNPQRUVWZ47TFOX1269LKY"]
    for message in messages:
        yield message
        kind = message["T"]
        seen[kind] += 1
        number = seen[kind]
        if kind == "q" and number % 60 == 0:
            yield message | {"ax": " ", "ap": 0.0, "as": 0}
        elif kind == "q" and number % 60 == 20:
            yield message | {"bx": " ", "bp": 0.0, "bs": 0}
        elif kind == "q" and number % 600 == 30:
            yield message | {"bp": -1.0}
        elif kind == "q" and number % 600 == 90:
            yield message | {"bp": 1.7e308, "ap": 1.7e308}
        elif kind == "q" and number % 100 == 50:
            yield message | {"bp": message["ap"] + 0.01}  # crossed
        elif kind == "q" and number % 100 == 70:
            yield message | {"bp": message["ap"]}  # locked
        elif kind == "t" and number % 3 == 0:
            condition = conditions[number // 3 % len(conditions)]
            tape = "ABCO"[number // (3 * len(conditions)) % 4]
            price = round(message["p"] + number / 1e4, 4)  # to be told apart
            other = message["i"] + 10**12  # a trade of its own
            yield message | {"i": other, "p": price, "c": ["@", condition], "z": tape}
        elif kind == "t" and number % 50 == 1:
            yield {
                "T": "c", "S": message["S"], "x": message["x"],
                "oi": message["i"], "op": message["p"], "os": 1, "oc": ["@"],
                "ci": 1, "cp": 1.0, "cs": 1, "cc": ["@"], "z": "C",
                "t": message["t"],
            }  # fmt: skip
        elif kind == "t" and number % 50 == 2:
            yield {
                "T": "x", "S": message["S"], "x": message["x"],
                "i": message["i"], "p": message["p"], "s": 1, "a": "C", "z": "C", "t": message["t"],
            }  # fmt: skip
