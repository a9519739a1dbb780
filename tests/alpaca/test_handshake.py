"""Opening a stream: from the first packet to "authenticated", and each way in which that fails."""

import asyncio
import gc
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from websockets.frames import Opcode

from spotd.alpaca.handshake import Timeouts, dial
from spotd.alpaca.stream import AlpacaStream
from spotd.errors import AlpacaRefusedError, ConnectionLimitError, SpotdError, StreamError
from spotd.simulator import Faults, Limits, Simulator
from tests.kit.stream import (
    IMPATIENT,
    KEY,
    SECRET,
    nothing_connected,
    nothing_unheard,  # noqa: F401 - a fixture for every test
    open_sockets,
    resolve,
    sockets_to,
    stream_to,
    why_ended,
)
from tests.kit.waiting import GUARD_S, until
from tests.kit.websocket import (
    ServerEnd,
    answering,
    frame,
    framed,
    tcp_server,
    websocket_server,
)

# Long after the client begins to wait, and well before any time limit.
_LATE_S = 0.1


async def _refused(stream: AlpacaStream) -> SpotdError:
    """Open the stream and return how that fails. No secret is in it, and nothing is left over."""
    before = asyncio.all_tasks()
    with pytest.raises(SpotdError) as caught:
        async with asyncio.timeout(GUARD_S):
            await stream.open()
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error} {error!r}"
        assert KEY not in f"{error} {error!r}"
        error = error.__cause__
    assert (await stream.ended()).reason == "closed"
    await until(lambda: _only_servers(asyncio.all_tasks() - before), "the tasks to end")
    return caught.value


def _only_servers(tasks: set[asyncio.Task[object]]) -> bool:
    """Return whether all these tasks belong to the server of the test."""
    return all(
        "simulator" in task.get_name() or "serve" in repr(task) or "RequestHandler" in repr(task)
        for task in tasks
    )


def _reason(error: SpotdError) -> str:
    assert isinstance(error, StreamError)
    return error.reason


async def test_opens_with_the_keys_in_a_message_and_none_in_the_headers() -> None:
    """Alpaca may refuse keys in both. MessagePack is asked for, and no extension is offered."""
    async with Simulator() as sim:
        stream = stream_to(sim.stream_url())
        await stream.open()
        [connect] = sim.received.of("connect")
        assert connect.headers["Content-Type"] == "application/msgpack"
        assert connect.headers["User-Agent"].startswith("APCA-PY/")
        assert "Sec-WebSocket-Extensions" not in connect.headers
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
    """Each step may be late within its time limit."""
    async with Simulator(faults=late) as sim:
        stream = stream_to(sim.stream_url())
        await stream.open()
        await stream.close()


@pytest.mark.parametrize(
    ("fault", "timeouts", "reason"),
    [
        (Faults(handshake_hang=True), IMPATIENT, "connect_timeout"),
        (Faults(no_greeting=True), Timeouts(answer_s=0.5), "greeting_timeout"),
        # The greeting has as long.
        (Faults(auth_silent=True), Timeouts(answer_s=2.0), "authentication_timeout"),
    ],
)
async def test_a_step_that_is_never_answered(
    fault: Faults, timeouts: Timeouts, reason: str
) -> None:
    """The error names the step, and no socket is left open."""
    async with Simulator(faults=fault) as sim:
        error = await _refused(stream_to(sim.stream_url(), timeouts=timeouts))
        assert _reason(error) == reason
        await nothing_connected(sim.port)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (Faults(auth_error=402), "ALPACA_API_KEY"),
        (Faults(auth_error=409), "SPOTD_FEED"),
        (Faults(greeting_error=402), "ALPACA_SECRET_KEY"),
    ],
)
async def test_refused_for_good_says_what_to_do(fault: Faults, name: str) -> None:
    """402 and 409 name the setting that is to be changed, and their exit code is 3."""
    async with Simulator(faults=fault) as sim:
        error = await _refused(stream_to(sim.stream_url()))
        assert isinstance(error, AlpacaRefusedError)
        assert error.exit_code == 3
        assert name in str(error)
        await until(lambda: not sim.sessions, "the session to be closed")


async def test_wrong_keys_are_402() -> None:
    """Alpaca refuses a key that it does not know for good."""
    async with Simulator(keys={"another": "key"}) as sim:
        error = await _refused(stream_to(sim.stream_url()))
        assert isinstance(error, AlpacaRefusedError)


async def test_a_feed_that_is_not_in_the_plan_is_409() -> None:
    """Alpaca refuses a key that may not use this feed for good."""
    async with Simulator(feeds=["iex"]) as sim:
        error = await _refused(stream_to(sim.stream_url("sip")))
        assert isinstance(error, AlpacaRefusedError)
        assert "feed" in str(error)


async def test_another_session_is_406_and_the_refused_one_is_closed() -> None:
    """The connection limit has an error of its own, and the first session goes on."""
    async with Simulator() as sim:
        first, second = stream_to(sim.stream_url()), stream_to(sim.stream_url())
        await first.open()
        error = await _refused(second)
        assert isinstance(error, ConnectionLimitError)
        assert (error.reason, error.code) == ("connection_limit", 406)
        await until(lambda: len(sim.sessions) == 1, "the refused session to be closed")
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
async def test_other_refusals_keep_their_code(fault: Faults, reason: str, code: int) -> None:
    """Another error, in place of the greeting or of "authenticated", is told with its code."""
    async with Simulator(faults=fault) as sim:
        error = await _refused(stream_to(sim.stream_url()))
        assert isinstance(error, StreamError)
        assert (error.reason, error.code) == (reason, code)


async def test_a_server_that_gives_up_waiting_for_us() -> None:
    """The server's 404 after its own time limit is told, also where its greeting never came."""
    limits = Limits(auth_timeout_s=0.05)
    async with Simulator(limits=limits, faults=Faults(no_greeting=True)) as sim:
        assert _reason(await _refused(stream_to(sim.stream_url()))) == "code_404"


@pytest.mark.parametrize("status", [429, 403, 404, 500, 502, 503])
async def test_a_refused_upgrade(status: int) -> None:
    """The error names the HTTP status, and no socket is left open."""
    async with Simulator(faults=Faults(handshake_status=status)) as sim:
        error = await _refused(stream_to(sim.stream_url()))
        assert _reason(error) == f"http_{status}"
        assert str(status) in str(error)
        await nothing_connected(sim.port)


@pytest.mark.parametrize(
    ("response", "reason", "after_s"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n\r\n", "http_429", 7.0),
        (
            (
                b"HTTP/1.1 503 No\r\nDate: Wed, 21 Oct 2026 07:27:30 GMT\r\n"
                b"Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\n"
            ),
            "http_503",
            30.0,
        ),
        (b"HTTP/1.1 520 No\r\nX-Y: Z\r\nRetry-After: 9\r\n\r\n", "http_520", 9.0),
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
    """A proxy, a captive portal or another program is an error, and no socket is left open."""
    async with tcp_server(answering(response)) as port:
        error = await _refused(stream_to(f"ws://127.0.0.1:{port}/v2/iex"))
        assert isinstance(error, StreamError)
        assert (error.reason, error.after_s) == (reason, after_s)
        await nothing_connected(port)


@pytest.mark.parametrize(
    "extensions",
    ["permessage-deflate", "x-webkit-deflate-frame", "permessage-deflate; " + "x" * 10_000],
)
async def test_an_extension_that_was_not_offered(extensions: str) -> None:
    """The upgrade is refused (RFC 6455, 4.1); what the server says is cut, on one line."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.welcome(extensions=extensions)

    async with websocket_server(behave) as port:
        error = await _refused(stream_to(f"ws://127.0.0.1:{port}/"))
        assert _reason(error) == "extension"
        assert extensions[:20] in str(error)
        assert str(error).isprintable()
        assert len(str(error)) < 300
        await nothing_connected(port)


async def test_an_empty_list_of_extensions() -> None:
    """A header that names no extension is accepted."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.welcome(extensions=" , ")
        await alpaca.gone()

    async with websocket_server(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/")
        await stream.open()
        await stream.close()


async def test_connection_refused() -> None:
    """An address at which nobody listens is an error, whose sentence does not show it."""
    with _closed() as (host, port):
        error = await _refused(stream_to(f"ws://{host}:{port}/"))
        assert _reason(error) == "connect"
        assert str(error) == "no connection to Alpaca: Connection refused"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".invalid", "a..b"])
async def test_unknown_hosts(host: str) -> None:
    """A name that does not exist, and a text that cannot be a host name, are errors."""
    patient = Timeouts(connect_s=GUARD_S)
    assert _reason(await _refused(stream_to(f"ws://{host}/", timeouts=patient))) == "dns"


async def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that nobody answers for is given up like an address that nobody answers at."""

    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    stream = stream_to("ws://somewhere.invalid/", timeouts=IMPATIENT)
    assert _reason(await _refused(stream)) == "connect_timeout"


async def test_an_address_that_refuses_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host of several addresses is reached at the one that accepts."""
    async with Simulator() as sim:
        with _closed() as closed:
            resolve(monkeypatch, [closed, ("127.0.0.1", sim.port)])
            stream = stream_to("ws://somewhere.invalid/v2/iex")
            await stream.open()
        assert len(sim.sessions) == 1
        await stream.close()


async def test_an_address_that_swallows_packets_costs_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An address that swallows packets, as a broken IPv6 does, leaves time for the next one."""
    with _deaf() as deaf, socket.create_server(("127.0.0.1", 0)) as server:
        resolve(monkeypatch, [deaf, server.getsockname()])
        now = asyncio.get_running_loop().time()
        with await dial("somewhere.invalid", 0, now + 3.0) as dialled:
            assert dialled.getpeername() == server.getsockname()


async def test_no_address_that_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure of the last address is told."""
    with _deaf() as deaf, _closed() as closed:
        resolve(monkeypatch, [closed, deaf])
        error = await _refused(stream_to("ws://somewhere.invalid/", timeouts=IMPATIENT))
        assert _reason(error) == "connect_timeout"
        resolve(monkeypatch, [deaf, closed])
        shared = Timeouts(connect_s=3.0)  # by both addresses
        error = await _refused(stream_to("ws://somewhere.invalid/", timeouts=shared))
        assert _reason(error) == "connect"


@pytest.mark.parametrize(
    "first",
    [
        {"T": "subscription", "quotes": []},
        {"T": "success", "msg": "authenticated"},
    ],
)
async def test_a_server_that_speaks_out_of_turn(first: dict[str, object]) -> None:
    """An acknowledgement does not greet or authenticate, nor does "authenticated" before a key."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.upgrade()
        alpaca.say(first)
        await alpaca.read()  # the keys, or our close frame
        alpaca.say({"T": "subscription", "quotes": []})
        await alpaca.gone()

    async with websocket_server(behave) as port:
        error = await _refused(stream_to(f"ws://127.0.0.1:{port}/"))
        assert _reason(error) == "protocol"


async def test_an_error_behind_the_authentication_ends_the_session() -> None:
    """An error in the packet of "authenticated" does not answer the first request."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.upgrade()
        alpaca.say({"T": "success", "msg": "connected"})
        await alpaca.read()
        alpaca.say(
            {"T": "success", "msg": "connected"},  # said twice: ignored
            {"T": "success", "msg": "authenticated"},
            {"T": "error", "code": 405, "msg": "symbol limit exceeded"},
        )
        await alpaca.gone()

    async with websocket_server(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/")
        await stream.open()
        assert (await why_ended(stream)).code == 405
        await stream.close()


def _text(words: str) -> bytes:
    """Return a text frame of a server."""
    return frame(words.encode(), Opcode.TEXT)


@pytest.mark.parametrize(
    ("greeting", "reason", "words"),
    [
        (
            _text('[{"T":"success","msg":"connected"}]'),
            "text",
            'text instead of MessagePack ([{"T":"success","msg":"connected"}])',
        ),
        (_text("come back\nlater, " + KEY), "text", "(come back later, ***)"),
        (_text('{"T":"success"}'), "text", '({"T":"success"})'),
        (frame(b"<html>"), "text", "(<html>)"),
        (frame(b"\xff\xfe"), "protocol", "does not begin with MessagePack"),
        (_text('[{"T":"error","code":500,"msg":"internal error"}]'), "code_500", "internal error"),
    ],
)
async def test_a_greeting_in_text_is_told(greeting: bytes, reason: str, words: str) -> None:
    """Its words are the reason; an error in it counts as one in MessagePack."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.upgrade(greeting)
        await alpaca.gone()

    async with websocket_server(behave) as port:
        error = await _refused(stream_to(f"ws://127.0.0.1:{port}/"))
        assert _reason(error) == reason
        assert words in str(error)


async def test_an_unknown_message_before_the_greeting_is_no_greeting() -> None:
    """A newer server may send it: the greeting comes behind it."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.upgrade(framed({"T": "notice", "msg": "new"}))
        alpaca.say({"T": "success", "msg": "connected"})
        await alpaca.read()
        alpaca.say({"T": "success", "msg": "authenticated"})
        await alpaca.gone()

    async with websocket_server(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/")
        await stream.open()
        await stream.close()


async def test_a_greeting_in_the_packet_of_the_handshake() -> None:
    """A greeting that comes before anybody waits for it is not lost, nor is a close behind it."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.upgrade(
            framed({"T": "error", "code": 406, "msg": "connection limit exceeded"})
            + frame(b"\x03\xe8", Opcode.CLOSE)
        )
        await alpaca.gone()

    async with websocket_server(behave) as port:
        error = await _refused(stream_to(f"ws://127.0.0.1:{port}/"))
        assert isinstance(error, ConnectionLimitError)


async def test_the_peer_leaves_instead_of_greeting() -> None:
    """An end without a close frame, right after the upgrade, is noticed."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.upgrade()
        alpaca.leave()

    async with websocket_server(behave) as port:
        assert _reason(await _refused(stream_to(f"ws://127.0.0.1:{port}/"))) == "lost"


# Abandoned half way

_STEPS: list[tuple[str, Faults, Callable[[Simulator], object]]] = [
    ("upgrade", Faults(handshake_hang=True), lambda sim: sim.stats.connections),
    ("greeting", Faults(no_greeting=True), lambda sim: sim.sessions),
    ("keys", Faults(auth_silent=True), lambda sim: sim.received.messages("auth")),
]


@pytest.mark.parametrize(("reached", "fault", "is_there"), _STEPS, ids=[one[0] for one in _STEPS])
async def test_cancelled_half_way(
    reached: str, fault: Faults, is_there: Callable[[Simulator], object]
) -> None:
    """An abandoned try leaves no socket, task or session behind, and the next try works."""
    async with Simulator(faults=fault) as sim:
        stream = stream_to(sim.stream_url())
        task = asyncio.create_task(stream.open(), name="open")
        await sim.wait_for(lambda: is_there(sim))
        assert sockets_to(sim.port) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await nothing_connected(sim.port)
        sim.faults.handshake_hang = sim.faults.no_greeting = sim.faults.auth_silent = False
        await until(lambda: not sim.sessions, "the session to be closed")
        await stream.open()
        await stream.close()
    gc.collect()  # what was left would warn now, and warnings are errors


async def test_cancelled_before_a_connection() -> None:
    """A try that is cancelled while TCP connects leaves no socket behind."""
    with _deaf() as (host, port):
        before = open_sockets()
        task = asyncio.create_task(stream_to(f"ws://{host}:{port}/").open())
        await until(lambda: len(open_sockets()) > len(before), "a connection to be tried")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert open_sockets() == before
    gc.collect()


# The socket under the websocket


async def test_no_turn_of_the_loop_reads_all_that_waits() -> None:
    """A read returns a bounded part of what has come in, so that other tasks get their turn."""
    loop = asyncio.get_running_loop()
    most_bytes = 128 * 1024
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = await dial("127.0.0.1", listener.getsockname()[1], loop.time() + GUARD_S)
        sender, _ = listener.accept()
    with dialled, sender:
        dialled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * most_bytes)
        sender.setblocking(False)
        sender.send(bytes(8 * most_bytes))
        await until(lambda: _waiting_bytes(dialled) > most_bytes, "more than one read may return")
        buffer = memoryview(bytearray(8 * most_bytes))
        assert 0 < await loop.sock_recv_into(dialled, buffer) <= most_bytes
        assert 0 < await loop.sock_recv_into(dialled, buffer) <= most_bytes


def _waiting_bytes(sock: socket.socket) -> int:
    """Return how much has come in, up to 1 MiB."""
    with suppress(BlockingIOError):
        return len(sock.recv(1024 * 1024, socket.MSG_PEEK))
    return 0


# Addresses


@contextmanager
def _closed() -> Iterator[tuple[str, int]]:
    """Yield an address at which nobody listens, and nobody else can."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        yield nobody.getsockname()


@contextmanager
def _deaf() -> Iterator[tuple[str, int]]:
    """Yield an address that swallows packets: a listener whose full queue nobody empties."""
    with ExitStack() as sockets:
        server = sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()
