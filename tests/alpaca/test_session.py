"""An open session: requests and their answers, data, keepalive, and each way in which it ends."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.frames import Opcode

from spotd.alpaca.handshake import Timeouts
from spotd.alpaca.session import MAX_FRAME_BYTES
from spotd.alpaca.stream import AlpacaStream
from spotd.core.messages import Cancel, Message, Success
from spotd.core.subscriptions import Request
from spotd.errors import RequestRefusedError, StreamError
from spotd.simulator import Faults, Limits, Simulator
from tests.kit.stream import (
    KEY,
    SECRET,
    Listener,
    nothing_connected,
    nothing_unheard,  # noqa: F401 - a fixture for every test
    session_with,
    sockets_to,
    stream_to,
    why_ended,
)
from tests.kit.waiting import GUARD_S, until
from tests.kit.websocket import ServerEnd, frame, packed, websocket_server

# A simulator that does not wait long for the answer to its own close frame.
_HASTY = Limits(close_timeout_s=0.1)
# A session that pings soon, and that stays open where this process stands still for a second.
_PINGING = Timeouts(ping_s=1.5, pong_s=1.5)
SPY = Request("subscribe", ("SPY",), trades=True)
ACK: dict[str, Any] = {"T": "subscription", "quotes": ["SPY"], "trades": ["SPY"]}
LIMIT: dict[str, Any] = {"T": "error", "code": 405, "msg": "symbol limit exceeded"}


def _about(symbol: str) -> bytes:
    """Return the payload of a message that is not a quote, with this symbol."""
    return packed({"T": "x", "S": symbol})


def _symbols(listener: Listener) -> list[str]:
    """Return the symbols of these messages, in order."""
    return [message.symbol for message in listener.messages if isinstance(message, Cancel)]


def _marked(whole: bytes) -> bytes:
    """Return a frame with its compressed bit set, which ``websockets`` refuses to write."""
    return bytes((whole[0] | 0x40,)) + whole[1:]


async def _still_open(stream: AlpacaStream) -> bool:
    """Return whether a request is answered; raise StreamError where the session is over."""
    return "SPY" in (await stream.request(SPY)).quotes


# Requests


async def test_a_request_is_answered_with_the_whole_list() -> None:
    """A request asks for quotes and trades; its acknowledgement tells all that is subscribed."""
    async with Simulator() as sim, session_with(sim) as stream:
        assert (await stream.request(SPY)).quotes == ["SPY"]
        answer = await stream.request(Request("subscribe", ("BRK.B", "QQQ")))
        assert (answer.quotes, answer.trades) == (["BRK.B", "QQQ", "SPY"], ["SPY"])
        answer = await stream.request(Request("subscribe", statuses=True))
        assert answer.statuses == ["*"]
        answer = await stream.request(Request("unsubscribe", ("SPY",), trades=True))
        assert (answer.quotes, answer.trades) == (["BRK.B", "QQQ"], [])
        assert sim.received.messages()[1:] == [
            {"action": "subscribe", "quotes": ["SPY"], "trades": ["SPY"]},
            {"action": "subscribe", "quotes": ["BRK.B", "QQQ"]},
            {"action": "subscribe", "statuses": ["*"]},
            {"action": "unsubscribe", "quotes": ["SPY"], "trades": ["SPY"]},
        ]


@pytest.mark.parametrize(
    ("limits", "faults", "code"),
    [
        (Limits(symbols=1), Faults(), 405),
        (Limits(), Faults(bad_symbols={"SPY"}), 400),
        (Limits(), Faults(unavailable_channels={"trades"}), 410),
        (Limits(), Faults(subscribe_error=500), 500),
    ],
)
async def test_a_refused_request_leaves_the_session_open(
    limits: Limits, faults: Faults, code: int
) -> None:
    """The refusal is told with its code, and the next request is acknowledged."""
    async with Simulator(limits=limits, faults=faults) as sim, session_with(sim) as stream:
        with pytest.raises(RequestRefusedError) as caught:
            await stream.request(SPY)
        assert (caught.value.code, caught.value.reason) == (code, f"code_{code}")
        sim.faults.subscribe_error = 0
        answer = await stream.request(Request("subscribe", ("QQQ",)))
        assert answer.quotes == ["QQQ"]


async def test_that_we_read_too_slowly_answers_no_request() -> None:
    """Alpaca's 407 ends the session, also while a request is under way."""
    async with (
        Simulator(faults=Faults(subscribe_error=407)) as sim,
        session_with(sim) as stream,
    ):
        with pytest.raises(StreamError) as caught:
            await stream.request(SPY)
        assert not isinstance(caught.value, RequestRefusedError)
        assert caught.value.reason == "code_407"


async def test_an_answer_that_never_comes() -> None:
    """The wait for an answer ends by itself."""
    async with (
        Simulator(faults=Faults(ack_silent=True)) as sim,
        # Greeting and authentication have as long.
        session_with(sim, timeouts=Timeouts(answer_s=2.0)) as stream,
    ):
        with pytest.raises(StreamError) as caught:
            await stream.request(SPY)
        assert caught.value.reason == "acknowledgement_timeout"


@pytest.mark.parametrize("how", ["close", "abort", "eof"])
async def test_the_session_ends_while_an_answer_is_awaited(how: Any) -> None:
    """The wait for an answer ends with the session, for its reason."""
    async with Simulator(faults=Faults(ack_silent=True)) as sim, session_with(sim) as stream:
        asking = asyncio.create_task(stream.request(SPY))
        await sim.wait_for(lambda: sim.received.messages("subscribe"))
        await sim.drop_sessions(how, 1001)
        with pytest.raises(StreamError) as caught:
            async with asyncio.timeout(GUARD_S):
                await asking
        assert caught.value.reason == ("close_1001" if how == "close" else "lost")


async def test_no_request_without_a_session() -> None:
    """A request fails before ``open``, after the session ended, and after ``close``."""
    async with Simulator() as sim:
        stream = stream_to(sim.stream_url())
        with pytest.raises(StreamError, match="closed"):
            await stream.request(SPY)
        stream.give_up(StreamError("there is no session to end", reason="mute"))
        assert (await stream.ended()).reason == "closed"
        await stream.close()
        await stream.open()
        await sim.drop_sessions("close", 1011)
        await why_ended(stream)
        with pytest.raises(StreamError, match="1011"):
            await stream.request(SPY)
        await stream.close()
        with pytest.raises(StreamError, match="closed"):
            await stream.request(SPY)


async def test_closing_ends_a_wait_for_an_answer() -> None:
    """A request that is under way fails when the stream is closed."""
    async with Simulator(faults=Faults(ack_silent=True)) as sim, session_with(sim) as stream:
        asking = asyncio.create_task(stream.request(SPY))
        await sim.wait_for(lambda: sim.received.messages("subscribe"))
        await stream.close()
        with pytest.raises(StreamError, match="closed"):
            async with asyncio.timeout(GUARD_S):
                await asking


async def test_an_error_behind_an_acknowledgement_is_not_the_next_answer() -> None:
    """An error in the packet of an acknowledgement ends the session, and answers no request."""

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.welcome()
        await alpaca.read()
        alpaca.say(ACK, LIMIT)
        await alpaca.gone()

    async with websocket_server(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/")
        await stream.open()
        assert (await stream.request(SPY)).quotes == ["SPY"]
        with pytest.raises(StreamError) as caught:
            await stream.request(Request("subscribe", ("QQQ",)))
        assert not isinstance(caught.value, RequestRefusedError)
        assert caught.value.code == 405
        await stream.close()


async def test_success_messages_and_data_are_no_answers() -> None:
    """Data before an acknowledgement is handed on, and answers nothing. What answers is no data."""
    listener = Listener()

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.welcome()
        await alpaca.read()
        alpaca.say({"T": "success", "msg": "authenticated"}, {"T": "x", "S": "SPY"})
        alpaca.say(ACK, ACK)  # the second one answers nothing
        alpaca.say({"T": "x", "S": "QQQ"})
        await alpaca.gone()

    async with websocket_server(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/", listener)
        await stream.open()
        assert (await stream.request(SPY)).trades == ["SPY"]
        await until(lambda: len(listener.messages) == 2, "all data")
        assert _symbols(listener) == ["SPY", "QQQ"]
        await stream.close()


@pytest.mark.parametrize("code", [400, 405, 406, 407, 500])
async def test_an_error_nobody_asked_for_ends_the_session(code: int) -> None:
    """An error without a request ends the session, 405 too: what it refuses is not known."""
    async with Simulator() as sim, session_with(sim, symbols=("SPY",)) as stream:
        await sim.send_control({"T": "error", "code": code, "msg": "for no reason"})
        why = await why_ended(stream)
        assert (why.code, why.reason) == (code, f"code_{code}")
        assert "for no reason" in str(why)


async def test_a_slow_client_is_told_so() -> None:
    """407 is the reason that is told, and not the close frame behind it."""
    async with Simulator() as sim, session_with(sim, symbols=("SPY",)) as stream:
        await sim.cut_slow_clients()
        assert (await why_ended(stream)).reason == "code_407"


# Data


async def test_data_is_handed_on_in_order() -> None:
    """Each message is handed on once, frame by frame."""
    listener = Listener()
    async with Simulator() as sim, session_with(sim, listener, symbols=("SPY", "QQQ")):
        for number in range(50):
            symbol = ("SPY", "QQQ")[number % 2]
            await sim.send([{"T": "q", "S": symbol, "bp": float(number + 1)}])
        await until(lambda: len(listener.quotes) == 50, "the quotes")
        assert [quote.bid for quote in listener.quotes] == [float(n + 1) for n in range(50)]


@pytest.mark.parametrize(
    ("damage", "counted"),
    [
        ("garbage_p", "frame"),
        ("unknown_type_p", "unknown_type"),
        ("malformed_p", None),
        ("text_frame_p", "frame"),
        ("oversize_p", "unknown_type"),
    ],
)
async def test_damaged_data_costs_only_itself(damage: str, counted: str | None) -> None:
    """The session goes on, and the other messages arrive, also those in a frame beyond 1 MiB."""
    listener = Listener()
    async with Simulator() as sim, session_with(sim, listener, symbols=("SPY",)) as stream:
        setattr(sim.faults, damage, 1.0)
        await sim.send([{"T": "q", "S": "SPY", "bp": 1.0}])
        setattr(sim.faults, damage, 0.0)
        await sim.send([{"T": "q", "S": "SPY", "bp": 2.0}])
        await until(lambda: listener.quotes and listener.quotes[-1].bid == 2.0, "the last quote")
        assert len(listener.quotes) == (1 if damage == "text_frame_p" else 2)
        malformed = stream.decoder.malformed
        assert malformed.total() == 1
        assert counted is None or malformed[counted] == 1


async def test_fragments_are_put_together() -> None:
    """A message may come in any number of frames, some empty, with pings in between."""
    listener = Listener()
    payload = packed({"T": "x", "S": "SPY"}, {"T": "x", "S": "QQQ"})
    async with Simulator() as sim, session_with(sim, listener):
        await sim.send_raw(
            frame(payload[:5], fin=False)
            + frame(b"", Opcode.CONT, fin=False)
            + frame(b"are you there", Opcode.PING)
            + frame(b"unasked", Opcode.PONG)
            + frame(payload[5:], Opcode.CONT, fin=False)
            + frame(b"", Opcode.CONT),
            framed=False,
        )
        await sim.send_raw(_about("IWM"))
        await until(lambda: _symbols(listener) == ["SPY", "QQQ", "IWM"], "the messages")
        await sim.wait_for(lambda: sim.received.of("pong"))
        assert bytes(sim.received.of("pong")[0].data) == b"are you there"


async def test_a_message_inside_another_breaks_the_rules() -> None:
    """The session ends, since fragments of two messages cannot be told apart."""
    listener = Listener()
    payload = _about("SPY")
    async with Simulator() as sim, session_with(sim, listener) as stream:
        await sim.send_raw(frame(payload[:5], fin=False) + frame(payload), framed=False)
        why = await why_ended(stream)
        assert why.reason == "sent_1002"
        assert "inside another" in str(why)
        assert _symbols(listener) == []


@pytest.mark.parametrize(
    "marked",
    [
        _marked(frame(_about("SPY"))),
        _marked(frame(b"\xff" * 40)),
        _marked(frame(_about("SPY")[:5], fin=False)),
        frame(_about("SPY")[:5], fin=False) + _marked(frame(_about("SPY")[5:], Opcode.CONT)),
        _marked(frame(_about("SPY"), Opcode.TEXT)),
        _marked(frame(b"", Opcode.PONG)),
        _marked(frame(b"\x03\xe8", Opcode.CLOSE)),
    ],
)
async def test_a_frame_that_is_marked_as_compressed_breaks_the_rules(marked: bytes) -> None:
    """The session ends, as no compression was offered, and nothing of the packet is handed on."""
    listener = Listener()
    async with Simulator() as sim, session_with(sim, listener) as stream:
        await sim.send_raw(marked + frame(_about("QQQ")) + marked, framed=False)
        why = await why_ended(stream)
        assert why.reason == "sent_1002"
        assert "compressed" in str(why)
        await sim.wait_for(lambda: sim.received.of("close"))
        assert sim.received.of("close")[0].data == 1002
        assert _symbols(listener) == []


async def test_pongs_and_empty_frames_are_no_data() -> None:
    """A pong without a ping is not counted as malformed; an empty message is."""
    listener = Listener()
    async with Simulator() as sim, session_with(sim, listener) as stream:
        await sim.send_raw(
            frame(b"", Opcode.PONG) + frame(b"unasked", Opcode.PONG) + frame(b""), framed=False
        )
        await sim.send_raw(_about("SPY"))
        await until(lambda: _symbols(listener) == ["SPY"], "the message")
        assert stream.decoder.malformed == {"frame": 1}


# The largest frame that is read, and larger ones


async def test_the_largest_frame() -> None:
    """A frame of 16 MiB is read."""
    listener = Listener()
    padding = b"x" * (MAX_FRAME_BYTES - 64)
    async with Simulator() as sim, session_with(sim, listener):
        await sim.send_raw(packed({"T": "x", "S": "SPY", "pad": padding}))
        await until(lambda: _symbols(listener) == ["SPY"], "the message")


async def test_a_frame_beyond_it_is_refused_by_its_header() -> None:
    """The session ends with close code 1009 before the payload has come."""
    async with Simulator() as sim, session_with(sim) as stream:
        header = b"\x82\x7f" + (MAX_FRAME_BYTES + 1).to_bytes(8, "big")
        await sim.send_raw(header, framed=False)
        assert (await why_ended(stream)).reason == "sent_1009"
        await sim.wait_for(lambda: sim.received.of("close"))
        assert sim.received.of("close")[0].data == 1009


async def test_fragments_beyond_it_are_refused_too() -> None:
    """A message in fragments may not be larger than the largest frame, so memory is bounded."""
    async with Simulator() as sim, session_with(sim) as stream:
        part = bytes(MAX_FRAME_BYTES // 2)
        await sim.send_raw(
            frame(part, fin=False) + frame(part, Opcode.CONT, fin=False), framed=False
        )
        await sim.send_raw(frame(b"\x00", Opcode.CONT, fin=False), framed=False)
        assert (await why_ended(stream)).reason == "sent_1009"


@pytest.mark.parametrize("nonsense", [b"\x83\x00", b"\x82\x80", b"\x09\x00", b"HTTP/1.1 200 OK"])
async def test_a_peer_that_breaks_the_rules(nonsense: bytes) -> None:
    """Unknown opcodes, masked frames and pings in fragments end the session, which says why."""
    async with Simulator() as sim, session_with(sim) as stream:
        await sim.send_raw(nonsense, framed=False)
        why = await why_ended(stream)
        assert why.reason == "sent_1002"
        assert "rules" in str(why)


class _Defective:
    """An ``on_data`` with a defect: it raises at the first message of data."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, messages: list[Message]) -> None:
        if not isinstance(messages[0], Success):
            self.calls += 1
            raise ZeroDivisionError("a defect")


async def test_a_defect_in_taking_data_in_is_not_hidden() -> None:
    """The session ends, its cause is chained for the log, and nothing more is handed on."""
    defective = _Defective()
    async with Simulator() as sim, session_with(sim, defective) as stream:
        await sim.send_raw(3 * frame(_about("SPY")), framed=False)
        why = await why_ended(stream)
        assert why.reason == "defect"
        assert isinstance(why.__cause__, ZeroDivisionError)
        await sim.wait_for(lambda: sim.received.of("close"))
        assert sim.received.of("close")[0].data == 1011
        assert defective.calls == 1


# Keepalive


async def test_pings_of_the_server_are_answered() -> None:
    """Alpaca cuts off a client that does not answer its pings."""
    limits = Limits(ping_period_s=0.02, ping_timeout_s=5.0)
    async with Simulator(limits=limits) as sim, session_with(sim) as stream:
        await sim.wait_for(lambda: len(sim.received.of("pong")) >= 3)
        assert await _still_open(stream)


async def test_a_flood_of_pings_holds_up_no_data() -> None:
    """Each is answered, and what comes behind 20,000 of them is handed on."""
    pongs = 0

    async def flood(alpaca: ServerEnd) -> None:
        nonlocal pongs
        await alpaca.welcome()
        alpaca.write(frame(b"!", Opcode.PING) * 20_000)
        alpaca.write(frame(_about("SPY")))
        while pongs < 20_000:
            pongs += (await alpaca.read()).opcode is Opcode.PONG
        await alpaca.gone()

    listener = Listener()
    async with websocket_server(flood) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/", listener)
        await stream.open()
        await until(lambda: listener.messages, "the data behind the pings")
        await until(lambda: pongs == 20_000, "all pongs")
        await stream.close()


async def _send_a_quote(sim: Simulator, listener: Listener) -> None:
    """Send a quote and wait until it has come in."""
    sent = len(listener.quotes) + 1
    await sim.send([{"T": "q", "S": "SPY"}])
    await until(lambda: len(listener.quotes) == sent, "the quote")


async def test_pings_go_out_while_data_comes_in() -> None:
    """Alpaca wants a sign of life from its clients, also from those that it sends data to."""
    listener = Listener()
    async with (
        Simulator() as sim,
        session_with(sim, listener, timeouts=_PINGING, symbols=("SPY",)),
    ):
        while len(sim.received.of("ping")) < 2:  # so the first one is settled
            await _send_a_quote(sim, listener)


async def test_data_counts_as_an_answer_to_a_ping() -> None:
    """A peer whose pong queues behind minutes of data is not taken for dead."""
    listener = Listener()
    async with (
        Simulator(faults=Faults(ignore_pings=True)) as sim,
        session_with(sim, listener, timeouts=_PINGING, symbols=("SPY",)) as stream,
    ):
        while len(sim.received.of("ping")) < 2:  # so the first one is settled
            await _send_a_quote(sim, listener)
        assert await _still_open(stream)


@pytest.mark.parametrize("fault", ["ignore_pings", "half_open"])
async def test_a_dead_peer_is_noticed(fault: str) -> None:
    """A ping without an answer ends the session, for a reason of its own."""
    timeouts = Timeouts(ping_s=0.1, pong_s=0.1, close_s=0.2)
    async with Simulator(limits=_HASTY) as sim, session_with(sim, timeouts=timeouts) as stream:
        setattr(sim.faults, fault, True)
        assert (await why_ended(stream)).reason == "ping_timeout"


# The end


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1009, 1011, 1012, 3000, 4000, 4999])
async def test_closed_by_the_server(code: int) -> None:
    """The close code is told, also one that is not registered; our close frame repeats it."""
    async with Simulator() as sim, session_with(sim) as stream:
        await sim.drop_sessions("close", code)
        why = await why_ended(stream)
        assert why.reason == f"close_{code}"
        assert str(code) in str(why)
        await sim.wait_for(lambda: sim.received.of("close"))
        assert sim.received.of("close")[0].data == code


@pytest.mark.parametrize(
    ("close_frame", "reason", "words"),
    [
        (frame(b"", Opcode.CLOSE), "close_0", "code 0"),
        (frame(b"\x03\xe9going away", Opcode.CLOSE), "close_1001", "(going away)"),
        (frame(b"\x03\xe9" + b"x" * 120, Opcode.CLOSE), "close_1001", "x" * 100 + ")"),
        (frame(b"\x03\xe7", Opcode.CLOSE), "sent_1002", "rules"),  # 999 is not allowed
        (frame(b"\x03\xe9\xff\xfe", Opcode.CLOSE), "sent_1007", "rules"),
    ],
)
async def test_close_frames_of_all_kinds(close_frame: bytes, reason: str, words: str) -> None:
    """A close frame may lack a code, have a reason, which is cut, or be malformed."""
    async with Simulator() as sim, session_with(sim) as stream:
        await sim.send_raw(close_frame, framed=False)
        why = await why_ended(stream)
        assert why.reason == reason
        assert words in str(why)


@pytest.mark.parametrize("how", ["abort", "eof"])
async def test_the_connection_is_lost(how: Any) -> None:
    """A reset is told as a lost connection, and so is an end without a close frame."""
    async with Simulator() as sim, session_with(sim) as stream:
        await sim.drop_sessions(how)
        assert (await why_ended(stream)).reason == "lost"
        await nothing_connected(sim.port)


async def test_the_first_reason_stands() -> None:
    """A session that was given up for a reason of ours keeps it."""
    async with Simulator() as sim, session_with(sim) as stream:
        stream.give_up(StreamError("mute", reason="mute"))
        await sim.drop_sessions("close", 1011)
        assert (await why_ended(stream)).reason == "mute"


async def test_close_frees_the_connection_slot() -> None:
    """A close frame goes out, so that Alpaca does not hold the session until its own timeout."""
    async with Simulator(limits=Limits(dead_session_hold_s=60.0)) as sim:
        stream = stream_to(sim.stream_url(), timeouts=Timeouts(close_s=GUARD_S))
        for _ in range(3):
            await stream.open()
            await stream.close()
            assert sockets_to(sim.port) == 0
        closes = sim.received.of("close")
        assert [record.data for record in closes] == [1000, 1000, 1000]


async def test_close_twice_and_after_the_end() -> None:
    """Closing again does nothing."""
    async with Simulator() as sim:
        stream = stream_to(sim.stream_url())
        await stream.open()
        await sim.drop_sessions("abort")
        await why_ended(stream)
        await stream.close()
        await stream.close()
        assert (await stream.ended()).reason == "closed"


async def test_close_against_a_dead_peer_is_bounded() -> None:
    """A peer that does not answer the close frame is cut off, by default after 1 s."""
    assert Timeouts().close_s == 1.0
    async with Simulator(limits=_HASTY) as sim:
        stream = stream_to(sim.stream_url(), timeouts=Timeouts(close_s=0.2))
        await stream.open()
        sim.faults.half_open = True
        async with asyncio.timeout(GUARD_S):
            await stream.close()
        await nothing_connected(sim.port)


async def test_close_that_is_cancelled_cuts_the_peer_off() -> None:
    """A close that is cancelled leaves no socket open."""
    async with Simulator(limits=_HASTY) as sim:
        stream = stream_to(sim.stream_url(), timeouts=Timeouts(close_s=60.0))
        await stream.open()
        sim.faults.half_open = True
        closing = asyncio.create_task(stream.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await nothing_connected(sim.port)


async def test_nothing_is_handed_on_after_close() -> None:
    """A price that comes before the peer answers our close frame is dropped: we lead no more."""
    listener = Listener()

    async def behave(alpaca: ServerEnd) -> None:
        await alpaca.welcome()
        assert (await alpaca.read()).opcode is Opcode.CLOSE
        alpaca.write(frame(_about("SPY")) + frame(b"\x03\xe8", Opcode.CLOSE))

    async with websocket_server(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/", listener)
        await stream.open()
        await stream.close()
        assert not listener.messages


async def test_the_end_of_a_session_is_not_that_of_the_next() -> None:
    """A connection that ends after the next one was opened does not end the next session."""
    connections: Iterator[int] = iter(range(9))
    opened_again = asyncio.Event()

    async def behave(alpaca: ServerEnd) -> None:
        number = next(connections)
        await alpaca.welcome()
        if number == 0:  # does not answer our close frame
            await opened_again.wait()
            return
        while True:
            received = await alpaca.read()
            if received.opcode is Opcode.CLOSE:
                alpaca.write(frame(bytes(received.data), Opcode.CLOSE))
            else:
                alpaca.say(ACK)

    async with websocket_server(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/", timeouts=Timeouts(close_s=0.05))
        await stream.open()
        await stream.close()
        await stream.open()
        opened_again.set()
        await until(lambda: sockets_to(port) == 1, "the first connection to end")
        assert await _still_open(stream)
        await stream.close()


# Alpaca's words


@pytest.mark.parametrize("when", ["request", "session", "greeting", "close"])
async def test_what_alpaca_says_is_cut_and_holds_no_key(when: str) -> None:
    """Alpaca's words are fit for logs, Redis and HTTP: short, on one line, without our keys."""
    msg = f"bad {SECRET}\n\x1b[31m{KEY} " + "x" * 100_000

    async def behave(alpaca: ServerEnd) -> None:
        if when == "greeting":
            await alpaca.upgrade()
        else:
            await alpaca.welcome()
        if when == "request":
            await alpaca.read()
        if when == "close":
            alpaca.write(frame(b"\x03\xf3" + f"{SECRET}\n{KEY}".encode(), Opcode.CLOSE))
        else:
            alpaca.say({"T": "error", "code": 500, "msg": msg})
        await alpaca.gone()

    async with websocket_server(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}")
        if when == "greeting":
            with pytest.raises(StreamError) as caught:
                await stream.open()
            why = caught.value
        else:
            await stream.open()
            if when == "request":
                with pytest.raises(RequestRefusedError) as refused:
                    await stream.request(SPY)
                why = refused.value
            else:
                why = await why_ended(stream)
            await stream.close()
    said = str(why)
    assert "***" in said
    assert SECRET not in said
    assert KEY not in said
    assert said.isprintable()
    assert len(said) < 300
