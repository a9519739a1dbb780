"""Prices on their way to Redis."""

from tests.integration.conftest import NewRig
from tests.integration.rig import Ear, eventually


async def test_channel_and_last_hold_the_same_bytes(rig: NewRig) -> None:
    """A quote of a desired symbol reaches its channel and ``spotd:last``, byte for byte."""
    async with rig() as daemon, Ear(daemon.settings.redis_url.get_secret_value(), "spot:*") as ear:
        await daemon.want("SPY")
        daemon.quote("SPY", 421.35, 421.39)
        await eventually(lambda: ear.raw("SPY"), "an update")
        assert await daemon.redis.hget("spotd:last", "SPY") == ear.raw("SPY")[0].decode()
