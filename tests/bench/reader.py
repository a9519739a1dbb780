"""The reader of a measurement: a process that subscribes, counts, and notes every lag.

    python -m tests.bench.reader PORT

A blocking socket and hiredis' parser, so that it keeps up with what the daemon publishes. Lag is
from the ``timestamp`` in an update to the moment at which it was received, by the same clock.
Orders (see ``orders``): ``psubscribe``, ``subscribe``, ``count``, and ``lags`` between two counts.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from array import array
from datetime import datetime
from typing import Any

import hiredis

from tests.bench.orders import Json, reply

_CHUNK = 1 << 20
_FIELD = b'"timestamp":'
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_AT_ONCE = 1_000  # channels per command


class Reader:
    """One connection to the server, and all lags of its messages, in microseconds."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.settimeout(10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = hiredis.Reader()
        self._lags = array("q")
        self._seconds: dict[bytes, int] = {}  # "2026-01-20T05:12:00" -> unix microseconds
        self._subscribed = 0
        self._orders = b""

    def run(self) -> None:
        """Read until stdin ends."""
        selector = selectors.DefaultSelector()
        selector.register(self._socket, selectors.EVENT_READ, self._read)
        selector.register(0, selectors.EVENT_READ, self._obey)
        while all(key.data() for key, _ in selector.select(1.0)):
            pass

    # Messages

    def _read(self) -> bool:
        chunk = self._socket.recv(_CHUNK)
        received_us = time.time_ns() // 1_000
        self._parser.feed(chunk)
        get, note, seconds = self._parser.gets, self._lags.append, self._seconds
        while (message := get()) is not False:
            if message[0] not in (b"message", b"pmessage"):
                self._subscribed += 1
                continue
            update: bytes = message[-1]
            # The baselines write a space behind each colon.
            at = update.find(b'"', update.find(_FIELD) + len(_FIELD)) + 1
            second_us = seconds.get(update[at : at + 19])
            if second_us is None:
                second_us = self._learn(update[at : at + 19])
            note(received_us - second_us - int(update[at + 20 : at + 26]))
        return bool(chunk)

    def _learn(self, text: bytes) -> int:
        second = datetime.fromisoformat(text.decode() + "+00:00")
        self._seconds[text] = micros = int(second.timestamp()) * 1_000_000
        return micros

    # Orders

    def _obey(self) -> bool:
        heard = os.read(0, 65_536)
        self._orders += heard
        *lines, self._orders = self._orders.split(b"\n")
        for line in lines:
            order = json.loads(line)
            number, what = order.pop("id"), order.pop("do")
            try:
                reply(number, **getattr(self, what)(**order))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told to who asked
                reply(number, error=f"{type(error).__name__}: {error}")
        return bool(heard)

    def psubscribe(self, pattern: str) -> Json:
        """Hear all channels of a pattern from now on."""
        return self._subscribe(b"PSUBSCRIBE", [pattern])

    def subscribe(self, channels: list[str]) -> Json:
        """Hear these channels from now on."""
        for start in range(0, len(channels), _AT_ONCE):
            self._subscribe(b"SUBSCRIBE", channels[start : start + _AT_ONCE])
        return {}

    def count(self) -> Json:
        """Return how many messages were heard, and when that was, in monotonic seconds."""
        return {"count": len(self._lags), "at": time.monotonic()}

    def lags(self, first: int, end: int) -> Json:
        """Return the spread, in ms, of the lags of messages ``first`` to ``end`` (not included)."""
        some = sorted(self._lags[first:end])
        if not some:
            return {"count": 0}
        last = len(some) - 1
        spread = {name: some[round(last * part)] / 1_000 for name, part in _QUANTILES.items()}
        return {"count": len(some), **spread}

    def forget(self) -> Json:
        """Start anew."""
        del self._lags[:]
        return {}

    def _subscribe(self, command: bytes, names: list[str]) -> Json:
        parts: list[Any] = [command, *(name.encode() for name in names)]
        self._socket.sendall(
            b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)
        )
        wanted, deadline = self._subscribed + len(names), time.monotonic() + 10
        while self._subscribed < wanted and time.monotonic() < deadline:
            self._read()
        return {}


if __name__ == "__main__":
    Reader(int(sys.argv[1])).run()
