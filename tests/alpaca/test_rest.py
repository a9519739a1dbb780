"""Latest values over REST: what is asked, what is read, and that a hanging server costs little."""

import asyncio
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from spotd.alpaca.rest import MAX_SYMBOLS_PER_CALL, Snapshot, Snapshots
from spotd.core.messages import Quote, Trade
from spotd.errors import AlpacaRefusedError, SnapshotError
from spotd.settings import Feed
from spotd.simulator import Faults, Limits, Simulator
from tests.daemon.streamkit import KEY, SECRET, answering, peer, settings_for, until

AT = datetime(2026, 1, 20, 15, 0, 0, 572_049, tzinfo=UTC)
AT_NS = int(AT.timestamp()) * 1_000_000_000 + 572_049_123
PATIENT_S = 10.0


def snapshots_of(sim: Simulator, **changes: Any) -> Snapshots:
    """REST of this simulator, with a socket timeout that no test waits out."""
    return Snapshots(settings_for(sim, **changes), socket_timeout_s=5.0)


async def fill(sim: Simulator, *symbols: str) -> None:
    """A quote and a trade of each of these symbols."""
    for symbol in symbols:
        await sim.send(
            [
                {"T": "q", "S": symbol, "bp": 1.5, "ap": 1.75, "t": AT_NS},
                {"T": "t", "S": symbol, "p": 1.625, "t": AT_NS, "c": ["@"], "z": "C"},
            ]
        )


def asked(sim: Simulator) -> list[list[str]]:
    """The symbols of each request."""
    return [
        one.data.partition("symbols=")[2].partition("&")[0].split("%2C")
        for one in sim.received.of("rest")
    ]


async def test_the_latest_quote_and_trade() -> None:
    """Both, their nanoseconds cut to microseconds; keys go in the headers only."""
    async with Simulator() as sim:
        await fill(sim, "SPY", "BRK.B")
        found = await snapshots_of(sim).fetch(["SPY", "BRK.B"], deadline_s=PATIENT_S)
        assert found["SPY"] == Snapshot(
            Quote("SPY", 1.5, 1.75, AT), Trade("SPY", 1.625, AT, ("@",), "C")
        )
        assert found.keys() == {"SPY", "BRK.B"}
        [request] = sim.received.of("rest")
        assert SECRET not in request.data
        assert KEY not in request.data


@pytest.mark.parametrize("feed", ["iex", "sip", "delayed_sip", "boats", "overnight"])
async def test_the_feed_is_asked_for_by_name(feed: Feed) -> None:
    """Without it Alpaca would take the best one of the plan."""
    async with Simulator() as sim:
        await snapshots_of(sim, feed=feed).fetch(["SPY"], deadline_s=PATIENT_S)
        [request] = sim.received.of("rest")
        assert f"feed={feed}" in request.data


async def test_the_test_feed_has_no_snapshots() -> None:
    """REST knows no such feed, so nothing is asked; nor is it for no symbols."""
    async with Simulator() as sim:
        assert await snapshots_of(sim, feed="test").fetch(["FAKEPACA"], deadline_s=1) == {}
        assert await snapshots_of(sim).fetch([], deadline_s=1) == {}
        assert not sim.received.of("rest")


async def test_at_most_100_symbols_a_call() -> None:
    """The caller has to cut its list."""
    symbols = [f"A{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(MAX_SYMBOLS_PER_CALL)]
    async with Simulator() as sim:
        await fill(sim, *symbols)
        found = await snapshots_of(sim).fetch(symbols, deadline_s=PATIENT_S)
        assert list(found) == symbols
        with pytest.raises(ValueError, match="100"):
            await snapshots_of(sim).fetch([*symbols, "B"], deadline_s=PATIENT_S)
        assert len(asked(sim)) == 1


async def test_symbols_without_values() -> None:
    """Null for a symbol, or for its parts: left out, or None."""
    async with Simulator(faults=Faults(rest_null_symbols={"QQQ"})) as sim:
        await fill(sim, "SPY", "QQQ")
        await sim.send([{"T": "q", "S": "IWM", "bp": 1.5, "ap": 1.75, "t": AT_NS}])
        found = await snapshots_of(sim).fetch(["SPY", "QQQ", "IWM", "DIA"], deadline_s=PATIENT_S)
        assert found.keys() == {"SPY", "IWM"}
        assert found["IWM"] == Snapshot(Quote("IWM", 1.5, 1.75, AT), None)


async def test_bad_symbols_do_not_sink_the_batch() -> None:
    """400 names one at a time: it is left out and the others are asked for again."""
    async with Simulator(faults=Faults(rest_bad_symbols={"BAD", "WORSE"})) as sim:
        await fill(sim, "SPY", "QQQ")
        snapshots = snapshots_of(sim)
        found = await snapshots.fetch(["BAD", "SPY", "WORSE", "QQQ"], deadline_s=PATIENT_S)
        assert found.keys() == {"SPY", "QQQ"}
        assert asked(sim) == [
            ["BAD", "SPY", "WORSE", "QQQ"], ["SPY", "WORSE", "QQQ"], ["SPY", "QQQ"],
        ]  # fmt: skip
        assert await snapshots.fetch(["BAD"], deadline_s=PATIENT_S) == {}


@pytest.mark.parametrize("status", [400, 404, 429, 500, 502, 503, 504])
async def test_a_failing_server_is_told_by_its_status(status: int) -> None:
    """One request, without upstream's three sleeps of three seconds."""
    async with Simulator(faults=Faults(rest_status=status)) as sim:
        started = time.monotonic()
        with pytest.raises(SnapshotError, match=str(status)):
            await snapshots_of(sim).fetch(["SPY"], deadline_s=PATIENT_S)
        assert time.monotonic() - started < 2.5
        assert sim.stats.rest_requests == 1


async def test_too_many_requests() -> None:
    """The rate limit of the plan is an error like others."""
    async with Simulator(limits=Limits(rest_per_min=1)) as sim:
        snapshots = snapshots_of(sim)
        answers: list[object] = []
        for _ in range(3):  # of two, one may be in the next minute
            answers += await asyncio.gather(
                snapshots.fetch(["SPY"], deadline_s=PATIENT_S), return_exceptions=True
            )
        refused = [answer for answer in answers if isinstance(answer, SnapshotError)]
        assert refused
        assert "429" in str(refused[0])


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_keys_say_what_to_do(status: int) -> None:
    """Wrong keys, or a feed that is not in the plan."""
    async with Simulator(faults=Faults(rest_status=status)) as sim:
        with pytest.raises(AlpacaRefusedError, match="keys") as caught:
            await snapshots_of(sim).fetch(["SPY"], deadline_s=PATIENT_S)
        assert SECRET not in repr(caught.value)


async def test_wrong_keys_are_refused() -> None:
    """By the simulator as by Alpaca."""
    async with Simulator() as sim:
        snapshots = snapshots_of(sim, secret_key=SecretStr("hunter2-hunter2"))
        with pytest.raises(AlpacaRefusedError) as caught:
            await snapshots.fetch(["SPY"], deadline_s=PATIENT_S)
        error: BaseException | None = caught.value
        while error is not None:
            assert "hunter2" not in f"{error} {error!r}"
            error = error.__cause__


def _http(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    head = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*head, b"Connection: close", b"", body])


@pytest.mark.parametrize(
    "response",
    [
        _http(b"<html>a page of some proxy</html>"),
        _http(b""),
        _http(b"[1]"),
        _http(b'"text"'),
        _http(b"null"),
        _http(b"7"),
        _http(b"", b"302 Found", b"Location: http://127.0.0.1:9/"),
        _http(b"not json", b"400 Bad Request"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        _http(b"[" * 200_000),
        _http(b'{"SPY":' * 50_000),
        _http(b'{"SPY":{"latestQuote":{"bp":' + b"9" * 5_000 + b"}}}"),
    ],
)
async def test_whatever_answers_in_place_of_alpaca(response: bytes) -> None:
    """Proxies and other programs: an error of ours, never one that ends the daemon."""
    async with Simulator() as sim, peer(answering(response)) as port:
        snapshots = snapshots_of(sim, data_url=f"http://127.0.0.1:{port}")
        with pytest.raises(SnapshotError):
            await snapshots.fetch(["SPY"], deadline_s=PATIENT_S)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b"5", None),
        (b'"text"', None),
        (b"[]", None),
        (b"{}", Snapshot(None, None)),
        (b'{"latestQuote":5,"latestTrade":"x"}', Snapshot(None, None)),
        (b'{"latestQuote":{"t":"2026-01-20T15:00:00Z","bp":"1"}}', Snapshot(None, None)),
        (b'{"latestQuote":{"t":"yesterday","bp":1,"ap":2}}', Snapshot(None, None)),
        (b'{"latestQuote":{"t":"2026-01-20T15:00:00","bp":1,"ap":2}}', Snapshot(None, None)),
        (b'{"latestQuote":{"bp":1,"ap":2}}', Snapshot(None, None)),
        (b'{"latestTrade":{"t":"2026-01-20T15:00:00.572049999Z"}}', Snapshot(None, None)),
        (b'{"latestTrade":{"t":"2026-01-20T15:00:00Z","p":"\\ud800"}}', Snapshot(None, None)),
        (
            b'{"latestTrade":{"t":"2026-01-20T15:00:00Z","p":1,"c":["\\ud800"]}}',
            Snapshot(None, None),
        ),
        (b'{"latestTrade":{"t":"\\ud800","p":1}}', Snapshot(None, None)),
        (b'{"latestTrade":{"t":"0001-01-01T00:00:00+05:00","p":1}}', Snapshot(None, None)),
        (b'{"latestTrade":{"t":"9999-12-31T23:59:59-05:00","p":1}}', Snapshot(None, None)),
        (
            b'{"latestTrade":{"t":"2026-01-20T15:00:00Z","p":1' + b"0" * 400 + b"}}",
            Snapshot(None, None),
        ),
        (
            b'{"latestTrade":{"T":"q","S":"X","t":"2026-01-20T15:00:00.572049999Z","p":2,"q":1}}',
            Snapshot(None, Trade("SPY", 2.0, AT)),
        ),
        (
            b'{"latestQuote":{"t":"2026-01-20T15:00:00.572049Z","ap":2}}',
            Snapshot(Quote("SPY", 0.0, 2.0, AT), None),
        ),
    ],
)
async def test_one_malformed_symbol_costs_only_itself(
    fields: bytes, expected: Snapshot | None
) -> None:
    """Whatever stands where a snapshot should; the other symbol's is read."""
    good = b'{"latestQuote":{"t":"2026-01-20T15:00:00.572049Z","bp":1,"ap":2}}'
    body = b'{"SPY":' + fields + b',"QQQ":' + good + b"}"
    async with Simulator() as sim, peer(answering(_http(body))) as port:
        snapshots = snapshots_of(sim, data_url=f"http://127.0.0.1:{port}")
        found = await snapshots.fetch(["SPY", "QQQ"], deadline_s=PATIENT_S)
        assert found.pop("QQQ") == Snapshot(Quote("QQQ", 1.0, 2.0, AT), None)
        assert found == ({} if expected is None else {"SPY": expected})


async def test_every_time_is_utc() -> None:
    """Whatever offset it is written with; seconds of it are those of the stream."""
    body = b'{"SPY":{"latestTrade":{"t":"2026-01-20T10:00:00.572049-05:00","p":2}}}'
    async with Simulator() as sim, peer(answering(_http(body))) as port:
        snapshots = snapshots_of(sim, data_url=f"http://127.0.0.1:{port}")
        found = await snapshots.fetch(["SPY"], deadline_s=PATIENT_S)
    trade = found["SPY"].trade
    assert trade == Trade("SPY", 2.0, AT)
    assert trade is not None
    assert trade.at.tzinfo is UTC


async def test_an_error_names_the_host_and_no_credentials() -> None:
    """Which server it was that failed: a proxy's name may be the mistake."""
    async with Simulator() as sim, peer(answering(b"")) as port:
        url = f"http://user:pa55word@127.0.0.1:{port}"
        with pytest.raises(SnapshotError, match=f"127.0.0.1:{port}") as caught:
            await snapshots_of(sim, data_url=url).fetch(["SPY"], deadline_s=PATIENT_S)
        assert "pa55word" not in str(caught.value)


async def test_without_a_thread_there_are_no_latest_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's limit of threads: an error like others."""

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with Simulator() as sim:
        snapshots = snapshots_of(sim)
        monkeypatch.setattr(threading.Thread, "start", refused)
        with pytest.raises(SnapshotError, match="thread"):
            await snapshots.fetch(["SPY"], deadline_s=PATIENT_S)


def _threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "snapshots"]


async def test_a_hanging_server_costs_a_thread_until_its_timeout() -> None:
    """The deadline ends the wait; the loop turns meanwhile; the thread ends by itself."""
    async with Simulator(faults=Faults(rest_hang=True)) as sim:
        snapshots = Snapshots(settings_for(sim), socket_timeout_s=0.6)
        turns = 0
        fetching = asyncio.create_task(snapshots.fetch(["SPY"], deadline_s=0.3))
        started = time.monotonic()
        while not fetching.done():
            await asyncio.sleep(0.005)
            turns += 1
        with pytest.raises(SnapshotError, match=r"0\.3 s"):
            await fetching
        assert time.monotonic() - started < 3
        assert turns >= 3  # a loop that is held does not turn at all
        assert all(thread.daemon for thread in _threads())  # none is waited for at the exit
        await until(lambda: not _threads(), "the thread is left")
        snapshots.close()


async def test_a_server_that_hangs_is_an_error_before_the_deadline_too() -> None:
    """The socket's timeout is told by its kind: the text would hold the whole URL."""
    async with Simulator(faults=Faults(rest_hang=True)) as sim:
        snapshots = Snapshots(settings_for(sim), socket_timeout_s=0.1)
        with pytest.raises(SnapshotError, match="ReadTimeout"):
            await snapshots.fetch(["SPY"], deadline_s=PATIENT_S)


async def test_nobody_asks_on_for_one_who_has_gone() -> None:
    """After the deadline the rest of a batch full of bad symbols is not tried any more."""
    faults = Faults(rest_delay_s=0.1, rest_bad_symbols={"A", "B", "C", "D", "E", "F"})
    async with Simulator(faults=faults) as sim:
        with pytest.raises(SnapshotError):
            await snapshots_of(sim).fetch([*"ABCDEF"], deadline_s=0.25)
        await until(lambda: not _threads(), "the thread is left")
        assert 2 <= sim.stats.rest_requests <= 4


async def test_a_cancelled_wait_leaves_nothing_that_complains() -> None:
    """Shutting down does not wait for REST, and an answer that comes late finds nobody."""
    async with Simulator(faults=Faults(rest_delay_s=0.2)) as sim:
        for fetched in (False, True):
            sim.faults.rest_status = 500 if fetched else 0
            fetching = asyncio.create_task(snapshots_of(sim).fetch(["SPY"], deadline_s=PATIENT_S))
            await until(_threads)
            started = time.monotonic()
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            assert time.monotonic() - started < 0.15
            await until(lambda: not _threads())


def test_an_answer_after_the_end_of_the_loop() -> None:
    """The thread outlives the loop that asked, and says nothing."""

    async def ask() -> None:
        fetching = asyncio.create_task(snapshots.fetch(["SPY"], deadline_s=PATIENT_S))
        await until(_threads)
        fetching.cancel()

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        snapshots = Snapshots(settings_for(Simulator(), data_url=url))
        asyncio.run(ask())
        [thread] = _threads()
    thread.join(10.0)
    assert not thread.is_alive()
    snapshots.close()
