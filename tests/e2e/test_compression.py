"""The installed command on a compressed stream."""

from __future__ import annotations

from functools import partial

from tests.e2e.kit import Recorder, World, quote


async def test_prices_of_a_compressed_stream_are_published(world: World) -> None:
    """With SPOTD_COMPRESSION it is offered and taken; every price arrives, none is malformed."""
    command = await world.daemon(SPOTD_COMPRESSION="true", SPOTD_THROTTLE_MS="0")
    recorder = await world.recorder()
    await world.streaming("SPY", "QQQ")
    assert all(session.ws.compress for session in world.sim.sessions)
    for number in range(1, 51):
        await world.sim.send([quote(one, 10.0 + number, 11.0 + number) for one in ("SPY", "QQQ")])
        await world.until(partial(_has, recorder, number), 5, "the prices")
    ignored = {
        name: count
        for name, count in (await command.metrics()).items()
        if name.startswith("spotd_messages_ignored_total") and count
    }
    assert not ignored


def _has(recorder: Recorder, number: int) -> bool:
    return all((10.0 + number, 11.0 + number) in recorder.prices(one) for one in ("SPY", "QQQ"))


async def test_compression_is_off_unless_it_is_asked_for(world: World) -> None:
    """Alpaca is not even offered it."""
    await world.daemon()
    await world.streaming("SPY")
    assert not any(session.ws.compress for session in world.sim.sessions)
