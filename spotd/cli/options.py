"""What the small commands share: where Redis is, and how an asynchronous body is run.

Talks to nothing itself. The commands need no Alpaca keys, so none of this asks for them.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import click
from pydantic import SecretStr

from spotd.client import SpotClient
from spotd.errors import SettingsError
from spotd.settings import Settings

T = TypeVar("T")

redis_url_option = click.option(
    "--redis-url",
    metavar="URL",
    help="The address of Redis. Better in SPOTD_REDIS_URL when it holds a password: other users of "
    "the machine can see arguments.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON, for programs.")


def load_settings(redis_url: str | None = None) -> Settings:
    """All settings, with another Redis where one is named. Raises SettingsError."""
    settings = Settings.load()
    if redis_url is None:
        return settings
    return settings.model_copy(update={"redis_url": SecretStr(redis_url)})


@asynccontextmanager
async def client_of(settings: Settings, *, subscribing: bool = False) -> AsyncIterator[SpotClient]:
    """A client for the daemon that these settings describe. Raises SettingsError.

    A cluster answers single calls; to subscribe, redis-py needs one of its nodes.
    """
    url = settings.redis_url.get_secret_value()
    redis = None
    topology = url.partition("://")[0].partition("+")[2]
    if topology == "cluster" and subscribing:
        raise SettingsError(
            "in a cluster this command needs one node's address, of the node that holds spotd's "
            "keys: --redis-url redis://host:port"
        )
    if topology in ("sentinel", "cluster"):
        from spotd.redis.addresses import connect  # noqa: PLC0415 - the others need not wait for it

        redis = connect(url)
    try:
        async with SpotClient(
            url,
            key_prefix=settings.key_prefix,
            channel_prefix=settings.channel_prefix,
            redis=redis,
        ) as spot:
            yield spot
    finally:
        if redis is not None:
            await redis.aclose()


def complete(body: Coroutine[Any, Any, T]) -> T:
    """Run a body that ends by itself."""
    return asyncio.run(body)


def until_stopped(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a body until it ends, or SIGINT or SIGTERM cancels it; both are a good end.

    The signals cancel the body, so that what it holds in Redis is removed on the way out.
    """

    async def supervise() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(body())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(supervise())
