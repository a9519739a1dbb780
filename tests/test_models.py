"""The JSON of the wire contract, byte for byte."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.models import (
    DaemonStatus,
    Gap,
    SpotPriceUpdate,
    SymbolCounts,
    SymbolState,
    encode_updates,
    rfc3339,
    spot_price,
    utc,
)

# Section 2 of the contract
EXAMPLE = (
    b'{"symbol":"SPY","bid_price":421.35,"ask_price":421.39,"mid_price":421.37,'
    b'"last_price":421.36,"timestamp":"2026-01-20T05:12:00.000000Z","seq":1768885920000123}'
)
UPDATE = SpotPriceUpdate(
    symbol="SPY",
    bid_price=421.35,
    ask_price=421.39,
    mid_price=421.37,
    last_price=421.36,
    timestamp=datetime(2026, 1, 20, 5, 12, tzinfo=UTC),
    seq=1_768_885_920_000_123,
)
# Section 3
STATE = (
    b'{"type":"symbol","symbol":"SPY","state":"live","reason":null,"code":null,'
    b'"since":"2026-01-20T05:12:00.000000Z"}'
)
# Section 4, with the counts that were added since
STATUS = (
    b'{"type":"daemon","state":"streaming","reason":null,"code":null,"instance":"host-4711-ab12",'
    b'"version":"0.1.0","feed":"iex","since":"2026-01-20T05:12:00.000000Z",'
    b'"at":"2026-01-20T05:12:01.500000Z",'
    b'"symbols":{"desired":3,"live":2,"refused":1,"pending":0,"stale":0,"halted":0},'
    b'"last_message_at":"2026-01-20T05:12:01.000001Z","lag_ms":12.5,"breaker":"closed",'
    b'"quotes_received":0,"updates_published":0,"reconnects":0,"market":"open",'
    b'"market_changes_at":"2026-01-20T21:00:00.000000Z","gaps":[]}'
)
GAP = (
    b'{"type":"gap","from":"2026-01-20T05:12:00.000000Z","to":"2026-01-20T05:12:01.500000Z",'
    b'"reason":"the stream was interrupted","code":"interrupted","symbols":3}'
)

_moments = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - Hypothesis adds the zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
_prices = st.floats(min_value=0, max_value=inf, exclude_min=True, exclude_max=True)


# SpotPriceUpdate


def test_an_update_is_the_contracts_example_byte_for_byte() -> None:
    """An update has the contract's order of fields, digits, microseconds, and no spaces."""
    assert UPDATE.to_json() == EXAMPLE
    assert SpotPriceUpdate.from_json(EXAMPLE) == UPDATE
    assert SpotPriceUpdate.from_json(EXAMPLE.decode()) == UPDATE


def test_a_last_price_that_is_not_known_is_null() -> None:
    """A last price that is not known is null, and not zero or left out."""
    raw = spot_price("SPY", 1.0, 2.0, None, datetime(2026, 1, 20, tzinfo=UTC), 1).to_json()
    assert b'"last_price":null,' in raw
    assert SpotPriceUpdate.from_json(raw).last_price is None


@pytest.mark.parametrize(
    ("bid", "ask", "mid"),
    [
        (421.35, 421.39, 421.37),
        (1.0, 2.0, 1.5),
        (0.1, 0.2, 0.15),
        (0.0001, 0.0002, 0.00015),
        (1.0000011, 1.0000021, 1.000002),
        (2.0, 1.0, 1.5),  # crossed
        (1e300, 1e300, 1e300),
    ],
)
def test_mid_is_the_mean_rounded_to_six_decimals(bid: float, ask: float, mid: float) -> None:
    """The mid price is rounded, so that it has no digits that no tick has."""
    raw = spot_price("SPY", bid, ask, None, datetime(2026, 1, 20, tzinfo=UTC), 1).to_json()
    assert json.loads(raw)["mid_price"] == mid


@given(
    st.from_regex(r"[A-Z]{1,8}(\.[A-Z]{1,4})?", fullmatch=True),
    _prices,
    _prices,
    st.none() | _prices,
    _moments,
    st.integers(0, 2**53 - 1),
)
def test_every_update_reads_back_as_it_was(
    symbol: str, bid: float, ask: float, last: float | None, timestamp: datetime, seq: int
) -> None:
    """An update reads back to the last bit of every price, by msgspec and by other JSON readers."""
    if bid + ask == inf:
        return
    update = SpotPriceUpdate(
        symbol=symbol,
        bid_price=bid,
        ask_price=ask,
        mid_price=round((bid + ask) / 2, 6),
        last_price=last,
        timestamp=timestamp,
        seq=seq,
    )
    raw = spot_price(symbol, bid, ask, last, timestamp, seq).to_json()
    assert raw == update.to_json()
    assert encode_updates([update, UPDATE]) == raw + b"\n" + EXAMPLE + b"\n"
    assert SpotPriceUpdate.from_json(raw) == update
    plain = json.loads(raw)
    assert list(plain) == list(SpotPriceUpdate.__struct_fields__)
    assert plain == {**msgspec.structs.asdict(update), "timestamp": rfc3339(timestamp)}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        EXAMPLE[:-1],
        EXAMPLE.replace(b"421.35", b'"421.35"'),
        EXAMPLE.replace(b"2026-01-20", b"yesterday"),
        EXAMPLE.replace(b',"seq":1768885920000123', b""),
    ],
)
def test_a_malformed_update_is_refused(raw: bytes) -> None:
    """Whatever is wrong with an update, the error is msgspec.DecodeError."""
    with pytest.raises(msgspec.DecodeError):
        SpotPriceUpdate.from_json(raw)


# SymbolState


def test_a_symbol_state_is_the_contracts_example() -> None:
    """``reason`` and its code are null where there is none, ``detail`` is left out."""
    state = SymbolState(
        symbol="SPY", state="live", reason=None, since=datetime(2026, 1, 20, 5, 12, tzinfo=UTC)
    )
    assert state.to_json() == STATE
    assert SymbolState.from_json(STATE) == state


def test_a_refusal_says_more_in_its_detail() -> None:
    """A refused entry survives as it was written, with any characters."""
    state = SymbolState(
        symbol='"\\\n☃',
        state="refused",
        reason="invalid_symbol",
        code="invalid_symbol",
        since=datetime(2026, 1, 20, tzinfo=UTC),
        detail='say "why"',
    )
    assert SymbolState.from_json(state.to_json()) == state
    assert json.loads(state.to_json())["detail"] == 'say "why"'


@given(
    st.builds(
        SymbolState,
        symbol=st.text(max_size=64),
        state=st.sampled_from(("pending", "live", "stale", "halted", "ended", "refused")),
        reason=st.none() | st.text(),
        code=st.none() | st.text(),
        since=_moments,
        detail=st.none() | st.text(),
    )
)
def test_every_symbol_state_reads_back_as_it_was(state: SymbolState) -> None:
    """A state reads back, and names its type, which tells it apart on the events channel."""
    raw = state.to_json()
    assert SymbolState.from_json(raw) == state
    assert ("detail" in json.loads(raw)) == (state.detail is not None)
    assert json.loads(raw)["type"] == "symbol"
    with pytest.raises(msgspec.DecodeError):
        DaemonStatus.from_json(raw)


# DaemonStatus


def test_a_status_is_the_contracts_example() -> None:
    """A status has the contract's fields, and the counts that were added."""
    status = DaemonStatus(
        state="streaming",
        reason=None,
        instance="host-4711-ab12",
        version="0.1.0",
        feed="iex",
        since=datetime(2026, 1, 20, 5, 12, tzinfo=UTC),
        at=datetime(2026, 1, 20, 5, 12, 1, 500_000, tzinfo=UTC),
        symbols=SymbolCounts(desired=3, live=2, refused=1),
        last_message_at=datetime(2026, 1, 20, 5, 12, 1, 1, tzinfo=UTC),
        lag_ms=12.5,
        breaker="closed",
        quotes_received=0,
        updates_published=0,
        reconnects=0,
        market="open",
        market_changes_at=datetime(2026, 1, 20, 21, tzinfo=UTC),
    )
    assert status.to_json() == STATUS
    assert DaemonStatus.from_json(STATUS) == status


_counts = st.integers(0, 2**53)
_gaps = st.builds(
    Gap, begins=_moments, ends=_moments, reason=st.text(), code=st.none(), symbols=_counts
)


@given(
    st.builds(
        DaemonStatus,
        state=st.sampled_from(
            ("starting", "standby", "idle", "connecting", "streaming", "waiting", "stopping")
        ),
        reason=st.none() | st.text(),
        code=st.none() | st.text(),
        instance=st.text(),
        version=st.text(),
        feed=st.text(),
        since=_moments,
        at=_moments,
        symbols=st.builds(SymbolCounts, desired=_counts, live=_counts, refused=_counts),
        last_message_at=st.none() | _moments,
        lag_ms=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        breaker=st.sampled_from(("closed", "open", "half_open")),
        quotes_received=_counts,
        updates_published=_counts,
        reconnects=_counts,
        market=st.none() | st.sampled_from(("open", "extended", "closed")),
        market_changes_at=st.none() | _moments,
        gaps=st.lists(_gaps, max_size=2).map(tuple),
    )
)
def test_every_status_reads_back_as_it_was(status: DaemonStatus) -> None:
    """Every field of a status is always there, null where nothing is known."""
    raw = status.to_json()
    assert DaemonStatus.from_json(raw) == status
    assert list(json.loads(raw)) == list(json.loads(STATUS))
    with pytest.raises(msgspec.DecodeError):
        SymbolState.from_json(raw)


# Gap


def test_a_gap_is_the_contracts_example() -> None:
    """A gap has the contract's fields and its code."""
    gap = Gap(
        begins=datetime(2026, 1, 20, 5, 12, tzinfo=UTC),
        ends=datetime(2026, 1, 20, 5, 12, 1, 500_000, tzinfo=UTC),
        reason="the stream was interrupted",
        code="interrupted",
        symbols=3,
    )
    assert gap.to_json() == GAP
    assert Gap.from_json(GAP) == gap


def test_a_status_holds_gaps_as_they_were_announced() -> None:
    """The gaps of a status are the same JSON as the gaps that were announced."""
    gap = Gap.from_json(GAP)
    status = msgspec.structs.replace(DaemonStatus.from_json(STATUS), gaps=(gap, gap))
    assert status.to_json() == STATUS.replace(b"[]", b"[%b,%b]" % (GAP, GAP))
    assert DaemonStatus.from_json(status.to_json()) == status


# Fields that come and go


@pytest.mark.parametrize(
    ("model", "raw"),
    [(SpotPriceUpdate, EXAMPLE), (SymbolState, STATE), (DaemonStatus, STATUS), (Gap, GAP)],
)
def test_unknown_fields_are_ignored(
    model: type[SpotPriceUpdate | SymbolState | DaemonStatus | Gap], raw: bytes
) -> None:
    """Unknown fields are ignored, so that an older client reads a newer daemon."""
    newer = raw.replace(b"{", b'{"added":{"later":[1]},')
    assert model.from_json(newer) == model.from_json(raw)


@pytest.mark.parametrize(("model", "raw"), [(SymbolState, STATE), (DaemonStatus, STATUS)])
def test_what_an_older_daemon_writes_is_read(
    model: type[SymbolState | DaemonStatus], raw: bytes
) -> None:
    """Without the fields that were added since, a message is read; they are None."""
    older = json.loads(raw)
    for added in ("code", "market", "market_changes_at", "gaps"):
        older.pop(added, None)
    read = model.from_json(json.dumps(older))
    assert read.code is None
    assert read.state == model.from_json(raw).state


@pytest.mark.parametrize(("model", "raw"), [(SymbolState, STATE), (DaemonStatus, STATUS)])
def test_a_code_that_is_not_known_is_read(
    model: type[SymbolState | DaemonStatus], raw: bytes
) -> None:
    """Codes may be added, so that an older client reads those of a newer daemon."""
    assert model.from_json(raw.replace(b'"code":null', b'"code":"newer"')).code == "newer"


# Times


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 20, 5, 12, tzinfo=UTC), "2026-01-20T05:12:00.000000Z"),
        (datetime(2026, 1, 20, 5, 12, 0, 7, tzinfo=UTC), "2026-01-20T05:12:00.000007Z"),
        (
            datetime(2026, 1, 20, 0, 12, tzinfo=timezone(timedelta(hours=-5))),
            "2026-01-20T05:12:00.000000Z",
        ),
    ],
)
def test_times_are_rfc3339_in_utc_with_microseconds(moment: datetime, text: str) -> None:
    """A time has six digits of microseconds and a Z."""
    assert rfc3339(moment) == text


def test_a_wall_clock_becomes_a_time_in_utc() -> None:
    """A wall-clock time becomes UTC in whatever zone the machine is."""
    assert utc(1_768_885_920.5) == datetime(2026, 1, 20, 5, 12, 0, 500_000, tzinfo=UTC)


@pytest.mark.parametrize("kind", [SpotPriceUpdate, SymbolState, DaemonStatus, Gap])
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b'{"symbol":"\xff"}',
        b'{"x":' * 100_000,
        UPDATE.to_json().replace(b"00.000000Z", b"00.000000"),
        STATE.replace(b'Z"', b'"'),
    ],
    ids=["empty", "null", "utf8", "deep", "update without zone", "state without zone"],
)
def test_a_malformed_message_is_one_kind_of_error(
    kind: type[SpotPriceUpdate | SymbolState | DaemonStatus | Gap], raw: bytes
) -> None:
    """Broken text, deep nesting and times without a zone are msgspec.DecodeError, like the rest."""
    with pytest.raises(msgspec.DecodeError):
        kind.from_json(raw)


def test_every_line_has_its_microseconds_whichever_lack_them() -> None:
    """Microseconds that are zero are written, wherever in a batch such an update is."""
    moments = [UPDATE.timestamp.replace(microsecond=us) for us in (0, 1, 0, 120_000, 999_999, 0)]
    updates = [spot_price("SPY", 1.0, 2.0, None, at, seq) for seq, at in enumerate(moments)]
    lines = encode_updates(updates).split(b"\n")
    assert lines.pop() == b""
    assert lines == [update.to_json() for update in updates]
    assert [json.loads(line)["timestamp"] for line in lines] == [rfc3339(at) for at in moments]
    assert encode_updates([]) == b""


def test_a_time_with_another_offset_is_written_in_utc() -> None:
    """A time with another offset is converted to UTC, and not just given a `Z`."""
    elsewhere = UPDATE.timestamp.astimezone(timezone(timedelta(hours=5)))
    raw = spot_price("SPY", 421.35, 421.39, 421.36, elsewhere, UPDATE.seq).to_json()
    assert raw == EXAMPLE
    for message in map(SymbolState.from_json, (STATE, STATE.replace(b".000000Z", b".000001Z"))):
        since = message.since.astimezone(timezone(timedelta(hours=5)))
        assert msgspec.structs.replace(message, since=since).to_json() == message.to_json()


def test_a_state_reads_the_same_with_and_without_microseconds() -> None:
    """A state has six digits of microseconds and no absent detail, by either encoder."""
    for microsecond in (0, 1, 120_000):
        since = datetime(2026, 1, 20, 5, 12, 0, microsecond, tzinfo=UTC)
        state = SymbolState(symbol="SPY", state="live", reason=None, since=since)
        assert json.loads(state.to_json()) == {
            "type": "symbol",
            "symbol": "SPY",
            "state": "live",
            "reason": None,
            "code": None,
            "since": f"2026-01-20T05:12:00.{microsecond:06d}Z",
        }
