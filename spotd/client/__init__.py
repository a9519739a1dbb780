"""SpotClient: the newest prices for programs that consume. Talks to Redis, and to nothing else.

Light on purpose: it must not import alpaca-py, pandas, pydantic, structlog or the daemon's parts.
It decides nothing about prices; it only drops what is older than what it has already handed out.
"""

from spotd.client.client import SpotClient, symbols_of
from spotd.client.subscription import Event

__all__ = ["Event", "SpotClient", "symbols_of"]
