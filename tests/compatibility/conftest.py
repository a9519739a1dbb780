"""A simulated Alpaca for each test, and daemons between it and a real server."""

from __future__ import annotations

from tests.daemon.conftest import rig, sim

__all__ = ["rig", "sim"]
