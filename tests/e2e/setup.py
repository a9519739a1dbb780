"""A simulated Alpaca, a real server, and the daemons that a test starts between the two.

Every process that starts here is killed when the setup ends, whether the test passed or not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from spotd.simulator import MarketModel, Simulator
from tests.kit.ports import free_port
from tests.kit.processes import Command
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.values import Json, Values
from tests.kit.waiting import until

KEY = "PKE2ETESTKEY00000001"
SECRET = "e2eTestSecretDoNotPrint0000000000000001"


def quote(symbol: str, bid: float, ask: float, **more: Any) -> Json:
    """Return a quote as ``Simulator.send`` takes it."""
    return {"T": "q", "S": symbol, "bp": bid, "ap": ask, **more}


def trade(symbol: str, price: float, **more: Any) -> Json:
    """Return a trade as ``Simulator.send`` takes it."""
    return {"T": "t", "S": symbol, "p": price, **more}


def say(text: str) -> None:
    """Print figures for a reader who runs the tests with ``-s``."""
    sys.stdout.write(f"\n{text}\n")


class Setup:
    """What one test, or the tests of one module, run against."""

    def __init__(
        self,
        home: Path,
        *,
        market: MarketModel | None = None,
        server_options: tuple[str, ...] = (),
    ) -> None:
        self.home = home
        self.sim = Simulator(keys={KEY: SECRET}, market=market)
        self.server = Server(home / "server", *server_options)
        self.values: Values
        self.commands: list[Command] = []
        self.recorders: list[Recorder] = []

    async def __aenter__(self) -> Self:
        """Start the simulator and the server."""
        await self.sim.start()
        self.server.start()
        self.values = Values(self.server.url)
        return self

    async def __aexit__(self, failed: object, *_: object) -> None:
        """Kill all; show the daemons' logs if the test failed, else check all recorded orders."""
        logs = self.logs() if failed else ""
        for command in self.commands:
            await command.kill()
        try:
            for recorder in self.recorders:
                await recorder.stop()
            await self.values.aclose()
            await self.sim.stop()
        finally:
            self.server.kill()
        if logs:
            sys.stderr.write(logs)
        else:
            for recorder in self.recorders:
                recorder.check_order()

    def logs(self) -> str:
        """Return the ends of what all daemons wrote."""
        return "\n".join(command.tail() for command in self.commands)

    @property
    def redis(self) -> Any:
        """The client of the server."""
        return self.values.redis

    # Daemons

    def settings(self, **changed: str | None) -> dict[str, str]:
        """Return the environment of a daemon; None leaves a name out."""
        env: dict[str, str | None] = {
            "ALPACA_API_KEY": KEY,
            "ALPACA_SECRET_KEY": SECRET,
            "SPOTD_STREAM_URL": self.sim.stream_url("iex"),
            "SPOTD_DATA_URL": self.sim.data_url,
            "SPOTD_REDIS_URL": self.server.url,
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
        """Start a daemon, and wait until it is ready."""
        command = await self.start(name, **changed)

        async def ready() -> bool:
            assert command.running, f"ended with {command.process.returncode}\n{command.tail()}"
            return await command.ready()

        await self.until(ready, f"{name} is ready")
        return command

    async def relay(self, name: str = "relay", /, port: int | None = None, **env: str) -> Command:
        """Start a relay, and wait until it is ready. Without ``port`` it gets a free one."""
        port = free_port() if port is None else port
        env = {"SPOTD_REDIS_URL": self.server.url, "SPOTD_RELAY_PORT": str(port), **env}
        command = await Command.start("relay", home=self.home / name, env=env, http_port=port)
        self.commands.append(command)
        await self.until(command.ready, f"{name} is ready")
        return command

    # Waiting

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a condition and return its value; a failure shows the daemons' logs."""
        return await until(condition, what, logs=self.logs)

    async def streaming(self, *symbols: str) -> None:
        """Demand symbols, and wait until all are live."""
        await self.values.want(*symbols)
        await self.until(lambda: self.values.live(*symbols), f"{symbols} live")

    async def recorder(self, *patterns: str, url: str | None = None) -> Recorder:
        """Return a recorder that hears every message from now on; by default all of spotd's.

        ``url`` is where it listens, if that is not the URL of the server.
        """
        recorder = Recorder(url or self.server.url, *patterns)
        self.recorders.append(recorder)
        await recorder.start()
        return recorder

    # Alpaca's side

    def asked(self, action: str, symbol: str) -> bool:
        """Return whether Alpaca was asked to do this with a symbol's quotes."""
        return any(
            symbol in message.get("quotes", ()) for message in self.sim.received.messages(action)
        )

    def closes(self) -> list[int | None]:
        """Return the close codes that Alpaca saw; None for a session that vanished."""
        return [record.data for record in self.sim.received.of("close")]
