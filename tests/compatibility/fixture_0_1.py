"""What 0.1 wrote, as ``python -m tests.compatibility.record`` recorded it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("0.1.json").read_text())
MESSAGES: list[tuple[str, bytes]] = [
    (channel, text.encode()) for channel, text in RECORDED["messages"]
]
PRICES = [(channel, raw) for channel, raw in MESSAGES if channel != "spotd:events"]
EVENTS = [raw for channel, raw in MESSAGES if channel == "spotd:events"]
LAST: dict[str, str] = RECORDED["keys"]["spotd:last"]["value"]
STATES: dict[str, str] = RECORDED["keys"]["spotd:states"]["value"]
STATUS: str = RECORDED["keys"]["spotd:status"]["value"]
TOKEN: str = RECORDED["keys"]["spotd:leader"]["value"]
SEQ = int(RECORDED["keys"]["spotd:seq"]["value"].split()[0])


async def restore(client: Any) -> None:
    """Write every key as 0.1 left it when it was killed, with its TTL."""
    for name, key in RECORDED["keys"].items():
        match key["type"]:
            case "hash":
                await client.hset(name, mapping=key["value"])
            case "set":
                await client.sadd(name, *key["value"])
            case "zset":
                await client.zadd(name, key["value"])
            case _:
                await client.set(name, key["value"])
        if key["pttl"] >= 0:
            await client.pexpire(name, key["pttl"])
