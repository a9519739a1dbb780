"""Reads what a process says over HTTP. Whether it is true is decided elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from tests.soak.moment import Said
from tests.soak.processes import Process

_NUMBER = r"\s(\S+)$"
_LEADER = re.compile(r"^spotd_leader" + _NUMBER, re.MULTILINE)
_CONNECTED = re.compile(r"^spotd_stream_connected" + _NUMBER, re.MULTILINE)
_PUBLISHED = re.compile(r"^spotd_updates_published_total" + _NUMBER, re.MULTILINE)
_QUOTES = re.compile(r"^spotd_quotes_received_total" + _NUMBER, re.MULTILINE)
_TRADES = re.compile(r"^spotd_trades_received_total" + _NUMBER, re.MULTILINE)
_SYMBOLS = re.compile(r'^spotd_symbols\{state="(\w+)"\}' + _NUMBER, re.MULTILINE)
_BREAKER = re.compile(r"^spotd_breaker_state\{.*\}" + _NUMBER, re.MULTILINE)


async def _page(http: aiohttp.ClientSession, process: Process, path: str) -> tuple[int, str]:
    async with http.get(f"http://127.0.0.1:{process.command.http_port}{path}") as answer:
        return answer.status, await answer.text()


async def _answered(asked: Awaitable[Any]) -> Any:
    try:
        return await asked
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


async def ready(http: aiohttp.ClientSession, process: Process) -> bool | None:
    """Return whether ``/readyz`` answers 200, None where nothing answers."""
    found = await _answered(_page(http, process, "/readyz"))
    return None if found is None else found[0] == 200


async def said_by(http: aiohttp.ClientSession, process: Process) -> Said | None:
    """Return what a daemon says, None where it does not answer, or another process does."""
    if process.frozen or not process.running:
        return None
    pages: list[Callable[[], Awaitable[Any]]] = [
        lambda path=path: _page(http, process, path)  # type: ignore[misc]
        for path in ("/status", "/readyz", "/metrics")
    ]
    found = [await _answered(page()) for page in pages]
    if None in found or process.frozen:
        return None
    (_, status), (ready, reasons), (_, metrics) = found
    told = json.loads(status)
    if f"-{process.pid}-" not in told["instance"]:
        return None  # another program took the port before it
    return Said(
        state=told["state"],
        code=told.get("code"),
        instance=told["instance"],
        leader=bool(float(_found(_LEADER, metrics))),
        connected=bool(float(_found(_CONNECTED, metrics))),
        ready=ready == 200,
        reasons=reasons,
        quotes=int(float(_found(_QUOTES, metrics))),
        trades=int(float(_found(_TRADES, metrics))),
        published=int(float(_found(_PUBLISHED, metrics))),
        symbols={state: int(float(number)) for state, number in _SYMBOLS.findall(metrics)},
        breaker=told["breaker"],
        breaker_metric=float(_found(_BREAKER, metrics)),
    )


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return "0" if match is None else match[1]
