"""Reads everything again and again, from outside the daemons, and judges each moment by the rules.

Talks to Redis, to HTTP, to the simulator and to /proc. What is wrong is decided by ``rules``,
``contradictions`` and ``prices``.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections import deque
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tests.soak.contradictions import Contradictions, Violation, Window
from tests.soak.counts import Counts
from tests.soak.faults import Injector
from tests.soak.moment import AlpacaSession, DaemonNow, Json, Moment, RedisNow, Said
from tests.soak.pages import ready, said_by
from tests.soak.prices import Prices
from tests.soak.processes import Process, waited_for_cpu_s
from tests.soak.rules import Rules
from tests.soak.testbed import Testbed

READ_EVERY_S = 0.2
_READ_LIMIT_S = 0.5
_HTTP_LIMIT_S = 1.0
_SYMBOL = re.compile(r"[A-Z]{1,8}(\.[A-Z]{1,4})?")
_UNTIMED = frozenset(
    (
        "a price that Alpaca did not send",
        "seq did not rise",
        "seq did not rise for a consumer",
        "an older price after a newer one",
        "a process ended by itself",
        "a defect in the log",
    )
)
_LIMIT = aiohttp.ClientTimeout(total=_HTTP_LIMIT_S)


class Observer:
    """The checker. ``moment`` is what was read last; ``violations`` is all that was found."""

    def __init__(self, bed: Testbed, prices: Prices) -> None:
        self.moment = Moment(time.monotonic())
        self.violations: list[Violation] = []
        self.injector = Injector(bed, self.leader)
        self.rules = Rules(bed.times)
        self.contradictions = Contradictions(bed.begun_at)
        self.reads = 0
        self.silences: list[Window] = []
        """When no update came at all for longer than a second, in unix seconds."""
        self.gaps: dict[tuple[str, str], Json] = {}
        """The gaps that ``spotd:status`` told of, by begin and end."""
        self.connections = 0
        """How often the channels were subscribed to."""
        self.waited_s = 0.0
        """For how long any process of ours waited for the CPU, without overlaps."""
        self._bed, self._prices = bed, prices
        self._waits: dict[int, float] = {}
        self._lateness: deque[tuple[float, float]] = deque(maxlen=64)
        self._holder = ""
        self._redis_ok = False
        self._redis_since = time.monotonic()
        self._client: tuple[int, Any] | None = None
        self._heard_at = time.monotonic()
        self._hosts: dict[int, str] = {}
        self._attempts = 0
        self._opened: dict[int, float] = {}
        """When each open session was first seen, in monotonic seconds."""
        self._subscribed: dict[tuple[int, str], float] = {}
        self._unread_at = float("-inf")

    def leader(self) -> Process | None:
        """Return the daemon whose token the leader key held when it was last read."""
        return next((d for d in self._bed.daemons if d.name == self._holder), None)

    def violated(self, rule: str, subject: str, said: str, true: str) -> None:
        """Add a violation of a rule that has no grace."""
        at_s = time.monotonic() - self._bed.begun_at
        timed = rule not in _UNTIMED
        self._add(Violation(at_s, rule, subject, said, true, timed=timed))

    @property
    def slack_s(self) -> float:
        """By how much this process itself was late lately."""
        since = time.monotonic() - 3.0
        return max((late for at, late in self._lateness if at >= since), default=0.0)

    def counts(self) -> Counts | None:
        """Return what the leader counted when it was last read; None without one that streams."""
        holder, stats = self.moment.holder, self._bed.sim.stats
        if holder is None or holder.said is None or len(holder.sessions) != 1:
            return None
        said = holder.said
        return Counts(
            told=(said.instance, holder.sessions[0].id, self.connections),
            quotes=said.quotes,
            trades=said.trades,
            published=said.published,
            quotes_sent=stats.quotes_sent,
            trades_sent=stats.trades_sent,
            heard=self._prices.updates,
        )

    # The loops

    async def run(self) -> None:
        """Read and judge until cancelled."""
        async with (
            aiohttp.ClientSession(
                timeout=_LIMIT, connector=aiohttp.TCPConnector(force_close=True)
            ) as http,
            AsyncExitStack() as at_end,
        ):
            at_end.push_async_callback(self._drop_client)
            while True:
                begun = time.monotonic()
                moment = await self._read(http)
                self.moment = moment
                self.reads += 1
                found = self.rules.wrong(moment)
                waited_s = self._wait_clock()
                for violation in self.contradictions.seen(found, moment.now, waited_s):
                    self._add(violation)
                self._look_at_processes()
                await asyncio.sleep(max(0.05, begun + READ_EVERY_S - time.monotonic()))

    async def measure(self) -> None:
        """Measure the processes every few seconds."""
        while True:
            for process in (*self._bed.daemons, self._bed.relay):
                process.measure()
            await asyncio.sleep(5.0)

    async def pulse(self) -> None:
        """Measure how late this process is."""
        while True:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            now = time.monotonic()
            self._lateness.append((now, now - due))

    async def listen(self) -> None:
        """Hear all channels. Where the connection breaks, messages are missed until it is back."""
        prefix = self._bed.servers.keys.channel("")
        while True:
            with suppress(RedisError, OSError, TimeoutError):
                reader = await asyncio.to_thread(self._bed.servers.reader)
                client = _client(reader.port)
                pubsub = client.pubsub()
                try:
                    await pubsub.psubscribe(f"{prefix}*")
                    self.connections += 1
                    while self._is_reader(reader.port):
                        message = await pubsub.get_message(timeout=_READ_LIMIT_S)
                        if message is not None and message["type"] == "pmessage":
                            self._hear(message["data"])
                finally:
                    await pubsub.aclose()
                    await client.aclose()
            await asyncio.sleep(0.02)

    def _is_reader(self, port: int) -> bool:
        """Return whether a reader that follows the master still listens to this server."""
        servers = self._bed.servers
        if servers.topology != "cluster":
            return port == servers.owner_port
        return port in {server.port for server in servers.spared()}

    def _hear(self, raw: bytes) -> None:
        now = time.monotonic()
        if now - self._heard_at > 1.0:
            unix_s = time.time()
            self.silences.append(Window(unix_s - (now - self._heard_at), unix_s))
            self._bed.say(f"prices again, after {now - self._heard_at:.2f} s")
        self._heard_at = now
        update = json.loads(raw)
        for wrong in self._prices.heard(
            update["symbol"], update["bid_price"], update["ask_price"], update["seq"], now,
            self.slack_s,
        ):  # fmt: skip
            self.violated(*wrong)

    # Reading

    async def _read(self, http: aiohttp.ClientSession) -> Moment:
        daemons = list(self._bed.daemons)
        stored, relay, said = await asyncio.gather(
            self._read_redis(),
            ready(http, self._bed.relay),
            asyncio.gather(*(said_by(http, daemon) for daemon in daemons)),
        )
        now = time.monotonic()
        if stored is None:
            self._unread_at = now
        if (stored is not None) != self._redis_ok:
            self._redis_ok, self._redis_since = stored is not None, now
            self._bed.say("Redis answers" if stored else "Redis does not answer")
        self._see_sessions(now)
        self._see_attempts(daemons)
        read = Moment(
            now=now,
            daemons=tuple(self._daemon(*each) for each in zip(daemons, said, strict=True)),
            redis=stored,
            redis_since=self._redis_since,
            behind=self._prices.behind(),
            calm_since=self.injector.calm_since,
            unread_at=self._unread_at,
            hidden=self.injector.hidden(self._opened.values()),
            relay_ready=relay,
        )
        if relay is not None:
            self._bed.relay.instance = "relay"
        for gap in (stored.status or {}).get("gaps", ()) if stored else ():
            self.gaps[gap["from"], gap["to"]] = gap
        holder = read.holder
        if stored is not None and (holder.name if holder else "") != self._holder:
            self._holder = holder.name if holder else ""
            self._bed.say(f"the key is {self._holder or stored.token}'s")
        for daemon in daemons:
            if holder is not None and daemon.name == holder.name:
                daemon.key_seen_at = now
        return read

    def _daemon(self, daemon: Process, said: Said | None) -> DaemonNow:
        if said is not None:
            daemon.instance = said.instance
            daemon.see_published(said.published, time.monotonic())
        sessions = [
            AlpacaSession(
                session.id,
                frozenset(session.quotes),
                {symbol: self._subscribed[session.id, symbol] for symbol in session.quotes},
            )
            for session in self._bed.sim.sessions
            if session.id in self._opened and self._host(session.id).startswith(f"{daemon.host}:")
        ]
        return DaemonNow(
            name=daemon.name,
            # What was asked before a freeze, a stop or a start says nothing of the time after.
            said=None if daemon.frozen or not daemon.running else said,
            instance=daemon.instance,
            frozen=daemon.frozen or not daemon.running or not daemon.instance,
            stopping=daemon.stopping,
            acts_since=daemon.acts_since,
            sessions=tuple(sessions),
            key_seen_at=daemon.key_seen_at,
            attempted=daemon.attempted,
            attempted_at=daemon.attempted_at,
            published_at=daemon.published_at,
        )

    def _see_sessions(self, now: float) -> None:
        """Note since when sessions are open, and symbols subscribed."""
        open_ = {s.id: s for s in self._bed.sim.sessions if s.authenticated and not s.closing}
        self._opened = {number: self._opened.get(number, now) for number in open_}
        pairs = [(number, symbol) for number, s in open_.items() for symbol in s.quotes]
        self._subscribed = {pair: self._subscribed.get(pair, now) for pair in pairs}

    def _see_attempts(self, daemons: list[Process]) -> None:
        """Note the newest session that each daemon opened, or tried to open."""
        sim = self._bed.sim
        if sim.stats.connections == self._attempts:
            return
        self._attempts = sim.stats.connections
        for record in sim.received.of("connect"):
            host = record.headers.get("Host", "").partition(":")[0]
            for daemon in daemons:
                if daemon.host == host and record.session > daemon.attempted:
                    daemon.attempted, daemon.attempted_at = record.session, record.at

    def _host(self, session: int) -> str:
        """Return the Host header with which a session was opened."""
        if session not in self._hosts:
            for record in self._bed.sim.received.of("connect", session):
                self._hosts[session] = record.headers.get("Host", "")
        return self._hosts.get(session, "")

    async def _read_redis(self) -> RedisNow | None:
        try:
            async with asyncio.timeout(_READ_LIMIT_S):
                owner = await asyncio.to_thread(self._bed.servers.owner)
                if self._client is None or self._client[0] != owner.port:
                    await self._drop_client()
                    self._client = owner.port, _client(owner.port)
                return await self._read_from(self._client[1])
        except (RedisError, OSError, TimeoutError):
            await self._drop_client()
            return None

    async def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(_READ_LIMIT_S):
                    await client[1].aclose()

    async def _read_from(self, client: Any) -> RedisNow:
        keys = self._bed.servers.keys
        async with client.pipeline(transaction=True) as pipe:
            pipe.time().get(keys.leader).get(keys.status).hgetall(keys.states)
            pipe.hgetall(keys.last).smembers(keys.symbols)
            pipe.zrange(keys.leases, 0, -1, withscores=True)
            # A Redis that answers reads alone (CLIENT PAUSE WRITE) does not answer spotd.
            pipe.set(f"{keys.key_prefix}written-by-the-checker", b"", px=1_000)
            now, token, status, states, last, wanted, leases, _ = await pipe.execute()
        unix_s = int(now[0]) + int(now[1]) / 1e6
        for symbol, raw in last.items():
            self._prices.stored(symbol.decode(), json.loads(raw)["bid_price"])
        entries = {entry.decode().strip().upper() for entry in wanted}
        entries |= {m.decode().partition("@")[0] for m, lapses in leases if lapses > unix_s}
        return RedisNow(
            token=None if token is None else token.decode(),
            status=None if status is None else json.loads(status),
            states={name.decode(): json.loads(raw)["state"] for name, raw in states.items()},
            last=frozenset(symbol.decode() for symbol in last),
            desired=frozenset(entry for entry in entries if _SYMBOL.fullmatch(entry)),
        )

    # Judging

    def _wait_clock(self) -> float:
        """Return the time in which any process of ours waited for the CPU, without overlaps."""
        pids = [os.getpid(), *self._bed.servers.pids()]
        pids += [p.pid for p in (*self._bed.daemons, self._bed.relay) if p.running]
        waits = {pid: waited_for_cpu_s(pid) for pid in pids}
        steps = [waits[pid] - self._waits.get(pid, waits[pid]) for pid in pids]
        self._waits = waits
        self.waited_s += max(steps)
        return self.waited_s

    def _look_at_processes(self) -> None:
        for process in (*self._bed.daemons, self._bed.relay):
            if not process.running and not process.ended_by_us:
                process.ended_by_us = True
                code = process.command.process.returncode
                self.violated("a process ended by itself", process.name, f"code {code}", "")
            for line in process.defects():
                self.violated("a defect in the log", process.name, line[:400], "none")
        while self.injector.violations:
            self._add(self.injector.violations.pop())

    def _add(self, violation: Violation) -> None:
        now = self.moment
        parts = [
            violation.context,
            self._bed.recent(),
            *(f"{d.name}: {d.said}, sessions {[s.id for s in d.sessions]}" for d in now.daemons),
            *(f"--- {d.name}\n{d.log_tail()}" for d in self._bed.daemons),
        ]
        violation.context = "\n".join(part for part in parts if part)
        self.violations.append(violation)
        self._bed.say(f"VIOLATION {violation}")


def _client(port: int) -> Any:
    return aioredis.Redis(
        host="127.0.0.1",
        port=port,
        socket_timeout=_READ_LIMIT_S,
        socket_connect_timeout=_READ_LIMIT_S,
        retry=Retry(NoBackoff(), 0),
    )
