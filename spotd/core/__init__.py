"""DECIDES. Pure: no asyncio, redis, alpaca, logging or clock; ``now`` is an argument.

``now`` is monotonic seconds everywhere in here. Wall time is ``unix_s``: it is in what others are
told, and Redis' clock tells it, by which leases lapse and claims of the leader key end.
"""
