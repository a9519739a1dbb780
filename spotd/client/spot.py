"""Spot, the synchronous twin of ``SpotClient``, for scripts, notebooks and threads.

It runs a ``SpotClient`` on an event loop in a thread of its own. Must not talk to Redis itself.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Generic, Literal, Self, TypeVar, overload

from spotd.client.async_iteration import AsyncIteration
from spotd.client.background import Background
from spotd.client.client import SpotClient
from spotd.client.closing import ClosedByWith
from spotd.client.iterations import Event, Iteration
from spotd.models import DaemonStatus, SpotPriceUpdate, SymbolState

T = TypeVar("T")


class SyncIteration(ClosedByWith, Iterator[T], Generic[T]):
    """What ``updates`` and ``events`` of a ``Spot`` return: an iterator, as of a generator.

    Several threads may take from it: each value goes to one of them. It ends with ``close``, with
    its ``with``, with the client, with an error, and when it is collected.
    """

    def __init__(
        self, background: Background, iteration: Iteration[T], timeout: float | None
    ) -> None:
        self._background = background
        self._iteration = iteration
        self._timeout = timeout
        self._changed = threading.Condition()
        self._opening = threading.Lock()
        iteration.wake = _waking(self._changed)
        weakref.finalize(self, _close_later, background, iteration).atexit = False

    @property
    def skipped(self) -> int:
        """How many values were replaced by newer ones before they were taken."""
        return self._iteration.skipped

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        iteration = self._iteration
        self._background.check_process()
        until = None if self._timeout is None else time.monotonic() + self._timeout
        if not iteration.opened:
            with self._opening:
                # Another thread may have opened it meanwhile, and the client may be closed by now.
                if not iteration.opened:
                    self._background.call(iteration.open(), self._timeout)
        with self._changed:
            while True:
                if (value := iteration.take()) is not None:
                    return value
                if iteration.closed:
                    raise StopIteration
                if (defect := iteration.defect) is not None:
                    break
                self._wait(until)
        self.close()
        raise defect

    def close(self) -> None:
        """End it, and the leases with it. May be called twice."""
        if not self._iteration.closed:
            with suppress(RuntimeError):  # the client is closed, and this with it
                self._background.call(self._iteration.aclose())

    def _wait(self, until: float | None) -> None:
        left_s = None if until is None else until - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise TimeoutError(f"nothing came in {self._timeout:g} s")
        times = [s for s in (left_s, self._iteration.wait_s()) if s is not None]
        self._changed.wait(min(times, default=None))


class Spot(ClosedByWith):
    """The newest prices of any symbols, without ``await``::

        with Spot("redis://127.0.0.1:6379/0") as spot:
            for update in spot.updates("SPY", "QQQ"):
                print(update.symbol, update.mid_price)

    The arguments and calls are those of ``SpotClient``, but for ``redis``, ``follow`` and
    ``aclose``, which is ``close`` here. Several threads may use one Spot. It works in a notebook
    too, where a loop runs already. Without ``close`` it ends with the interpreter.
    A process that is forked needs a Spot of its own: in it, this one raises RuntimeError.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        key_prefix: str = "spotd:",
        channel_prefix: str = "spot:",
        owner: str | None = None,
        lease_ttl_s: float = 30.0,
        heartbeat_s: float = 10.0,
        warn_after_s: float = 5.0,
    ) -> None:
        self._client = SpotClient(
            url,
            key_prefix=key_prefix,
            channel_prefix=channel_prefix,
            owner=owner,
            lease_ttl_s=lease_ttl_s,
            heartbeat_s=heartbeat_s,
            warn_after_s=warn_after_s,
        )
        self._background = Background()
        # Also at the interpreter's end, where the leases are removed.
        self._end = weakref.finalize(self, _end, self._background, self._client)

    def __repr__(self) -> str:
        return repr(self._client).replace("SpotClient", "Spot", 1)

    def close(self) -> None:
        """End all iterations, remove all leases, close the connections, end the thread.

        May be called twice; see ``SpotClient.aclose``. Calls that other threads wait for raise
        RuntimeError.
        """
        self._end()
        self._background.close()  # another thread may have begun to close

    @property
    def owner(self) -> str:
        """What stands behind the ``@`` in the leases."""
        return self._client.owner

    @property
    def malformed(self) -> int:
        """See ``SpotClient.malformed``."""
        return self._client.malformed

    @property
    def conflated(self) -> int:
        """See ``SpotClient.conflated``."""
        return self._client.conflated

    @property
    def reconnects(self) -> int:
        """See ``SpotClient.reconnects``."""
        return self._client.reconnects

    @overload
    def updates(
        self,
        *symbols: str,
        demand: bool = True,
        timeout: float | None = None,
        max_hz: float | None = None,
        with_states: Literal[False] = False,
    ) -> SyncIteration[SpotPriceUpdate]: ...

    @overload
    def updates(
        self,
        *symbols: str,
        demand: bool = True,
        timeout: float | None = None,
        max_hz: float | None = None,
        with_states: Literal[True],
    ) -> SyncIteration[SpotPriceUpdate | SymbolState]: ...

    def updates(
        self,
        *symbols: str,
        demand: bool = True,
        timeout: float | None = None,
        max_hz: float | None = None,
        with_states: bool = False,
    ) -> SyncIteration[Any]:
        """Yield prices, and states where asked; see ``SpotClient.updates``."""
        options: dict[str, Any] = {"demand": demand, "max_hz": max_hz, "with_states": with_states}
        return self._iterate(
            lambda: self._client.updates(*symbols, timeout=timeout, **options), timeout
        )

    def events(self, *, timeout: float | None = None) -> SyncIteration[Event]:
        """Yield states, then every change of them; see ``SpotClient.events``."""
        return self._iterate(lambda: self._client.events(timeout=timeout), timeout)

    def want(self, *symbols: str) -> AbstractContextManager[None]:
        """Demand symbols while a ``with`` runs; see ``SpotClient.want``."""
        return self._want(self._run(_result(lambda: self._client.want(*symbols))))

    def latest(self, *symbols: str) -> dict[str, SpotPriceUpdate | None]:
        """Return last known prices; see ``SpotClient.latest``."""
        return self._run(self._client.latest(*symbols))

    def status(self) -> DaemonStatus | None:
        """Return the status of the daemon; see ``SpotClient.status``."""
        return self._run(self._client.status())

    def states(self) -> dict[str, SymbolState]:
        """Return all states; see ``SpotClient.states``."""
        return self._run(self._client.states())

    def wait_live(self, *symbols: str, timeout: float | None = 30.0) -> dict[str, SymbolState]:
        """Wait until all symbols are live; see ``SpotClient.wait_live``."""
        return self._run(self._client.wait_live(*symbols, timeout=timeout))

    def frame(self, *symbols: str) -> Any:
        """Return last known prices as a pandas DataFrame; see ``SpotClient.frame``."""
        return self._run(self._client.frame(*symbols))

    def desired(self) -> set[str]:
        """Return the demand; see ``SpotClient.desired``."""
        return self._run(self._client.desired())

    def add(self, *symbols: str) -> list[str]:
        """Demand symbols until ``remove``; see ``SpotClient.add``."""
        return self._run(self._client.add(*symbols))

    def remove(self, *symbols: str) -> list[str]:
        """End what ``add`` began; see ``SpotClient.remove``."""
        return self._run(self._client.remove(*symbols))

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._background.call(coroutine)

    def _iterate(
        self, begin: Callable[[], AsyncIteration[T]], timeout: float | None
    ) -> SyncIteration[T]:
        return SyncIteration(self._background, self._run(_result(begin)).iteration, timeout)

    @contextmanager
    def _want(self, wanted: Any) -> Iterator[None]:
        self._run(wanted.__aenter__())
        try:
            yield
        finally:
            with suppress(RuntimeError):  # closed meanwhile, and the leases removed
                self._run(wanted.__aexit__(None, None, None))


async def _result(of: Callable[[], T]) -> T:
    """Return what a function returns, to call it on the loop."""
    return of()


def _waking(changed: threading.Condition) -> Callable[[], None]:
    """Return a function that wakes the threads that wait. It does not hold the iterator."""

    def wake() -> None:
        with changed:
            changed.notify_all()

    return wake


def _close_later(background: Background, iteration: Iteration[Any]) -> None:
    """Close a collected iteration without waiting, since any thread may collect."""
    background.begin(iteration.aclose)


def _end(background: Background, client: SpotClient) -> None:
    """Close the client and the thread; if this runs on that thread, without waiting for it."""
    if background.is_here:
        background.begin(client.aclose)
    else:
        with suppress(RuntimeError):
            background.call(client.aclose())
    background.close()
