"""The pydantic models say what spotd's own say: the same fields, the same JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from spotd import models, pydantic_models
from spotd.models import SpotPriceUpdate, rfc3339, spot_price
from spotd.relay import protocol
from tests.kit.publisher import AT, gap_of, state_of, status_of, update_of

PRICES = st.floats(min_value=1e-4, max_value=1e7)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the zone is an argument of its own
UPDATES = st.builds(
    spot_price,
    st.from_regex(r"[A-Z]{1,8}(\.[A-Z]{1,4})?", fullmatch=True),
    PRICES,
    PRICES,
    st.none() | PRICES,
    TIMES,
    st.integers(0, 2**53 - 1),
)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (models.SpotPriceUpdate, pydantic_models.SpotPriceUpdate),
        (protocol.SubscribeSpotPricesRequest, pydantic_models.SubscribeSpotPricesRequest),
        (protocol.SubscribeSpotPricesResponse, pydantic_models.SubscribeSpotPricesResponse),
        (protocol.SpotPricesResponse, pydantic_models.SpotPricesResponse),
    ],
)
def test_the_fields_are_the_same(ours: type[msgspec.Struct], theirs: type[BaseModel]) -> None:
    """The fields have the same names and order, and each is required in both or in neither."""
    fields = msgspec.structs.fields(ours)
    assert [field.encode_name for field in fields] == list(theirs.model_fields)
    assert [field.required for field in fields] == [
        field.is_required() for field in theirs.model_fields.values()
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "example"),
    [
        (models.SymbolState, pydantic_models.SymbolState, state_of("SPY", "stale", "mute")),
        (models.DaemonStatus, pydantic_models.DaemonStatus, status_of("waiting", "no answer")),
        (models.Gap, pydantic_models.Gap, gap_of()),
    ],
)
def test_events_are_the_same(
    ours: type[msgspec.Struct], theirs: type[BaseModel], example: Any
) -> None:
    """Events have the same fields behind the type, required or not, and the same JSON."""
    fields = msgspec.structs.fields(ours)
    found = {field.alias or name: field for name, field in theirs.model_fields.items()}
    assert ["type", *(field.encode_name for field in fields)] == list(found)
    assert [field.required for field in fields] == [
        field.is_required() for name, field in found.items() if name != "type"
    ]
    raw = example.to_json()
    read = theirs.model_validate_json(raw[:-1] + b',"added":1}')
    assert json.loads(read.model_dump_json()) == json.loads(raw)


@given(UPDATES)
def test_an_update_is_the_same_json(update: SpotPriceUpdate) -> None:
    """What spotd publishes is read, and written again so that spotd reads the same."""
    raw = update.to_json()
    read = pydantic_models.SpotPriceUpdate.model_validate_json(raw)
    assert json.loads(read.model_dump_json()) == json.loads(raw)
    assert SpotPriceUpdate.from_json(read.model_dump_json()) == update
    assert read.model_dump() == msgspec.structs.asdict(update)


@given(UPDATES)
def test_a_message_is_the_same_json(update: SpotPriceUpdate) -> None:
    """A message of websockets and event streams is read, and written as the same JSON."""
    raw = protocol.update_message(update.to_json(), rfc3339(AT))
    read = pydantic_models.SpotPriceUpdateMessage.model_validate_json(raw)
    assert json.loads(read.model_dump_json()) == json.loads(raw)
    assert list(json.loads(raw)) == list(type(read).model_fields)


def test_an_answer_is_the_same_json() -> None:
    """An answer over HTTP is the same JSON, byte for byte."""
    answer = protocol.SubscribeSpotPricesResponse("success", "ok", ["SPY"], {"9": "invalid_symbol"})
    raw = msgspec.json.encode(answer)
    read = pydantic_models.SubscribeSpotPricesResponse.model_validate_json(raw)
    assert read.model_dump_json().encode() == raw


@pytest.mark.parametrize(
    "wrong",
    [
        {"bid_price": 0},
        {"ask_price": -1},
        {"bid_price": float("nan")},
        {"mid_price": float("inf")},
        {"last_price": 0},
        {"timestamp": datetime(2026, 1, 20)},  # noqa: DTZ001 - that is what is wrong
        {"seq": 2**53},
    ],
)
def test_values_that_spotd_never_publishes_are_refused(wrong: dict[str, Any]) -> None:
    """Prices are finite and greater than 0, times have a zone, ``seq`` is exact in JavaScript."""
    fields = msgspec.structs.asdict(update_of("SPY"))
    pydantic_models.SpotPriceUpdate(**fields)
    with pytest.raises(ValidationError):
        pydantic_models.SpotPriceUpdate(**{**fields, **wrong})


def test_times_are_in_utc() -> None:
    """Times are in UTC, whatever zone they come with."""
    elsewhere = AT.astimezone(timezone(timedelta(hours=-5)))
    fields = {**msgspec.structs.asdict(update_of("SPY")), "timestamp": elsewhere}
    read = pydantic_models.SpotPriceUpdate(**fields)
    assert (read.timestamp, read.timestamp.tzinfo) == (AT, UTC)


def test_fields_of_a_newer_spotd_are_ignored() -> None:
    """A field that is not known is ignored, since anything may be added to the contract."""
    newer = {**json.loads(update_of("SPY").to_json()), "venue": "IEX"}
    read = pydantic_models.SpotPriceUpdate.model_validate(newer)
    assert json.loads(read.model_dump_json()) == json.loads(update_of("SPY").to_json())
