"""Talks TCP: listens for the web tier, and stops in order. Wires relay, client and routes.

``SO_SNDBUF`` is set on the listening socket, from which accepted ones inherit it: with the default,
the kernel takes minutes of old prices for a client that does not read.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import socket
from collections.abc import Callable
from typing import Self

import structlog
from aiohttp import hdrs, web

from spotd import __version__
from spotd.errors import SettingsError
from spotd.ops import logs, systemd
from spotd.ops.http_logs import http_logger
from spotd.ops.listening import AcceptErrors, Refused
from spotd.relay.answers import Prices
from spotd.relay.api import Api
from spotd.relay.limits import GOODBYE_S
from spotd.relay.relay import Relay
from spotd.relay.settings import RelaySettings
from spotd.relay.signs_of_life import tell_systemd
from spotd.relay.wiring import serve_until, wired

_SEND_BUFFER_BYTES = 16_384
_BACKLOG = 2_048  # connections that wait to be accepted
# Connections accepted in one turn of the event loop, at most. Where no descriptor is left, asyncio
# tries that often nevertheless, and asks for another turn after each try.
_ACCEPTED_AT_ONCE = 64
_REQUEST_S = 30.0  # the longest life of a connection that is no stream
MOST_REQUESTS = 4_096  # connections that are no streams
SPARE_FILES = 256  # beside clients: Redis, logs, requests

log = structlog.get_logger("spotd.relay")


class RelayServer:
    """One relay on one address. ``async with`` listens and serves, and stops in order.

    Raises SettingsError where the address cannot be had. ``prices`` answers single requests.
    """

    def __init__(self, settings: RelaySettings, relay: Relay, prices: Prices) -> None:
        self.relay = relay
        self.port = 0
        self._settings = settings
        self._api = Api(relay, prices, settings.tokens, settings.relay_origins)
        self._api.app.on_response_prepare.append(self._say_that_it_is_the_last)
        self._old: set[asyncio.BaseProtocol] = set()
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None
        self._accept_errors = AcceptErrors(logging.getLogger("spotd.relay.http"))

    async def __aenter__(self) -> Self:
        """Listen."""
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take no more connections, say goodbye to clients, end all connections."""
        if self._listening is not None:
            self._listening.close()
            self._accept_errors.end()
        await self.relay.stop(GOODBYE_S)
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def address(self) -> str:
        """The address for a browser on this machine."""
        host = self._settings.relay_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    async def _listen(self) -> None:
        settings = self._settings
        # No access log: the token of a browser's stream may stand in its address.
        self._runner = web.AppRunner(
            self._api.app,
            access_log=None,
            logger=http_logger("spotd.relay.http"),
            shutdown_timeout=0.5,
            keepalive_timeout=_REQUEST_S / 2,
        )
        await self._runner.setup()
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                self._connection,
                settings.relay_host,
                settings.relay_port,
                backlog=_ACCEPTED_AT_ONCE,
                start_serving=False,
            )
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError(
                "SPOTD_RELAY_HOST, SPOTD_RELAY_PORT: cannot listen on "
                f"{settings.relay_host}:{settings.relay_port}: {error.strerror or error}"
            ) from error
        for listening in self._listening.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self.port = int(self._listening.sockets[0].getsockname()[1])
        await self._listening.start_serving()
        for listening in self._listening.sockets:
            # asyncio would let no more wait than it accepts at once.
            with socket.fromfd(listening.fileno(), listening.family, listening.type) as same:
                same.listen(_BACKLOG)
        self._accept_errors.begin()

    def _connection(self) -> asyncio.BaseProtocol:
        server = None if self._runner is None else self._runner.server
        if server is None or len(server.connections) >= MOST_REQUESTS:
            return Refused()
        handler = server()

        def grow_old() -> None:
            # A stream has left its handler by then.
            if handler.transport is not None:
                self._old.add(handler)
                loop.call_later(_REQUEST_S / 2, end)

        def end() -> None:
            self._old.discard(handler)
            if handler.transport is not None:
                handler.transport.abort()

        loop = asyncio.get_running_loop()
        loop.call_later(_REQUEST_S / 2, grow_old)
        return handler

    async def _say_that_it_is_the_last(
        self, request: web.Request, response: web.StreamResponse
    ) -> None:
        """End an old connection with this answer: the client then sends nothing more on it.

        One that is idle for as long as this takes ends by itself, so that what is left at the end
        is a request that does not get anywhere.
        """
        if request.protocol in self._old:
            response.headers[hdrs.CONNECTION] = "close"
            response.force_close()


def warnings_for(settings: RelaySettings, most_files: int) -> list[str]:
    """Return what an operator should know at the start."""
    warnings = []
    if settings.is_exposed and not settings.tokens:
        warnings.append(
            "the relay listens beyond this machine and needs no token: everybody who reaches it "
            "sees prices. Set SPOTD_RELAY_TOKEN. To show exchange data to others may need an "
            "agreement with the exchanges"
        )
    elif settings.is_exposed:
        warnings.append(
            "the relay listens beyond this machine: to show exchange data to others may need an "
            "agreement with the exchanges"
        )
    if most_files < settings.relay_max_clients + SPARE_FILES:
        warnings.append(
            f"this process may open {most_files} files, too few for SPOTD_RELAY_MAX_CLIENTS="
            f"{settings.relay_max_clients}: raise the limit (ulimit -n, LimitNOFILE)"
        )
    return warnings


def raise_file_limit() -> int:
    """Allow this process as many open files as it may have. Return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS: the hard limit is infinite, and more than it allows
            return soft
    return hard


async def run_relay(
    settings: RelaySettings,
    stop_asked: asyncio.Event,
    started: Callable[[str], None] = lambda _: None,
    *,
    simulated: bool = False,
) -> None:
    """Run one relay until it is asked to stop. ``started`` is called with its address.

    ``simulated``: clients are told that the prices are made up.
    """
    for warning in warnings_for(settings, raise_file_limit()):
        log.warning(warning)
    # What was imported stays for good: there is no garbage to be found in it.
    gc.freeze()
    async with (
        wired(
            settings.redis_url.get_secret_value(),
            settings.limits,
            demand=settings.relay_demand,
            key_prefix=settings.key_prefix,
            channel_prefix=settings.channel_prefix,
            simulated=simulated,
        ) as (relay, spot),
        RelayServer(settings, relay, spot) as server,
    ):
        log.info("listening", version=__version__, address=server.address)
        systemd.notify("READY=1")
        started(server.address)
        try:
            await serve_until(stop_asked, relay=relay.run(), systemd=tell_systemd(relay))
        finally:
            systemd.notify("STOPPING=1\nSTATUS=stopping")
    log.info("stopped")


def configure_logs(settings: RelaySettings) -> None:
    """Log as the settings say, without any secret."""
    secrets = [*settings.tokens, *settings.secrets()]
    logs.configure(settings.log_level, settings.log_format, secrets=secrets)
