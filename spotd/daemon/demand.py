"""Reads the demand every half second, and at once when it is woken. Never writes it.

A demand may be the whole market. It is therefore read in slices, and not at all while its digest
is the same, and only what changed since the last read is taken in. Core decides what follows from a
change. All of it is carried out in one turn of the event loop, so no other task finds a part of it
done. Where thousands of symbols leave, core makes several changes of one, and prices go out between
them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import msgspec
import structlog

from spotd.core.demand import (
    Demand,
    DemandStep,
    demands_between,
    keeps_room,
    step_between,
)
from spotd.core.demand_reader import DemandReader, Subscribers
from spotd.core.leadership import Leadership
from spotd.core.leases import FAR_AHEAD_S, DoubtfulLease, LeaseDoubt, LeaseDoubts
from spotd.core.states import StreamState
from spotd.daemon.prices import Prices
from spotd.daemon.value import Value, WakeUp, beat_before
from spotd.errors import RedisUnavailableError
from spotd.models import SpotPriceUpdate, SymbolState
from spotd.redis.demand import DemandRead, LeasesRead, SameDemand
from spotd.redis.errors import RefusedError
from spotd.redis.port import MAX_FIELDS_PER_CALL, RedisPort
from spotd.symbols import as_written

READ_EVERY_S = 0.5
WHOLE_EVERY_S = 10.0  # a demand that did not change is taken in again, whatever its digest says
LINGER_S = 10.0  # how long a channel is demand, at least, after its last subscriber left
_SLICE = MAX_FIELDS_PER_CALL  # entries taken in before other tasks get their turn
_PAUSE_IN_ROW_S = 0.02  # between two changes of a row: prices are taken in and published
_DOUBTS: dict[LeaseDoubt, str] = {
    "lapsed": "a lease had lapsed before it came: unix time in seconds? a clock that is right?",
    "far": "a lease lapses more than a year ahead: unix time in seconds?",
}

log = structlog.get_logger("spotd.demand")


class DemandLoop:
    """The loop that reads the entries in Redis and publishes the demand as one value.

    ``follow`` carries out what follows from a change, in the same turn as the value is set.
    """

    def __init__(
        self,
        port: RedisPort,
        prices: Prices,
        *,
        demand: Value[Demand],
        leadership: Value[Leadership],
        stream: Value[StreamState],
        follow: Callable[[Demand, DemandStep], None],
        allow_wildcard: bool,
        subscribers_are_demand: bool,
        max_symbols: int | None = None,
        linger_s: float = LINGER_S,
        read_every_s: float = READ_EVERY_S,
    ) -> None:
        self._port = port
        self._prices = prices
        self._demand = demand
        self._leadership = leadership
        self._stream = stream
        self._follow = follow
        self._subscribers_are_demand = subscribers_are_demand
        self._subscribers = Subscribers(linger_s)
        self._read_every_s = read_every_s
        # The entries that each source had last. They stand while the source cannot be read.
        self._known: dict[str, set[bytes]] = {"symbols": set(), "leases": set(), "channels": set()}
        self._reader = DemandReader(allow_wildcard=allow_wildcard, max_symbols=max_symbols)
        self.lease_doubts = LeaseDoubts()
        self._leases_read_unix_s = 0.0  # by Redis' clock
        # Of the demand that was taken in last; empty: it is not known, or was not taken in whole.
        self._digest = b""
        self._taken_in = 0  # slices of entries that came or left
        self._whole_at = 0.0  # when a demand of that digest is read nevertheless
        self._floors_of_term = 0
        self._were_live: frozenset[str] = frozenset()  # for the daemon that led before
        self._followed_reign: int | None = None
        self._unreadable: dict[str, str] = {}  # source to why
        self.wake_up = WakeUp()
        leadership.wakes(self.wake_up)

    async def run(self) -> None:
        """Read the demand while we lead."""
        while True:
            if self._leadership.get().may_publish(time.monotonic()):
                await self._read_all()
            await self.wake_up.wait(beat_before(time.monotonic() + self._read_every_s))

    async def _read_all(self) -> None:
        term = self._leadership.get().term
        # While Redis does not answer, the demand that was read last stands.
        with suppress(RedisUnavailableError):
            begins = self._floors_of_term != term
            if begins:
                self.lease_doubts.begin()
            now = time.monotonic()
            known = b"" if begins or now >= self._whole_at else self._digest
            taken_in = self._taken_in
            read = await self._port.demand(known, far_s=FAR_AHEAD_S)
            if isinstance(read, SameDemand):
                self._see_clock(read.unix_s)
                if not self._subscribers_are_demand:
                    return
            else:
                self._digest = b""
                await self._read_entries(read)
            if self._subscribers_are_demand:
                await self._read("channels", self._channels())
            if begins:
                # No snapshot is taken in before the demand of this term is published. As a
                # consequence, each one is compared with these floors.
                self._prices.set_floors(_times(await self._port.last_prices()))
                # The states of this term are written only after its demand is published. As a
                # consequence, these are what the daemon that led before left.
                states = await self._port.states()
                self._were_live = _live_in(states)
                self._prices.take_over_halts(_halted_since(states))
                self._floors_of_term = term
            await self._apply(term)
            nothing_new = self._taken_in == taken_in
            if isinstance(read, DemandRead) and self._is_whole(read, nothing_new=nothing_new):
                self._digest, self._whole_at = read.digest, now + WHOLE_EVERY_S

    async def _read_entries(self, read: DemandRead | None) -> None:
        """Take in set and leases. ``read``: as they were read already, None: they were not."""
        entries = self._port.demand_set() if read is None else self._port.demand_entries(read)
        await self._read("symbols", entries)
        await self._read("leases", self._leases(None if read is None else read.leases))

    def _is_whole(self, read: DemandRead, *, nothing_new: bool) -> bool:
        """Return whether what we know is what the digest of ``read`` tells.

        A scan may end early. What changed while it was scanned may have changed back, so of scans
        only one that found nothing new counts.
        """
        known = self._known
        sizes = len(known["symbols"]), len(known["leases"])
        has_all = sizes == (read.size, read.leased) and not self._unreadable
        return has_all and (read.at_once or nothing_new)

    async def _apply(self, term: int) -> None:
        """Publish the demand that was read, and carry out what follows, in one or more steps."""
        began = self._demand.get()
        unreadable = next(iter(self._unreadable.values()), None)
        read = replace(self._reader.result(term), unreadable=unreadable)
        if read == began:
            return
        active = self._stream.get().subscriptions.active
        for after in demands_between(began, read, active=active):
            if not self._step(after):
                return  # the demand was read in a term that is over
            if after is not read:
                await asyncio.sleep(_PAUSE_IN_ROW_S)
        if read.symbols != began.symbols:
            log.info(
                "the demand changed",
                symbols=len(read.symbols),
                added=len(read.symbols - began.symbols),
                removed=len(began.symbols - read.symbols),
            )
        if read.refused_count != began.refused_count:
            log.info("entries of the demand are refused", count=read.refused_count)

    def _step(self, after: Demand) -> bool:
        """Publish a demand of the present term, and carry out what follows in the same turn.

        Return False where the term is over.
        """
        leadership = self._leadership.get()
        if leadership.term != after.term or not leadership.may_publish(time.monotonic()):
            return False
        subscriptions = self._stream.get().subscriptions
        step = step_between(
            self._demand.get(),
            after,
            active=subscriptions.active,
            priced=self._prices.cache.slots.keys(),
            limited=subscriptions.limited,
            were_live=self._were_live if leadership.reign != self._followed_reign else None,
        )
        self._followed_reign = leadership.reign
        self._demand.set(after)
        self._follow(after, step)
        return True

    # Reading

    async def _read(self, source: str, slices: AsyncIterator[Sequence[bytes]]) -> None:
        try:
            await self._compare(source, slices)
        except RefusedError as error:
            if source not in self._unreadable:
                self._unreadable[source] = f"cannot read the demand in {source}: {error}"
                log.error("cannot read a source of the demand", source=source, why=str(error))
        else:
            if source in self._unreadable:
                del self._unreadable[source]
                log.info("can read the source of the demand again", source=source)

    async def _compare(self, source: str, slices: AsyncIterator[Sequence[bytes]]) -> None:
        """Take in the entries that came and left, once the source was read to its end.

        After a fail-over a scan may go on at another server and end early. Redis is therefore asked
        by name whether entries that the scan did not find have left.
        """
        known = self._known[source]
        seen: set[bytes] = set()
        new: set[bytes] = set()
        async for some in slices:
            found = set(some)
            seen |= found
            new |= found - known
        # ``seen`` without ``new`` is what stayed. Where that is all of ``known``, nothing left.
        gone = list(known - seen) if len(seen) - len(new) < len(known) else []
        if new:
            await self._take_in(source, list(new))
        async for some in _slices(gone):
            await self._take_in(source, await self._left(source, some), left=True)

    async def _left(self, source: str, entries: list[bytes]) -> list[bytes]:
        """Return those of the entries that have left the source."""
        if source == "symbols":
            return await self._port.not_in_set(entries)
        if source == "leases":
            return await self._port.not_leased(entries, self._leases_read_unix_s)
        return entries  # all channels came in one answer, so none of the others is subscribed

    async def _take_in(self, source: str, entries: list[bytes], *, left: bool = False) -> None:
        if not entries:
            return
        self._taken_in += 1
        known, reader = self._known[source], self._reader
        take: Callable[[Iterable[bytes]], None]
        match source:
            case "leases":
                take = reader.remove_leases if left else reader.add_leases
            case "channels":
                take = reader.remove_channels if left else reader.add_channels
            case _:
                take = reader.remove if left else reader.add
        async for some in _slices(entries):
            take(some)
            if left:
                known.difference_update(some)
            else:
                known.update(some)

    async def _leases(self, read: LeasesRead | None) -> AsyncIterator[Sequence[bytes]]:
        """Yield the leases in slices. ``read``: as they were read already, None: they were not."""
        if read is None:
            read = await self._port.leases(far_s=FAR_AHEAD_S)
        self._see_clock(read.unix_s)
        _log_doubts(self.lease_doubts.lapsed(read.lapsed, read.unix_s))
        _log_doubts(self.lease_doubts.far(read.far, read.unix_s))
        async for some in _slices(read.live):
            yield some

    def _see_clock(self, unix_s: float) -> None:
        if unix_s < self._leases_read_unix_s:
            # The clock was set back, or it is another server's: what lapses does so once more.
            self.lease_doubts.begin()
        self._leases_read_unix_s = unix_s

    async def _channels(self) -> AsyncIterator[Sequence[bytes]]:
        channels = await self._port.subscribed_channels()
        async for some in _slices(list(self._subscribers.seen(channels, time.monotonic()))):
            yield some


async def _slices(entries: list[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield some entries at a time, with a turn for other tasks after each."""
    for start in range(0, len(entries), _SLICE):
        yield entries[start : start + _SLICE]
        if start + _SLICE < len(entries):
            await asyncio.sleep(0)


def _log_doubts(leases: Iterable[DoubtfulLease]) -> None:
    for lease in leases:
        log.warning(
            _DOUBTS[lease.kind],
            owner=as_written(lease.owner),
            lease=as_written(lease.member),
            lapses_in=f"{lease.lapses_in_s:.0f} s",
        )


def _live_in(states: Iterable[bytes]) -> frozenset[str]:
    """Return the symbols that keep their room, without states that are malformed."""
    live = set()
    for raw in states:
        with suppress(msgspec.DecodeError):
            state = SymbolState.from_json(raw)
            if keeps_room(state):
                live.add(state.symbol)
    return frozenset(live)


def _times(published: Iterable[bytes]) -> dict[str, datetime]:
    """Return the exchange time of each update, without those that are malformed."""
    times = {}
    for raw in published:
        with suppress(msgspec.DecodeError):
            update = SpotPriceUpdate.from_json(raw)
            times[update.symbol] = update.timestamp
    return times


def _halted_since(states: Iterable[bytes]) -> dict[str, datetime]:
    """Return since when symbols are halted, without states that are malformed."""
    halted = {}
    for raw in states:
        if b'"halted"' not in raw:  # nearly all, and decoding takes a hundred times as long
            continue
        with suppress(msgspec.DecodeError):
            state = SymbolState.from_json(raw)
            if state.state == "halted":
                halted[state.symbol] = state.since
    return halted
