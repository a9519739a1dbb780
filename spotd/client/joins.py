"""Decides what one connection subscribes to, which stored values are fetched when, what is newer.

The rule of the contract for joining without a gap: SUBSCRIBE is confirmed, then the stored values
are fetched, then what is not newer than what was told is dropped. A price is newer by its ``seq``.
A state has no ``seq``. The daemon announces each change in the order of the changes, in the step
that stores it. As a consequence, a stored state is the older one where a message of the same
symbol came after the fetch began, and is dropped then.

Must not talk to anything, and must not call a reader: whoever asks here does that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from spotd.client.channels import Channels, Commands
from spotd.client.listener import FollowerListener
from spotd.keys import Keys
from spotd.models import DaemonStatus


def _pass() -> None:
    """Do nothing about a join."""


class Told:
    """The newest bytes of one fact that a reader was told; None: there is no such fact."""

    __slots__ = ("_heard", "raw")

    def __init__(self) -> None:
        self.raw: bytes | None = None
        self._heard = False

    def forget(self) -> None:
        """Take note that nothing was told: what comes is news, also that there is no such fact."""
        self.raw = b""  # no JSON, so it differs from whatever comes

    def fetch(self) -> None:
        """Take note that the stored value is fetched from now on."""
        self._heard = False

    def hear(self, raw: bytes | None) -> bool:
        """Return whether what a message says differs from what was told, and keep it."""
        self._heard = True
        return self._keep(raw)

    def fetched(self, raw: bytes | None) -> bool:
        """Return whether what was stored is newer than what was told, and keep it then."""
        return not self._heard and self._keep(raw)

    def _keep(self, raw: bytes | None) -> bool:
        before, self.raw = self.raw, raw
        return raw != before


class Follow:
    """One symbol of one reader. A new one is made where the symbol is added again."""

    __slots__ = ("gone", "reader", "seq", "state", "symbol")

    def __init__(self, reader: Reader, symbol: str) -> None:
        self.reader = reader
        self.symbol = symbol
        self.seq = -1
        self.state = Told()
        self.gone = False

    def is_news(self, seq: int) -> bool:
        """Return whether a price is newer than what was told, and take note of it."""
        if seq <= self.seq or self.gone:
            return False
        self.seq = seq
        return True


class Reader:
    """One listener with its symbols.

    ``events``: it is told the states of its symbols, and the status. ``everything``: instead, it is
    told all states, also those of symbols and entries that it does not follow. ``ended`` is called
    before the listener is told that the state of one of its symbols has ended. ``joined`` is called
    whenever the listener was told the stored values of all that it follows.
    """

    def __init__(
        self,
        listener: FollowerListener,
        failed: Callable[[BaseException], None],
        *,
        events: bool = False,
        everything: bool = False,
        ended: Callable[[str], None] | None = None,
        joined: Callable[[], None] = _pass,
    ) -> None:
        self.listener = listener
        self.failed = failed
        self.ended = ended
        self.joined = joined
        self.events = events or everything
        self.everything = everything
        self.follows: dict[str, Follow] = {}
        self.status = Told()
        self.daemon: DaemonStatus | None = None  # what ``status`` says
        self.heard: set[str] | None = None  # while all states are fetched: entries with a message
        self.connected: bool | None = None  # what it was told of the connection
        self.unjoined: set[Follow] = set()
        self.fetches_own = self.events  # status, and all states: not fetched yet

    @property
    def is_joined(self) -> bool:
        """Return whether the stored values of all that it follows were fetched."""
        return not self.unjoined and not self.fetches_own


class Batch(NamedTuple):
    """What is fetched in one go: readers with their status (and all states), and symbols."""

    readers: list[Reader]
    follows: list[Follow]

    def begin(self) -> None:
        """Take note that the fetch begins: what messages say from now on is newer."""
        for reader in self.readers:
            reader.status.fetch()
            reader.heard = set()
        for follow in self.follows:
            follow.state.fetch()

    @property
    def everything(self) -> bool:
        """Return whether a reader asks for the states of everything."""
        return any(reader.everything for reader in self.readers)

    def by_symbol(self, *, events: bool = False) -> dict[str, list[Follow]]:
        """Return each symbol once; with ``events``, only those whose state is asked for."""
        found: dict[str, list[Follow]] = {}
        for follow in self.follows:
            if follow.reader.events or not events:
                found.setdefault(follow.symbol, []).append(follow)
        return found


class Joins:
    """All readers of one client, and the channels of its present connection."""

    def __init__(self, keys: Keys) -> None:
        self.readers: dict[Reader, None] = {}  # in the order in which they came
        self.events_channel = keys.events.encode()
        self._keys = keys
        self._follows: dict[bytes, tuple[Follow, ...]] = {}
        self._channels = Channels()
        self._changed: dict[bytes, None] = {}
        self._due: dict[Reader | Follow, None] = {}

    # Readers and their symbols

    def attach(self, reader: Reader, symbols: Iterable[str] = ()) -> None:
        """Take in a new reader with its first symbols."""
        self.readers[reader] = None
        if reader.events:
            self._change(self.events_channel)
            self._check_due(reader)
        self.add(reader, symbols)

    def detach(self, reader: Reader) -> None:
        """Forget a reader, if it is known."""
        if reader not in self.readers:
            return
        self.remove(reader, tuple(reader.follows))
        del self.readers[reader]
        self._due.pop(reader, None)
        if reader.events:
            self._change(self.events_channel)

    def add(self, reader: Reader, symbols: Iterable[str]) -> None:
        """Have a reader follow symbols, those that it does not follow yet."""
        for symbol in symbols:
            if symbol in reader.follows:
                continue
            follow = reader.follows[symbol] = Follow(reader, symbol)
            reader.unjoined.add(follow)
            channel = self._channel(symbol)
            self._follows[channel] = (*self._follows.get(channel, ()), follow)
            self._change(channel)
            self._check_due(follow)

    def remove(self, reader: Reader, symbols: Iterable[str]) -> None:
        """End what ``add`` began; symbols that the reader does not follow are passed over."""
        for symbol in symbols:
            follow = reader.follows.pop(symbol, None)
            if follow is None:
                continue
            follow.gone = True
            reader.unjoined.discard(follow)
            self._due.pop(follow, None)
            channel = self._channel(symbol)
            left = tuple(other for other in self._follows[channel] if other is not follow)
            if left:
                self._follows[channel] = left
            else:
                del self._follows[channel]
            self._change(channel)

    # One connection

    def reconnect(self) -> None:
        """Begin with a new connection, on which nothing is subscribed and nothing fetched."""
        self._channels = Channels()
        self._due.clear()
        self._changed = dict.fromkeys((self.events_channel, *self._follows))
        for reader in self.readers:
            reader.fetches_own = reader.events
            reader.unjoined.update(reader.follows.values())

    def commands(self) -> Commands:
        """Return what to send to the server, which counts as sent."""
        changed, self._changed = self._changed, {}
        return self._channels.commands(changed, self._is_wanted)

    def confirmed(self, channel: bytes) -> None:
        """Take in that the server has confirmed a SUBSCRIBE or UNSUBSCRIBE of one channel."""
        self._channels.confirmed(channel)
        if channel != self.events_channel:
            for follow in self._follows.get(channel, ()):
                self._check_due(follow)
            return
        for reader in self.readers:
            if reader.events:
                self._check_due(reader)
                for follow in reader.unjoined:
                    self._check_due(follow)

    # Stored values

    def due(self, most: int) -> Batch | None:
        """Return what is to be fetched now, at most ``most`` symbols; None: nothing."""
        if not self._due:
            return None
        batch: Batch = Batch([], [])
        for each in tuple(self._due):
            if isinstance(each, Reader):
                batch.readers.append(each)
            elif len(batch.follows) < most:
                batch.follows.append(each)
            else:
                continue
            del self._due[each]
        return batch

    def joined(self, batch: Batch) -> list[Reader]:
        """Take in that a batch was fetched. Return the readers that are joined by it."""
        readers = dict.fromkeys(batch.readers)
        for reader in batch.readers:
            reader.fetches_own = False
            reader.heard = None
        for follow in batch.follows:
            follow.reader.unjoined.discard(follow)
            readers[follow.reader] = None
        return [reader for reader in readers if reader.is_joined]

    def checks(self, most: int) -> list[Batch]:
        """Return what is fetched now and then because its end is not announced.

        These are the status and the states of those readers that do not ask for everything.
        """
        readers = [r for r in self.readers if r.events and not r.everything]
        joined = [f for r in readers for f in r.follows.values() if f not in r.unjoined]
        if not readers:
            return []
        rest = range(most, len(joined), most)
        return [
            Batch(readers, joined[:most]),
            *(Batch([], joined[start : start + most]) for start in rest),
        ]

    # Messages

    def followers(self, channel: bytes) -> tuple[Follow, ...]:
        """Return who follows the symbol of a channel."""
        return self._follows.get(channel, ())

    def heard_state(self, symbol: str, raw: bytes | None) -> list[Reader]:
        """Return whom to tell what a message says of an entry's state; None: it has ended."""
        readers = []
        for reader in self.readers:
            if reader.everything:
                if reader.heard is not None:
                    reader.heard.add(symbol)
                readers.append(reader)
                continue
            follow = reader.follows.get(symbol) if reader.events else None
            if follow is not None and follow.state.hear(raw):
                readers.append(reader)
        return readers

    def heard_gap(self) -> list[Reader]:
        """Return whom to tell of a gap."""
        return [reader for reader in self.readers if reader.events]

    def heard_status(self, raw: bytes) -> list[Reader]:
        """Return whom to tell what a message says of the daemon."""
        return [reader for reader in self.readers if reader.events and reader.status.hear(raw)]

    def _channel(self, symbol: str) -> bytes:
        return self._keys.channel(symbol).encode()

    def _change(self, channel: bytes) -> None:
        self._changed[channel] = None

    def _is_wanted(self, channel: bytes) -> bool:
        if channel == self.events_channel:
            return any(reader.events for reader in self.readers)
        return channel in self._follows

    def _check_due(self, each: Reader | Follow) -> None:
        """Take note that something is to be fetched, if all its channels are subscribed."""
        subscribed = self._channels.is_subscribed
        if isinstance(each, Reader):
            waits, is_due = each.fetches_own, subscribed(self.events_channel)
        else:
            waits = each in each.reader.unjoined
            is_due = subscribed(self._channel(each.symbol)) and (
                not each.reader.events or subscribed(self.events_channel)
            )
        if waits and is_due:
            self._due[each] = None
