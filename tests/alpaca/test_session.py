"""An open session: requests and their answers, data, keepalive, and every way in which it ends."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from spotd.alpaca.stream import MAX_FRAME_BYTES, Timeouts
from spotd.core.messages import Message, Success
from spotd.core.subscriptions import Request
from spotd.errors import RequestRefusedError, StreamError
from spotd.simulator import Faults, Limits, Simulator
from tests.daemon.streamkit import (
    IMPATIENT,
    KEY,
    PATIENCE_S,
    SECRET,
    Listener,
    frame,
    hear,
    nothing_unheard,  # noqa: F401 - a fixture for every test
    packed,
    peer,
    session_with,
    sockets_to,
    stream_to,
    until,
    upgrade,
    welcome,
)

# A simulator that waits for no answer to its own close frame.
_HASTY = Limits(close_timeout_s=0.1)
SPY = Request("subscribe", ("SPY",), trades=True)
ACK: dict[str, Any] = {"T": "subscription", "quotes": ["SPY"], "trades": ["SPY"]}
LIMIT: dict[str, Any] = {"T": "error", "code": 405, "msg": "symbol limit exceeded"}


async def _end(stream: Any) -> StreamError:
    async with asyncio.timeout(PATIENCE_S):
        why = await stream.ended()
    assert isinstance(why, StreamError)
    return why


# Requests


async def test_a_request_is_answered_with_the_whole_list() -> None:
    """Quotes and trades in one message; each acknowledgement tells all that is subscribed."""
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
    """The refusal keeps its code, and the next request is answered as if nothing had been."""
    async with Simulator(limits=limits, faults=faults) as sim, session_with(sim) as stream:
        with pytest.raises(RequestRefusedError) as caught:
            await stream.request(SPY)
        assert (caught.value.code, caught.value.reason) == (code, f"code_{code}")
        sim.faults.subscribe_error = 0
        answer = await stream.request(Request("subscribe", ("QQQ",)))
        assert answer.quotes == ["QQQ"]


async def test_an_answer_that_never_comes() -> None:
    """The wait ends, and the session is of no more use."""
    async with (
        Simulator(faults=Faults(ack_silent=True)) as sim,
        session_with(sim, timeouts=IMPATIENT) as stream,
    ):
        with pytest.raises(StreamError) as caught:
            await stream.request(SPY)
        assert caught.value.reason == "acknowledgement_timeout"


@pytest.mark.parametrize("how", ["close", "abort", "eof"])
async def test_the_session_ends_while_an_answer_is_awaited(how: Any) -> None:
    """The end is the answer, at once."""
    async with Simulator(faults=Faults(ack_silent=True)) as sim, session_with(sim) as stream:
        asking = asyncio.create_task(stream.request(SPY))
        await sim.wait_for(lambda: sim.received.messages("subscribe"))
        await sim.drop_sessions(how, 1001)
        with pytest.raises(StreamError) as caught:
            async with asyncio.timeout(5):
                await asking
        assert caught.value.reason == ("close_1001" if how == "close" else "lost")


async def test_no_request_without_a_session() -> None:
    """Before ``open``, after ``close``, and after the end."""
    async with Simulator() as sim:
        stream = stream_to(sim.stream_url())
        with pytest.raises(StreamError, match="closed"):
            await stream.request(SPY)
        stream.give_up(StreamError("nobody hears this", reason="mute"))
        assert (await stream.ended()).reason == "closed"
        await stream.close()
        await stream.open()
        await sim.drop_sessions("close", 1011)
        await _end(stream)
        with pytest.raises(StreamError, match="1011"):
            await stream.request(SPY)
        await stream.close()
        with pytest.raises(StreamError, match="closed"):
            await stream.request(SPY)


async def test_closing_ends_a_wait_for_an_answer() -> None:
    """Who asks while another closes hears of it at once."""
    async with Simulator(faults=Faults(ack_silent=True)) as sim, session_with(sim) as stream:
        asking = asyncio.create_task(stream.request(SPY))
        await sim.wait_for(lambda: sim.received.messages("subscribe"))
        await stream.close()
        with pytest.raises(StreamError, match="closed"):
            await asking


async def test_an_error_behind_an_acknowledgement_is_not_the_next_answer() -> None:
    """In one packet with it: the session ends, instead of pairing answers off by one."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcome(reader, writer)
        await hear(reader)
        writer.write(frame(packed(ACK)) + frame(packed(LIMIT)))
        await reader.read()

    async with peer(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/", timeouts=IMPATIENT)
        await stream.open()
        assert (await stream.request(SPY)).quotes == ["SPY"]
        with pytest.raises(StreamError) as caught:
            await stream.request(Request("subscribe", ("QQQ",)))
        assert not isinstance(caught.value, RequestRefusedError)
        assert caught.value.code == 405
        await stream.close()


async def test_success_messages_and_data_are_no_answers() -> None:
    """What comes between a request and its answer is not taken for the answer."""
    listener = Listener()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcome(reader, writer)
        await hear(reader)
        writer.write(frame(packed({"T": "success", "msg": "authenticated"})))
        writer.write(frame(packed({"T": "x", "S": "SPY"})))
        writer.write(frame(packed(ACK)))
        writer.write(frame(packed(ACK)))  # said twice: nobody asked
        await reader.read()

    async with peer(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/", listener, timeouts=IMPATIENT)
        await stream.open()
        assert (await stream.request(SPY)).trades == ["SPY"]
        await until(
            lambda: sum(type(m).__name__ == "Acknowledgement" for m in listener.messages) == 2
        )
        assert [type(message).__name__ for message in listener.messages[2:]] == [
            "Success", "Cancel", "Acknowledgement", "Acknowledgement",
        ]  # fmt: skip
        await stream.close()


@pytest.mark.parametrize("code", [400, 405, 406, 407, 500])
async def test_an_error_nobody_asked_for_ends_the_session(code: int) -> None:
    """Also a 405: what it refuses is not known, so everything is asked for anew."""
    async with Simulator() as sim, session_with(sim, symbols=("SPY",)) as stream:
        await sim.send_control({"T": "error", "code": code, "msg": "for no reason"})
        why = await _end(stream)
        assert (why.code, why.reason) == (code, f"code_{code}")
        assert "for no reason" in str(why)


async def test_a_slow_client_is_told_so() -> None:
    """407 is the reason that stands, not the close frame behind it."""
    async with Simulator() as sim, session_with(sim, symbols=("SPY",)) as stream:
        await sim.cut_slow_clients()
        assert (await _end(stream)).reason == "code_407"


# Data


async def test_data_is_handed_on_in_order() -> None:
    """Frame by frame, each message once."""
    listener = Listener()
    async with Simulator() as sim, session_with(sim, listener, symbols=("SPY", "QQQ")):
        for number in range(50):
            symbol = ("SPY", "QQQ")[number % 2]
            await sim.send([{"T": "q", "S": symbol, "bp": float(number + 1)}])
        await until(lambda: len(listener.quotes) == 50)
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
    """The session goes on, and what is good arrives; a frame beyond 1 MiB is no damage at all."""
    listener = Listener()
    async with Simulator() as sim, session_with(sim, listener, symbols=("SPY",)) as stream:
        setattr(sim.faults, damage, 1.0)
        await sim.send([{"T": "q", "S": "SPY", "bp": 1.0}])
        setattr(sim.faults, damage, 0.0)
        await sim.send([{"T": "q", "S": "SPY", "bp": 2.0}])
        await until(lambda: listener.quotes and listener.quotes[-1].bid == 2.0)
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
            + frame(b"", opcode=0, fin=False)
            + frame(b"are you there", opcode=9)
            + frame(b"unasked", opcode=10)
            + frame(payload[5:], opcode=0, fin=False)
            + frame(b"", opcode=0),
            framed=False,
        )
        await sim.send_raw(packed({"T": "x", "S": "IWM"}))
        await until(lambda: len(listener.messages) == 5)
        assert [message.symbol for message in listener.messages[-3:]] == [  # type: ignore[union-attr]
            "SPY", "QQQ", "IWM",
        ]  # fmt: skip
        await sim.wait_for(lambda: sim.received.of("pong"))
        assert bytes(sim.received.of("pong")[0].data) == b"are you there"


async def test_a_message_inside_another_breaks_the_rules() -> None:
    """Fragments of two messages cannot be told apart: the session ends."""
    listener = Listener()
    payload = packed({"T": "x", "S": "SPY"})
    async with Simulator() as sim, session_with(sim, listener) as stream:
        await sim.send_raw(frame(payload[:5], fin=False) + frame(payload), framed=False)
        why = await _end(stream)
        assert why.reason == "sent_1002"
        assert "inside another" in str(why)
        assert len(listener.messages) == 2


async def test_pongs_and_empty_frames_are_no_data() -> None:
    """A pong that nobody asked for is not counted as malformed; an empty message is."""
    listener = Listener()
    async with Simulator() as sim, session_with(sim, listener) as stream:
        await sim.send_raw(
            frame(b"", opcode=10) + frame(b"unasked", opcode=10) + frame(b""), framed=False
        )
        await sim.send_raw(packed({"T": "x", "S": "SPY"}))
        await until(lambda: len(listener.messages) == 3)
        assert stream.decoder.malformed == {"frame": 1}


# The largest frame that is read, and what is beyond


async def test_the_largest_frame() -> None:
    """16 MiB in one frame are read."""
    listener = Listener()
    padding = b"x" * (MAX_FRAME_BYTES - 64)
    async with Simulator() as sim, session_with(sim, listener):
        await sim.send_raw(packed({"T": "x", "S": "SPY", "pad": padding}))
        await until(lambda: len(listener.messages) == 3)


async def test_a_frame_beyond_it_is_refused_by_its_header() -> None:
    """Not a byte of it is waited for: close code 1009."""
    async with Simulator() as sim, session_with(sim) as stream:
        header = b"\x82\x7f" + (MAX_FRAME_BYTES + 1).to_bytes(8, "big")
        await sim.send_raw(header, framed=False)
        assert (await _end(stream)).reason == "sent_1009"
        await sim.wait_for(lambda: sim.received.of("close"))
        assert sim.received.of("close")[0].data == 1009


async def test_fragments_beyond_it_are_refused_too() -> None:
    """Memory is bounded, however the message is cut."""
    async with Simulator() as sim, session_with(sim) as stream:
        part = bytes(MAX_FRAME_BYTES // 2)
        await sim.send_raw(frame(part, fin=False) + frame(part, opcode=0, fin=False), framed=False)
        await sim.send_raw(frame(b"\x00", opcode=0, fin=False), framed=False)
        assert (await _end(stream)).reason == "sent_1009"


@pytest.mark.parametrize("nonsense", [b"\x83\x00", b"\x82\x80", b"\x09\x00", b"HTTP/1.1 200 OK"])
async def test_a_peer_that_breaks_the_rules(nonsense: bytes) -> None:
    """Unknown opcodes, masked frames, cut pings: the session ends, and says that it was them."""
    async with Simulator() as sim, session_with(sim) as stream:
        await sim.send_raw(nonsense, framed=False)
        why = await _end(stream)
        assert why.reason == "sent_1002"
        assert "rules" in str(why)


class _Defective:
    """An ``on_data`` with a bug, which it must not have."""

    def __call__(self, messages: list[Message]) -> None:
        if not isinstance(messages[0], Success):
            raise ZeroDivisionError("a bug")


async def test_a_defect_in_taking_data_in_is_not_hidden() -> None:
    """The session ends, and why is chained for the log; picows alone would keep it to itself."""
    async with Simulator() as sim, session_with(sim, _Defective()) as stream:
        await sim.send_raw(packed({"T": "x", "S": "SPY"}))
        why = await _end(stream)
        assert why.reason == "defect"
        assert isinstance(why.__cause__, ZeroDivisionError)
        assert stream._live_session().closing  # nothing more is handed to what is broken
        await sim.wait_for(lambda: sim.received.of("close"))
        assert sim.received.of("close")[0].data == 1011


# Keepalive


async def test_pings_of_the_server_are_answered() -> None:
    """A client that is not heard of for 20 s is cut."""
    limits = Limits(ping_period_s=0.02, ping_timeout_s=5.0)
    async with Simulator(limits=limits) as sim, session_with(sim) as stream:
        await sim.wait_for(lambda: len(sim.received.of("pong")) >= 3)
        assert not stream._live_session().end.done()


async def test_pings_go_out_while_data_comes_in() -> None:
    """The server wants to hear from its clients, also from those it talks to all the time."""
    listener = Listener()
    timeouts = Timeouts(ping_s=0.05, pong_s=0.05)
    async with (
        Simulator() as sim,
        session_with(sim, listener, timeouts=timeouts, symbols=("SPY",)),
    ):
        while len(sim.received.of("ping")) < 3:
            sent = len(listener.quotes) + 1
            await sim.send([{"T": "q", "S": "SPY"}])
            await until(lambda sent=sent: len(listener.quotes) == sent)  # type: ignore[misc]


async def test_data_counts_as_an_answer_to_a_ping() -> None:
    """A pong that queues behind minutes of data does not make the peer a dead one."""
    timeouts = Timeouts(ping_s=0.2, pong_s=0.2)
    listener = Listener()
    async with (
        Simulator(faults=Faults(ignore_pings=True)) as sim,
        session_with(sim, listener, timeouts=timeouts, symbols=("SPY",)) as stream,
    ):
        while len(sim.received.of("ping")) < 3:
            sent = len(listener.quotes) + 1
            await sim.send([{"T": "q", "S": "SPY"}])
            await until(lambda sent=sent: len(listener.quotes) == sent)  # type: ignore[misc]
        assert not stream._live_session().end.done()


@pytest.mark.parametrize("fault", ["ignore_pings", "half_open"])
async def test_a_dead_peer_is_noticed(fault: str) -> None:
    """One ping without an answer is enough, and it is told as what it is."""
    timeouts = Timeouts(ping_s=0.1, pong_s=0.1, close_s=0.2)
    async with Simulator(limits=_HASTY) as sim, session_with(sim, timeouts=timeouts) as stream:
        setattr(sim.faults, fault, True)
        assert (await _end(stream)).reason == "ping_timeout"


# The end


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1009, 1011, 1012, 3000, 4000, 4999])
async def test_closed_by_the_server(code: int) -> None:
    """The close code is told, also one that nobody knows; our close frame answers it."""
    async with Simulator() as sim, session_with(sim) as stream:
        await sim.drop_sessions("close", code)
        why = await _end(stream)
        assert why.reason == f"close_{code}"
        assert str(code) in str(why)
        await sim.wait_for(lambda: sim.received.of("close"))
        assert sim.received.of("close")[0].data == code


@pytest.mark.parametrize(
    ("close_frame", "reason", "words"),
    [
        (frame(b"", opcode=8), "close_0", "code 0"),
        (frame(b"\x03\xe9going away", opcode=8), "close_1001", "(going away)"),
        (frame(b"\x03\xe9" + b"x" * 120, opcode=8), "close_1001", "x" * 100 + ")"),
        (frame(b"\x03\xe7", opcode=8), "sent_1002", "rules"),  # 999: below what is allowed
        (frame(b"\x03\xe9\xff\xfe", opcode=8), "sent_1007", "rules"),
    ],
)
async def test_close_frames_of_all_kinds(close_frame: bytes, reason: str, words: str) -> None:
    """Without a code, with words, with too many of them, and malformed ones."""
    async with Simulator() as sim, session_with(sim) as stream:
        await sim.send_raw(close_frame, framed=False)
        why = await _end(stream)
        assert why.reason == reason
        assert words in str(why)


@pytest.mark.parametrize("how", ["abort", "eof"])
async def test_the_connection_is_lost(how: Any) -> None:
    """A reset, or an end without a word."""
    async with Simulator() as sim, session_with(sim) as stream:
        await sim.drop_sessions(how)
        assert (await _end(stream)).reason == "lost"
        await until(lambda: sockets_to(sim.port) == 0)


async def test_the_first_reason_stands() -> None:
    """A session given up for a reason of ours keeps it, whatever comes after."""
    async with Simulator() as sim, session_with(sim) as stream:
        stream.give_up(StreamError("mute", reason="mute"))
        await sim.drop_sessions("close", 1011)
        assert (await _end(stream)).reason == "mute"


async def test_close_frees_the_seat_at_once() -> None:
    """With a close frame the server need not hold the session for 90 s."""
    async with Simulator(limits=Limits(dead_session_hold_s=60.0)) as sim:
        stream = stream_to(sim.stream_url())
        for _ in range(3):
            await stream.open()
            await stream.close()
            assert sockets_to(sim.port) == 0
        closes = sim.received.of("close")
        assert [record.data for record in closes] == [1000, 1000, 1000]


async def test_close_twice_and_after_the_end() -> None:
    """There is nothing left to do then."""
    async with Simulator() as sim:
        stream = stream_to(sim.stream_url())
        await stream.open()
        await sim.drop_sessions("abort")
        await _end(stream)
        await stream.close()
        await stream.close()
        assert (await stream.ended()).reason == "closed"


async def test_close_against_a_dead_peer_is_bounded() -> None:
    """A peer that does not answer is cut off, after about a second as it comes."""
    assert Timeouts().close_s <= 1.0
    async with Simulator(limits=_HASTY) as sim:
        stream = stream_to(sim.stream_url(), timeouts=Timeouts(close_s=0.2))
        await stream.open()
        sim.faults.half_open = True
        started = time.monotonic()
        await stream.close()
        assert 0.15 < time.monotonic() - started < 2.0
        await until(lambda: sockets_to(sim.port) == 0, "the socket is left")


async def test_close_that_is_cancelled_cuts_the_peer_off() -> None:
    """Whoever cannot even wait for that leaves no socket either."""
    async with Simulator(limits=_HASTY) as sim:
        stream = stream_to(sim.stream_url(), timeouts=Timeouts(close_s=60.0))
        await stream.open()
        sim.faults.half_open = True
        closing = asyncio.create_task(stream.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await until(lambda: sockets_to(sim.port) == 0, "the socket is left")


async def test_nothing_is_handed_on_after_close() -> None:
    """A price that comes while we say goodbye would be published by one who leads no more."""
    listener = Listener()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await welcome(reader, writer)
        await hear(reader)  # our close frame
        writer.write(frame(packed({"T": "x", "S": "SPY"})) + frame(b"\x03\xe8", opcode=8))

    async with peer(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/", listener, timeouts=IMPATIENT)
        await stream.open()
        await stream.close()
        assert [type(message) for message in listener.messages] == [Success, Success]


async def test_the_last_signs_of_one_session_are_not_the_nexts() -> None:
    """One that was cut off ends after the next has begun; the next does not hear of it."""
    connections: Iterator[int] = iter(range(9))

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(connections)
        await welcome(reader, writer)
        if number == 0:
            await asyncio.sleep(0.2)  # deaf to our close frame
            return
        while True:
            opcode, payload = await hear(reader)
            writer.write(frame(payload, opcode=8) if opcode == 8 else frame(packed(ACK)))

    async with peer(behave) as port:
        stream = stream_to(f"ws://127.0.0.1:{port}/", timeouts=Timeouts(close_s=0.05))
        await stream.open()
        await stream.close()
        await stream.open()
        assert (await stream.request(SPY)).quotes == ["SPY"]
        await until(lambda: sockets_to(port) == 1)
        assert not stream._live_session().end.done()
        await stream.close()


# Alpaca's words


@pytest.mark.parametrize("when", ["request", "session", "greeting", "close"])
async def test_what_alpaca_says_is_cut_and_holds_no_key(when: str) -> None:
    """Its words are shown in logs, Redis and HTTP: short, on one line, without our keys."""
    msg = f"bad {SECRET}\n\x1b[31m{KEY} " + "x" * 100_000

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if when == "greeting":
            await upgrade(reader, writer)
            writer.write(frame(packed({"T": "error", "code": 500, "msg": msg})))
        else:
            await welcome(reader, writer)
            if when == "close":
                reason = f"{SECRET}\n{KEY}".encode()
                writer.write(frame(b"\x03\xf3" + reason, opcode=8))
            else:
                if when == "request":
                    await reader.read(1)
                writer.write(frame(packed({"T": "error", "code": 500, "msg": msg})))
        await reader.read(-1)

    async with peer(behave) as port:
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
                why = await _end(stream)
            await stream.close()
    said = str(why)
    assert "***" in said
    assert SECRET not in said
    assert KEY not in said
    assert said.isprintable()
    assert len(said) < 300
