"""From the first packet to "authenticated", and every way in which that fails."""

import asyncio
import gc
import socket
import time
from collections.abc import Callable

import pytest

from spotd.alpaca.handshake import _dial
from spotd.alpaca.stream import AlpacaStream, Timeouts
from spotd.errors import AlpacaRefusedError, ConnectionLimitError, SpotdError, StreamError
from spotd.simulator import Faults, Limits, Simulator
from tests.daemon.streamkit import (
    IMPATIENT,
    KEY,
    PATIENCE_S,
    SECRET,
    accepted,
    answering,
    frame,
    nothing_unheard,  # noqa: F401 - a fixture for every test
    packed,
    peer,
    resolve,
    sockets_to,
    stream_to,
    until,
    upgrade,
)

# A moment that lies well behind the greeting, and well before any time limit.
_LATE_S = 0.1


async def _refused(stream: AlpacaStream) -> SpotdError:
    """Open the stream; how that fails. No secret is in it, and nothing is left behind."""
    before = asyncio.all_tasks()
    with pytest.raises(SpotdError) as caught:
        await stream.open()
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        assert KEY not in f"{error} {error!r}"
        error = error.__cause__
    assert (await stream.ended()).reason == "closed"
    await until(lambda: asyncio.all_tasks() == before or _only_servers(before), "a task is left")
    return caught.value


def _only_servers(before: set[asyncio.Task[object]]) -> bool:
    """Whether all that runs now and did not before belongs to the server of the test."""
    return all(
        "simulator" in task.get_name() or "serve" in repr(task) or "RequestHandler" in repr(task)
        for task in asyncio.all_tasks() - before
    )


def _reason(error: SpotdError) -> str:
    assert isinstance(error, StreamError)
    return error.reason


async def test_opens_with_the_keys_in_a_message_and_none_in_the_headers() -> None:
    """Keys in the headers as well would be answered with 403; msgpack is asked for."""
    async with Simulator() as sim:
        stream = stream_to(sim.stream_url())
        await stream.open()
        [connect] = sim.received.of("connect")
        assert connect.headers["Content-Type"] == "application/msgpack"
        assert connect.headers["User-Agent"].startswith("APCA-PY/")
        assert SECRET not in str(connect.headers)
        assert sim.received.messages() == [{"action": "auth", "key": KEY, "secret": SECRET}]
        await stream.close()


@pytest.mark.parametrize(
    "late",
    [
        Faults(handshake_delay_s=_LATE_S),
        Faults(greeting_delay_s=_LATE_S),
        Faults(auth_delay_s=_LATE_S),
    ],
)
async def test_waits_for_a_slow_server(late: Faults) -> None:
    """Each step may take its time."""
    async with Simulator(faults=late) as sim:
        stream = stream_to(sim.stream_url())
        await stream.open()
        await stream.close()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Faults(handshake_hang=True), "connect_timeout"),
        (Faults(no_greeting=True), "greeting_timeout"),
        (Faults(auth_silent=True), "authentication_timeout"),
    ],
)
async def test_does_not_wait_for_ever(fault: Faults, reason: str) -> None:
    """A step that is never answered ends with its name, in time, and without a socket."""
    async with Simulator(faults=fault) as sim:
        started = time.monotonic()
        error = await _refused(stream_to(sim.stream_url(), timeouts=IMPATIENT))
        assert _reason(error) == reason
        assert time.monotonic() - started < 5
        await until(lambda: sockets_to(sim.port) == 0, "a socket is left")


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (Faults(auth_error=402), "ALPACA_API_KEY"),
        (Faults(auth_error=409), "SPOTD_FEED"),
        (Faults(greeting_error=402), "ALPACA_SECRET_KEY"),
    ],
)
async def test_refused_for_good_says_what_to_do(fault: Faults, name: str) -> None:
    """402 and 409 name the settings that are to be changed; their exit code is 3."""
    async with Simulator(faults=fault) as sim:
        error = await _refused(stream_to(sim.stream_url()))
        assert isinstance(error, AlpacaRefusedError)
        assert error.exit_code == 3
        assert name in str(error)
        await until(lambda: not sim.sessions, "the session is left open")


async def test_wrong_keys_are_402() -> None:
    """What a key that nobody knows gets."""
    async with Simulator(keys={"another": "key"}) as sim:
        error = await _refused(stream_to(sim.stream_url()))
        assert isinstance(error, AlpacaRefusedError)


async def test_a_feed_that_is_not_in_the_plan_is_409() -> None:
    """What a key gets that may not use this feed."""
    async with Simulator(feeds=["iex"]) as sim:
        error = await _refused(stream_to(sim.stream_url("sip")))
        assert isinstance(error, AlpacaRefusedError)
        assert "feed" in str(error)


async def test_another_session_is_406_and_the_refused_one_is_closed() -> None:
    """The connection limit is its own error; the one that was there first goes on."""
    async with Simulator() as sim:
        first, second = stream_to(sim.stream_url()), stream_to(sim.stream_url())
        await first.open()
        error = await _refused(second)
        assert isinstance(error, ConnectionLimitError)
        assert (error.reason, error.code) == ("connection_limit", 406)
        await until(lambda: len(sim.sessions) == 1, "the refused session is left open")
        await first.close()
        await second.open()
        await second.close()


@pytest.mark.parametrize(
    ("fault", "reason", "code"),
    [
        (Faults(greeting_error=500), "code_500", 500),
        (Faults(greeting_error=406), "connection_limit", 406),
        (Faults(auth_error=404), "code_404", 404),
        (Faults(auth_error=500), "code_500", 500),
        (Faults(auth_error=999), "code_999", 999),
    ],
)
async def test_other_refusals_may_pass(fault: Faults, reason: str, code: int) -> None:
    """An error in place of the greeting or of the authentication keeps its code."""
    async with Simulator(faults=fault) as sim:
        error = await _refused(stream_to(sim.stream_url()))
        assert isinstance(error, StreamError)
        assert (error.reason, error.code) == (reason, code)


async def test_a_server_that_gives_up_waiting_for_us() -> None:
    """404 of the server's own timer, while its greeting hangs somewhere."""
    limits = Limits(auth_timeout_s=0.05)
    async with Simulator(limits=limits, faults=Faults(no_greeting=True)) as sim:
        assert _reason(await _refused(stream_to(sim.stream_url()))) == "code_404"


@pytest.mark.parametrize("status", [429, 403, 404, 500, 502, 503])
async def test_http_says_no(status: int) -> None:
    """A refused upgrade is told by its status."""
    async with Simulator(faults=Faults(handshake_status=status)) as sim:
        error = await _refused(stream_to(sim.stream_url()))
        assert _reason(error) == f"http_{status}"
        assert str(status) in str(error)
        await until(lambda: sockets_to(sim.port) == 0, "a socket is left")


@pytest.mark.parametrize(
    ("response", "reason", "after_s"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n\r\n", "http_429", 7.0),
        (
            b"HTTP/1.1 503 No\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\n",
            "http_503",
            None,
        ),
        (b"HTTP/1.1 503 No\r\nRetry-After: -1\r\n\r\n", "http_503", None),
        (b"HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:9/\r\n\r\n", "http_301", None),
        (b"HTTP/1.1 520 What Only a Proxy Knows\r\n\r\n", "http_520", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "http_200", None),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "http_101", None),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "handshake", None),
        (b"", "connect", None),
        (b"HTTP/1.1 101 Swit", "connect", None),
    ],
)
async def test_whatever_answers_in_place_of_alpaca(
    response: bytes, reason: str, after_s: float | None
) -> None:
    """Proxies, captive portals and other programs: an error at once, and no socket left."""
    async with peer(answering(response)) as port:
        started = time.monotonic()
        error = await _refused(stream_to(f"ws://127.0.0.1:{port}/v2/iex"))
        assert isinstance(error, StreamError)
        assert (error.reason, error.after_s) == (reason, after_s)
        assert time.monotonic() - started < 5
        await until(lambda: sockets_to(port) == 0, "a socket is left")


async def test_connection_refused() -> None:
    """Nobody listens."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        error = await _refused(stream_to(f"ws://127.0.0.1:{port}/"))
    assert _reason(error) == "connect"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".invalid", "a..b"])
async def test_unknown_hosts(host: str) -> None:
    """A name that does not exist, and what can be none."""
    patient = Timeouts(connect_s=PATIENCE_S)
    assert _reason(await _refused(stream_to(f"ws://{host}/", timeouts=patient))) == "dns"


async def test_an_address_that_refuses_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host of several addresses is reached by the one that answers."""
    async with Simulator() as sim:
        resolve(monkeypatch, [("127.0.0.1", _closed_port()), ("127.0.0.1", sim.port)])
        stream = stream_to("ws://somewhere.invalid/v2/iex")
        await stream.open()
        assert len(sim.sessions) == 1
        await stream.close()


async def test_an_address_that_swallows_packets_costs_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dead route, as a broken IPv6 is, leaves time enough for the other address."""
    with _deaf() as address:
        async with Simulator() as sim:
            resolve(monkeypatch, [address, ("127.0.0.1", sim.port)])
            stream = stream_to("ws://somewhere.invalid/v2/iex", timeouts=Timeouts(connect_s=1.0))
            await stream.open()
            await stream.close()


async def test_no_address_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one's failure is told."""
    with _deaf() as address:
        resolve(monkeypatch, [("127.0.0.1", _closed_port()), address])
        error = await _refused(stream_to("ws://somewhere.invalid/", timeouts=IMPATIENT))
        assert _reason(error) == "connect_timeout"


@pytest.mark.parametrize(
    "first",
    [
        {"T": "subscription", "quotes": []},
        {"T": "success", "msg": "authenticated"},
    ],
)
async def test_a_server_that_speaks_out_of_turn(first: dict[str, object]) -> None:
    """An acknowledgement is no greeting and no authentication; "authenticated" needs our keys."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer)
        writer.write(frame(packed(first)))
        await reader.readexactly(2)  # the keys, or our close frame
        writer.write(frame(packed({"T": "subscription", "quotes": []})))
        await reader.read()

    async with peer(behave) as port:
        error = await _refused(stream_to(f"ws://127.0.0.1:{port}/", timeouts=IMPATIENT))
        assert _reason(error) == "protocol"


async def test_an_error_behind_the_authentication_ends_the_session() -> None:
    """In the same packet as "authenticated": it must not answer the first request."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer)
        writer.write(frame(packed({"T": "success", "msg": "connected"})))
        await reader.readexactly(2)
        writer.write(
            frame(packed({"T": "success", "msg": "connected"}))  # said twice: ignored
            + frame(packed({"T": "success", "msg": "authenticated"}))
            + frame(packed({"T": "error", "code": 405, "msg": "symbol limit exceeded"}))
        )
        await reader.read()

    async with peer(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/", timeouts=IMPATIENT)
        await stream.open()
        assert (await stream.ended()).code == 405
        await stream.close()


async def test_a_greeting_in_the_packet_of_the_handshake() -> None:
    """It is not lost, although nobody waits for it yet; nor is the end behind it."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(
            accepted(head)
            + frame(packed({"T": "error", "code": 406, "msg": "connection limit exceeded"}))
            + frame(b"\x03\xe8", opcode=8)
        )
        await reader.read()

    async with peer(behave) as port:
        error = await _refused(stream_to(f"ws://127.0.0.1:{port}/"))
        assert isinstance(error, ConnectionLimitError)


async def test_the_peer_leaves_instead_of_greeting() -> None:
    """An end without a word, right after the upgrade, is noticed at once."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer)
        writer.close()

    async with peer(behave) as port:
        assert _reason(await _refused(stream_to(f"ws://127.0.0.1:{port}/"))) == "lost"


# Given up half way

_STEPS: list[tuple[str, Faults, Callable[[Simulator], object]]] = [
    ("upgrade", Faults(handshake_hang=True), lambda sim: sim.stats.connections),
    ("greeting", Faults(no_greeting=True), lambda sim: sim.sessions),
    ("keys", Faults(auth_silent=True), lambda sim: sim.received.messages("auth")),
]


@pytest.mark.parametrize(("reached", "fault", "is_there"), _STEPS, ids=[one[0] for one in _STEPS])
async def test_cancelled_half_way(
    reached: str, fault: Faults, is_there: Callable[[Simulator], object]
) -> None:
    """No socket, no task and no seat is left of a try that is given up."""
    async with Simulator(faults=fault) as sim:
        stream = stream_to(sim.stream_url())
        task = asyncio.create_task(stream.open(), name="open")
        await sim.wait_for(lambda: is_there(sim))
        assert sockets_to(sim.port) == 1
        task.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 3
        await until(lambda: sockets_to(sim.port) == 0, "a socket is left")
        sim.faults.handshake_hang = sim.faults.no_greeting = sim.faults.auth_silent = False
        await until(lambda: not sim.sessions, "a session is left")
        await stream.open()  # a new try has nothing to do with the old one
        await stream.close()
    gc.collect()  # what was left would warn now, and warnings are errors


async def test_cancelled_before_a_connection() -> None:
    """While no packet was answered yet."""
    with _deaf() as (host, port):
        task = asyncio.create_task(stream_to(f"ws://{host}:{port}/").open())
        await asyncio.wait((task,), timeout=_LATE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    gc.collect()


# Servers and hosts


def _closed_port() -> int:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        return int(nobody.getsockname()[1])


class _deaf:  # noqa: N801 - reads as a function
    """An address that swallows packets: a listener whose queue is full and is never emptied."""

    def __enter__(self) -> tuple[str, int]:
        self._server = socket.socket()
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(0)
        address = self._server.getsockname()
        self._queued = []
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(address)
            self._queued.append(waiting)
        return "127.0.0.1", int(address[1])

    def __exit__(self, *_: object) -> None:
        for waiting in (*self._queued, self._server):
            waiting.close()


# The socket under the websocket

_SENT = 4 * 1024 * 1024


async def test_no_turn_of_the_loop_reads_all_that_waits() -> None:
    """However much has come in meanwhile, others get their turn after a part of it."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = await _dial("127.0.0.1", listener.getsockname()[1], loop.time() + 5)
        sender, _ = listener.accept()
    with dialled, sender:
        sending = asyncio.create_task(asyncio.to_thread(sender.sendall, bytes(_SENT)))
        buffer, got, most = memoryview(bytearray(_SENT)), 0, 0
        async with asyncio.timeout(5):
            while got < _SENT:
                await asyncio.sleep(0.005)  # more comes in than is read
                part = await loop.sock_recv_into(dialled, buffer)
                got, most = got + part, max(most, part)
        await sending
    assert 0 < most <= 128 * 1024
