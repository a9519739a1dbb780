"""The whole screen: rows, header, keys, and that it fits whatever the size is."""

from __future__ import annotations

import re
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.cli.screen.controls import Action
from spotd.cli.screen.screen import Screen
from spotd.cli.screen.styles import ASCII
from spotd.models import SymbolCounts, SymbolState, spot_price
from tests.cli.screen.drawn import Drawn
from tests.kit.publisher import AT, gap_of, state_of, status_of


def filled() -> Drawn:
    """Return a screen of symbols that differ in everything."""
    drawn = Drawn()
    drawn.screen.status(status_of())
    for symbol, bid, ask, age_s in (
        ("SPY", 688.25, 688.27, 0.0), ("QQQ", 621.0, 621.01, 60.0), ("AAPL", 262.5, 262.6, 5.0),
    ):  # fmt: skip
        at = AT - timedelta(seconds=age_s)
        drawn.screen.price(spot_price(symbol, bid, ask, bid, at, 1), drawn.now)
        drawn.screen.state(state_of(symbol), drawn.now)
    drawn.screen.price(spot_price("QQQ", 621.0, 621.01, 621.0, AT, 2), drawn.now)
    drawn.screen.price(
        spot_price("QQQ", 621.0, 621.01, 621.0, AT - timedelta(seconds=60), 3), drawn.now
    )
    drawn.screen.state(state_of("SPY", "halted"), drawn.now)
    drawn.screen.add(["NVDA"], drawn.now)
    return drawn


def test_rows() -> None:
    """A row has all of a price; a value that is not known yet is a dash."""
    drawn = Drawn()
    drawn.screen.add(["SPY"], drawn.now)
    drawn.price("QQQ")
    drawn.screen.state(state_of("QQQ"), drawn.now)
    assert [line.split() for line in drawn.lines()[2:5]] == [
        ["symbol", "bid", "ask", "mid", "last", "spread", "age", "/s", "trend", "24", "s", "state"],
        ["QQQ", "421.35", "421.39", "421.37", "-", "0.04", "2", "s", "1.0", "▄", "live"],
        ["SPY", "-", "-", "-", "-", "-", "-", "0.0", "-"],
    ]


def test_symbols_without_a_row() -> None:
    """They are counted at the bottom, until they get a row or are gone."""
    drawn = Drawn()
    drawn.price("SPY")
    drawn.screen.left_out.update(["QQQ", "IWM"])
    assert drawn.lines()[-1].endswith("1–1 of 1, 2 not shown")
    drawn.screen.add(["QQQ"], drawn.now)
    assert drawn.lines()[-1].endswith("1–2 of 2, 1 not shown")
    drawn.screen.remove("IWM")
    assert drawn.lines()[-1].endswith("pause")


def test_directions() -> None:
    """Mid and last show their last move by colour, the mid also by a mark; both stay in a pause."""
    drawn = Drawn()
    found = []
    for seq, (bid, last) in enumerate([(10.0, 9.0), (11.0, 9.0), (11.0, 8.0), (9.0, 8.5)]):
        drawn.screen.price(spot_price("SPY", bid, bid + 1, last, AT, seq), drawn.now)
        row = drawn.styled()[3]
        found.append((row[3][0].strip(), row[3][1], row[4][1]))
    assert found == [
        ("10.50", "", ""), ("11.50▲", "up", ""), ("11.50▲", "up", "down"), ("9.50▼", "down", "up"),
    ]  # fmt: skip


def test_decimal_points_stand_below_each_other() -> None:
    """A price with more digits moves the others of its column."""
    drawn = Drawn()
    drawn.price("SPY", 421.3)
    drawn.price("PENNY", 0.0123)
    drawn.price("HUGE", 1e20)
    huge, penny, spy = drawn.lines(100)[3:6]
    assert penny.index("0.0123") + 1 == spy.index("421.30") + 3
    assert "1e+20" in huge


@pytest.mark.parametrize(
    ("width", "header"),
    [
        (120, "symbol bid ask mid last spread age /s trend state"),
        (80, "symbol bid ask mid last spread age /s trend state"),
        (70, "symbol bid ask mid last spread age /s trend state"),
        (62, "symbol bid ask mid last spread age /s state"),
        (58, "symbol bid ask mid last spread age state"),
        (52, "symbol bid ask mid last age state"),
        (45, "symbol bid ask mid last state"),
        (32, "symbol bid ask state"),
        (20, "symbol bid"),
        (8, "symbol"),
        (2, ""),
    ],
)
def test_narrow(width: int, header: str) -> None:
    """Where it is narrow columns go, the least needed first; no symbol and no price is cut."""
    drawn = Drawn()
    drawn.screen.add(["SPY"], drawn.now)
    drawn.price("QQQ", 421.355)
    drawn.screen.state(state_of("QQQ"), drawn.now)
    drawn.styled(width)  # widths grow with the first rows
    lines = drawn.lines(width)
    if header:
        assert re.sub(r"(trend )?[0-9]+ s", "trend", lines[2]).split() == header.split()
        assert lines[3].split()[0] == "QQQ"
    assert ("421.355" in lines[3]) == ("bid" in header)


@given(
    st.integers(0, 200),
    st.integers(0, 60),
    st.lists(st.text(min_size=1, max_size=64), max_size=8),
    st.lists(st.sampled_from([*"?qsSr123 p/axhjkgG", "up", "down", "pagedown", "end", "home",
                              "enter", "escape", "delete", "日"]), max_size=20),
)  # fmt: skip
def test_any_size(width: int, height: int, entries: list[str], keys: list[str]) -> None:
    """Whatever the size, the symbols and the keys are, the lines fit."""
    drawn = filled()
    for entry in entries:
        drawn.screen.state(state_of(entry, "refused", "invalid_symbol"), drawn.now)
    for key in keys:
        drawn.lines(width, height)
        drawn.press(key)
        drawn.pass_(0.3)
    drawn.lines(width, height)


def test_refused() -> None:
    """A refused entry says why instead of prices, which costs the others no room."""
    drawn = Drawn()
    drawn.price("SPY")
    drawn.screen.state(state_of("x" * 64, "refused", "invalid_symbol"), drawn.now)
    lines = drawn.lines()
    assert lines[3].startswith("SPY")
    assert "421.35" in lines[3]
    assert lines[4] == "xxxxxxxxxxxx… refused: invalid_symbol: more words"


@pytest.mark.parametrize(
    ("state", "shown", "style"),
    [("live", "live", "good"), ("stale", "stale interrupted", "doubtful"),
     ("halted", "halted interrupted", "halted"), ("pending", "pending", "doubtful"),
     ("refused", "refused interrupted", "bad"), ("ended", "ended interrupted", "dim")],
)  # fmt: skip
def test_states(state: str, shown: str, style: str) -> None:
    """A state that is not normal stands out with its code, and its prices are dim."""
    drawn = Drawn()
    drawn.price("SPY")
    told = msgspec.structs.replace(state_of("SPY", "live", "interrupted"), state=state)
    drawn.screen.state(told, drawn.now)
    row = drawn.styled(120)[3]
    row = drawn.styled(120)[3]
    assert (row[-1][0].strip(), row[-1][1]) == (shown, style)
    assert row[1][1] == ("" if state == "live" else "dim")


class TestHeader:
    def test_daemon(self) -> None:
        """On top are state, symbols, lag, market and feed; a narrow one leaves out the last."""
        drawn = Drawn()
        assert drawn.lines()[0] == "spotd  joining"
        status = msgspec.structs.replace(
            status_of(), market="open", market_changes_at=AT + timedelta(hours=2, seconds=2),
            symbols=SymbolCounts(desired=60, live=57, stale=2, refused=1),
        )  # fmt: skip
        drawn.screen.status(status)
        counts = "57 of 60 live, 2 stale, 1 refused"
        assert drawn.lines(120)[:2] == [
            f"spotd  streaming   {counts}  lag 12 ms  market open for 2 h more  feed iex", "",
        ]  # fmt: skip
        assert drawn.lines(78)[0].endswith("  lag 12 ms  market open")
        assert drawn.lines(30)[0] == "spotd  streaming"

    def test_what_is_unknown(self) -> None:
        """A daemon that knows neither lag nor market says so."""
        drawn = Drawn()
        drawn.screen.status(msgspec.structs.replace(status_of(), lag_ms=None))
        assert "lag unknown  market unknown  feed iex" in drawn.lines()[0]
        drawn.screen.status(msgspec.structs.replace(status_of(), market="closed"))
        assert "market closed  feed iex" in drawn.lines()[0]

    @pytest.mark.parametrize("code", ["connection_limit", None])
    def test_reason(self, code: str | None) -> None:
        """The daemon's reason stands below, behind its code."""
        drawn = Drawn()
        status = status_of("waiting", "another session")
        drawn.screen.status(msgspec.structs.replace(status, code=code))
        top, below = drawn.lines()[:2]
        assert top.startswith("spotd  waiting")
        assert below == ("connection_limit: another session" if code else "another session")

    def test_no_daemon(self) -> None:
        """Without a daemon live symbols are stale and a remedy is named, until one speaks again."""
        drawn = Drawn()
        drawn.price("SPY")
        drawn.screen.state(state_of("SPY"), drawn.now)
        drawn.screen.status(None)
        top, below, _, row = drawn.lines()[:4]
        assert top == "spotd  no daemon"
        assert below.startswith("no_daemon: no daemon runs here: prices are the last known. Start")
        assert row.endswith("stale")
        drawn.screen.status(status_of())
        assert drawn.lines()[3].endswith("live")

    def test_redis_is_away(self) -> None:
        """Without Redis live symbols are stale, and why it is lost stands below."""
        drawn = Drawn()
        drawn.screen.status(status_of())
        drawn.price("SPY")
        drawn.screen.state(state_of("SPY"), drawn.now)
        drawn.screen.connection("Connection refused")
        top, below, _, row = drawn.lines()[:4]
        assert top == "spotd  Redis is away"
        assert below == "redis_away: Connection refused"
        assert row.endswith("stale")
        drawn.screen.connection(None)
        assert drawn.lines()[3].endswith("live")

    def test_gap(self) -> None:
        """The last gap is shown for some minutes."""
        drawn = Drawn()
        drawn.screen.status(status_of())
        drawn.screen.gap(gap_of())
        assert drawn.lines()[1].startswith("last gap of 1.0 s until 2026-01-20T05:12:00")
        drawn.pass_(600)
        assert drawn.lines()[1] == ""

    @pytest.mark.parametrize("code", ["interrupted", None])
    def test_selected(self, code: str | None) -> None:
        """The reason of the selected symbol is shown in full."""
        drawn = Drawn()
        state = SymbolState(
            symbol="SPY", state="stale", reason="the stream", code=code, since=AT, detail="more"
        )
        drawn.screen.state(state, drawn.now)
        drawn.lines()
        drawn.press("down")
        told = f"{code}: " if code else ""
        assert drawn.lines()[1] == f"SPY stale {told}the stream: more"


class TestKeys:
    def test_quit(self) -> None:
        """Only q quits; with the help open it closes that."""
        drawn = filled()
        assert drawn.press("z", "?") == []
        assert drawn.lines()[2] == "Keys"
        assert drawn.press("q") == []
        assert drawn.lines()[2] != "Keys"
        assert drawn.press("q") == [Action("quit")]

    def test_redraw(self) -> None:
        """Ctrl-L has everything drawn anew."""
        assert Drawn().press("redraw") == [Action("redraw")]

    @pytest.mark.parametrize(
        ("keys", "order"),
        [
            ("", "AAPL NVDA QQQ SPY"),
            ("r", "SPY QQQ NVDA AAPL"),
            ("s", "SPY QQQ AAPL NVDA"),
            ("sr", "AAPL QQQ SPY NVDA"),
            ("3", "AAPL SPY QQQ NVDA"),  # spread
            ("4", "QQQ AAPL SPY NVDA"),  # age
            ("5", "QQQ AAPL SPY NVDA"),  # rate
            ("6", "SPY NVDA AAPL QQQ"),  # the worst state first
            ("S", "SPY NVDA AAPL QQQ"),
            ("6r", "AAPL QQQ NVDA SPY"),
            ("ssssss", "AAPL NVDA QQQ SPY"),
        ],
    )
    def test_sort(self, keys: str, order: str) -> None:
        """Keys choose the column and the direction; rows without the number come last."""
        drawn = filled()
        drawn.lines()
        drawn.press(*keys)
        assert drawn.symbols() == order.split()

    def test_order_is_kept_for_a_second(self) -> None:
        """Rows do not change places at every update."""
        drawn = filled()
        drawn.press("2")
        assert drawn.symbols()[0] == "SPY"
        drawn.price("NVDA", 900.0)
        assert drawn.symbols()[0] == "SPY"
        drawn.pass_(1.0)
        assert drawn.symbols()[0] == "NVDA"

    @pytest.mark.parametrize(
        ("typed", "order"),
        [("q", "QQQ"), ("SP", "SPY"), ("halt", "SPY"), ("live", "AAPL QQQ"), ("a", "AAPL NVDA")],
    )
    def test_filter(self, typed: str, order: str) -> None:
        """A part of a symbol or the beginning of a state filters as it is typed; Esc ends it."""
        drawn = filled()
        drawn.press("/", *typed)
        assert drawn.symbols() == order.split()
        assert drawn.lines()[-1] == f"filter: {typed}"
        drawn.press("enter")
        assert drawn.symbols() == order.split()
        assert f"/ {typed}" in drawn.lines()[-1]
        drawn.press("escape")
        assert len(drawn.symbols()) == 4

    def test_filter_that_nothing_matches(self) -> None:
        """That nothing matches is said; Esc in the prompt ends the filter too."""
        drawn = filled()
        drawn.press("/", *"zzz", "backspace")
        assert drawn.lines()[3].startswith("Nothing matches 'zz'")
        drawn.press("escape")
        assert len(drawn.symbols()) == 4

    def test_pause(self) -> None:
        """Prices, ages and rates stand still, and can be sorted; then the newest are shown."""
        drawn = filled()
        drawn.press(" ")
        before = drawn.lines()
        drawn.pass_(10.0)
        drawn.price("SPY", 700.0, 9)
        drawn.price("IWM", 200.0)
        assert drawn.lines() == before
        assert "paused" in before[-1]
        drawn.press("r")
        assert drawn.symbols() == ["SPY", "QQQ", "NVDA", "AAPL"]
        drawn.screen.remove("QQQ")
        drawn.press("r")
        assert drawn.symbols() == ["AAPL", "NVDA", "SPY"]
        drawn.press("p")
        assert drawn.symbols() == ["AAPL", "IWM", "NVDA", "SPY"]
        assert "700.00" in drawn.lines()[6]

    @pytest.mark.parametrize(
        ("typed", "action"),
        [
            ("nvda", Action("add", ("NVDA",))),
            (" brk.b, spy ", Action("add", ("BRK.B", "SPY"))),
            ("", None),
        ],
    )
    def test_add(self, typed: str, action: Action | None) -> None:
        """Symbols are typed with spaces or commas between them."""
        drawn = filled()
        assert drawn.press("a", *typed) == []
        assert drawn.lines()[-1] == f"add symbols: {typed}".rstrip()
        assert drawn.press("enter") == ([action] if action else [])

    def test_add_what_is_no_symbol(self) -> None:
        """What is no symbol is said, until the next key."""
        drawn = filled()
        assert drawn.press("a", *"sp-y", "enter") == []
        assert drawn.lines()[-1] == "not a symbol: 'sp-y'"
        drawn.press("down")
        assert drawn.lines()[-1].startswith("q quit")

    def test_remove(self) -> None:
        """The selected symbol is offered; another may be typed, or Esc pressed."""
        drawn = filled()
        drawn.screen.state(state_of("sp-y", "refused", "invalid_symbol"), drawn.now)
        drawn.lines()
        assert drawn.press("end", "x", "enter") == [Action("remove", ("sp-y",))]
        assert drawn.press("up", "delete", "enter") == [Action("remove", ("SPY",))]
        assert drawn.press("x", "clear", *"qqq aapl", "enter") == [
            Action("remove", ("QQQ", "AAPL"))
        ]
        assert drawn.press("x", "escape", "escape", "x", "enter") == []

    def test_typing_has_an_end(self) -> None:
        """What is typed is bounded, and keys with names type nothing."""
        drawn = filled()
        drawn.press("a", "up", *"A" * 2_000)
        assert drawn.screen.controls.typed == "A" * 500

    def test_scroll(self) -> None:
        """The selected symbol is always on the screen, and keeps its row when the order changes."""
        drawn = Drawn()
        drawn.screen.add([f"A{chr(65 + n)}" for n in range(26)], drawn.now)
        assert drawn.symbols(80, 14)[0] == "AA"
        assert drawn.lines(80, 14)[-1].endswith("1–10 of 26")
        steps = {
            "pagedown": ("AK", "AB"), "j": ("AL", "AC"), "G": ("AZ", "AQ"), "pageup": ("AP", "AP"),
            "k": ("AO", "AO"), "home": ("AA", "AA"), "down": ("AB", "AA"),
        }  # fmt: skip
        for key, (selected, first) in steps.items():
            drawn.press(key)
            assert drawn.symbols(80, 14)[0] == first
            assert drawn.screen.controls.selected == selected
        drawn.press("r")
        assert "AB" in drawn.symbols(80, 14)
        drawn.press("/", "q", "q", "q", "down")
        drawn.press("escape", "escape")
        assert drawn.screen.controls.selected is None

    def test_nothing_to_select(self) -> None:
        """Where there is no row, nothing is selected, and how to add symbols is said."""
        drawn = Drawn()
        drawn.press("down", "x", "enter")
        assert drawn.lines()[3].startswith("Nothing is streamed here yet: press a")
        assert drawn.screen.controls.selected is None


def test_hints() -> None:
    """Hints stand at the bottom, as many as there is room for."""
    drawn = Drawn(Screen(hints=["one", "two", "three"]))
    drawn.price("SPY")
    assert drawn.lines(80, 12)[-4:-1] == ["one", "two", "three"]
    assert drawn.lines(80, 7)[-3:-1] == ["one", "two"]
    assert "one" not in drawn.lines(80, 5)


def test_ascii() -> None:
    """A terminal that shows only ASCII gets nothing else."""
    drawn = Drawn(Screen(glyphs=ASCII))
    for seq, bid in enumerate((1.0, 2.0, 1.5)):
        drawn.pass_(2.0)
        drawn.price("SPY", bid, seq)
    assert "\n".join(drawn.lines()).isascii()
    assert "_=." in drawn.lines()[3] or "_^" in drawn.lines()[3]


def test_a_prompt_shows_no_control_characters() -> None:
    """An entry of the demand may hold what a terminal would carry out, and be asked about."""
    drawn = Drawn()
    drawn.screen.state(state_of("\x1b]0;x\x07", "refused"), drawn.now)
    drawn.lines()
    drawn.press("down")
    for key in ("", "x", "enter"):
        assert all(line.isprintable() for line in drawn.lines())
        drawn.press(*filter(None, [key]))
        if key == "x":
            assert drawn.lines()[-1].startswith(r"remove: \x1b]0;x\x07")
