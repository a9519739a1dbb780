"""The rig itself: a price goes from Alpaca to Redis."""

from tests.daemon.rig import NewRig
from tests.kit.waiting import until


async def test_a_price_goes_from_alpaca_to_redis(rig: NewRig) -> None:
    """What Alpaca sends is published, and the daemon says that it streams."""
    async with rig() as daemon:
        await daemon.want("SPY")
        await daemon.quote("SPY", 421.0)
        await until(lambda: daemon.values.bid("SPY"), "the price")
        assert daemon.status["state"] == "streaming"
        await until(lambda: daemon.values.live("SPY"), "live")
