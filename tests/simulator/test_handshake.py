"""The first moments of a connection: handshake, encoding, compression, greeting."""

import asyncio

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from spotd.simulator import Limits, Simulator
from spotd.simulator.messages import FEEDS
from tests.simulator.dialogue import AUTHENTICATED, CONNECTED, dial, refusal


async def test_greets_at_once(sim: Simulator) -> None:
    """The server speaks first: connected, alone in an array."""
    async with dial(sim, login=False) as talk:
        assert await talk.hear() == [CONNECTED]


@pytest.mark.parametrize("feed", FEEDS)
async def test_every_feed_has_its_endpoint(sim: Simulator, feed: str) -> None:
    """Stock feeds are below /v2, overnight ones below /v1beta1."""
    async with dial(sim, feed=feed) as talk:
        assert sim.sessions[0].feed == feed
        assert talk.ws.request is not None
        assert talk.ws.request.path == FEEDS[feed]


async def test_unknown_paths_are_not_found(sim: Simulator) -> None:
    """Another path is refused at the handshake with 404."""
    with pytest.raises(InvalidStatus, match="404"):
        await connect(f"ws://127.0.0.1:{sim.port}/v2/crypto", proxy=None)


@pytest.mark.parametrize(
    ("content", "kind"),
    [("application/msgpack", bytes), ("application/json", str), (None, str)],
)
async def test_content_type_of_the_handshake_selects_the_encoding(
    sim: Simulator, content: str | None, kind: type
) -> None:
    """msgpack is in binary frames, JSON, the default, in text frames."""
    headers = {"Content-Type": content} if content else {}
    async with connect(sim.stream_url(), additional_headers=headers, proxy=None) as ws:
        assert isinstance(await ws.recv(), kind)


@pytest.mark.parametrize("offered", [True, False])
async def test_deflate_is_negotiated_when_both_want_it(offered: bool) -> None:
    """permessage-deflate is offered by default and can be off; large frames survive it."""
    async with Simulator(limits=Limits(deflate=offered)) as sim, dial(sim) as talk:
        extensions = [type(one).__name__ for one in talk.ws.protocol.extensions]
        assert extensions == (["PerMessageDeflate"] if offered else [])
        symbols = [a + b + c for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ" for c in "ABCDEFGHIJ"]
        await talk.subscribe(quotes=symbols)
        await sim.send([{"T": "q", "S": one} for one in symbols])
        assert [one["S"] for one in await talk.hear()] == symbols


@pytest.mark.parametrize("status", [403, 404, 429, 502])
async def test_a_handshake_may_be_refused_by_http_status(sim: Simulator, status: int) -> None:
    """The knob takes effect at once and is counted; taken back, connections work again."""
    sim.faults.handshake_status = status
    with pytest.raises(InvalidStatus) as refused:
        async with dial(sim):
            raise AssertionError
    assert refused.value.response.status_code == status
    assert sim.stats.handshakes_refused == 1
    sim.faults.handshake_status = 0
    async with dial(sim):
        assert len(sim.sessions) == 1


async def test_a_handshake_may_hang(sim: Simulator) -> None:
    """A hanging handshake gets no answer until the knob is turned back."""
    sim.faults.handshake_hang = True
    connecting = asyncio.create_task(connect_and_hear(sim))
    await sim.wait_for(lambda: sim.received.of("connect"))
    assert not connecting.done()
    sim.faults.handshake_hang = False
    assert await connecting == [CONNECTED]


async def test_a_handshake_may_outlive_its_client(sim: Simulator) -> None:
    """A client that gave up waiting leaves no session behind."""
    sim.faults.handshake_hang = True
    connecting = asyncio.create_task(connect_and_hear(sim))
    await sim.wait_for(lambda: sim.received.of("connect"))
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    sim.faults.handshake_hang = False
    async with dial(sim):
        await sim.wait_for(lambda: len(sim.sessions) == 1)


async def connect_and_hear(sim: Simulator) -> list[dict[str, object]]:
    """The first frame of a new connection."""
    async with dial(sim, login=False) as talk:
        return await talk.hear()


async def test_handshake_and_greeting_may_be_late(sim: Simulator) -> None:
    """Delays hold the handshake and the greeting back, and lose nothing."""
    sim.faults.handshake_delay_s = sim.faults.greeting_delay_s = 0.05
    started = asyncio.get_running_loop().time()
    async with dial(sim):
        assert asyncio.get_running_loop().time() - started >= 0.1


async def test_the_greeting_may_be_missing(sim: Simulator) -> None:
    """Accepted but never greeted: the first thing heard is the answer to auth."""
    sim.faults.no_greeting = True
    async with dial(sim, login=False) as talk:
        assert await talk.login() == AUTHENTICATED


async def test_the_greeting_may_be_an_error(sim: Simulator) -> None:
    """An error in place of the greeting."""
    sim.faults.greeting_error = 500
    async with dial(sim, login=False) as talk:
        assert await talk.hear() == [refusal(500, "internal error")]


async def test_every_connect_is_recorded_with_its_headers(sim: Simulator) -> None:
    """The record holds path and headers of each handshake."""
    async with dial(sim, headers={"X-Who": "me"}):
        [record] = sim.received.of("connect")
        assert record.data == "/v2/iex"
        assert record.headers["X-Who"] == "me"
        assert record.headers["Content-Type"] == "application/msgpack"


@pytest.mark.parametrize(
    ("host", "named"),
    [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("localhost", "localhost")],  # noqa: S104 - its name only
)
def test_addresses_can_be_connected_to(host: str, named: str) -> None:
    """Listening everywhere is named by the loopback address."""
    sim = Simulator(host, 9820)
    assert sim.stream_url("boats") == f"ws://{named}:9820/v1beta1/boats"
    assert sim.data_url == f"http://{named}:9820"
