"""A port whose limits only guard against hanging, for tests that are not about limits."""

from __future__ import annotations

from typing import Any

from spotd.keys import Keys
from spotd.redis.port import RedisPort
from tests.kit.waiting import GUARD_S


def patient(url: str, keys: Keys, **options: Any) -> RedisPort:
    """Return a port that waits for a busy machine."""
    limits = {"call_timeout_s": GUARD_S, "connect_timeout_s": GUARD_S}
    return RedisPort(url, keys, **(limits | options))
