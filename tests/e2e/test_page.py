"""From Alpaca to a browser: daemon, relay and page, and what each of them may lose."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.e2e.setup import Setup, quote
from tests.kit.browser import CHROMIUM, chromium
from tests.kit.ports import free_port
from tests.kit.waiting import GUARD_S

if not os.environ.get("TEST_SPOTD_BROWSER"):
    pytest.skip("drives a browser: set TEST_SPOTD_BROWSER=1 to run it", allow_module_level=True)
playwright_api = pytest.importorskip("playwright.async_api", reason="needs playwright")

from playwright.async_api import Page, expect  # noqa: E402 - skipped above where it is missing

if CHROMIUM is None:
    pytest.skip("needs Debian's chromium", allow_module_level=True)

expect.set_options(timeout=GUARD_S * 1000)
# Its driver leaves its pipes to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PORT = free_port()
TOKEN = "e2e-token"


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    """A page of a browser that remembers nothing."""
    async with chromium() as browser:
        yield await browser.new_page()


async def shows(setup: Setup, page: Page, bid: float, text: str) -> None:
    """Have Alpaca send a quote, and wait until the page shows its price, live."""
    await setup.until(lambda: setup.values.live("SPY"), "SPY live")
    await setup.sim.send([quote("SPY", bid, bid + 2)])
    row = page.locator("tr[data-symbol=SPY]")
    await expect(row.locator("td.price")).to_have_text(text)
    await expect(row.locator("td.state")).to_have_text("Live")
    await expect(page.locator("#notice")).to_be_hidden()


async def test_everything_may_restart_behind_a_page(setup: Setup, page: Page) -> None:
    """A page that nobody reloads shows the newest price after each of the others was away."""
    daemon = await setup.daemon()
    relay = await setup.relay("relay", PORT)
    notice = page.locator("#notice")
    await page.goto(f"http://127.0.0.1:{PORT}/?symbols=spy")
    await page.evaluate("window.loadedOnce = true")
    await shows(setup, page, 100, "101.00")

    setup.server.kill()
    await expect(notice).to_contain_text("The relay has lost Redis")
    await expect(page.locator("tr[data-state=stale]")).to_have_count(1)
    setup.server.start()
    await setup.until(daemon.ready, "the daemon is ready again")
    await shows(setup, page, 200, "201.00")

    await relay.kill()
    await expect(notice).to_contain_text("The relay cannot be reached.")
    await expect(page.locator("tr[data-state=disconnected]")).to_have_count(1)
    relay = await setup.relay("relay-2", PORT)
    await shows(setup, page, 300, "301.00")

    assert await relay.stop(signal.SIGTERM) == 0
    await expect(notice).to_contain_text("Disconnected")
    await setup.relay("relay-3", PORT)
    await shows(setup, page, 400, "401.00")

    assert await daemon.stop() == 0
    await expect(notice).to_contain_text("No spotd daemon runs")
    await expect(page.locator("tr[data-state=stale]")).to_have_count(1)
    await setup.daemon("daemon-2")
    await shows(setup, page, 500, "501.00")
    assert await page.evaluate("window.loadedOnce")


async def test_refusals_of_a_real_relay(setup: Setup, page: Page) -> None:
    """A missing and a wrong token, and a symbol beyond the relay's limit, are explained."""
    await setup.daemon()
    limits = {"SPOTD_RELAY_TOKEN": TOKEN, "SPOTD_RELAY_MAX_SYMBOLS": "1"}
    await setup.relay("relay", PORT, **limits)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda said: complaints.append(said.text) if "Content Security" in said.text else None,
    )
    notice = page.locator("#notice")
    await page.goto(f"http://127.0.0.1:{PORT}/?symbols=SPY,QQQ")
    await expect(notice).to_contain_text("This relay needs a token")
    await page.get_by_label("Token").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(notice).to_contain_text("The token was refused")
    await page.get_by_label("Token").fill(TOKEN)
    await page.keyboard.press("Enter")
    await shows(setup, page, 100, "101.00")
    refused = page.locator("tr[data-symbol=QQQ] td.state")
    await expect(refused).to_contain_text("Refused")
    assert complaints == []
