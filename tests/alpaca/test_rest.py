"""Latest values over REST: what is asked, what is read, and what a hanging server costs."""

import _thread
import asyncio
import contextlib
import socket
import string
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from spotd.alpaca import threads
from spotd.alpaca.rest import MAX_SYMBOLS_PER_CALL, Snapshot, Snapshots
from spotd.core.messages import Quote, Trade
from spotd.errors import AlpacaRefusedError, SnapshotError
from spotd.settings import Feed
from spotd.simulator import Faults, Limits, Simulator
from tests.kit.stream import KEY, SECRET, settings_for
from tests.kit.waiting import GUARD_S, until, until_sync
from tests.kit.websocket import answering, tcp_server

AT = datetime(2026, 1, 20, 15, 0, 0, 572_049, tzinfo=UTC)
AT_NS = int(AT.timestamp()) * 1_000_000_000 + 572_049_123


def snapshots_of(sim: Simulator, **changes: Any) -> Snapshots:
    """Return REST of this simulator, with a socket timeout that no test waits out."""
    return Snapshots(settings_for(sim, **changes), socket_timeout_s=GUARD_S)


async def fill(sim: Simulator, *symbols: str) -> None:
    """Send a quote and a trade of each of these symbols."""
    for symbol in symbols:
        await sim.send(
            [
                {"T": "q", "S": symbol, "bp": 1.5, "ap": 1.75, "t": AT_NS},
                {"T": "t", "S": symbol, "p": 1.625, "t": AT_NS, "c": ["@"], "z": "C"}
                | {"i": 7, "x": "V"},
            ]
        )


def asked(sim: Simulator) -> list[list[str]]:
    """Return the symbols of each request."""
    return [
        one.data.partition("symbols=")[2].partition("&")[0].split("%2C")
        for one in sim.received.of("rest")
    ]


async def test_the_latest_quote_and_trade() -> None:
    """Both are returned, their times cut to microseconds. The keys are sent in headers only."""
    async with Simulator() as sim:
        await fill(sim, "SPY", "BRK.B")
        found = await snapshots_of(sim).fetch(["SPY", "BRK.B"], deadline_s=GUARD_S)
        assert found["SPY"] == Snapshot(
            Quote("SPY", 1.5, 1.75, AT), Trade("SPY", 1.625, AT, ("@",), "C", 7, "V")
        )
        assert found.keys() == {"SPY", "BRK.B"}
        [request] = sim.received.of("rest")
        assert SECRET not in request.data
        assert KEY not in request.data


@pytest.mark.parametrize("feed", ["iex", "sip", "delayed_sip", "boats", "overnight"])
async def test_the_feed_is_asked_for_by_name(feed: Feed) -> None:
    """The feed is named, since Alpaca otherwise takes the best one of the plan."""
    async with Simulator() as sim:
        await snapshots_of(sim, feed=feed).fetch(["SPY"], deadline_s=GUARD_S)
        [request] = sim.received.of("rest")
        assert f"feed={feed}" in request.data


async def test_the_test_feed_has_no_snapshots() -> None:
    """REST is not asked about the test feed, which it does not know, or about no symbols."""
    async with Simulator() as sim:
        assert await snapshots_of(sim, feed="test").fetch(["FAKEPACA"], deadline_s=1) == {}
        assert await snapshots_of(sim).fetch([], deadline_s=1) == {}
        assert not sim.received.of("rest")


async def test_at_most_100_symbols_a_call() -> None:
    """A longer list is refused without a request."""
    symbols = [f"A{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(MAX_SYMBOLS_PER_CALL)]
    async with Simulator() as sim:
        await fill(sim, *symbols)
        found = await snapshots_of(sim).fetch(symbols, deadline_s=GUARD_S)
        assert list(found) == symbols
        with pytest.raises(ValueError, match="100"):
            await snapshots_of(sim).fetch([*symbols, "B"], deadline_s=GUARD_S)
        assert len(asked(sim)) == 1


async def test_symbols_without_values() -> None:
    """A symbol that is null is left out; a part that is missing is None."""
    async with Simulator(faults=Faults(rest_null_symbols={"QQQ"})) as sim:
        await fill(sim, "SPY", "QQQ")
        await sim.send([{"T": "q", "S": "IWM", "bp": 1.5, "ap": 1.75, "t": AT_NS}])
        found = await snapshots_of(sim).fetch(["SPY", "QQQ", "IWM", "DIA"], deadline_s=GUARD_S)
        assert found.keys() == {"SPY", "IWM"}
        assert found["IWM"] == Snapshot(Quote("IWM", 1.5, 1.75, AT), None)


async def test_bad_symbols_do_not_sink_the_batch() -> None:
    """HTTP 400 names one symbol, and the others are asked for again without it."""
    async with Simulator(faults=Faults(rest_bad_symbols={"BAD", "WORSE"})) as sim:
        await fill(sim, "SPY", "QQQ")
        snapshots = snapshots_of(sim)
        found = await snapshots.fetch(["BAD", "SPY", "WORSE", "QQQ"], deadline_s=GUARD_S)
        assert found.keys() == {"SPY", "QQQ"}
        assert asked(sim) == [
            ["BAD", "SPY", "WORSE", "QQQ"], ["SPY", "WORSE", "QQQ"], ["SPY", "QQQ"],
        ]  # fmt: skip
        assert await snapshots.fetch(["BAD"], deadline_s=GUARD_S) == {}


@pytest.mark.parametrize("status", [400, 404, 429, 500, 502, 503, 504])
async def test_a_failing_server_is_told_by_its_status(status: int) -> None:
    """The error names the status, and nothing is asked again, as upstream does between sleeps."""
    async with Simulator(faults=Faults(rest_status=status)) as sim:
        with pytest.raises(SnapshotError, match=str(status)):
            await snapshots_of(sim).fetch(["SPY"], deadline_s=GUARD_S)
        assert sim.stats.rest_requests == 1


async def test_too_many_requests() -> None:
    """The rate limit of the plan is an error that names HTTP 429."""
    async with Simulator(limits=Limits(rest_per_min=1)) as sim:
        snapshots = snapshots_of(sim)
        answers: list[object] = []
        for _ in range(3):  # of two requests, the second may be in the next minute
            answers += await asyncio.gather(
                snapshots.fetch(["SPY"], deadline_s=GUARD_S), return_exceptions=True
            )
        refused = [answer for answer in answers if isinstance(answer, SnapshotError)]
        assert refused
        assert "429" in str(refused[0])


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_keys_say_what_to_do(status: int) -> None:
    """The error tells to check the keys, and the feed, which the plan may not include."""
    async with Simulator(faults=Faults(rest_status=status)) as sim:
        with pytest.raises(AlpacaRefusedError, match="keys") as caught:
            await snapshots_of(sim).fetch(["SPY"], deadline_s=GUARD_S)
        assert SECRET not in repr(caught.value)


async def test_wrong_keys_are_refused() -> None:
    """Wrong keys are refused for good, and no error in the chain shows them."""
    async with Simulator() as sim:
        snapshots = snapshots_of(sim, secret_key=SecretStr("hunter2-hunter2"))
        with pytest.raises(AlpacaRefusedError) as caught:
            await snapshots.fetch(["SPY"], deadline_s=GUARD_S)
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
    """A proxy or another program is a SnapshotError, which does not end the daemon."""
    async with Simulator() as sim, tcp_server(answering(response)) as port:
        snapshots = snapshots_of(sim, data_url=f"http://127.0.0.1:{port}")
        with pytest.raises(SnapshotError):
            await snapshots.fetch(["SPY"], deadline_s=GUARD_S)


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
    """A malformed snapshot is left out, its malformed parts are None, and the others are read."""
    good = b'{"latestQuote":{"t":"2026-01-20T15:00:00.572049Z","bp":1,"ap":2}}'
    body = b'{"SPY":' + fields + b',"QQQ":' + good + b"}"
    async with Simulator() as sim, tcp_server(answering(_http(body))) as port:
        snapshots = snapshots_of(sim, data_url=f"http://127.0.0.1:{port}")
        found = await snapshots.fetch(["SPY", "QQQ"], deadline_s=GUARD_S)
        assert found.pop("QQQ") == Snapshot(Quote("QQQ", 1.0, 2.0, AT), None)
        assert found == ({} if expected is None else {"SPY": expected})


async def test_every_time_is_utc() -> None:
    """A time with another offset is converted, so that it compares with those of the stream."""
    body = b'{"SPY":{"latestTrade":{"t":"2026-01-20T10:00:00.572049-05:00","p":2}}}'
    async with Simulator() as sim, tcp_server(answering(_http(body))) as port:
        snapshots = snapshots_of(sim, data_url=f"http://127.0.0.1:{port}")
        found = await snapshots.fetch(["SPY"], deadline_s=GUARD_S)
    trade = found["SPY"].trade
    assert trade == Trade("SPY", 2.0, AT)
    assert trade is not None
    assert trade.at.tzinfo is UTC


async def test_an_error_names_the_host_and_no_credentials() -> None:
    """The error names the server, since the address may be the mistake, without its password."""
    async with Simulator() as sim, tcp_server(answering(b"")) as port:
        url = f"http://user:pa55word@127.0.0.1:{port}"
        with pytest.raises(SnapshotError, match=f"127.0.0.1:{port}") as caught:
            await snapshots_of(sim, data_url=url).fetch(["SPY"], deadline_s=GUARD_S)
        assert "pa55word" not in str(caught.value)


async def test_without_a_thread_there_are_no_latest_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that cannot be started, as at the system's limit, is a SnapshotError."""

    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async with Simulator() as sim:
        snapshots = snapshots_of(sim)
        monkeypatch.setattr(_thread, "start_new_thread", refused)
        with pytest.raises(SnapshotError, match="thread"):
            await snapshots.fetch(["SPY"], deadline_s=GUARD_S)


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Service Unavailable"])
@pytest.mark.parametrize(
    ("headers", "least_s"),
    [
        ((b"Retry-After: 120",), 110.0),
        (
            (
                b"Date: Wed, 21 Oct 2026 07:28:00 GMT",
                b"Retry-After: Wed, 21 Oct 2026 07:30:00 GMT",
            ),
            110.0,
        ),
        ((b"Retry-After: 99999999",), 290.0),
        ((b"Retry-After: never",), None),
        ((), None),
    ],
)
async def test_a_server_that_asks_to_wait_is_left_alone(
    status: bytes, headers: tuple[bytes, ...], least_s: float | None
) -> None:
    """Until then nothing is asked, and the error says for how long, 300 s at most."""
    asked = 0
    answer = answering(_http(b"{}", status, *headers))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await answer(reader, writer)

    async with Simulator() as sim, tcp_server(serve) as port:
        snapshots = snapshots_of(sim, data_url=f"http://127.0.0.1:{port}")
        for _ in range(2):
            with pytest.raises(SnapshotError) as caught:
                await snapshots.fetch(["SPY"], deadline_s=GUARD_S)
        if least_s is None:
            assert (asked, caught.value.after_s) == (2, None)
        else:
            assert asked == 1
            assert caught.value.after_s is not None
            assert least_s < caught.value.after_s <= 300.0


class _Late:
    """A server that answers once it is told to."""

    def __init__(self, response: bytes) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self._answering = answering(response)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.set()
        await self.answer.wait()
        await self._answering(reader, writer)


async def test_a_hanging_server_holds_a_thread_and_nothing_else() -> None:
    """The wait ends at its deadline, and the thread goes on until it has its answer."""
    late = _Late(_http(b"{}"))
    async with Simulator() as sim, tcp_server(late) as port:
        snapshots = snapshots_of(sim, data_url=f"http://127.0.0.1:{port}")
        with pytest.raises(SnapshotError, match=r"0\.2 s"):
            await snapshots.fetch(["SPY"], deadline_s=0.2)
        assert threads.are_busy()
        late.answer.set()
        await until(lambda: not threads.are_busy(), "the thread to end")
        snapshots.close()


async def test_the_timeout_of_the_socket_ends_the_thread() -> None:
    """The error names the type of requests' error, as its text holds the whole URL."""
    async with Simulator(faults=Faults(rest_hang=True)) as sim:
        snapshots = Snapshots(settings_for(sim), socket_timeout_s=0.1)
        with pytest.raises(SnapshotError, match="ReadTimeout"):
            await snapshots.fetch(["SPY"], deadline_s=GUARD_S)
        await until(lambda: not threads.are_busy(), "the thread to end")


async def test_nothing_is_asked_after_the_deadline() -> None:
    """The rest of a batch with many bad symbols is not asked for once its caller has gone."""
    bad = [f"A{letter}" for letter in string.ascii_uppercase]
    faults = Faults(rest_delay_s=0.1, rest_bad_symbols=set(bad))
    async with Simulator(faults=faults) as sim:
        with pytest.raises(SnapshotError, match="within"):
            await snapshots_of(sim).fetch(bad, deadline_s=0.25)
        await until(lambda: not threads.are_busy(), "the thread to end")
        assert sim.stats.rest_requests < len(bad)


@pytest.mark.parametrize("response", [_http(b"{}"), _http(b"", b"500 Internal Server Error")])
async def test_a_cancelled_wait_leaves_nothing_that_complains(response: bytes) -> None:
    """A cancelled wait ends before the answer, which is dropped when it comes."""
    late = _Late(response)
    async with Simulator() as sim, tcp_server(late) as port:
        snapshots = snapshots_of(sim, data_url=f"http://127.0.0.1:{port}")
        fetching = asyncio.create_task(snapshots.fetch(["SPY"], deadline_s=GUARD_S))
        await late.asked.wait()
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert threads.are_busy()  # the request is still under way
        late.answer.set()
        await until(lambda: not threads.are_busy(), "the thread to end")


def test_an_answer_after_the_end_of_the_loop() -> None:
    """The thread may outlive the loop that asked, without an error of its own."""

    async def ask() -> None:
        fetching = asyncio.create_task(snapshots.fetch(["SPY"], deadline_s=GUARD_S))
        connection, _ = await asyncio.get_running_loop().sock_accept(server)
        connections.append(connection)  # it is never answered
        fetching.cancel()

    connections: list[socket.socket] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        snapshots = Snapshots(settings_for(Simulator(), data_url=url))
        asyncio.run(ask())
        assert threads.are_busy()
        connections[0].close()
    until_sync(lambda: not threads.are_busy(), "the thread to end")
    snapshots.close()


# The time that REST tells


@pytest.mark.parametrize("status", [200, 403, 429, 503])
async def test_every_answer_tells_the_time(status: int) -> None:
    """By it, the clock of this machine is ahead where Alpaca's is behind."""
    rest_status = 0 if status == 200 else status
    async with Simulator(faults=Faults(clock_behind_s=60.0, rest_status=rest_status)) as sim:
        rest = snapshots_of(sim)
        with contextlib.suppress(SnapshotError, AlpacaRefusedError):
            await rest.fetch(["SPY"], deadline_s=GUARD_S)
        assert rest.clock is not None
        assert rest.clock.wrong
        assert 55.0 < rest.clock.ahead_s < 65.0


@pytest.mark.parametrize(
    "header",
    [
        b"X-Other: 1",
        b"Date: yesterday",
        b"Date: Thu, 01 Jan 1970 00:00:00 -0000",
        b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nAge: 3",
    ],
    ids=["no time", "no date", "no zone", "from a cache"],
)
async def test_a_time_that_proves_nothing_is_not_read(header: bytes) -> None:
    """A cache tells the time at which it was filled."""
    answer = answering(_http(b"{}", b"200 OK", header))
    async with Simulator() as sim, tcp_server(answer) as port:
        rest = snapshots_of(sim, data_url=f"http://127.0.0.1:{port}")
        await rest.fetch(["SPY"], deadline_s=GUARD_S)
        assert rest.clock is None
