"""The options that the small commands share, and how a command runs until it is stopped.

Talks to nothing itself. Must not require Alpaca keys, since the small commands need none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from math import isfinite
from typing import Any

import click
from pydantic import SecretStr

from spotd.client import SpotClient, symbols_of
from spotd.ops.stop_signals import stop_on_signals
from spotd.redis.observer import Observer
from spotd.settings import Settings

_MALFORMED = "A symbol is 1 to 8 letters, optionally a dot and 1 to 4 more."
_NO_OWNER = "Name it without an owner: SPY for the lease SPY@service."


class Number(click.FloatRange):
    """A number within bounds. NaN and infinity, which Python reads as numbers, are none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number. Fail as click's own types do."""
        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


POSITIVE = Number(min=0, min_open=True)

redis_url_option = click.option(
    "--redis-url",
    metavar="URL",
    help="The address of Redis. Set SPOTD_REDIS_URL instead if it holds a password: other users of "
    "the machine can see arguments.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


def listed(entries: Iterable[str]) -> tuple[str, ...]:
    """Return symbols as a person lists them: separated by spaces, commas, or both.

    A text that holds no symbol at all stays as it is, so that it is refused by its name.
    """
    return tuple(name for entry in entries for name in (entry.replace(",", " ").split() or [entry]))


def symbols_meant(entries: Iterable[str], *, allow_wildcard: bool = False) -> list[str]:
    """Return the symbols that entries mean, each once. Raises UsageError with all the malformed."""
    entries = tuple(entries)
    try:
        return symbols_of(entries, allow_wildcard=allow_wildcard)
    except ValueError as error:
        hint = f" {_NO_OWNER}" if any("@" in entry for entry in entries) else ""
        raise click.UsageError(f"{error}. {_MALFORMED}{hint}") from error


def load_settings(redis_url: str | None = None) -> Settings:
    """Return all settings, with ``redis_url`` if it is given. Raises SettingsError."""
    settings = Settings.load()
    if redis_url is None:
        return settings
    return settings.model_copy(update={"redis_url": SecretStr(redis_url)})


def client_of(settings: Settings) -> SpotClient:
    """Return a client for the daemon that these settings describe. Raises SettingsError."""
    return SpotClient(
        settings.redis_url.get_secret_value(),
        key_prefix=settings.key_prefix,
        channel_prefix=settings.channel_prefix,
    )


@asynccontextmanager
async def observer_of(settings: Settings) -> AsyncIterator[Observer]:
    """Yield what reads the names of the daemon that these settings describe, and close it.

    Raises SettingsError.
    """
    observer = Observer(settings.redis_url.get_secret_value(), settings.keys)
    try:
        yield observer
    finally:
        await observer.close()


def until_stopped(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a body until it ends, or until a signal that asks to stop cancels it: no failure, either.

    Since such a signal cancels the body, that removes its leases from Redis before it ends.
    """

    async def supervise() -> None:
        task = asyncio.ensure_future(body())
        stop_on_signals(asyncio.get_running_loop(), task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(supervise())
