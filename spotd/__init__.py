"""spotd: one Alpaca stock stream for a whole company, on one Redis channel per symbol.

The public names are looked up lazily, so that ``import spotd`` and ``import spotd.client`` load
neither alpaca-py nor pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spotd.client import Event, Spot, SpotClient
    from spotd.errors import (
        AlpacaRefusedError,
        RedisUnavailableError,
        SettingsError,
        SpotdError,
        StreamError,
        SymbolRefusedError,
    )
    from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolCounts, SymbolState

__version__ = "0.2.0"

_HOME = {
    "Event": "spotd.client",
    "Spot": "spotd.client",
    "SpotClient": "spotd.client",
    "AlpacaRefusedError": "spotd.errors",
    "RedisUnavailableError": "spotd.errors",
    "SettingsError": "spotd.errors",
    "SpotdError": "spotd.errors",
    "StreamError": "spotd.errors",
    "SymbolRefusedError": "spotd.errors",
    "DaemonStatus": "spotd.models",
    "Gap": "spotd.models",
    "SpotPriceUpdate": "spotd.models",
    "SymbolCounts": "spotd.models",
    "SymbolState": "spotd.models",
}

__all__ = [
    "AlpacaRefusedError",
    "DaemonStatus",
    "Event",
    "Gap",
    "RedisUnavailableError",
    "SettingsError",
    "Spot",
    "SpotClient",
    "SpotPriceUpdate",
    "SpotdError",
    "StreamError",
    "SymbolCounts",
    "SymbolRefusedError",
    "SymbolState",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Look a public name up in its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only on first use of a public name

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
