"""``spotd check``: settings, Redis and Alpaca, one line each, before the daemon is started.

Talks to Redis and to Alpaca's REST by the daemon's own adapters. Must not connect to the stream,
since an account has one connection and a running daemon holds it. Must leave nothing in Redis.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from spotd.cli.options import load_settings, redis_url_option
from spotd.cli.table import age_text, price_text
from spotd.cli.text import printable
from spotd.errors import AlpacaRefusedError, SettingsError, SnapshotError, SpotdError
from spotd.models import DaemonStatus
from spotd.redaction import Redactor
from spotd.redis.addresses import connect, without_secrets
from spotd.redis.errors import answered, translated
from spotd.redis.rights import as_text, rights_of_daemon
from spotd.settings import Settings

if TYPE_CHECKING:
    from spotd.redis.port import RedisPort

_SYMBOL = "SPY"
_REDIS_LIMIT_S = 10.0
_ALPACA_LIMIT_S = 10.0


class Finding(NamedTuple):
    """One line of output. ``exit_code`` is 0 where the check is ok or was ``skipped``."""

    text: str
    exit_code: int = 0
    skipped: bool = False


@click.command()
@redis_url_option
def check(redis_url: str | None) -> None:
    """Check settings, Redis and Alpaca, one line each.

    The stream is not tried, because a running daemon holds the account's one connection. Exit
    code 0: all is well; 2: settings; 1: Redis, or Alpaca does not answer; 3: Alpaca refused.
    """
    try:
        settings = load_settings(redis_url)
    except SettingsError as error:
        _report("settings", Finding(str(error), error.exit_code), Redactor())
        raise click.exceptions.Exit(error.exit_code) from error
    told = Redactor(settings.secrets())
    codes = [
        _report("settings", check_settings(settings), told),
        _report("redis", asyncio.run(check_redis(settings)), told),
        _report("alpaca", asyncio.run(check_alpaca(settings)), told),
    ]
    raise click.exceptions.Exit(next((code for code in codes if code), 0))


def check_settings(settings: Settings) -> Finding:
    """Return whether the settings have all that ``spotd run`` needs."""
    try:
        settings.credentials()
    except SettingsError as error:
        return Finding(f"{error}; create keys at https://app.alpaca.markets", error.exit_code)
    return Finding(f"feed {settings.feed}, Redis {_place(settings)}")


async def check_redis(settings: Settings) -> Finding:
    """Return whether Redis carries out every call of the daemon, and which daemon leads."""
    try:
        async with asyncio.timeout(_REDIS_LIMIT_S):
            return Finding(await _try_redis(settings))
    except (SettingsError, _UnfitError) as error:
        return Finding(str(error), error.exit_code)
    except (SpotdError, TimeoutError) as error:
        told = str(error) or f"{_place(settings)}: no answer"
        hint = (
            "Redis is up: correct the user, password or database in SPOTD_REDIS_URL, or what "
            "Redis complains of"
            if answered(error)
            else "start Redis there, or correct SPOTD_REDIS_URL"
        )
        return Finding(f"{told}; {hint}", 1)


async def check_alpaca(settings: Settings) -> Finding:
    """Return whether Alpaca accepts the keys for the feed, by one REST request."""
    if settings.feed == "test":
        return Finding("the test feed has no REST to try the keys on", skipped=True)
    try:
        settings.credentials()
    except SettingsError:
        return Finding("there are no keys to try", skipped=True)
    from spotd.alpaca.rest import Snapshots  # noqa: PLC0415 - loads alpaca-py and pandas

    snapshots = Snapshots(settings)
    try:
        found = (await snapshots.fetch([_SYMBOL], deadline_s=_ALPACA_LIMIT_S)).get(_SYMBOL)
    except AlpacaRefusedError as error:
        return Finding(str(error), error.exit_code)
    except SnapshotError as error:
        told = f"{error}{_cause(error)}"
        return Finding(f"{told}; look at SPOTD_DATA_URL and the network, or try later", 1)
    finally:
        snapshots.close()
    quote = found.quote if found else None
    if quote is None:
        return Finding(f"the keys are good for the feed {settings.feed}; no quote of {_SYMBOL}")
    age = age_text(datetime.now(UTC), quote.at)
    prices = f"bid {price_text(quote.bid)}, ask {price_text(quote.ask)}"
    return Finding(f"feed {settings.feed}: {_SYMBOL} {prices}, {age} old")


async def _try_redis(settings: Settings) -> str:
    """Make each kind of call that the daemon makes, without effect. Return the finding's text.

    Raises RedisUnavailableError, and _UnfitError for what Redis allows and the daemon cannot use.
    """
    from spotd.redis.port import RedisPort  # noqa: PLC0415 - not for `--help`

    url = settings.redis_url.get_secret_value()
    port = RedisPort(url, settings.keys)
    other = connect(url)
    try:
        info = await port.ping()
        await _try_rights(port, settings)
        await port.leases()  # a script that removes lapsed leases
        await port.release(f"check-{secrets.token_hex(8)}")  # a script: this token leads nothing
        async with aclosing(cast("AsyncGenerator[None, None]", port.wakes())) as wakes:
            await anext(wakes)
            with translated(other):
                await other.publish(settings.keys.wake, "check")
            await anext(wakes)
        leader = await port.leader()
        with translated(other):
            status = await other.get(settings.keys.status)
        await _try_databases(port, settings)
    finally:
        await other.aclose()
        await port.close()
    return f"{_server(info)} at {_place(settings)}, scripts and pub/sub work; " + (
        "no daemon leads" if leader is None else f"led by {_leader(leader, status)}"
    )


class _UnfitError(SpotdError):
    """Redis answers, and a daemon on it would not work as it should."""


async def _try_rights(port: RedisPort, settings: Settings) -> None:
    rights = rights_of_daemon(settings.keys, subscribers_are_demand=settings.subscribers_are_demand)
    denied = await port.denied(rights)
    if denied:
        raise _UnfitError(
            f"{_place(settings)}: the user has no permission for {as_text(denied)}; Redis is up: "
            "grant what is missing, as deploy/redis/users.acl does"
        )


async def _try_databases(port: RedisPort, settings: Settings) -> None:
    for database, leader in await port.leaders_elsewhere():
        raise _UnfitError(
            f"{_place(settings)}: {leader} leads in database {database} with the same key prefix, "
            "and pub/sub knows no databases: give each daemon its own SPOTD_KEY_PREFIX and "
            "SPOTD_CHANNEL_PREFIX"
        )


def _server(info: dict[str, Any]) -> str:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version") or info.get("redis_mode", "")
    return f"{name} {version}".strip()


def _leader(token: str, status: bytes | None) -> str:
    """Return the daemon in the status, or the token where there is no status that can be read."""
    try:
        daemon = DaemonStatus.from_json(status or b"")
    except ValueError:
        return token
    return f"{daemon.instance} ({daemon.state})"


def _place(settings: Settings) -> str:
    return without_secrets(settings.redis_url.get_secret_value())


def _cause(error: BaseException) -> str:
    """Return the system's text for a failed connection, which holds no address, or ""."""
    words, cause = "", error.__cause__
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            words = f" ({cause.strerror})"
        cause = cause.__cause__ or cause.__context__
    return words


def _report(name: str, finding: Finding, told: Redactor) -> int:
    mark = "skipped" if finding.skipped else "FAILED" if finding.exit_code else "ok"
    click.echo(f"{name:<9} {mark:<8} {printable(told(finding.text))}")
    return finding.exit_code
