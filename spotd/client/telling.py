"""Decodes each message and each stored value once, and tells it to the readers for whom it is new.

``joins`` decides who that is. Must not talk to Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import msgspec

from spotd.client.joins import Batch, Follow, Joins, Reader
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState

T = TypeVar("T")

# msgspec.DecodeError and UnicodeDecodeError are ValueErrors; deep nesting is a RecursionError.
MALFORMED = (ValueError, RecursionError)

_SLICE = 64  # stored values that are told in one turn of the event loop


class _Typed(msgspec.Struct):
    """An event of which only the type is known."""

    type: str


_EVENT: msgspec.json.Decoder[DaemonStatus | SymbolState | Gap] = msgspec.json.Decoder(
    DaemonStatus | SymbolState | Gap
)
_TYPES = {"daemon", "symbol", "gap"}
_TYPED = msgspec.json.Decoder(_Typed)


@dataclass(slots=True)
class Counts:
    """How often something happened, over all that one client reads."""

    malformed: int = 0
    conflated: int = 0
    reconnects: int = 0


class Stored(NamedTuple):
    """What was stored when a batch was fetched.

    ``last`` and ``states`` are in the order of the batch's symbols, ``everything`` holds the states
    of all symbols and entries.
    """

    status: bytes | None
    everything: list[bytes]
    last: list[bytes | None]
    states: list[bytes | None]


class Teller:
    """Tells the listeners of all readers. What cannot be read is counted and dropped."""

    def __init__(self, joins: Joins, counts: Counts) -> None:
        self._joins = joins
        self._counts = counts

    def message(self, channel: bytes, raw: bytes) -> None:
        """Tell what a message says."""
        follows = self._joins.followers(channel)
        if follows:
            self._tell_price(follows, raw)
        elif channel == self._joins.events_channel:
            self._tell_event(raw)

    def stored(self, batch: Batch, stored: Stored) -> Iterator[None]:
        """Tell what was stored, in slices, between which messages may be told."""
        self._tell_stored_status(batch, stored.status)
        yield from self._in_slices(stored.everything, lambda raw: self._tell_any(batch, raw))
        prices = zip(batch.by_symbol().values(), stored.last, strict=False)  # or none
        yield from self._in_slices(prices, lambda price: self._tell_price(*price))
        states = zip(batch.by_symbol(events=True).values(), stored.states, strict=True)
        yield from self._in_slices(states, lambda state: self._tell_stored_state(*state))

    def _in_slices(self, items: Iterable[T], tell: Callable[[T], None]) -> Iterator[None]:
        for number, item in enumerate(items, 1):
            tell(item)
            if number % _SLICE == 0:
                yield

    def _tell_price(self, follows: Iterable[Follow], raw: bytes | None) -> None:
        update = None if raw is None else self._read(SpotPriceUpdate.from_json, raw)
        if update is None or raw is None:
            return
        symbol, seq = update.symbol, update.seq
        for follow in follows:
            if symbol != follow.symbol:
                self._counts.malformed += 1
                return
            if follow.is_news(seq):
                follow.reader.listener.price(update, raw)

    def _tell_event(self, raw: bytes) -> None:
        try:
            event = _EVENT.decode(raw)
        except MALFORMED:
            # Types may be added (the wire contract), so one that is not known is not malformed.
            typed = self._read(_TYPED.decode, raw)
            if typed is not None and typed.type in _TYPES:
                self._counts.malformed += 1
            return
        if isinstance(event, SymbolState):
            self._tell_state(event, raw)
        elif isinstance(event, Gap):
            for reader in self._joins.heard_gap():
                reader.listener.gap(event, raw)
        else:
            self._tell_status(self._joins.heard_status(raw), event, raw)

    def _tell_state(self, state: SymbolState, raw: bytes) -> None:
        ended = state.state == "ended"
        for reader in self._joins.heard_state(state.symbol, None if ended else raw):
            if ended and not reader.everything:
                self._tell_ended(reader, state.symbol)
            else:
                reader.listener.state(state, raw)

    def _tell_stored_status(self, batch: Batch, raw: bytes | None) -> None:
        readers = [reader for reader in batch.readers if reader.status.fetched(raw)]
        if not readers:
            return
        status = None if raw is None else self._read(DaemonStatus.from_json, raw)
        if status is not None or raw is None:
            self._tell_status(readers, status, raw or b"")

    def _tell_status(
        self, readers: Iterable[Reader], status: DaemonStatus | None, raw: bytes
    ) -> None:
        for reader in readers:
            reader.daemon = status
            reader.listener.status(status, raw)

    def _tell_stored_state(self, follows: Iterable[Follow], raw: bytes | None) -> None:
        news = [follow for follow in follows if not follow.gone and follow.state.fetched(raw)]
        if raw is None:
            for follow in news:
                self._tell_ended(follow.reader, follow.symbol)
            return
        state = self._read(SymbolState.from_json, raw) if news else None
        if state is not None:
            for follow in news:
                follow.reader.listener.state(state, raw)

    def _tell_ended(self, reader: Reader, symbol: str) -> None:
        if reader.ended is not None:
            reader.ended(symbol)
        reader.listener.ended(symbol)

    def _tell_any(self, batch: Batch, raw: bytes) -> None:
        state = self._read(SymbolState.from_json, raw)
        if state is None:
            return
        for reader in batch.readers:
            if reader.everything and state.symbol not in (reader.heard or ()):
                reader.listener.state(state, raw)

    def _read(self, decode: Callable[[bytes], T], raw: bytes) -> T | None:
        try:
            return decode(raw)
        except MALFORMED:
            self._counts.malformed += 1
            return None
