"""DECIDES. Pure: no asyncio, redis, alpaca, logging or clock; ``now`` is an argument.

``now`` is monotonic seconds everywhere in here; wall time appears only in payloads.
"""
