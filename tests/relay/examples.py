"""Settings of a relay by field name, and requests that are wrong."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from spotd.relay.settings import RelaySettings

# The headers of a websocket's handshake, and the whole request.
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
WEBSOCKET_REQUEST = "\r\n".join(
    ["GET /ws HTTP/1.1", "Host: x", *map(": ".join, HANDSHAKE.items()), "\r\n"]
).encode()

# A body of the POST, the status of its answer, the entries that the answer refuses.
WRONG_BODIES: list[tuple[bytes, int, dict[str, str]]] = [
    (b"", 400, {}),
    (b"{", 400, {}),
    (b'{"symbols":["\xff"]}', 400, {}),
    (b"[]", 422, {}),
    (b"{}", 422, {}),
    (b'{"symbols":"SPY"}', 422, {}),
    (b'{"symbols":[]}', 422, {}),
    (b'{"symbols":["9","*"]}', 422, {"9": "invalid_symbol", "*": "wildcard_not_allowed"}),
    (b'{"symbols":["' + b"S" * 70_000 + b'"]}', 413, {}),
]


def settings_of(**fields: Any) -> RelaySettings:
    """Return the defaults but for these fields; ``relay_token`` and ``redis_url`` as text."""
    for name in ("relay_token", "redis_url"):
        if name in fields:
            fields[name] = SecretStr(fields[name])
    return RelaySettings(**fields)
