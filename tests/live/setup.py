"""Alpaca itself, a real server, and the daemons that a test starts between the two.

Each daemon is the command `spotd run`, with the keys of the environment. It is always asked to
stop, since Alpaca holds the connection of a killed one for about 90 s. Nothing here, or in spotd,
changes anything in an account: spotd reads market data, and knows no address where orders go.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from spotd.keys import Keys
from spotd.settings import Settings
from tests.kit.ports import free_port
from tests.kit.processes import Command
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.values import Values
from tests.kit.waiting import until

# Alpaca may hold a dead session for 90 s. A shorter guard is for tests of these tests.
GUARD_S = float(os.environ.get("TEST_SPOTD_LIVE_GUARD_S", "180"))
_KEY_NAMES = ("ALPACA_API_KEY", "APCA_API_KEY_ID")
_SECRET_NAMES = ("ALPACA_SECRET_KEY", "APCA_API_SECRET_KEY")


@dataclass(frozen=True, repr=False)
class Account:
    """Keys, and the addresses if they are not Alpaca's. Its repr shows nothing."""

    key: str
    secret: str
    stream_url: str = ""
    data_url: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Account | None:
        """Return the account of the environment, None where a key is missing."""
        key, secret = (
            next(filter(None, (environ.get(name, "").strip() for name in names)), "")
            for names in (_KEY_NAMES, _SECRET_NAMES)
        )
        if not key or not secret:
            return None
        addresses = (environ.get(name, "") for name in ("SPOTD_STREAM_URL", "SPOTD_DATA_URL"))
        return cls(key, secret, *addresses)

    def settings(self, feed: str) -> dict[str, str]:
        """Return the settings of a daemon for a feed.

        SPOTD_STREAM_URL names the server. The path is always that of the feed.
        """
        settings = {
            "ALPACA_API_KEY": self.key,
            "ALPACA_SECRET_KEY": self.secret,
            "SPOTD_FEED": feed,
        }
        if self.stream_url:
            alpaca = Settings.model_validate({"feed": feed}).stream_endpoint
            own = urlsplit(self.stream_url)._replace(path=urlsplit(alpaca).path)
            settings["SPOTD_STREAM_URL"] = own.geturl()
        if self.data_url:
            settings["SPOTD_DATA_URL"] = self.data_url
        return settings


class Daemon:
    """One daemon with Redis names of its own, and what it publishes."""

    def __init__(self, command: Command, values: Values, recorder: Recorder) -> None:
        self.command = command
        self.values = values
        self.recorder = recorder

    async def status(self) -> dict[str, Any]:
        """Return what `/status` says; AssertionError where the daemon has ended."""
        code = self.command.process.returncode
        assert code is None, f"ended with {code}\n{self.command.tail()}"
        return await self.command.status()

    async def until(self, condition: Callable[[], Any], what: str, guard_s: float = GUARD_S) -> Any:
        """Wait for a condition and return its value; a failure shows the log."""
        return await until(condition, what, guard_s=guard_s, logs=self.command.tail)

    async def live(self, *symbols: str) -> None:
        """Demand symbols, and wait until Alpaca acknowledged all."""
        await self.values.want(*symbols)

        async def are_live() -> bool:
            await self.status()
            return await self.values.live(*symbols)

        await self.until(are_live, f"{', '.join(symbols)} live")

    async def reconnects(self) -> dict[str, float]:
        """Return how often the stream was lost or not opened, by reason."""
        name = "spotd_reconnects_total"
        samples = await self.command.metrics()
        return {sample: count for sample, count in samples.items() if sample.startswith(name)}

    async def stop(self) -> int:
        """Ask it to stop, if it runs. Return its exit code."""
        return await self.command.stop() if self.command.running else await self.command.ends()


class Live:
    """What one test runs against."""

    def __init__(self, home: Path, account: Account) -> None:
        self.account = account
        self.server = Server(home / "server")
        self._home = home
        self._daemons: list[Daemon] = []

    async def __aenter__(self) -> Self:
        """Start the server."""
        self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ask all daemons to stop, and kill what does not."""
        for daemon in self._daemons:
            try:
                await daemon.stop()
            finally:
                await daemon.command.kill()
                await daemon.recorder.stop()
                await daemon.values.aclose()
        self.server.kill()

    async def daemon(self, feed: str, name: str = "one", /, **changed: str) -> Daemon:
        """Start a daemon, and do not wait for it. Each name has Redis names of its own."""
        keys = Keys(f"{name}:", f"{name}-price:")
        http_port = free_port()
        env = self.account.settings(feed) | {
            "SPOTD_REDIS_URL": self.server.url,
            "SPOTD_KEY_PREFIX": keys.key_prefix,
            "SPOTD_CHANNEL_PREFIX": keys.channel_prefix,
            "SPOTD_HTTP_PORT": str(http_port),
            "SPOTD_LOG_FORMAT": "json",
        }
        recorder = Recorder(self.server.url, keys=keys)
        await recorder.start()
        home = self._home / f"{name}-{len(self._daemons)}"
        command = await Command.start("run", home=home, env=env | changed, http_port=http_port)
        daemon = Daemon(command, Values(self.server.url, keys), recorder)
        self._daemons.append(daemon)
        return daemon

    async def check(self, feed: str, **changed: str) -> Command:
        """Run `spotd check --json` to its end."""
        env = self.account.settings(feed) | {"SPOTD_REDIS_URL": self.server.url} | changed
        command = await Command.start("check", "--json", home=self._home / "check", env=env)
        await command.ends()
        return command
