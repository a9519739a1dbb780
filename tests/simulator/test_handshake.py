"""The begin of a connection: handshake, encoding, compression, greeting."""

import asyncio
from collections.abc import Callable

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from spotd.simulator import Limits, Simulator
from spotd.simulator.messages import FEEDS
from tests.kit.waiting import until
from tests.simulator.dialogue import AUTHENTICATED, CONNECTED, dial, exchange, refusal


async def test_greets_at_once(sim: Simulator) -> None:
    """The server sends first: connected, alone in an array."""
    async with dial(sim, login=False) as talk:
        assert await talk.hear() == [CONNECTED]


@pytest.mark.parametrize("feed", FEEDS)
async def test_every_feed_has_its_endpoint(sim: Simulator, feed: str) -> None:
    """Stock feeds are below /v2, overnight feeds below /v1beta1."""
    async with dial(sim, feed=feed) as talk:
        assert sim.sessions[0].feed == feed
        assert talk.ws.request is not None
        assert talk.ws.request.path == FEEDS[feed]


async def test_unknown_paths_are_not_found(sim: Simulator) -> None:
    """The handshake is refused with 404."""
    with pytest.raises(InvalidStatus, match="404"):
        await connect(f"ws://127.0.0.1:{sim.port}/v2/crypto", proxy=None)


@pytest.mark.parametrize(
    ("content", "kind"),
    [("application/msgpack", bytes), ("application/json", str), (None, str)],
)
async def test_content_type_of_the_handshake_selects_the_encoding(
    sim: Simulator, content: str | None, kind: type
) -> None:
    """msgpack comes in binary frames; JSON, the default, in text frames."""
    headers = {"Content-Type": content} if content else {}
    async with connect(sim.stream_url(), additional_headers=headers, proxy=None) as ws:
        assert isinstance(await ws.recv(), kind)


@pytest.mark.parametrize("offered", [True, False])
async def test_deflate_is_negotiated_when_both_want_it(offered: bool) -> None:
    """The server may offer permessage-deflate or not; large frames arrive either way."""
    async with Simulator(limits=Limits(deflate=offered)) as sim, dial(sim) as talk:
        extensions = [type(one).__name__ for one in talk.ws.protocol.extensions]
        assert extensions == (["PerMessageDeflate"] if offered else [])
        symbols = [a + b + c for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ" for c in "ABCDEFGHIJ"]
        await talk.subscribe(quotes=symbols)
        await sim.send([{"T": "q", "S": one} for one in symbols])
        assert [one["S"] for one in await talk.hear()] == symbols


@pytest.mark.parametrize("status", [403, 404, 429, 502])
async def test_a_handshake_may_be_refused_by_http_status(sim: Simulator, status: int) -> None:
    """The fault takes effect at once and is counted; without it, connections work again."""
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
    """It has no answer until the fault is over."""
    sim.faults.handshake_hang = True
    connecting = asyncio.create_task(connect_and_hear(sim))
    await until(lambda: sim.received.of("connect"), "the handshake")
    await exchange(sim)
    assert not connecting.done()
    sim.faults.handshake_hang = False
    assert await connecting == [CONNECTED]


async def test_a_handshake_may_outlive_its_client(sim: Simulator) -> None:
    """A client that stopped waiting leaves no session behind."""
    sim.faults.handshake_hang = True
    connecting = asyncio.create_task(connect_and_hear(sim))
    await until(lambda: sim.received.of("connect"), "the handshake")
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    sim.faults.handshake_hang = False
    async with dial(sim):
        await until(lambda: len(sim.sessions) == 1, "a single session")


async def connect_and_hear(sim: Simulator) -> list[dict[str, object]]:
    """Return the first frame of a new connection."""
    async with dial(sim, login=False, close_timeout=0.01) as talk:
        return await talk.hear()


@pytest.mark.parametrize(
    ("knob", "is_delayed"),
    [
        ("handshake_delay_s", lambda sim: sim.received.of("connect")),
        ("greeting_delay_s", lambda sim: sim.sessions),
    ],
    ids=["handshake", "greeting"],
)
async def test_handshake_and_greeting_may_be_late(
    sim: Simulator, knob: str, is_delayed: Callable[[Simulator], object]
) -> None:
    """Other connections are served in between; after a short delay the greeting comes."""
    setattr(sim.faults, knob, 600.0)
    connecting = asyncio.create_task(connect_and_hear(sim))
    await until(lambda: is_delayed(sim), "the delay to begin")
    setattr(sim.faults, knob, 0.01)
    assert await connect_and_hear(sim) == [CONNECTED]
    assert not connecting.done()
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)


async def test_the_greeting_may_be_missing(sim: Simulator) -> None:
    """The first message that the client then receives is the answer to its auth."""
    sim.faults.no_greeting = True
    async with dial(sim, login=False) as talk:
        assert await talk.login() == AUTHENTICATED


async def test_the_greeting_may_be_an_error(sim: Simulator) -> None:
    """The error comes in place of the greeting."""
    sim.faults.greeting_error = 500
    async with dial(sim, login=False) as talk:
        assert await talk.hear() == [refusal(500, "internal error")]


async def test_every_connect_is_recorded_with_its_headers(sim: Simulator) -> None:
    """The record holds the path and the headers of each handshake."""
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
    """For a wildcard address the URL has the loopback address."""
    sim = Simulator(host, 9820)
    assert sim.stream_url("boats") == f"ws://{named}:9820/v1beta1/boats"
    assert sim.data_url == f"http://{named}:9820"
