"""An Alpaca on this machine: its stock stream and REST, a market, replays, and every fault.

Stands alone: nothing here knows spotd, and spotd knows nothing of it.
"""

from spotd.simulator.journal import Journal, Record, Stats
from spotd.simulator.knobs import Faults, Limits
from spotd.simulator.model import MarketModel
from spotd.simulator.replay import Replay
from spotd.simulator.server import Simulator
from spotd.simulator.session import Session

__all__ = [
    "Faults",
    "Journal",
    "Limits",
    "MarketModel",
    "Record",
    "Replay",
    "Session",
    "Simulator",
    "Stats",
]
