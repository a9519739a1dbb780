"""The back end of a page with open positions and their live prices.

In this folder of a clone, beside a running ``spotd run`` or ``spotd demo``; REDIS_URL names its
Redis, which ``spotd demo`` prints::

    pip install "../..[fastapi]" "uvicorn[standard]"
    REDIS_URL=redis://127.0.0.1:6379/0 uvicorn fastapi_app:app --ws-per-message-deflate false

The page of spotd is at http://127.0.0.1:8000/, the documents are at /docs. Compressing websockets
would cost 200 kB for each browser, for messages that hardly get smaller.
"""

import os
from datetime import date
from hmac import compare_digest
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, HTTPException
from fastapi.requests import HTTPConnection
from pydantic import BaseModel

from spotd.relay.fastapi import spot_prices

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
SESSION = os.environ.get("POSITIONS_SESSION")  # stands for your own sessions


def signed_in(connection: HTTPConnection) -> None:
    """Refuse requests and websockets without the session's cookie.

    Without POSITIONS_SESSION, everybody is let in. HTTPConnection is what both have in common.
    """
    given = connection.cookies.get("session", "")
    if SESSION is not None and not compare_digest(given.encode(), SESSION.encode()):
        raise HTTPException(401, "sign in first")


class OpenPosition(BaseModel):
    """One option position. Prices are USD."""

    id: int
    underlying: str
    right: Literal["call", "put"]
    strike: float
    expires_on: date
    contracts: Annotated[int, "negative: sold"]
    spot_at_open: float


POSITIONS = [  # stands for your own database
    OpenPosition(
        id=1,
        underlying="SPY",
        right="put",
        strike=665,
        expires_on=date(2026, 3, 20),
        contracts=-2,
        spot_at_open=683.4,
    ),
    OpenPosition(
        id=2,
        underlying="QQQ",
        right="call",
        strike=640,
        expires_on=date(2026, 2, 20),
        contracts=-1,
        spot_at_open=626.15,
    ),
]

app = FastAPI(title="Positions")
# POST /api/positions/subscribe-spot-prices, GET /api/spot-prices, /ws, /sse; the page, /spotd.js
app.include_router(spot_prices(REDIS_URL, dependencies=[Depends(signed_in)], page=True))


@app.get("/api/positions", dependencies=[Depends(signed_in)])
def open_positions() -> list[OpenPosition]:
    """Return the open positions."""
    return POSITIONS
