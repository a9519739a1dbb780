"""SpotClient: the newest prices for consuming programs. Talks to Redis, and to nothing else.

Light on purpose: it must not import alpaca-py, pandas, pydantic, structlog or the daemon's parts.
It decides nothing about prices. It only drops what is not newer than what it has delivered.
"""

from spotd.client.client import SpotClient, symbols_of
from spotd.client.subscription import Event

__all__ = ["Event", "SpotClient", "symbols_of"]
