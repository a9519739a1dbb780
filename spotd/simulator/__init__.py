"""An Alpaca on this machine: stock stream, REST, a simulated market, replays and faults.

It imports none of spotd's other packages. Of these, only the command line imports it.
"""

from spotd.simulator.journal import Journal, Record, Stats
from spotd.simulator.knobs import Faults, Limits, MarketModel
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
