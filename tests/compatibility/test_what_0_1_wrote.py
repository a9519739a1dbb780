"""What is new reads the messages and keys of 0.1: models, client, relay, and a daemon after it."""

from __future__ import annotations

import json

import pytest

from spotd import SpotClient
from spotd.models import DaemonStatus, SpotPriceUpdate, SymbolState
from tests.compatibility.fixture_0_1 import (
    EVENTS,
    LAST,
    PRICES,
    SEQ,
    STATES,
    STATUS,
    TOKEN,
    restore,
)
from tests.daemon.rig import NewRig
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.values import Values
from tests.kit.waiting import until
from tests.relay.conftest import websocket
from tests.relay.test_whole import ready, relay

SYMBOLS = ("SPY", "QQQ", "IBM")


@pytest.mark.parametrize(("channel", "raw"), PRICES)
def test_a_price_of_0_1_is_read_and_written_to_the_byte(channel: str, raw: bytes) -> None:
    """An update keeps its bytes, so relays and hashes show the same as before."""
    update = SpotPriceUpdate.from_json(raw)
    assert channel == f"spot:{update.symbol}"
    assert update.to_json() == raw


@pytest.mark.parametrize("raw", EVENTS)
def test_an_event_of_0_1_is_read(raw: bytes) -> None:
    """Each field that 0.1 wrote keeps its value; a code, which 0.1 did not know, is null."""
    written = json.loads(raw)
    model = DaemonStatus if written["type"] == "daemon" else SymbolState
    read = json.loads(model.from_json(raw).to_json())
    assert {name: read[name] for name in written} == written
    assert read["code"] is None


async def test_a_client_reads_what_0_1_left(server: Server) -> None:
    """Prices, states, status and demand."""
    async with Values(server.url) as values, SpotClient(server.url) as spot:
        await restore(values.redis)
        latest = await spot.latest(*SYMBOLS)
        assert {name: update and update.to_json().decode() for name, update in latest.items()} == {
            name: LAST[name] for name in SYMBOLS
        }
        states = await spot.states()
        assert {name: state.state for name, state in states.items()} == {
            name: json.loads(raw)["state"] for name, raw in STATES.items()
        }
        status = await spot.status()
        assert status == DaemonStatus.from_json(STATUS)
        assert await spot.desired() == {"SPY", "QQQ", "KO", "IBM", "not one"}
        assert spot.malformed == 0


async def test_a_client_follows_a_daemon_of_0_1(server: Server) -> None:
    """It joins at the stored price, and takes a newer one from the channel."""
    newest = json.loads(LAST["SPY"])
    later = LAST["SPY"].replace(str(newest["seq"]), str(newest["seq"] + 1))
    async with Values(server.url) as values, SpotClient(server.url) as spot:
        await restore(values.redis)
        updates = spot.updates("SPY")
        assert (await anext(updates)).seq == newest["seq"]
        await values.redis.publish("spot:SPY", later)
        assert (await anext(updates)).to_json().decode() == later
        await updates.aclose()


async def test_a_relay_shows_what_0_1_left(server: Server) -> None:
    """Over HTTP and over a websocket; a halt and a refusal too."""
    async with Values(server.url) as values, relay(server) as http:
        await restore(values.redis)
        await until(ready(http), "the relay to be ready")
        answer = await (await http.get("/api/spot-prices?symbols=SPY,IBM")).json()
        assert answer["prices"] == {name: json.loads(LAST[name]) for name in ("SPY", "IBM")}
        async with websocket(http, "SPY", "KO") as client:
            assert client.hello["daemon"]["version"] == "0.1.0"
            found: dict[str, str] = {}
            while found.keys() != {"SPY", "KO"}:
                message = await client.next()
                if message["type"] == "symbol":
                    found[message["symbol"]] = message["state"]
            assert found == {"SPY": "live", "KO": "halted"}


async def test_a_daemon_takes_over_from_0_1(rig: NewRig, server: Server) -> None:
    """It stands by while 0.1 holds the key; then prices, a halt, the demand and seq go on."""
    async with Values(server.url) as values, Recorder(server.url) as recorder:
        await restore(values.redis)
        await values.redis.persist("spotd:leader")
        async with rig(leads=False) as daemon:
            await until(daemon.stands_by, "standing by")
            assert await values.token() == TOKEN
            await values.redis.delete("spotd:leader")  # 0.1 stops, or its key lapses
            await until(lambda: daemon.active == {"SPY", "QQQ", "KO", "IBM"}, "the demand")
            assert {name: raw.decode() for name, raw in await _all_last(values)} == LAST
            await daemon.quote("SPY", 423.0)
            await until(lambda: recorder.of("SPY"), "a new price")
            assert recorder.seqs("SPY")[0] > SEQ
            await until(lambda: values.live(*SYMBOLS), "all live")
            assert await values.state("KO") == "halted"
            assert (await values.states())["not one"]["reason"] == "invalid_symbol"


async def _all_last(values: Values) -> list[tuple[str, bytes]]:
    found = await values.redis.hgetall("spotd:last")
    return [(name.decode(), raw) for name, raw in found.items()]
