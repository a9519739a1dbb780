"""What a real daemon and a real relay write is what ``spotd schema`` says, message by message."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from spotd.json_schema import MESSAGES, draft_07
from spotd.relay import asyncapi, openapi
from spotd.simulator import MarketModel, Simulator
from tests.daemon.rig import Rig
from tests.kit.recorder import Recorder
from tests.kit.schemas import Json, Schema, component, with_wrong_types, without_each
from tests.kit.servers import Server
from tests.kit.waiting import until
from tests.relay.test_whole import SUBSCRIBE, ready, relay

SCHEMAS = {name: draft_07(model) for name, model in MESSAGES.items()}
VALIDATORS = {name: Schema(schema) for name, schema in SCHEMAS.items()}
OF_TYPE = {"symbol": "state", "daemon": "status", "gap": "gap", None: "update"}
ASYNCAPI = json.loads(asyncapi.document())
OPENAPI = json.loads(openapi.document())
WEBSOCKET = {
    "hello": "Hello",
    "spot_price_update": "SpotPriceUpdateMessage",
    "spot_price_update_batch": "SpotPriceUpdateBatch",
    "symbol": "SymbolState",
    "daemon": "DaemonStatus",
    "gap": "Gap",
    "relay": "RelayState",
    "error": "Error",
    "pong": "Pong",
}
SYMBOLS = ["SPY", "QQQ", "IWM", "AAPL", "BRK.B", "MSFT", "NVDA", "TSLA", "AMD", "F"]
RELAYED = SYMBOLS[:-1]
UPDATES = 2_500


@dataclass
class Heard:
    """All that a daemon and a relay wrote in one life."""

    published: list[Json] = field(default_factory=list)
    told: list[Json] = field(default_factory=list)  # by the relay, over websockets
    answers: list[tuple[str, Json]] = field(default_factory=list)  # over HTTP, by their schema


@asynccontextmanager
async def listening(
    http: aiohttp.ClientSession, told: list[Json]
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open a websocket, and keep what comes until the end."""

    async def listen() -> None:
        async for message in socket:
            told.append(json.loads(message.data))  # noqa: PERF401 - readable while it grows

    async with http.ws_connect("/ws") as socket:
        task = asyncio.create_task(listen(), name="listener")
        try:
            yield socket
        finally:
            task.cancel()
            await asyncio.wait([task])


def count(messages: list[Json], type_: str, **fields: str) -> int:
    """Return how many messages of a type have these values."""
    return sum(
        message.get("type") == type_ and fields.items() <= message.items() for message in messages
    )


async def asked_over_http(http: aiohttp.ClientSession, heard: Heard) -> None:
    """Ask for symbols and prices, rightly and wrongly."""
    for body in ({"symbols": ["spy", "QQQ", "BAD-1"]}, {"symbols": ["*"]}, {"symbols": 1}):
        answer = await http.post(SUBSCRIBE, json=body)
        heard.answers.append(("SubscribeSpotPricesResponse", await answer.json()))
    answer = await http.get("/api/spot-prices?symbols=SPY,ZZZ")
    heard.answers.append(("SpotPricesResponse", await answer.json()))
    answer = await http.get("/api/spot-prices")
    heard.answers.append(("SubscribeSpotPricesResponse", await answer.json()))


async def one_life(server: Server) -> Heard:
    """Run a daemon and a relay through all that may happen to symbols, and listen to both."""
    heard, single, batched = Heard(), [], []  # type: ignore[var-annotated]
    market = MarketModel(seed=7, quotes_per_s=4_000.0, crossed_p=0.02, one_sided_p=0.02)
    async with (
        Simulator(market=market) as sim,
        Recorder(server.url) as recorder,
        relay(server, relay_max_symbols=len(SYMBOLS)) as http,
        listening(http, single) as one,
        listening(http, batched) as other,
    ):
        await until(lambda: count(single, "hello"), "a hello without a daemon")
        async with Rig(server.url, sim, snapshots=True, max_symbols=len(SYMBOLS)) as daemon:
            await until(ready(http), "the relay to be ready")
            async with listening(http, heard.told) as late:
                await late.send_json({"action": "subscribe", "symbols": ["SPY", "spy-usd"]})
                await late.send_json({"action": "buy"})
                await late.send_json({"action": "ping"})
                await until(lambda: count(heard.told, "pong"), "a pong")
            await one.send_json({"action": "subscribe", "symbols": RELAYED})
            await other.send_json({"action": "subscribe", "symbols": RELAYED, "batch": True})
            await daemon.want(*SYMBOLS)
            await daemon.values.want("ZZZ", "spy-usd", "*", "é" * 70)
            await asked_over_http(http, heard)
            await until(lambda: sim.sessions[0].statuses, "trading statuses")
            await sim.halt("AAPL")
            await until(lambda: count(single, "symbol", state="halted"), "a halt")
            await sim.drop_sessions("abort")
            await until(lambda: count(single, "gap"), "a gap")
            await until(lambda: "refused" in recorder.states("ZZZ"), "a refusal")
            await until(lambda: len(recorder.heard) > UPDATES, "thousands of messages")
            last, states = await daemon.values.all_last(), await daemon.values.states()
            heard.published += [*last.values(), *states.values(), daemon.status]
            await daemon.values.unwant(SYMBOLS[-1])  # no client of the relay wants it
            await until(lambda: "ended" in recorder.states(SYMBOLS[-1]), "an end")
        server.kill()
        await until(lambda: count(single, "relay", state="redis_away"), "the end of Redis")
    heard.published += [each.json for each in recorder.heard]
    heard.told += single + batched
    return heard


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """Return what was heard in one life."""
    with Server(tmp_path_factory.mktemp("schemas")) as server:
        return asyncio.run(one_life(server))


def test_what_is_published_is_valid(heard: Heard) -> None:
    """Thousands of updates, and states, statuses and gaps of every kind, also the stored ones."""
    kinds = Counter(OF_TYPE[message.get("type")] for message in heard.published)
    assert kinds.keys() == SCHEMAS.keys()
    assert kinds["update"] > UPDATES / 2
    states = {each["state"] for each in heard.published if each.get("type") == "symbol"}
    assert states == {"pending", "live", "stale", "halted", "ended", "refused"}
    for message in heard.published:
        VALIDATORS[OF_TYPE[message.get("type")]].check(message)


def test_what_the_relay_tells_is_valid(heard: Heard) -> None:
    """Every type, by AsyncAPI and by OpenAPI."""
    assert {message["type"] for message in heard.told} == WEBSOCKET.keys()
    by_name = {
        name: [component(ASYNCAPI, name), component(OPENAPI, name)]
        for name in (*WEBSOCKET.values(), "DaemonAbsent")
    }
    for message in heard.told:
        absent = message.get("state") == "absent"
        for schema in by_name["DaemonAbsent" if absent else WEBSOCKET[message["type"]]]:
            schema.check(message)


def test_answers_over_http_are_valid(heard: Heard) -> None:
    """By OpenAPI, also where the request is wrong."""
    assert {answer.get("status") for _, answer in heard.answers} == {"success", "error", None}
    for name, answer in heard.answers:
        component(OPENAPI, name).check(answer)


def test_mutated_messages_are_not_valid(heard: Heard) -> None:
    """A required field that is missing, a value of another type: each is seen, in each kind."""
    of_kind: dict[str, list[Json]] = {}
    for message in heard.published:
        of_kind.setdefault(OF_TYPE[message.get("type")], []).append(message)
    for kind, messages in of_kind.items():
        for message in messages[:: max(1, len(messages) // 20)]:
            mutated = [
                *without_each(message, SCHEMAS[kind]["required"]),
                *with_wrong_types(message, SCHEMAS[kind]),
            ]
            assert len(mutated) > 20
            taken = [each for each in mutated if VALIDATORS[kind].takes(each)]
            assert taken == [], kind
