"""How a message looks on each kind of connection."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from spotd.relay.wire import COMMENT, PING_FRAME, Wire, encoded, event, text_frame


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_frame_is_that_of_another_implementation(length: int) -> None:
    """At each length where the head changes its form (RFC 6455, section 5.2)."""
    payload = b"x" * length
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


def test_the_ping_is_that_of_another_implementation() -> None:
    """An empty ping."""
    assert Frame(Opcode.PING, b"").serialize(mask=False) == PING_FRAME


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_joined_frames_come_apart_in_a_client(payloads: list[bytes]) -> None:
    """One write of many frames is many messages, in their order."""
    client = Protocol(CLIENT)
    client.receive_data(b"".join(map(text_frame, payloads)))
    frames = client.events_received()
    assert [frame.data for frame in frames if isinstance(frame, Frame)] == payloads


def test_an_event_has_its_type_and_one_line_of_data() -> None:
    """``event:`` the type, ``data:`` the JSON, an empty line."""
    message = json.dumps({"type": "pong"}).encode()
    assert event("pong", message) == b'event: pong\ndata: {"type": "pong"}\n\n'
    assert COMMENT.startswith(b":")
    assert COMMENT.endswith(b"\n\n")


def test_each_wire_has_its_form() -> None:
    """A frame, an event, or the message as it is."""
    assert encoded(Wire.WEBSOCKET, "pong", b"{}") == text_frame(b"{}")
    assert encoded(Wire.EVENTS, "pong", b"{}") == event("pong", b"{}")
    assert encoded(Wire.MESSAGES, "pong", b"{}") == b"{}"
