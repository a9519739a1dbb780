"""Draw docs/watch.svg, the screen of ``spotd watch``, from prices that are always the same.

python -m tests.bench.watch_picture [FILE]
"""

from __future__ import annotations

import io
import random
import re
import sys
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.text import Text

from spotd.cli.screen.escapes import styled
from spotd.cli.screen.screen import Screen
from spotd.cli.screen.styles import Line
from spotd.models import DaemonStatus, SymbolCounts, SymbolState, spot_price, utc
from tests.bench.orders import ROOT

SIZE = (100, 17)
_PRICES = {
    "AAPL": 262.36, "AMZN": 236.42, "BRK.B": 498.52, "GOOGL": 313.07, "IWM": 247.83,
    "META": 642.11, "MSFT": 477.18, "NVDA": 187.24, "QQQ": 621.32, "SPY": 688.71, "TSLA": 441.09,
}  # fmt: skip
_STATES = {
    "BRK.B": ("stale", "mute"), "TSLA": ("halted", None),
}  # fmt: skip
_BEGAN = utc(1_768_921_200)  # 2026-01-20, 10:00 in New York
_SECONDS = 90


def lines(width: int = SIZE[0], height: int = SIZE[1]) -> list[Line]:
    """Return the lines of the screen."""
    screen, chance = Screen(), random.Random(7)
    prices, now = dict(_PRICES), 0.0
    for step in range(_SECONDS * 5):
        now = step / 5
        at = _BEGAN + timedelta(seconds=now - 0.02)
        for number, symbol in enumerate(prices):
            if chance.random() > 0.95 - 0.07 * number or (symbol in _STATES and now > 76):
                continue
            prices[symbol] *= 1 + chance.gauss(0.00001, 0.00012)
            bid = round(prices[symbol], 2)
            ask, last = bid + chance.choice((0.01, 0.02, 0.03)), bid + chance.choice((0, 0.01))
            update = spot_price(symbol, bid, round(ask, 2), round(last, 2), at, step)
            screen.price(update, now)
    moment = _BEGAN + timedelta(seconds=now)
    for symbol in prices:
        state, code = _STATES.get(symbol, ("live", None))
        screen.state(_state(symbol, state, code), now)
    refused = _state("SPY-W", "refused", "invalid_symbol", "a symbol is 1 to 8 letters")
    screen.state(refused, now)
    screen.status(_status(len(prices)))
    screen.draw(width, height, now, moment.timestamp())  # the columns grow
    return screen.draw(width, height, now, moment.timestamp())


def svg() -> str:
    """Return the picture."""
    console = Console(
        record=True, width=SIZE[0], file=io.StringIO(), color_system="truecolor",
        force_terminal=True, legacy_windows=False,
    )  # fmt: skip
    for line in lines():
        text = Text.from_ansi(styled(line, colours=True))
        console.print(text, no_wrap=True, overflow="crop", highlight=False)
    picture = console.export_svg(title="spotd watch", unique_id="watch")
    # A picture in a page must not fetch fonts; what the reader has is near enough.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    fonts = "Fira Code, DejaVu Sans Mono, Menlo, Consolas, monospace"
    picture = picture.replace("font-family: Fira Code, monospace", f"font-family: {fonts}")
    return "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"


def _state(symbol: str, state: str, code: str | None, detail: str | None = None) -> SymbolState:
    fields = {"symbol": symbol, "state": state, "reason": code, "code": code, "detail": detail}
    return SymbolState(**fields, since=_BEGAN)  # type: ignore[arg-type]


def _status(symbols: int) -> DaemonStatus:
    counts = SymbolCounts(desired=symbols + 1, live=symbols - 2, stale=1, halted=1, refused=1)
    return DaemonStatus(
        state="streaming", reason=None, instance="host-1-ab", version="1", feed="sip",
        since=_BEGAN, at=_BEGAN, symbols=counts, last_message_at=_BEGAN, lag_ms=12.0,
        breaker="closed", quotes_received=1, updates_published=1, reconnects=0, market="open",
        market_changes_at=_BEGAN + timedelta(hours=6),
    )  # fmt: skip


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "watch.svg"
    target.write_text(svg(), "utf-8")
