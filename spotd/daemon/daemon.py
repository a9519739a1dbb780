"""WIRES. Builds the parts of the daemon, runs its loops, and stops them in order.

The only module that knows all parts. Each fact is one ``Value`` with one owner (the loop that sets
it), and each loop is given the values that it depends on. A loop that ends by itself is a defect
and ends the daemon. A refusal for good (wrong keys, feed not in the plan) ends it with its own
exit code.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from spotd import __version__
from spotd.alpaca.handshake import Timeouts
from spotd.alpaca.rest import Snapshots
from spotd.alpaca.stream import AlpacaStream
from spotd.core.channels import ChannelMonitor, Channels
from spotd.core.demand import Demand, DemandStep
from spotd.core.freshness import Silence, SilenceTimes
from spotd.core.gaps import GapsFound
from spotd.core.lag import Lag, LagState, LagTimes
from spotd.core.leadership import LeaderKey, Leadership, token_of
from spotd.core.mute_symbols import CALL_EVERY_S, MuteSymbolTimes
from spotd.core.pacing import Pacing, Pauses
from spotd.core.redis_health import RedisHealth
from spotd.core.states import StreamState
from spotd.core.subscriptions import Subscriptions
from spotd.core.trading_hours import TradingHours, trading_hours
from spotd.daemon.channels import ChannelLoop
from spotd.daemon.demand import LINGER_S, DemandLoop
from spotd.daemon.lag import MEASURE_EVERY_S, LagLoop
from spotd.daemon.leader import LeaderLoop
from spotd.daemon.mute_symbols import FLOW_EVERY_S, MuteSymbolLoop
from spotd.daemon.prices import Prices
from spotd.daemon.publish import PublishLoop
from spotd.daemon.pulse import pulse
from spotd.daemon.questions import Questions
from spotd.daemon.redis_calls import RedisCalls
from spotd.daemon.silence import SilenceLoop
from spotd.daemon.snapshots import SnapshotLoop
from spotd.daemon.states import PRICES_WAIT_S, STATUS_EVERY_S, StatesLoop
from spotd.daemon.stream import PAUSE_IN_ROW_S, StreamLoop
from spotd.daemon.supervision import first_end, within
from spotd.daemon.tap import Taps
from spotd.daemon.trading_days import FIRST_AFTER_S, ReadDays, TradingDaysLoop, read_trading_days
from spotd.daemon.value import Value
from spotd.ops import systemd
from spotd.ops.http import HttpServer
from spotd.ops.metrics import Metrics
from spotd.redaction import Redactor
from spotd.redis.calls import CALL_TIMEOUT_S
from spotd.redis.port import RedisPort
from spotd.settings import Settings

# Limits of an orderly stop, in seconds. The first one is for the whole stop, well below the 5 s
# that the contract grants, and may cut the last steps short. The others are for its steps.
_STOP_S = 4.0
_CANCEL_S = 1.5  # loops end, the stream is closed with a close frame
_WINDOWS_S = 0.5  # prices whose windows end later are published without the throttle
# A round trip may take 0.6 s, Redis may stand still for a second, and a connection may have to be
# opened.
_FLUSH_S = 1.5
_LAST_WORDS_S = 1.5
_RELEASE_S = 1.5
_CLOSE_S = 0.4

log = structlog.get_logger("spotd.daemon")


@dataclass(frozen=True, slots=True)
class Timing:
    """The times that no setting sets, in seconds. Each part documents its own."""

    pauses: Pauses = field(default_factory=Pauses)
    timeouts: Timeouts = field(default_factory=Timeouts)
    silence: SilenceTimes = field(default_factory=SilenceTimes)
    lag: LagTimes = field(default_factory=LagTimes)
    measure_lag_every_s: float = MEASURE_EVERY_S
    mute_symbols: MuteSymbolTimes = field(default_factory=MuteSymbolTimes)
    flow_every_s: float = FLOW_EVERY_S
    question_every_s: float = CALL_EVERY_S
    trading_days_after_s: float = FIRST_AFTER_S
    linger_s: float = LINGER_S
    status_every_s: float = STATUS_EVERY_S
    prices_wait_s: float = PRICES_WAIT_S
    pause_in_row_s: float = PAUSE_IN_ROW_S
    redis_call_s: float = CALL_TIMEOUT_S


class Daemon:
    """One daemon: ``run`` until ``stop``. ``read_days`` reads the calendar of the exchanges."""

    def __init__(
        self,
        settings: Settings,
        timing: Timing | None = None,
        *,
        read_days: ReadDays = read_trading_days,
    ) -> None:
        self.settings = settings
        self._timing = Timing() if timing is None else timing
        self.instance = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:4]}"
        self.metrics = Metrics()
        self._redactor = Redactor(settings.secrets())
        self._key = LeaderKey(
            ttl_s=settings.leader_ttl_s,
            new_token=lambda: token_of(self.instance, settings.feed, uuid.uuid4().hex[:8]),
            is_ours=self._is_ours,
            keep_stream_s=settings.keep_stream_s,
        )
        # The facts, each with its owner.
        self.leadership: Value[Leadership] = Value(self._key.leadership)  # LeaderLoop
        self.health: Value[RedisHealth] = Value(RedisHealth())  # RedisCalls
        self.demand: Value[Demand] = Value(Demand())  # DemandLoop
        self.stream: Value[StreamState] = Value(StreamState())  # StreamLoop
        self.channels: Value[Channels] = Value(Channels())  # ChannelLoop
        self.lag: Value[LagState] = Value(LagState())  # LagLoop
        self.hours: Value[TradingHours] = Value(trading_hours(settings.feed, ()))  # TradingDaysLoop
        self.gaps: Value[GapsFound] = Value(GapsFound())  # StreamLoop
        self.stopping: Value[bool] = Value(False)  # Daemon

        self._silence = Silence(self._timing.silence)
        self._lag = Lag(settings.lag_limit_s, self._timing.lag)
        self.prices = Prices(
            throttle_s=settings.throttle_s,
            demand=self.demand,
            silence=self._silence,
            lag=self._lag,
            metrics=self.metrics,
            mute_symbol_times=self._timing.mute_symbols,
        )
        self._calls = RedisCalls(self.health, self.metrics)
        self._port = RedisPort(
            settings.redis_url.get_secret_value(),
            settings.keys,
            outcome=self._calls.outcome,
            call_timeout_s=self._timing.redis_call_s,
        )
        self._leader = LeaderLoop(
            self._port,
            self._key,
            ttl_s=settings.leader_ttl_s,
            feed=settings.feed,
            leadership=self.leadership,
            health=self.health,
            calls=self._calls,
            prices=self.prices,
        )
        self._build_alpaca_side()
        self._build_doubts(read_days)
        self._build_redis_side()
        taps = Taps(
            self._alpaca,
            stream=self.stream,
            secrets=settings.secrets(),
            about={"instance": self.instance, "version": __version__, "feed": settings.feed},
        )
        self.http = HttpServer(self, taps)
        self.metrics.numbers_from(self._states.numbers)
        self._stop_asked = asyncio.Event()
        self._stops = 0

    def _build_alpaca_side(self) -> None:
        settings = self.settings
        api_key, secret_key = settings.credentials()
        self._alpaca = AlpacaStream(
            endpoint=settings.stream_endpoint,
            api_key=api_key,
            secret_key=secret_key,
            on_data=self.prices.receive,
            redactor=self._redactor,
            timeouts=self._timing.timeouts,
        )
        self._snapshots = Snapshots(settings)
        self._snapshot_loop = SnapshotLoop(
            self._snapshots,
            self.prices,
            leadership=self.leadership,
            demand=self.demand,
            stream=self.stream,
            metrics=self.metrics,
        )
        self._stream_loop = StreamLoop(
            self._alpaca,
            self.prices,
            subscriptions=Subscriptions(trades=settings.trades, max_symbols=settings.max_symbols),
            pacing=Pacing(
                breaker_failures=settings.breaker_failures,
                breaker_recovery_s=settings.breaker_recovery_s,
                pauses=self._timing.pauses,
            ),
            leadership=self.leadership,
            health=self.health,
            demand=self.demand,
            stream=self.stream,
            gaps=self.gaps,
            fetch=self._fetch,
            metrics=self.metrics,
            pause_in_row_s=self._timing.pause_in_row_s,
        )

    def _build_doubts(self, read_days: ReadDays) -> None:
        """Build the loops that doubt a stream which is open."""
        timing = self._timing
        questions = Questions(self._snapshots, call_every_s=timing.question_every_s)
        self._silence_loop = SilenceLoop(
            self._alpaca,
            questions,
            self.prices,
            silence=self._silence,
            stream=self.stream,
            hours=self.hours,
        )
        self._mute_symbol_loop = MuteSymbolLoop(
            questions,
            self.prices,
            stream=self.stream,
            lag=self.lag,
            renew=self._stream_loop.renew,
            flow_every_s=timing.flow_every_s,
        )
        self._lag_loop = LagLoop(
            self._alpaca,
            questions,
            lag=self._lag,
            stream=self.stream,
            state=self.lag,
            measure_every_s=timing.measure_lag_every_s,
        )
        self._trading_days_loop = TradingDaysLoop(
            self.settings.feed,
            hours=self.hours,
            read=read_days,
            first_after_s=timing.trading_days_after_s,
        )

    def _build_redis_side(self) -> None:
        settings = self.settings
        self._demand_loop = DemandLoop(
            self._port,
            self.prices,
            demand=self.demand,
            leadership=self.leadership,
            stream=self.stream,
            follow=self._follow,
            allow_wildcard=settings.allow_wildcard,
            subscribers_are_demand=settings.subscribers_are_demand,
            max_symbols=settings.max_symbols,
            linger_s=self._timing.linger_s,
        )
        self._channel_loop = ChannelLoop(
            self._port,
            ChannelMonitor(self._is_ours, ttl_s=settings.leader_ttl_s),
            channels=self.channels,
            leadership=self.leadership,
            health=self.health,
            wake_up=self._demand_loop.wake_up,
        )
        self._publish_loop = PublishLoop(
            self._port,
            self.prices,
            leadership=self.leadership,
            health=self.health,
            metrics=self.metrics,
            not_leader=self._leader.wake_up,
        )
        self._states = StatesLoop(
            self._port,
            self.prices,
            leadership=self.leadership,
            health=self.health,
            demand=self.demand,
            stream=self.stream,
            channels=self.channels,
            lag=self.lag,
            hours=self.hours,
            gaps=self.gaps,
            stopping=self.stopping,
            metrics=self.metrics,
            malformed=self._alpaca.decoder.malformed,
            lease_doubts=self._demand_loop.lease_doubts.counts,
            not_leader=self._leader.wake_up,
            lost_data=self._calls.lost_data,
            redactor=self._redactor,
            instance=self.instance,
            feed=settings.feed,
            status_every_s=self._timing.status_every_s,
            prices_wait_s=self._timing.prices_wait_s,
        )

    def _follow(self, demand: Demand, step: DemandStep) -> None:
        """Carry out what follows from a change of the demand, all in one turn."""
        self.prices.follow(step)
        self._stream_loop.follow(demand, step)
        self._fetch(step.fetch)

    def _fetch(self, symbols: frozenset[str]) -> None:
        if self.settings.snapshots:
            self._snapshot_loop.want(symbols)

    def stop(self) -> None:
        """Begin an orderly stop. A second call ends the process at once."""
        self._stops += 1
        if self._stops > 1:
            if sys.stderr is not None:
                sys.stderr.write("spotd: forced to stop\n")
            os._exit(1)
        self._stop_asked.set()

    async def run(self) -> int:
        """Run the loops until the daemon is stopped or a loop ends. Return the exit code."""
        settings = self.settings
        if settings.http_port:
            await self.http.start(settings.http_host, settings.http_port)
        log.info("starting", version=__version__, instance=self.instance, feed=settings.feed)
        loops = [asyncio.create_task(coro, name=name) for name, coro in self._loops().items()]
        systemd.notify("READY=1")
        exit_code, why = 1, "a defect"
        try:
            exit_code, why = await first_end(loops, self._stop_asked)
        finally:
            systemd.notify("STOPPING=1")
            await self._shut_down(loops)
            # An operator reads the last line of a log first.
            log.info("stopped", exit_code=exit_code, why=why)
        return exit_code

    # Views for HTTP

    def not_ready(self) -> list[str]:
        """Return the reasons against being ready, each a code, a colon and a sentence."""
        return self._states.not_ready()

    def status_json(self) -> bytes:
        """Return the DaemonStatus as JSON."""
        return self._states.status().to_json()

    def metrics_text(self) -> bytes:
        """Return the Prometheus text."""
        return self.metrics.text()

    # The loops

    def _loops(self) -> dict[str, Coroutine[Any, Any, None]]:
        loops = {
            "leader": self._leader.run(),  # first: it goes on while the others are stopped
            "demand": self._demand_loop.run(),
            "channels": self._channel_loop.run(),
            "stream": self._stream_loop.run(),
            "publish": self._publish_loop.run(),
            "states": self._states.run(),
            "pulse": pulse(self.metrics),
            "silence": self._silence_loop.run(),
            "mute symbols": self._mute_symbol_loop.run(),
            "trading days": self._trading_days_loop.run(),
        }
        if self._lag.watched:
            loops["lag"] = self._lag_loop.run()
        if self.settings.snapshots:
            loops["snapshots"] = self._snapshot_loop.run()
        return loops

    # Stopping

    async def _shut_down(self, loops: list[asyncio.Task[None]]) -> None:
        """Close the stream, publish pending values, remove status and leader key, within 5 s."""
        self.stopping.set(True)
        self._states.status()  # tells systemd, also that of a standby, which writes none
        end = time.monotonic() + _STOP_S
        leader, others = loops[0], loops[1:]
        if not self._leads():
            leader.cancel()  # a standby must not begin to lead now
        for loop in others:
            loop.cancel()
        await asyncio.wait(others, timeout=_CANCEL_S)
        flush_end = min(time.monotonic() + _WINDOWS_S, end)
        await within(self._publish_loop.flush(flush_end), _FLUSH_S, end, "pending prices")
        if self._leads():
            await within(self._states.last_words(), _LAST_WORDS_S, end, "last states")
        leader.cancel()
        token = self.leadership.get().token
        await within(self._port.release(token), _RELEASE_S, end, "the leader key")
        await within(self.http.stop(), _CLOSE_S, end, "http")
        await within(self._port.close(), _CLOSE_S, end, "redis connections")
        self._snapshots.close()
        await asyncio.wait(loops, timeout=max(0.1, end - time.monotonic()))

    def _is_ours(self, token: str) -> bool:
        return token.startswith(f"{self.instance}:")

    def _leads(self) -> bool:
        return self.leadership.get().may_publish(time.monotonic())
