"""Keys from the environment, tests in their order, and no key in what pytest writes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from spotd.redaction import Redactor
from tests.live.setup import Account, Live

HERE = Path(__file__).parent


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """Yield what starts daemons for the account; skip the test without keys."""
    account = Account.of(os.environ)
    if account is None:
        pytest.skip("no keys: set ALPACA_API_KEY and ALPACA_SECRET_KEY")
    async with Live(tmp_path, account) as live:
        yield live


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run these in the order of the file, the feed that never sleeps first."""
    places = [at for at, item in enumerate(items) if item.path.is_relative_to(HERE)]
    ours = sorted((items[at] for at in places), key=lambda item: item.reportinfo()[1] or 0)
    for at, item in zip(places, ours, strict=True):
        items[at] = item


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Cut the keys out of every failure and of what was captured: a traceback shows arguments."""
    report = yield
    account = Account.of(os.environ)
    if account is not None:
        redact = Redactor([account.key, account.secret])
        if report.failed:
            report.longrepr = redact(report.longreprtext)
        report.sections = [(name, redact(text)) for name, text in report.sections]
    return report
