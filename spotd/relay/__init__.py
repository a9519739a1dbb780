"""The web tier: prices from Redis to any number of browsers.

``hub`` and the modules beside it decide, without I/O and without a clock. ``relay`` drives them.
Edges (``server`` on aiohttp, ``fastapi`` on FastAPI) talk to clients. Must not import the daemon or
its core.
"""
