"""The installed command on a compressed stream."""

from __future__ import annotations

from functools import partial

from tests.e2e.setup import Setup, quote
from tests.kit.recorder import Recorder


async def test_prices_of_a_compressed_stream_are_published(setup: Setup) -> None:
    """With SPOTD_COMPRESSION it is offered and taken; every price arrives, none is malformed."""
    command = await setup.daemon(SPOTD_COMPRESSION="true", SPOTD_THROTTLE_MS="0")
    recorder = await setup.recorder()
    await setup.streaming("SPY", "QQQ")
    assert all(session.ws.compress for session in setup.sim.sessions)
    for number in range(1, 51):
        await setup.sim.send([quote(one, 10.0 + number, 11.0 + number) for one in ("SPY", "QQQ")])
        await setup.until(partial(_has, recorder, number), "the prices")
    ignored = {
        name: count
        for name, count in (await command.metrics()).items()
        if name.startswith("spotd_messages_ignored_total") and count
    }
    assert not ignored


def _has(recorder: Recorder, number: int) -> bool:
    return all((10.0 + number, 11.0 + number) in recorder.prices(one) for one in ("SPY", "QQQ"))


async def test_compression_is_off_unless_it_is_asked_for(setup: Setup) -> None:
    """Alpaca is not even offered it."""
    await setup.daemon()
    await setup.streaming("SPY")
    assert not any(session.ws.compress for session in setup.sim.sessions)
