"""The page at ``/`` in a real browser, against a relay that the test drives."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest
import pytest_asyncio

from tests.kit.browser import CHROMIUM, chromium
from tests.kit.waiting import GUARD_S, until
from tests.relay.fake_relay import FakeRelay

if not os.environ.get("TEST_SPOTD_BROWSER"):
    pytest.skip("drives a browser: set TEST_SPOTD_BROWSER=1 to run it", allow_module_level=True)
playwright_api = pytest.importorskip("playwright.async_api", reason="needs playwright")

from playwright.async_api import (  # noqa: E402 - skipped above where it is missing
    Browser,
    Locator,
    Page,
    expect,
)

if CHROMIUM is None:
    pytest.skip("needs Debian's chromium", allow_module_level=True)

expect.set_options(timeout=GUARD_S * 1000)
# Its driver leaves its pipes to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Opened: TypeAlias = Callable[..., Awaitable[Page]]
PHONE = {"width": 360, "height": 740}
RISEN = re.compile(r"^([2-9]|\d\d) s$")  # an age that was counted on


@pytest_asyncio.fixture
async def relay() -> AsyncIterator[FakeRelay]:
    """A relay without a token."""
    relay = FakeRelay()
    await relay.start()
    yield relay
    await relay.stop()


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[Browser]:
    """A browser that remembers nothing."""
    async with chromium() as browser:
        yield browser


@pytest.fixture
def complaints() -> list[str]:
    """What the browser wrote to its console as an error, and what the page did not catch."""
    return []


@pytest_asyncio.fixture
async def opened(browser: Browser, relay: FakeRelay, complaints: list[str]) -> Opened:
    """Open the page with symbols in its address, and wait until it is connected."""

    async def open_page(
        *symbols: str, connected: bool = True, manual_clock: bool = False, **options: object
    ) -> Page:
        context = await browser.new_context(**options)  # type: ignore[arg-type]
        page = await context.new_page()
        page.on(
            "console", lambda said: complaints.append(said.text) if said.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if manual_clock:
            await page.clock.install()
        await page.goto(f"{relay.url}?symbols={','.join(symbols)}" if symbols else relay.url)
        if connected:
            await expect(page.locator("#link")).to_have_text("Connected")
            await until(lambda: relay.wanted >= set(symbols), "the subscription")
        if manual_clock:  # until now it went on by itself
            await page.clock.pause_at(await page.evaluate("Date.now()") / 1000 + 1)
        return page

    return open_page


def subscribed(relay: FakeRelay) -> int:
    """Return how often clients subscribed."""
    return sum(request["action"] == "subscribe" for request in relay.requests)


def row(page: Page, symbol: str) -> Locator:
    """The row of a symbol."""
    return page.locator(f"tr[data-symbol='{symbol}']")


def cell(page: Page, symbol: str, column: str) -> Locator:
    """One cell of a symbol's row."""
    return row(page, symbol).locator(f"td.{column}")


async def test_first_price(opened: Opened, relay: FakeRelay, complaints: list[str]) -> None:
    """A symbol is loading until its first price, which is shown with bid, ask and last sale."""
    page = await opened("SPY")
    await expect(cell(page, "SPY", "state")).to_have_text("Loading")
    await relay.live("SPY", 1421.35, 1421.39, 1421.36)
    await expect(cell(page, "SPY", "state")).to_have_text("Live")
    await expect(cell(page, "SPY", "price")).to_have_text("1,421.37")
    await expect(cell(page, "SPY", "bid")).to_have_text("1,421.35")
    await expect(cell(page, "SPY", "ask")).to_have_text("1,421.39")
    await expect(cell(page, "SPY", "last")).to_have_text("1,421.36")
    assert complaints == []


async def test_change(opened: Opened, relay: FakeRelay) -> None:
    """A change is shown by sign and percentage, and the last step by an arrow."""
    page = await opened("SPY")
    await relay.live("SPY", 99, 101)
    await expect(cell(page, "SPY", "change")).to_have_text("0.000.00%")
    await relay.price("SPY", 101, 103)
    await expect(cell(page, "SPY", "change")).to_have_text("+2.00+2.00%")
    await expect(row(page, "SPY")).to_have_attribute("data-tick", "up")
    await relay.price("SPY", 100, 102)
    await expect(cell(page, "SPY", "change")).to_have_text("+1.00+1.00%")
    await expect(row(page, "SPY")).to_have_attribute("data-tick", "down")
    await relay.price("SPY", 97, 99)
    await expect(cell(page, "SPY", "change")).to_have_text("−2.00−2.00%")


async def test_stale_and_halted(opened: Opened, relay: FakeRelay) -> None:
    """A cut stream and a halt are named, with their age and reason, until they are over."""
    page = await opened("SPY", "QQQ")
    await relay.live("SPY", 99, 101)
    await relay.live("QQQ", 9, 11)
    await relay.state("SPY", "stale", code="backoff", reason="the stream is interrupted")
    await relay.state("QQQ", "halted", reason="news pending", since="2020-01-01T00:00:00Z")
    state = cell(page, "SPY", "state")
    await expect(state).to_contain_text("Stale")
    await expect(state).to_contain_text("The stream is interrupted")
    await expect(state.locator(".when")).to_have_text(RISEN)
    await expect(cell(page, "SPY", "price")).to_have_text("100.00")
    await expect(cell(page, "QQQ", "state")).to_contain_text("Halted")
    await expect(cell(page, "QQQ", "state").locator(".when")).to_contain_text(" d")
    await relay.state("SPY", "live")
    await expect(state).to_have_text("Live")


async def test_refusals(opened: Opened, relay: FakeRelay) -> None:
    """A refused symbol says why, whether the relay refuses it or the page itself."""
    page = await opened("ZZZZ")
    detail = "the plan allows 30 symbols"
    await relay.state("ZZZZ", "refused", reason="symbol_limit", code="symbol_limit", detail=detail)
    await page.get_by_role("textbox").fill("not-one")
    await page.get_by_role("textbox").press("Enter")
    await expect(cell(page, "ZZZZ", "state")).to_have_text("Refused  The plan allows 30 symbols")
    await expect(cell(page, "NOT-ONE", "state")).to_contain_text('"NOT-ONE" is not a symbol')


async def test_relay_restart(opened: Opened, relay: FakeRelay) -> None:
    """A page goes on without a reload when its relay comes back, with the newest price."""
    page = await opened("SPY")
    await page.evaluate("window.loadedOnce = true")
    await relay.live("SPY", 99, 101)
    await expect(cell(page, "SPY", "price")).to_have_text("100.00")
    await relay.stop()
    await expect(page.locator("#link")).to_have_text("Disconnected")
    await expect(page.locator("#notice")).to_contain_text("The relay cannot be reached.")
    await expect(cell(page, "SPY", "state")).to_contain_text("Disconnected")
    await expect(cell(page, "SPY", "price")).to_have_text("100.00")
    await relay.price("SPY", 199, 201)
    await relay.start()
    await expect(cell(page, "SPY", "price")).to_have_text("200.00")
    await expect(cell(page, "SPY", "state")).to_have_text("Live")
    await expect(page.locator("#notice")).to_be_hidden()
    assert await page.evaluate("window.loadedOnce")


async def test_cut_connection(opened: Opened, relay: FakeRelay) -> None:
    """A connection that is cut without a goodbye is made anew."""
    page = await opened("SPY")
    await relay.live("SPY", 99, 101)
    await expect(cell(page, "SPY", "state")).to_have_text("Live")
    relay.cut()
    await until(lambda: subscribed(relay) == 2, "the second subscription")
    await relay.price("SPY", 199, 201)
    await expect(cell(page, "SPY", "price")).to_have_text("200.00")
    await expect(cell(page, "SPY", "state")).to_have_text("Live")


async def test_final_close_code(opened: Opened, relay: FakeRelay) -> None:
    """A page that the relay sends away says so, and tries again only when asked to."""
    page = await opened("SPY")
    await relay.close(4101, "too many messages")
    await expect(page.locator("#notice")).to_contain_text("Too many messages.")
    await expect(page.locator("#link")).to_have_text("Refused")
    assert subscribed(relay) == 1
    await page.get_by_role("button", name="Try now").click()
    await expect(page.locator("#link")).to_have_text("Connected")
    await until(lambda: subscribed(relay) == 2, "the second subscription")


async def test_token(opened: Opened, relay: FakeRelay) -> None:
    """A missing and a wrong token are explained; the right one connects, and is in no address."""
    relay.token = "right"
    page = await opened("SPY", connected=False)
    notice = page.locator("#notice")
    await expect(notice).to_contain_text("This relay needs a token")
    await expect(page.get_by_label("Token")).to_be_focused()
    await page.keyboard.type("wrong")
    await page.keyboard.press("Enter")
    await expect(notice).to_contain_text("The token was refused")
    await page.get_by_label("Token").fill("right")
    await page.keyboard.press("Enter")
    await expect(page.locator("#link")).to_have_text("Connected")
    await expect(notice).to_be_hidden()
    await expect(page.get_by_label("Symbols to add")).to_be_focused()
    assert "right" not in page.url
    await page.reload()
    await expect(page.locator("#link")).to_have_text("Connected")


async def test_redis_and_daemon_away(opened: Opened, relay: FakeRelay) -> None:
    """That Redis or the daemon is away is said once, above the prices, which are stale."""
    page = await opened("SPY")
    await relay.live("SPY", 99, 101)
    notice = page.locator("#notice")
    reason = "redis_away: Redis does not answer"
    await relay.tell({"type": "relay", "state": "redis_away", "reason": reason})
    await expect(notice).to_contain_text("The relay has lost Redis")
    await expect(cell(page, "SPY", "state")).to_contain_text("Stale")
    await relay.tell({"type": "relay", "state": "ready", "reason": None})
    await expect(notice).to_be_hidden()
    await expect(cell(page, "SPY", "state")).to_have_text("Live")
    await relay.tell_no_daemon()
    await expect(notice).to_contain_text("No spotd daemon runs")
    await expect(cell(page, "SPY", "state")).to_contain_text("Stale")
    await relay.tell_status(state="waiting", code="redis_away", reason="Redis does not answer.")
    await expect(page.locator("#notice-headline")).to_have_text("The daemon has lost Redis")
    await expect(page.locator("#notice-text")).to_have_text("Redis does not answer.")
    await relay.tell_status()
    await expect(notice).to_be_hidden()


async def test_silent_relay(opened: Opened, relay: FakeRelay) -> None:
    """A silent relay makes prices stale; it is pinged, and left if it does not answer."""
    page = await opened("SPY", manual_clock=True)
    await relay.live("SPY", 99, 101)
    await page.clock.run_for(500)
    await expect(cell(page, "SPY", "state")).to_have_text("Live")
    relay.answers_pings = False
    await page.clock.run_for(15_500)
    await expect(cell(page, "SPY", "state")).to_contain_text("Stale")
    await expect(page.locator("#notice")).to_contain_text("The relay says nothing")
    await page.clock.run_for(5_000)
    await until(lambda: relay.requests.count({"action": "ping"}) == 2, "the second ping")
    await page.clock.run_for(5_000)
    await expect(page.locator("#notice")).to_contain_text("The relay fell silent.")
    await page.clock.resume()
    await until(lambda: relay.requests[-1]["action"] == "subscribe", "the new connection")
    await expect(page.locator("#link")).to_have_text("Connected")


async def test_gap(opened: Opened, relay: FakeRelay) -> None:
    """The last time without prices is told below the table."""
    page = await opened("SPY")
    await expect(page.locator("#gap")).to_be_hidden()
    gap = {"type": "gap", "from": "2026-01-20T14:29:00Z", "to": "2026-01-20T14:29:05Z"}
    await relay.tell({**gap, "reason": "the connection was lost", "symbols": 3})
    await expect(page.locator("#gap")).to_contain_text("no prices of 3 symbols for 5 s")
    await expect(page.locator("#gap")).to_contain_text("The connection was lost.")


async def test_first_quote(opened: Opened, relay: FakeRelay) -> None:
    """A symbol that is live without a quote says what it waits for."""
    page = await opened("SPY")
    await relay.state("SPY", "live", code="no_quote_yet", reason="waiting for its first quote")
    await expect(cell(page, "SPY", "state")).to_contain_text("Waiting for its first quote")
    await relay.live("SPY", 99, 101)
    await expect(cell(page, "SPY", "state")).to_have_text("Live")


async def test_closed_market(opened: Opened, relay: FakeRelay) -> None:
    """While the market is closed, a price is shown with its time, and is not stale."""
    page = await opened("SPY")
    await relay.state("SPY", "live")
    await relay.price("SPY", 99, 101, at="2026-01-16T20:59:59.000000Z")
    await relay.tell_status(market="closed")
    await expect(cell(page, "SPY", "state")).to_contain_text("Closed")
    await expect(cell(page, "SPY", "state")).to_contain_text("last price Jan 16")


async def test_keyboard_only(opened: Opened, relay: FakeRelay, complaints: list[str]) -> None:
    """Symbols are added, sorted, paused and removed by keyboard, and the focus is never lost."""
    page = await opened()
    press, focused = page.keyboard.press, page.locator(":focus")
    await press("Tab")
    await page.keyboard.type("spy, qqq")
    await press("Enter")
    await until(lambda: relay.wanted == {"SPY", "QQQ"}, "both symbols")
    await page.keyboard.type("iwm")
    await press("Enter")
    await until(lambda: relay.wanted == {"SPY", "QQQ", "IWM"}, "the third symbol")
    for symbol, bid in (("SPY", 600), ("QQQ", 500), ("IWM", 200)):
        await relay.live(symbol, bid, bid + 1)
    await expect(page.locator("tr[data-state=live]")).to_have_count(3)

    await press("Tab")
    await expect(focused).to_have_text("Add")
    await press("Tab")
    await expect(focused).to_have_text("Pause")
    await press("Space")
    await expect(focused).to_have_attribute("aria-pressed", "true")
    await press("Space")
    await press("Tab")
    await press("Enter")
    await expect(focused).to_have_text("Symbol")
    await expect(page.locator("th.symbol[data-key]")).to_have_attribute("aria-sort", "ascending")
    rows = page.locator("tbody th")
    await expect(rows).to_have_text(["IWM", "QQQ", "SPY"])
    await press("Enter")
    await expect(rows).to_have_text(["SPY", "QQQ", "IWM"])
    for header in ("Price", "Change", "State"):
        await press("Tab")
        await expect(focused).to_have_text(header)

    await press("Tab")
    await expect(focused).to_have_attribute("aria-label", "Remove SPY")
    await press("Enter")
    await expect(focused).to_have_attribute("aria-label", "Remove QQQ")
    await press("Tab")
    await press("Enter")
    await expect(focused).to_have_attribute("aria-label", "Remove QQQ")
    await press("Enter")
    await expect(page.get_by_label("Symbols to add")).to_be_focused()
    await expect(page.locator("#empty")).to_be_visible()
    await until(lambda: not relay.wanted, "the end of all subscriptions")
    assert complaints == []


async def test_focus_stays(opened: Opened, relay: FakeRelay) -> None:
    """A row that holds the focus is not moved by prices, and keeps the focus."""
    page = await opened("SPY", "QQQ")
    await relay.live("SPY", 10, 12)
    await relay.live("QQQ", 20, 22)
    await expect(page.locator("tr[data-state=live]")).to_have_count(2)
    await page.get_by_role("button", name="Price").click()
    await expect(page.locator("tbody th")).to_have_text(["QQQ", "SPY"])
    await page.get_by_role("button", name="Remove QQQ").focus()
    await relay.price("SPY", 30, 32)
    await expect(cell(page, "SPY", "price")).to_have_text("31.00")
    await relay.state("SPY", "stale")
    await expect(cell(page, "SPY", "state").locator(".when")).to_have_text(RISEN)
    await expect(page.locator("tbody th")).to_have_text(["QQQ", "SPY"])
    await expect(page.get_by_role("button", name="Remove QQQ")).to_be_focused()
    await page.get_by_label("Symbols to add").focus()
    await expect(page.locator("tbody th")).to_have_text(["SPY", "QQQ"])


async def test_pause(opened: Opened, relay: FakeRelay) -> None:
    """While paused prices stand still, states do not; afterwards the newest price is shown."""
    page = await opened("SPY", "QQQ")
    await relay.live("SPY", 99, 101)
    await relay.live("QQQ", 9, 11)
    await expect(cell(page, "SPY", "price")).to_have_text("100.00")
    pause = page.get_by_role("button", name="Pause")
    await pause.click()
    await expect(page.locator("#counts")).to_contain_text("Prices paused at")
    await relay.price("SPY", 199, 201)
    await relay.state("QQQ", "halted")
    await expect(cell(page, "QQQ", "state")).to_contain_text("Halted")
    await expect(cell(page, "SPY", "price")).to_have_text("100.00")
    await pause.click()
    await expect(cell(page, "SPY", "price")).to_have_text("200.00")


async def test_announcements(opened: Opened, relay: FakeRelay) -> None:
    """A screen reader is told states that changed, gathered, and no price."""
    page = await opened("SPY", "QQQ", manual_clock=True)
    said = page.locator("#announcements")
    await relay.live("SPY", 99, 101)
    await relay.live("QQQ", 99, 101)
    await expect(page.locator("tr[data-state=live]")).to_have_count(2)
    await page.clock.run_for(1_000)
    await expect(said).to_have_text("SPY, QQQ live.")
    await relay.price("SPY", 199, 201)
    await relay.state("SPY", "stale", reason="the stream is interrupted")
    await expect(page.locator("tr[data-state=stale]")).to_have_count(1)
    await page.clock.run_for(1_000)
    await expect(said).to_have_text("SPY stale: the stream is interrupted.")


async def test_address_and_memory(opened: Opened, relay: FakeRelay) -> None:
    """What is followed stands in the address, and is remembered where the address names nothing."""
    page = await opened("SPY")
    await page.get_by_label("Symbols to add").fill("brk.b")
    await page.keyboard.press("Enter")
    await until(lambda: relay.wanted == {"SPY", "BRK.B"}, "both symbols")
    await expect(page).to_have_url(f"{relay.url}?symbols=SPY,BRK.B")
    await page.goto(relay.url)
    await expect(page.locator("tbody th")).to_have_text(["SPY", "BRK.B"])


async def test_suggestions(opened: Opened, relay: FakeRelay) -> None:
    """A page without symbols offers some."""
    page = await opened()
    await page.get_by_role("button", name="AAPL").click()
    await until(lambda: relay.wanted == {"AAPL"}, "the suggested symbol")
    await expect(page.locator("#empty")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_phone(opened: Opened, relay: FakeRelay, scheme: str) -> None:
    """On a phone nothing is wider than the screen, and rows have the same columns.

    Screen readers still find a table.
    """
    page = await opened("SPY", "GOOGL", viewport=PHONE, color_scheme=scheme)
    await relay.live("SPY", 1599.12, 1601.44)
    await relay.state("GOOGL", "stale", reason="a reason that is longer than a phone is wide")
    await relay.price("GOOGL", 99, 101)
    await expect(cell(page, "GOOGL", "state")).to_contain_text("longer than a phone")
    # Columns are as wide as what was drawn.
    await expect(cell(page, "SPY", "price")).to_have_text("1,600.28")
    await expect(cell(page, "GOOGL", "price")).to_have_text("100.00")
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert await page.evaluate(wider) == 0
    for column in ("price", "change", "spark"):
        first, last = [await cell(page, s, column).bounding_box() for s in ("SPY", "GOOGL")]
        assert first is not None
        assert last is not None
        assert (first["x"], first["width"]) == (last["x"], last["width"])
    await expect(page.get_by_role("table").get_by_role("row")).to_have_count(3)
    await expect(page.get_by_role("cell", name="1,600.28")).to_be_visible()


async def test_nothing_moves(opened: Opened, relay: FakeRelay) -> None:
    """Nothing on the page is animated, whatever happens to a price."""
    page = await opened("SPY", reduced_motion="reduce")
    await relay.live("SPY", 99, 101)
    await relay.price("SPY", 199, 201)
    await expect(cell(page, "SPY", "price")).to_have_text("200.00")
    assert await page.evaluate("document.getAnimations().length") == 0


async def test_content_security_policy(opened: Opened, complaints: list[str]) -> None:
    """The policy forbids what is inline, and the page itself needs nothing that it forbids."""
    page = await opened("SPY")
    assert complaints == []
    inline = "const tag = document.createElement('script'); tag.text = 'window.ran = true';"
    with pytest.raises(Exception, match="TrustedScript"):
        await page.evaluate(f"() => {{ {inline} document.head.append(tag); }}")
    assert not await page.evaluate("'ran' in window")
