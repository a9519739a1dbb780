"""Alpaca's messages, decoded from the bytes its documentation shows."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from spotd.core.messages import (
    Acknowledgement,
    Cancel,
    Correction,
    Error,
    Message,
    Quote,
    Success,
    Trade,
    TradingStatus,
)

_json = msgspec.json.Decoder(list[Message])

EXAMPLES: list[tuple[str, Message]] = [
    (
        (
            '{"T":"q","S":"AMD","bx":"U","bp":87.66,"bs":1,"ax":"Q","ap":87.68,"as":4,"c":["R"],'
            '"z":"C","t":"2021-02-22T15:51:45.335689322Z"}'
        ),
        Quote("AMD", 87.66, 87.68, datetime(2021, 2, 22, 15, 51, 45, 335689, UTC)),
    ),
    (
        (
            '{"T":"q","S":"MU","bx":"V","bp":122,"bs":3,"ax":" ","ap":0,"as":0,"c":["R","O"],'
            '"z":"C","t":"2021-02-22T15:51:45Z","r":1}'
        ),
        Quote("MU", 122.0, 0.0, datetime(2021, 2, 22, 15, 51, 45, 0, UTC)),
    ),
    (
        (
            '{"T":"t","S":"AAPL","i":96921,"x":"D","p":126.55,"s":1,"c":["@","I"],"z":"C",'
            '"t":"2021-02-22T15:51:44.208Z"}'
        ),
        Trade(
            "AAPL",
            126.55,
            datetime(2021, 2, 22, 15, 51, 44, 208000, UTC),
            ("@", "I"),
            "C",
            96921,
            "D",
        ),
    ),
    (
        '{"T":"t","S":"AAPL","p":126,"t":"2021-02-22T15:51:44Z"}',
        Trade("AAPL", 126.0, datetime(2021, 2, 22, 15, 51, 44, 0, UTC)),
    ),
    (
        (
            '{"T":"s","S":"AAPL","sc":"H","sm":"Trading Halt","rc":"T12","rm":"…",'
            '"t":"2021-02-22T19:15:00Z","z":"C"}'
        ),
        TradingStatus("AAPL", "H", "C", datetime(2021, 2, 22, 19, 15, 0, 0, UTC)),
    ),
    (
        (
            '{"T":"c","S":"EEM","x":"M","oi":52983525033527,"op":39.1582,"os":440000,'
            '"oc":[" ","7"],"ci":52983525034326,"cp":39.1809,"cs":440000,"cc":[" ","7"],"z":"B",'
            '"t":"2023-04-06T14:25:06.542305024Z"}'
        ),
        Correction(
            "EEM",
            52983525033527,
            39.1809,
            "M",
            (" ", "7"),
            "B",
            52983525034326,
            datetime(2023, 4, 6, 14, 25, 6, 542305, UTC),
        ),
    ),
    (
        (
            '{"T":"x","S":"GOOGL","i":465,"x":"D","p":105.31,"s":300,"a":"C","z":"C",'
            '"t":"2023-04-06T13:15:42.83540958Z"}'
        ),
        Cancel("GOOGL", 465, "D", datetime(2023, 4, 6, 13, 15, 42, 835410, UTC)),
    ),
    ('{"T":"s","S":"AAPL","sc":"T"}', TradingStatus("AAPL", "T")),
    ('{"T":"c","S":"EEM","oi":1,"cp":39}', Correction("EEM", 1, 39.0)),
    ('{"T":"c","S":"EEM"}', Correction("EEM")),
    ('{"T":"x","S":"GOOGL"}', Cancel("GOOGL")),
    ('{"T":"success","msg":"connected"}', Success("connected")),
    ('{"T":"error","code":405,"msg":"symbol limit exceeded"}', Error(405, "symbol limit exceeded")),
    ('{"T":"error","code":500}', Error(500)),
    (
        (
            '{"T":"subscription","trades":["AAPL"],"quotes":["AAPL","BRK.B"],"bars":[],'
            '"statuses":["*"],"lulds":[],"corrections":["AAPL"]}'
        ),
        Acknowledgement(["AAPL", "BRK.B"], ["AAPL"], ["*"]),
    ),
    ('{"T":"subscription","trades":[],"quotes":[],"bars":[]}', Acknowledgement()),
]


@pytest.mark.parametrize(("text", "message"), EXAMPLES)
def test_a_message_of_the_documentation_is_read(text: str, message: Message) -> None:
    """Only the fields in use are kept; whole numbers are prices too; nanoseconds are rounded."""
    assert _json.decode(f"[{text}]") == [message]


def test_a_frame_mixes_messages() -> None:
    """One array holds whatever Alpaca had to say, in order."""
    frame = ",".join(text for text, _ in EXAMPLES)
    assert _json.decode(f"[{frame}]") == [message for _, message in EXAMPLES]


@pytest.mark.parametrize(
    "text",
    [
        '{"T":"q","S":"SPY","bp":1,"ap":2,"t":"2021-02-22T15:51:45"}',
        '{"T":"t","S":"SPY","p":1,"t":"2021-02-22T15:51:45"}',
    ],
)
def test_a_time_without_a_zone_is_no_exchange_time(text: str) -> None:
    """It could be any hour: better no price than one at a time that is made up."""
    with pytest.raises(msgspec.ValidationError):
        _json.decode(f"[{text}]")
