"""The table of prices: its rows, columns and texts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rich.console import Console

from spotd.cli.table import PriceTable, age_text, event_line, price_line, price_text
from tests.kit.publisher import AT, gap_of, state_of, status_of, update_of


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines(table: PriceTable, width: int = 100) -> list[str]:
    """Return the lines of the table on a terminal without colours."""
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(table.render())
    return [line.rstrip() for line in captured.get().splitlines()]


def table_of(clock: Clock, *symbols: str) -> PriceTable:
    """Return a table whose prices are two seconds old."""
    return PriceTable(symbols, monotonic=clock, wall=lambda: AT.timestamp() + 2)


def test_rows() -> None:
    """Rows are sorted; a value that is not known yet is a dash."""
    table = table_of(Clock(), "SPY")
    table.update(update_of("QQQ"))
    table.event(state_of("QQQ"))
    assert [line.split() for line in lines(table)] == [
        ["symbol", "bid", "ask", "mid", "last", "age", "updates/s", "state"],
        ["QQQ", "421.35", "421.39", "421.37", "-", "2.0", "s", "1.0", "live"],
        ["SPY", "-", "-", "-", "-", "-", "0.0", "-"],
    ]


def test_refused() -> None:
    """A refused entry has a row that says why."""
    table = table_of(Clock())
    table.event(state_of("sp-y", "refused", "invalid_symbol"))
    assert lines(table)[1].endswith("refused (invalid_symbol)")


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (80, "symbol bid ask mid last age updates/s state"),
        (60, "symbol bid ask mid last age state"),
        (50, "symbol bid ask mid last state"),
        (40, "symbol bid ask last state"),
        (32, "symbol bid ask state"),
        (20, "symbol bid"),
        (8, "symbol"),
    ],
)
def test_narrow(width: int, header: str) -> None:
    """Where it is narrow columns go, the least needed first; no symbol and no price is cut."""
    table = table_of(Clock(), "SPY")
    table.update(update_of("QQQ", bid=421.355))
    table.event(state_of("QQQ"))
    found = lines(table, width)
    assert found[0].split() == header.split()
    assert [line.split()[0] for line in found[1:]] == ["QQQ", "SPY"]
    assert ("421.355" in found[1]) == ("bid" in header)
    assert "…" not in "".join(found)


def test_narrow_refused() -> None:
    """A long reason folds, and a long entry is cut; neither costs the others their prices."""
    table = table_of(Clock())
    table.update(update_of("SPY"))
    table.event(state_of("x" * 64, "refused", "invalid_symbol"))
    found = lines(table, 60)
    assert found[1].startswith("SPY            421.35  421.39")
    assert found[2].startswith("xxxxxxxxxxxx…")
    assert found[2].endswith("refused")
    assert found[3].strip() == "(invalid_symbol)"


def test_no_daemon() -> None:
    """Without a daemon nothing is live, until one speaks again."""
    table = table_of(Clock())
    table.event(state_of("SPY"))
    table.no_daemon()
    assert lines(table)[1].endswith("stale")
    assert lines(table)[-1] == "no daemon answers: prices are the last known"
    table.event(status_of())
    assert lines(table)[1].endswith("live")


def test_daemon() -> None:
    """The daemon's state stands below."""
    table = table_of(Clock())
    table.event(status_of("waiting", "connection limit"))
    assert lines(table)[-1].strip() == "daemon waiting: connection limit"


@pytest.mark.parametrize(
    ("interval_s", "count", "quiet_s", "rate"),
    [(0.2, 100, 0, "5.0"), (1.0, 3, 0, "1.0"), (0.001, 5000, 0, "1003.9"), (0.2, 100, 5, "0.0")],
)
def test_rate(interval_s: float, count: int, quiet_s: float, rate: str) -> None:
    """Updates per second are those of the last seconds, and fall to nothing in a silence."""
    clock = Clock()
    table = table_of(clock, "SPY")
    for seq in range(count):
        clock.now += interval_s
        table.update(update_of("SPY", seq))
    clock.now += quiet_s
    assert lines(table)[1].split()[-2] == rate


def test_direction() -> None:
    """The mid is green after a rise and red after a fall, and stays so while it does not move."""
    table = table_of(Clock())
    styles = []
    for bid in (10.0, 11.0, 11.0, 9.0):
        table.update(update_of("SPY", bid=bid))
        [cell] = table.render().columns["mid"]
        styles.append(cell.style)
    assert styles == ["", "green", "green", "red"]


@pytest.mark.parametrize(
    ("price", "text"),
    [(421.0, "421.00"), (405.78 + 0.02, "405.80"), (0.00015, "0.00015"), (421.375, "421.375")],
)
def test_price_text(price: float, text: str) -> None:
    """A price has its cents, and more digits where it has more."""
    assert price_text(price) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0.0 s"), (0.26, "0.3 s"), (12, "12 s"), (90, "2 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_age_text(seconds: float, text: str) -> None:
    """An age is in the unit that matters."""
    assert age_text(AT + timedelta(seconds=seconds), AT) == text


def test_lines() -> None:
    """In a pipe an update, and a state with its reason, is one line; no price is a dash."""
    assert price_line(update_of("SPY")) == (
        "2026-01-20T05:12:00.000000Z SPY bid=421.35 ask=421.39 mid=421.37 last=-"
    )
    assert event_line(state_of("SPY")) == "# SPY is live"
    assert event_line(status_of("waiting", "no answer")) == "# daemon is waiting: no answer"
    assert event_line(gap_of()) == (
        "# gap of 1.0 s until 2026-01-20T05:12:00.000000Z, 3 symbols: more words"
    )


def test_gap() -> None:
    """The last gap is shown below the daemon."""
    table = table_of(Clock(), "SPY")
    table.event(status_of())
    table.event(gap_of(symbols=3))
    table.event(gap_of(symbols=1))
    assert lines(table)[-2:] == [
        "daemon streaming",
        "last gap of 1.0 s until 2026-01-20T05:12:00.000000Z, 1 symbol: more words",
    ]
