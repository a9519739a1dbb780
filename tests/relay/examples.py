"""Settings of a relay, by field name."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from spotd.relay.settings import RelaySettings


def settings_of(**fields: Any) -> RelaySettings:
    """Return the defaults but for these fields; ``relay_token`` and ``redis_url`` as text."""
    for name in ("relay_token", "redis_url"):
        if name in fields:
            fields[name] = SecretStr(fields[name])
    return RelaySettings(**fields)
