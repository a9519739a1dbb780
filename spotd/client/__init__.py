"""SpotClient, and Spot without await: prices for consuming programs. Talks to Redis alone.

Light on purpose: it must not import alpaca-py, pandas, pydantic, structlog or the daemon's parts.
It decides nothing about prices. It only drops what is not newer than what it has delivered.
"""

from spotd.client.client import SpotClient
from spotd.client.follower import Follower
from spotd.client.iterations import Event
from spotd.client.listener import FollowerListener
from spotd.client.spot import Spot
from spotd.client.symbols import symbols_of

__all__ = ["Event", "Follower", "FollowerListener", "Spot", "SpotClient", "symbols_of"]
