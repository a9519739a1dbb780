"""Who may stream: keys, entitlements, the time to authenticate, the connection limit."""

import asyncio

import pytest

from spotd.simulator import Limits, Simulator
from tests.simulator.dialogue import AUTHENTICATED, dial, refusal

AUTH = {"action": "auth", "key": "demo-key", "secret": "demo-secret"}
HEADERS = {"APCA-API-KEY-ID": "demo-key", "APCA-API-SECRET-KEY": "demo-secret"}
LIMIT = refusal(406, "connection limit exceeded")


async def test_the_right_key_is_authenticated_once(sim: Simulator) -> None:
    """A second auth is 403 and changes nothing."""
    async with dial(sim) as talk:
        assert sim.sessions[0].authenticated
        assert await talk.ask(AUTH) == refusal(403, "already authenticated")
        assert sim.sessions[0].authenticated


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (AUTH | {"secret": "wrong"}, refusal(402, "auth failed")),
        (AUTH | {"key": "unknown"}, refusal(402, "auth failed")),
        (AUTH | {"key": 1}, refusal(400, "invalid syntax")),
        ({"action": "auth"}, refusal(400, "invalid syntax")),
        ({"action": "subscribe", "quotes": ["SPY"]}, refusal(401, "not authenticated")),
        ({"action": "unsubscribe", "quotes": ["SPY"]}, refusal(401, "not authenticated")),
        ({"action": "listen"}, refusal(400, "invalid syntax")),
        ([1, 2], refusal(400, "invalid syntax")),
    ],
)
async def test_what_is_refused_before_authentication(
    sim: Simulator, message: object, answer: dict[str, object]
) -> None:
    """Each refusal leaves the connection open for a right answer."""
    async with dial(sim, login=False) as talk:
        await talk.greet()
        assert await talk.ask(message) == answer
        assert await talk.ask(AUTH) == AUTHENTICATED
        assert sim.stats.refused[int(str(answer["code"]))] == 1


async def test_a_feed_outside_the_plan_is_409() -> None:
    """The key is right, the feed is not in the plan; another feed works."""
    async with Simulator(feeds=["iex"]) as sim:
        async with dial(sim, feed="sip", login=False) as talk:
            await talk.greet()
            assert await talk.login() == refusal(409, "insufficient subscription")
        async with dial(sim):
            pass


async def test_refused_auth_may_end_the_connection() -> None:
    """Whether 402 closes is not documented, so it is a knob."""
    async with (
        Simulator(limits=Limits(close_after_refused_auth=True)) as sim,
        dial(sim, login=False) as talk,
    ):
        await talk.greet()
        assert (await talk.login(secret="wrong"))["code"] == 402
        assert await talk.hear_end() == 1000


async def test_silence_instead_of_auth_is_404_and_the_end() -> None:
    """Ten seconds at Alpaca, less here."""
    async with (
        Simulator(limits=Limits(auth_timeout_s=0.05)) as sim,
        dial(sim, login=False) as talk,
    ):
        await talk.greet()
        assert await talk.hear_one() == refusal(404, "auth timeout")
        assert await talk.hear_end() == 1000


async def test_auth_in_time_stops_that_timer() -> None:
    """An authenticated session outlives the time to authenticate."""
    async with Simulator(limits=Limits(auth_timeout_s=0.2)) as sim, dial(sim) as talk:
        await asyncio.wait([asyncio.create_task(talk.ws.wait_closed())], timeout=0.3)
        assert await talk.subscribe(quotes=["SPY"])


async def test_keys_in_the_headers_authenticate(sim: Simulator) -> None:
    """With header auth, authenticated follows connected, and another auth is 403."""
    async with dial(sim, headers=HEADERS, login=False) as talk:
        await talk.greet()
        assert await talk.hear_one() == AUTHENTICATED
        assert (await talk.login())["code"] == 403


async def test_header_auth_can_be_off(sim: Simulator) -> None:
    """Then headers mean nothing."""
    sim.limits.header_auth = False
    async with dial(sim, headers=HEADERS):
        assert sim.sessions[0].authenticated


async def test_the_newer_connection_is_refused_and_may_ask_again(sim: Simulator) -> None:
    """406 answers the auth of the second, which stays open and succeeds once the first is gone."""
    async with dial(sim, login=False) as second:
        await second.greet()
        async with dial(sim) as first:
            assert await second.login() == LIMIT
            assert await second.login() == LIMIT
            assert await first.subscribe(quotes=["SPY"])
        await sim.wait_for(lambda: len(sim.sessions) == 1)
        assert await second.login() == AUTHENTICATED
    assert sim.stats.refused[406] == 2


async def test_the_limit_counts_per_feed_and_key() -> None:
    """Another feed or another key is another endpoint; the limit is a knob."""
    async with Simulator(keys={"demo-key": "demo-secret", "b": "c"}) as sim, dial(sim):
        async with dial(sim, feed="sip"), dial(sim, login=False) as other:
            await other.greet()
            assert await other.login("b", "c") == AUTHENTICATED
        sim.limits.connections = 2
        async with dial(sim):
            assert len(sim.sessions) == 2


@pytest.mark.parametrize("how", ["close", "vanish"])
async def test_a_session_that_vanished_keeps_its_seat(how: str) -> None:
    """A close frame frees the seat at once; without one it is held, as for half-dead sessions."""
    async with Simulator(limits=Limits(dead_session_hold_s=60.0)) as sim:
        async with dial(sim) as first:
            if how == "vanish":
                first.ws.transport.abort()
        await sim.wait_for(lambda: not sim.sessions)
        async with dial(sim, login=False) as second:
            await second.greet()
            answer = await second.login()
        assert answer == (LIMIT if how == "vanish" else AUTHENTICATED)
        [code] = [one.data for one in sim.received.of("close", session=1)]
        assert code == (None if how == "vanish" else 1000)


async def test_the_hold_ends() -> None:
    """After the hold the seat is free again."""
    async with Simulator(limits=Limits(dead_session_hold_s=0.1)) as sim:
        async with dial(sim) as first:
            first.ws.transport.abort()
        await sim.wait_for(lambda: not sim.sessions)
        async with dial(sim, login=False) as second:
            await second.greet()
            async with asyncio.timeout(5):
                while await second.login() == LIMIT:
                    pass
            assert sim.sessions[0].authenticated


async def test_auth_may_be_answered_with_any_error(sim: Simulator) -> None:
    """The knob decides, whatever the key."""
    async with dial(sim, login=False) as talk:
        await talk.greet()
        sim.faults.auth_error = 406
        assert await talk.login() == LIMIT
        sim.faults.auth_error = 0
        assert await talk.login() == AUTHENTICATED


async def test_auth_may_be_late_or_unanswered(sim: Simulator) -> None:
    """A late answer comes, a silent one never does: the next thing heard answers the next thing."""
    sim.faults.auth_delay_s = 0.05
    async with dial(sim):
        pass
    sim.faults.auth_silent = True
    async with dial(sim, login=False) as talk:
        await talk.greet()
        await talk.say(AUTH)
        await sim.wait_for(lambda: sim.received.messages("auth")[1:])
        assert (await talk.ask({"action": "nonsense"}))["code"] == 400
