"""The smallest application with the router, to be measured: ``--edge fastapi`` of ``relay``."""

from __future__ import annotations

import os

from fastapi import FastAPI

from spotd.relay.fastapi import spot_prices

app = FastAPI()
app.include_router(spot_prices(os.environ["SPOTD_REDIS_URL"]))
