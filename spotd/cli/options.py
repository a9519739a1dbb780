"""The options that the small commands share, and how a command runs until it is stopped.

Talks to nothing itself. Must not require Alpaca keys, since the small commands need none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

import click
from pydantic import SecretStr

from spotd.client import SpotClient
from spotd.ops.stop_signals import stop_on_signals
from spotd.redis.observer import Observer
from spotd.settings import Settings

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


def observer_of(settings: Settings) -> Observer:
    """Return what reads the names of the daemon that these settings describe.

    Raises SettingsError.
    """
    return Observer(settings.redis_url.get_secret_value(), settings.keys)


def until_stopped(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a body until it ends, or until a signal that asks to stop cancels it. None is a failure.

    Since the signals cancel the body, it removes its leases from Redis before it ends.
    """

    async def supervise() -> None:
        task = asyncio.ensure_future(body())
        stop_on_signals(asyncio.get_running_loop(), task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(supervise())
