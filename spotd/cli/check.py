"""``spotd check``: settings, Redis and Alpaca, one line each, before the daemon is started.

Talks to Redis and to Alpaca's REST by the daemon's own adapters. Must not connect to the stream,
since an account has one connection and a running daemon holds it. Must leave nothing in Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import click
import msgspec

from spotd.cli.options import json_option, load_settings, redis_url_option
from spotd.cli.screen.escapes import styled
from spotd.cli.screen.terminal import colours_wanted
from spotd.cli.table import age_text, price_text
from spotd.cli.text import printable
from spotd.core.redis_fitness import Finding, clocks
from spotd.errors import AlpacaRefusedError, SettingsError, SnapshotError
from spotd.redaction import Redactor
from spotd.redis.addresses import without_secrets
from spotd.settings import Settings

# In the order in which they are shown.
NAMES = (
    "settings", "redis", "version", "role", "rights", "demand", "clock", "buffers", "persistence",
    "memory", "databases", "leader", "alpaca",
)  # fmt: skip
_MARKS = {"failure": "FAILED"}
_STYLES = {"ok": "good", "warning": "doubtful", "failure": "bad"}
_SYMBOL = "SPY"
_ALPACA_LIMIT_S = 10.0


class AlpacaCheck(NamedTuple):
    """The finding on Alpaca; by how much our clock is ahead of its, None where it told no time."""

    finding: Finding
    ahead_s: float | None = None


@click.command()
@redis_url_option
@json_option
def check(redis_url: str | None, as_json: bool) -> None:
    """Check all that the daemon will need, one line each, with what to do about it.

    The stream is not tried, because a running daemon holds the account's one connection. `unknown`
    is what the user of Redis may not ask, as on managed servers.

    Exit codes: 0 nothing FAILED; otherwise that of the first line that did: 2 settings; 1 Redis,
    or Alpaca does not answer; 3 Alpaca refused the keys or the feed.
    """
    try:
        settings = load_settings(redis_url)
    except SettingsError as error:
        told = Redactor()
        found = {"settings": Finding("failure", str(error), exit_code=error.exit_code)}
    else:
        told = Redactor(settings.secrets())
        found = asyncio.run(_check(settings))
    raise click.exceptions.Exit(_report(found, told, as_json=as_json))


async def _check(settings: Settings) -> dict[str, Finding]:
    from spotd.cli.check_redis import RedisCheck  # noqa: PLC0415 - not for `--help`

    redis = RedisCheck(settings)
    alpaca, _ = await asyncio.gather(check_alpaca(settings), redis.run())
    found = {"settings": check_settings(settings), **redis.findings, "alpaca": alpaca.finding}
    if redis.ahead_s is not None:
        found["clock"] = clocks(redis.ahead_s, alpaca.ahead_s)
    return found


def check_settings(settings: Settings) -> Finding:
    """Return whether the settings have all that ``spotd run`` needs."""
    try:
        settings.credentials()
    except SettingsError as error:
        remedy = "create keys at https://app.alpaca.markets"
        return Finding("failure", str(error), remedy, error.exit_code)
    place = without_secrets(settings.redis_url.get_secret_value())
    return Finding("ok", f"feed {settings.feed}, Redis {place}")


async def check_alpaca(settings: Settings) -> AlpacaCheck:
    """Return whether Alpaca accepts the keys for the feed, by one REST request."""
    if settings.feed == "test":
        return AlpacaCheck(Finding("skipped", "the test feed has no REST to try the keys on"))
    try:
        settings.credentials()
    except SettingsError:
        return AlpacaCheck(Finding("skipped", "there are no keys to try"))
    from spotd.alpaca.rest import Snapshots  # noqa: PLC0415 - loads alpaca-py and pandas

    snapshots = Snapshots(settings)
    try:
        found = (await snapshots.fetch([_SYMBOL], deadline_s=_ALPACA_LIMIT_S)).get(_SYMBOL)
    except AlpacaRefusedError as error:
        return AlpacaCheck(Finding("failure", str(error), exit_code=error.exit_code))
    except SnapshotError as error:
        told = f"{error}{_cause(error)}"
        remedy = "look at SPOTD_DATA_URL and the network, or try later"
        return AlpacaCheck(Finding("failure", told, remedy))
    finally:
        snapshots.close()
    clock = snapshots.clock
    ahead_s = None if clock is None else clock.ahead_s
    quote = found.quote if found else None
    if quote is None:
        told = f"the keys are good for the feed {settings.feed}; no quote of {_SYMBOL}"
    else:
        age = age_text(datetime.now(UTC), quote.at)
        prices = f"bid {price_text(quote.bid)}, ask {price_text(quote.ask)}"
        told = f"feed {settings.feed}: {_SYMBOL} {prices}, {age} old"
    return AlpacaCheck(Finding("ok", told), ahead_s)


def _cause(error: BaseException) -> str:
    """Return the system's text for a failed connection, which holds no address, or ""."""
    words, cause = "", error.__cause__
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            words = f" ({cause.strerror})"
        cause = cause.__cause__ or cause.__context__
    return words


def _report(found: Mapping[str, Finding], redact: Redactor, *, as_json: bool) -> int:
    """Write the findings. Return the exit code."""
    rows = [(name, found[name]) for name in NAMES if name in found]
    code = next((each.exit_code for _, each in rows if each.level == "failure"), 0)
    if as_json:
        told = [
            {
                "name": name,
                "level": each.level,
                "text": redact(each.text),
                "remedy": each.remedy or None,
            }
            for name, each in rows
        ]
        click.echo(msgspec.json.encode({"exit_code": code, "findings": told}))
        return code
    for name, each in rows:
        mark = f"{_MARKS.get(each.level, each.level):<8}"
        text = printable("; ".join(filter(None, (redact(each.text), each.remedy))), None)
        line = (f"{name:<12}", ""), (mark, _STYLES.get(each.level, "")), (f" {text}", "")
        click.echo(styled(line, colours=colours_wanted()))
    return code
