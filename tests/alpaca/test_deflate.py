"""permessage-deflate: what may be agreed on, what is inflated, and what ends the session."""

import asyncio
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import picows
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from spotd.alpaca.deflate import OFFER, Inflater, agreed
from spotd.alpaca.stream import MAX_FRAME_BYTES, AlpacaStream
from spotd.errors import StreamError
from spotd.simulator import Limits, Simulator
from tests.daemon.streamkit import (
    IMPATIENT,
    KEY,
    PATIENCE_S,
    SECRET,
    Listener,
    accepted,
    frame,
    hear,
    nothing_unheard,  # noqa: F401 - a fixture for every test
    packed,
    peer,
    sockets_to,
    until,
)

_TOO_BIG = picows.WSCloseCode.MESSAGE_TOO_BIG
_CORRUPT = picows.WSCloseCode.INVALID_TEXT


def _deflated(payload: bytes, packer: Any = None) -> bytes:
    """A message as a server compresses it, on its own or with what its packer remembers."""
    packer = packer or _packer()
    return bytes(packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _packer(window_bits: int = 15) -> Any:
    return zlib.compressobj(zlib.Z_DEFAULT_COMPRESSION, zlib.DEFLATED, -window_bits)


def _marked(whole: bytes) -> bytes:
    """The same frame, its compressed bit set."""
    return bytes((whole[0] | 0x40,)) + whole[1:]


# What may answer the offer


@pytest.mark.parametrize(
    "answer",
    [
        "permessage-deflate",
        "Permessage-Deflate ; Server_No_Context_Takeover",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=8; client_max_window_bits=15",
        'permessage-deflate; server_max_window_bits="10"',
    ],
)
def test_answers_that_the_rfc_allows(answer: str) -> None:
    """Each parameter of section 7.1, also those that no offer named."""
    assert agreed([answer], offered=True)


@pytest.mark.parametrize("answers", [[], [""], [" , "]])
def test_a_server_may_decline(answers: list[str]) -> None:
    """No answer means that nothing is compressed, whether it was offered or not."""
    assert not agreed(answers, offered=True)
    assert not agreed(answers, offered=False)


@pytest.mark.parametrize(
    "answers",
    [
        ["x-webkit-deflate-frame"],
        ["permessage-deflate, permessage-deflate"],
        ["permessage-deflate", "permessage-bzip2"],
        ["permessage-deflate; mystery"],
        ["permessage-deflate; server_no_context_takeover=1"],
        ["permessage-deflate; server_no_context_takeover; server_no_context_takeover"],
        ["permessage-deflate; client_max_window_bits"],
        ["permessage-deflate; server_max_window_bits="],
        ["permessage-deflate; server_max_window_bits=7"],
        ["permessage-deflate; server_max_window_bits=16"],
        ["permessage-deflate; server_max_window_bits=08"],
        ["permessage-deflate; server_max_window_bits=٩"],
        ["permessage-deflate;"],
    ],
)
def test_answers_that_fail_the_connection(answers: list[str]) -> None:
    """Another extension, one too many, an unknown parameter, a wrong value, one said twice."""
    with pytest.raises(StreamError, match="not offered") as caught:
        agreed(answers, offered=True)
    assert caught.value.reason == "extension"


def test_an_extension_without_an_offer_fails_the_connection() -> None:
    """Nobody asked; and what a stranger says is shown cut, on one line."""
    with pytest.raises(StreamError, match="not offered") as caught:
        agreed(["permessage-deflate\x1b" + "x" * 10_000], offered=False)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


# Messages


@pytest.mark.parametrize(
    "messages",
    [
        ["f248cdc9c90700", "f248cdc9c90700"],  # one block, each message on its own
        ["f248cdc9c90700", "f200110000"],  # the second refers to the first
        ["000500faff48656c6c6f00"],  # not compressed
        ["f348cdc9c9070000", "f248cdc9c90700"],  # the stream ended, and another began
        ["f248050000 00ffffcac9c90700"],  # two blocks
    ],
)
def test_the_examples_of_the_rfc(messages: list[str]) -> None:
    """Section 7.2.3: each of them says Hello."""
    inflater = Inflater(100)
    assert [inflater.message(bytes.fromhex(one)) for one in messages] == [b"Hello"] * len(messages)


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=200) | st.sampled_from([b"", b"quote" * 20_000]), max_size=8),
    st.integers(9, 15),
    st.booleans(),
)
def test_whatever_was_compressed_comes_back(
    payloads: list[bytes], window_bits: int, keeps_context: bool
) -> None:
    """With any window, the context kept or not."""
    packer, inflater = _packer(window_bits), Inflater(1_000_000)
    for payload in payloads:
        if not keeps_context:
            packer = _packer(window_bits)
        assert inflater.message(_deflated(payload, packer)) == payload


def test_the_largest_message() -> None:
    """Exactly as much as is allowed, and one byte more."""
    assert Inflater(1_000).message(_deflated(bytes(1_000))) == bytes(1_000)
    with pytest.raises(picows.WSProtocolError) as caught:
        Inflater(1_000).message(_deflated(bytes(1_001)))
    assert caught.value.code is _TOO_BIG


def test_a_bomb_is_not_inflated() -> None:
    """A gigabyte in a megabyte costs no more memory than the limit."""
    packer, megabyte = _packer(), bytes(1 << 20)
    bomb = b"".join(packer.compress(megabyte) for _ in range(1_024))
    bomb += packer.flush(zlib.Z_SYNC_FLUSH)
    tracemalloc.start()
    try:
        with pytest.raises(picows.WSProtocolError) as caught:
            Inflater(MAX_FRAME_BYTES).message(bomb[:-4])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code is _TOO_BIG
    assert most < 4 * MAX_FRAME_BYTES


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff" * 40,
        b"not deflate at all",
        bytes.fromhex("f200110000"),  # refers to what was never sent
        bytes.fromhex("f348cdc9c90700") + b"more",  # goes on behind the stream's end
    ],
)
def test_what_cannot_be_inflated(payload: bytes) -> None:
    """Corrupt data is told as such."""
    with pytest.raises(picows.WSProtocolError) as caught:
        Inflater(1_000).message(payload)
    assert caught.value.code is _CORRUPT


# On a connection


@asynccontextmanager
async def _session(
    data: Sequence[bytes], *, extensions: str = "permessage-deflate", compression: bool = True
) -> AsyncIterator[tuple[AlpacaStream, Listener]]:
    """A session with a peer that agrees, and then sends these frames; open once it is left."""
    listener = Listener()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert (OFFER.encode() in head) is compression
        # The greeting is in the packet of the handshake, so it is read before anyone waits for it.
        answer = f"\r\nSec-WebSocket-Extensions: {extensions}\r\n\r\n".encode()
        writer.write(
            (accepted(head)[:-4] + answer if extensions else accepted(head))
            + frame(packed({"T": "success", "msg": "connected"}))
        )
        await hear(reader)
        writer.write(frame(packed({"T": "success", "msg": "authenticated"})) + b"".join(data))
        await reader.read()

    async with peer(behave) as port:
        stream = AlpacaStream(
            endpoint=f"ws://127.0.0.1:{port}/",
            api_key=SecretStr(KEY),
            secret_key=SecretStr(SECRET),
            on_data=listener,
            compression=compression,
            timeouts=IMPATIENT,
        )
        try:
            await stream.open()
            yield stream, listener
        finally:
            await stream.close()
            await until(lambda: sockets_to(port) == 0, "the socket is left")


async def _end(stream: AlpacaStream) -> StreamError:
    async with asyncio.timeout(PATIENCE_S):
        return await stream.ended()


def _symbols(listener: Listener) -> list[str]:
    return [message.symbol for message in listener.messages[2:]]  # type: ignore[union-attr]


def _about(symbol: str) -> bytes:
    return packed({"T": "x", "S": symbol})


async def test_compressed_messages_among_others() -> None:
    """Whole, in fragments, as text, with pings in between; each with the context of the last."""
    packer = _packer()
    first, second, third = (_deflated(_about(symbol), packer) for symbol in ("SPY", "QQQ", "IWM"))
    data = [
        _marked(frame(first)),
        frame(_about("DIA")),
        _marked(frame(second[:3], fin=False)),
        frame(b"are you there", opcode=9),
        frame(second[3:], opcode=0, fin=False),
        frame(b"", opcode=0),
        frame(_about("GLD")[:4], fin=False),
        frame(_about("GLD")[4:], opcode=0),
        _marked(frame(third, opcode=1)),
    ]
    async with _session(data) as (_, listener):
        await until(lambda: len(listener.messages) == 7)
        assert _symbols(listener) == ["SPY", "DIA", "QQQ", "GLD", "IWM"]


async def test_a_server_that_declines_is_read_all_the_same() -> None:
    """Nothing is compressed then."""
    async with _session([frame(_about("SPY"))], extensions="") as (_, listener):
        await until(lambda: len(listener.messages) == 3)


@pytest.mark.parametrize(
    ("extensions", "compression"),
    [("permessage-deflate", False), ("permessage-deflate; mystery=1", True), ("x-other", True)],
)
async def test_a_wrong_answer_ends_the_handshake(extensions: str, compression: bool) -> None:
    """Before a frame is read, and without leaving a socket."""
    with pytest.raises(StreamError, match="not offered") as caught:
        async with _session([], extensions=extensions, compression=compression):
            raise AssertionError("the session opened")
    assert caught.value.reason == "extension"


@pytest.mark.parametrize(
    ("extensions", "first", "reason", "words"),
    [
        ("", _marked(frame(_deflated(_about("SPY")))), "sent_1002", "not agreed"),
        ("", _marked(frame(b"x", fin=False)), "sent_1002", "not agreed"),
        ("", _marked(frame(b"", opcode=10)), "sent_1002", "control frame"),
        ("permessage-deflate", _marked(frame(b"\xff" * 40)), "sent_1007", "corrupt"),
        (
            "permessage-deflate",
            _marked(frame(b"\x00", fin=False)) + _marked(frame(b"", opcode=0)),
            "sent_1002",
            "fragment",
        ),
        (
            "permessage-deflate",
            _marked(frame(_deflated(bytes(MAX_FRAME_BYTES + 1)))),
            "sent_1009",
            "too big",
        ),
    ],
)
async def test_what_ends_the_session(
    extensions: str, first: bytes, reason: str, words: str
) -> None:
    """It says why, and what was read in the same packet is not handed on."""
    data = [first, frame(_about("SPY")), _marked(frame(_deflated(_about("SPY"))))]
    async with _session(data, extensions=extensions, compression=True) as (stream, listener):
        why = await _end(stream)
        assert why.reason == reason
        assert words in str(why)
        await asyncio.sleep(0)
        assert len(listener.messages) == 2


@pytest.mark.parametrize("offers", [True, False])
async def test_the_simulator_compresses_when_both_want_it(offers: bool) -> None:
    """aiohttp's server, which keeps the context."""
    listener = Listener()
    async with Simulator(limits=Limits(deflate=offers)) as sim:
        stream = AlpacaStream(
            endpoint=sim.stream_url(),
            api_key=SecretStr(KEY),
            secret_key=SecretStr(SECRET),
            on_data=listener,
            compression=True,
        )
        await stream.open()
        assert bool(sim.sessions[0].ws.compress) is offers
        for number in range(20):
            await sim.send_raw(packed({"T": "x", "S": f"SPY{number}", "pad": b"x" * 100 * number}))
        await until(lambda: len(listener.messages) == 22)
        assert _symbols(listener) == [f"SPY{number}" for number in range(20)]
        await stream.close()
