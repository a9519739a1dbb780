"""A recorded day of AMZN (21 June 2012, Nasdaq), which may lie beside a checkout.

It is read where it lies, and never copied.
"""

from __future__ import annotations

from pathlib import Path

DAY = Path(__file__).parents[3] / "shared" / "data" / "amzn-2012-06-21.jsonl.gz"
MISSING = f"{DAY.name} does not lie beside the checkout"
