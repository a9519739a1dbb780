"""WIRES. Builds the parts of the daemon, supervises its loops, and stops them in order.

The only place that knows all parts. A loop that ends by itself is a defect and ends the daemon;
a refusal for good (wrong keys, feed not in the plan) ends it with its own exit code.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

import structlog

from spotd import __version__
from spotd.alpaca.rest import Snapshots
from spotd.alpaca.stream import AlpacaStream
from spotd.daemon.demand import DemandLoop
from spotd.daemon.intake import Intake
from spotd.daemon.leader import LeaderLoop
from spotd.daemon.publish import PublishLoop
from spotd.daemon.shared import Shared
from spotd.daemon.silence import SILENCE_S, WatchLoop
from spotd.daemon.snapshots import PrimeLoop
from spotd.daemon.states import ReportLoop
from spotd.daemon.stream import Pace, StreamLoop
from spotd.errors import RedisUnavailableError, SpotdError
from spotd.ops import logs, systemd
from spotd.ops.http import HttpServer
from spotd.redis.port import RedisPort
from spotd.settings import Settings

# Limits of an orderly stop, in seconds, well below the 5 that the contract grants: of all of it,
# and of each step. What is cut short by the limit of all is cut short for those that come last.
_STOP_S = 4.0
_CANCEL_S = 1.5  # loops end, the stream is closed with a close frame
_FLUSH_S = 1.0
_LAST_WORDS_S = 0.7
_RELEASE_S = 0.7
_CLOSE_S = 0.4
_LOOP_LAG_EVERY_S = 0.1

log = structlog.get_logger("spotd.daemon")


class Daemon:
    """One daemon: ``run`` until ``stop``."""

    def __init__(
        self, settings: Settings, *, pace: Pace | None = None, silence_s: float = SILENCE_S
    ) -> None:
        api_key, secret_key = settings.credentials()
        self.settings = settings
        self.instance = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:4]}"
        self.shared = shared = Shared(settings)
        self._redis = RedisPort(settings.redis_url.get_secret_value(), settings.keys)
        self._intake = Intake(shared)
        self._silence_s = silence_s
        self._stream = AlpacaStream(
            endpoint=settings.stream_endpoint,
            api_key=api_key,
            secret_key=secret_key,
            on_data=self._intake,
        )
        shared.malformed = self._stream.decoder.malformed
        self._leader = LeaderLoop(shared, self._redis, self.instance)
        self._demand = DemandLoop(shared, self._redis)
        self._streaming = StreamLoop(shared, self._stream, pace)
        self._publish = PublishLoop(shared, self._redis)
        self._report = ReportLoop(shared, self._redis, self.instance)
        self._snapshots = Snapshots(settings)
        self.http = HttpServer(self)
        shared.metrics.report(self._report.numbers)
        self._stopping = asyncio.Event()
        self._stops = 0

    def stop(self) -> None:
        """Stop in order. Asked a second time, the process ends at once."""
        self._stops += 1
        if self._stops > 1:
            if sys.stderr is not None:
                sys.stderr.write("spotd: forced to stop\n")
            os._exit(1)
        self._stopping.set()

    async def run(self) -> int:
        """Work until stopped. Gives the exit code of the contract."""
        settings = self.settings
        if settings.http_port:
            await self.http.start(settings.http_host, settings.http_port)
        log.info("starting", version=__version__, instance=self.instance, feed=settings.feed)
        loops = [asyncio.create_task(coro, name=name) for name, coro in self._loops().items()]
        systemd.notify("READY=1")
        try:
            return await self._supervise(loops)
        finally:
            systemd.notify("STOPPING=1")
            await self._shut_down(loops)
            log.info("stopped")

    # Views for HTTP

    def not_ready(self) -> list[str]:
        """Reasons against being ready."""
        return self._report.not_ready()

    def status_json(self) -> bytes:
        """DaemonStatus."""
        return self._report.status_json()

    def metrics_text(self) -> bytes:
        """Prometheus text."""
        return self.shared.metrics.text()

    # Supervision

    def _loops(self) -> dict[str, Coroutine[Any, Any, None]]:
        watch = WatchLoop(
            self.shared, self._stream, self._snapshots, self._intake, silence_s=self._silence_s
        )
        loops = {
            "leader": self._leader.run(),  # first: it goes on while the others are stopped
            "demand": self._demand.run(),
            "wake": self._demand.listen(),
            "stream": self._streaming.run(),
            "publish": self._publish.run(),
            "report": self._report.run(),
            "pulse": self._pulse(),
            "watch": watch.run(),
        }
        if self.settings.snapshots:
            loops["prime"] = PrimeLoop(self.shared, self._snapshots, self._intake).run()
        return loops

    async def _supervise(self, loops: list[asyncio.Task[None]]) -> int:
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            await asyncio.wait((*loops, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for loop in loops:
            if not loop.done():
                continue
            failure = loop.exception()
            if isinstance(failure, SpotdError) and failure.exit_code != 1:
                log.critical("giving up", why=str(failure))
                return failure.exit_code
            log.critical("a loop ended: this is a defect", loop=loop.get_name(), exc_info=failure)
            return 1
        return 0

    async def _pulse(self) -> None:
        """Feed the watchdog from the event loop, and measure how late the loop runs timers."""
        watchdog_s = systemd.watchdog_s()
        fed_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LOOP_LAG_EVERY_S
            await asyncio.sleep(_LOOP_LAG_EVERY_S)
            now = loop.time()
            self.shared.metrics.loop_lag.observe(max(0.0, now - due))
            if watchdog_s is not None and now - fed_at >= watchdog_s / 3:
                systemd.notify("WATCHDOG=1")
                fed_at = now

    # Stopping

    async def _shut_down(self, loops: list[asyncio.Task[None]]) -> None:
        """Within 5 s: stream closed, pending values out, status and leader key gone."""
        shared = self.shared
        shared.facts.stopping = True
        end = time.monotonic() + _STOP_S
        leader, others = loops[0], loops[1:]
        if not shared.leads():
            leader.cancel()  # a standby must not begin to lead now
        for loop in others:
            loop.cancel()
        await asyncio.wait(others, timeout=_CANCEL_S)
        flush_end = min(time.monotonic() + _FLUSH_S / 2, end)
        await self._within(self._publish.flush(flush_end), _FLUSH_S, end, "pending prices")
        if shared.leads():
            await self._within(self._report.last_words(), _LAST_WORDS_S, end, "last states")
        leader.cancel()
        await self._within(self._redis.release(shared.token), _RELEASE_S, end, "the leader key")
        await self._within(self.http.stop(), _CLOSE_S, end, "http")
        await self._within(self._redis.close(), _CLOSE_S, end, "redis connections")
        self._snapshots.close()
        await asyncio.wait(loops, timeout=max(0.1, end - time.monotonic()))

    @staticmethod
    async def _within(
        work: Coroutine[Any, Any, Any], limit_s: float, end: float, what: str
    ) -> None:
        """One step of the stop: at most ``limit_s``, and until ``end`` at the latest."""
        try:
            async with asyncio.timeout(max(0.05, min(limit_s, end - time.monotonic()))):
                await work
        except (TimeoutError, RedisUnavailableError) as error:
            log.warning("could not finish", what=what, why=str(error) or "no answer in time")
        except Exception:  # what is left to do of the stop has to be done all the same
            log.exception("could not finish: this is a defect", what=what)


def run_daemon(settings: Settings) -> int:
    """Run one daemon in this process until SIGTERM or SIGINT. Gives the exit code."""
    logs.configure(settings.log_level, settings.log_format, secrets=secrets_of(settings))
    with asyncio.Runner() as runner:
        code = runner.run(_main(settings))
        if any(thread.name.startswith("asyncio_") for thread in threading.enumerate()):
            # A name look-up that hangs in a thread would hold the exit for minutes.
            _exit_if_stuck(code)
    return code


def _exit_if_stuck(code: int) -> None:
    """End the process in a moment, unless it has ended by then."""
    timer = threading.Timer(_CLOSE_S, os._exit, (code,))
    timer.daemon = True
    timer.start()


async def _main(settings: Settings) -> int:
    daemon = Daemon(settings)
    # What was imported stays for good. To look through all of it for garbage would hold the loop
    # for about 50 ms, and sooner or later in the middle of a busy market.
    gc.freeze()
    loop = asyncio.get_running_loop()
    stop_on_signals(loop, daemon.stop)
    return await daemon.run()


def stop_on_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """Stop in order on SIGTERM and SIGINT, and when the terminal closes, unless under nohup."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signum is not signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
            loop.add_signal_handler(signum, stop)


def secrets_of(settings: Settings) -> list[str]:
    """What must never be written anywhere."""
    secrets = [key.get_secret_value() for key in (settings.api_key, settings.secret_key) if key]
    with contextlib.suppress(ValueError):
        url = urlsplit(settings.redis_url.get_secret_value())
        if url.password:
            secrets += [url.password, unquote(url.password)]
        for name, value in parse_qsl(url.query):
            if "password" in name:
                secrets += [value, quote(value), quote_plus(value)]
    return secrets
