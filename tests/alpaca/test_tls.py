"""The stream over TLS, as Alpaca serves it: a proxy with a certificate before the simulator."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from spotd.core.subscriptions import Request
from spotd.errors import StreamError
from spotd.simulator import Faults, Simulator
from tests.kit.servers import make_certificates
from tests.kit.stream import (
    IMPATIENT,
    Listener,
    nothing_connected,
    nothing_unheard,  # noqa: F401 - a fixture for every test
    resolve,
    stream_to,
)
from tests.kit.waiting import until
from tests.kit.websocket import tcp_server

Certificates = tuple[Path, Path, Path]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return an authority of our own, a certificate for this machine, and its key."""
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusted(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    """Return the certificates, with their authority trusted by this process."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates[0]))
    return certificates


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def _before(sim: Simulator, certificates: Certificates) -> AsyncIterator[int]:
    """Run a proxy that speaks TLS. Yield its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates[1], certificates[2])

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", sim.port)
        try:
            await asyncio.gather(_pipe(reader, inner_writer), _pipe(inner_reader, writer))
        finally:
            inner_writer.close()

    async with tcp_server(behave, ssl=context) as port:
        yield port


async def test_a_session_over_tls(trusted: Certificates) -> None:
    """A session is opened, asks, reads data and sends a close frame; no socket is left open."""
    listener = Listener()
    async with Simulator() as sim, _before(sim, trusted) as port:
        stream = stream_to(f"wss://localhost:{port}/v2/iex", listener)
        await stream.open()
        await stream.request(Request("subscribe", ("SPY",)))
        await sim.send([{"T": "q", "S": "SPY", "bp": 2.5}])
        await until(lambda: [quote.bid for quote in listener.quotes] == [2.5], "the quote")
        await stream.close()
        await sim.wait_for(lambda: sim.received.of("close"))
        assert sim.received.of("close")[0].data == 1000
        await nothing_connected(port)


async def test_a_certificate_of_an_unknown_authority_is_refused(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No keys are sent to a server whose certificate is not trusted."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with Simulator() as sim, _before(sim, certificates) as port:
        with pytest.raises(StreamError, match="certificate") as caught:
            await stream_to(f"wss://localhost:{port}/v2/iex").open()
        assert caught.value.reason == "connect"
        assert not sim.sessions
        await nothing_connected(port)


async def test_the_name_in_the_certificate_counts(
    trusted: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate for another host is refused, though its authority is trusted."""
    async with Simulator() as sim, _before(sim, trusted) as port:
        resolve(monkeypatch, [("127.0.0.1", port)])
        with pytest.raises(StreamError, match="certificate"):
            await stream_to(f"wss://stream.invalid:{port}/v2/iex").open()


@pytest.mark.parametrize("fault", [Faults(handshake_hang=True), Faults(no_greeting=True)])
async def test_no_answer_over_tls(trusted: Certificates, fault: Faults) -> None:
    """A try that takes too long leaves no socket open, whichever layer it hangs in."""
    async with Simulator(faults=fault) as sim, _before(sim, trusted) as port:
        with pytest.raises(StreamError):
            await stream_to(f"wss://localhost:{port}/v2/iex", timeouts=IMPATIENT).open()
        await nothing_connected(port)


async def test_a_peer_that_never_speaks_tls() -> None:
    """The time limit covers the handshake of TLS."""

    async def behave(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with tcp_server(behave) as port:
        with pytest.raises(StreamError) as caught:
            await stream_to(f"wss://localhost:{port}/", timeouts=IMPATIENT).open()
        assert caught.value.reason == "connect_timeout"
        await nothing_connected(port)


async def test_cancelled_over_tls(trusted: Certificates) -> None:
    """A cancelled try leaves no socket open."""
    async with (
        Simulator(faults=Faults(handshake_hang=True)) as sim,
        _before(sim, trusted) as port,
    ):
        task = asyncio.create_task(stream_to(f"wss://localhost:{port}/v2/iex").open())
        await sim.wait_for(lambda: sim.stats.connections)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await nothing_connected(port)
