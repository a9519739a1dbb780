"""Authentication over a socket: timers, the connection limit, sessions that vanished."""

import asyncio

import pytest

from spotd.simulator import Limits, Simulator
from tests.kit.waiting import GUARD_S, until
from tests.simulator.dialogue import AUTHENTICATED, dial, exchange, refusal

AUTH = {"action": "auth", "key": "demo-key", "secret": "demo-secret"}
LIMIT = refusal(406, "connection limit exceeded")


async def test_refusals_are_counted_and_leave_the_connection_open(sim: Simulator) -> None:
    """After a wrong secret the right one is accepted on the same connection."""
    async with dial(sim, login=False) as talk:
        await talk.greet()
        assert await talk.login(secret="wrong") == refusal(402, "auth failed")
        assert await talk.login() == AUTHENTICATED
        assert sim.sessions[0].authenticated
        assert sim.stats.refused == {402: 1}


async def test_a_refused_auth_may_end_the_connection() -> None:
    """By its knob, a close frame follows the refusal."""
    async with (
        Simulator(limits=Limits(close_after_refused_auth=True)) as sim,
        dial(sim, login=False) as talk,
    ):
        await talk.greet()
        assert (await talk.login(secret="wrong"))["code"] == 402
        assert await talk.hear_end() == 1000


async def test_a_client_that_does_not_authenticate_is_refused_with_404() -> None:
    """The connection then ends; one that authenticated in time goes on."""
    limits = Limits(auth_timeout_s=2.0, connections=2)
    async with (
        Simulator(limits=limits) as sim,
        dial(sim) as first,
        dial(sim, login=False) as second,
    ):
        await second.greet()
        assert await second.hear_one() == refusal(404, "auth timeout")
        assert await second.hear_end() == 1000
        # Since the first session began earlier, its timer has fired, too.
        assert await first.subscribe(quotes=["SPY"])


async def test_the_newer_connection_may_ask_again_on_its_socket(sim: Simulator) -> None:
    """406 leaves it open, and it succeeds after the first session closed."""
    async with dial(sim, login=False) as second:
        await second.greet()
        async with dial(sim) as first:
            assert await second.login() == LIMIT
            assert await second.login() == LIMIT
            assert await first.subscribe(quotes=["SPY"])
        await until(lambda: len(sim.sessions) == 1, "the first session to end")
        assert await second.login() == AUTHENTICATED
    assert sim.stats.refused[406] == 2


@pytest.mark.parametrize("how", ["close", "vanish"])
async def test_a_session_that_vanished_keeps_its_connection_slot(how: str) -> None:
    """A close frame frees the slot at once; without one it is held."""
    async with Simulator(limits=Limits(dead_session_hold_s=600.0)) as sim:
        async with dial(sim) as first:
            if how == "vanish":
                first.ws.transport.abort()
        await until(lambda: not sim.sessions, "the first session to end")
        async with dial(sim, login=False) as second:
            await second.greet()
            answer = await second.login()
        assert answer == (LIMIT if how == "vanish" else AUTHENTICATED)
        [code] = [one.data for one in sim.received.of("close", session=1)]
        assert code == (None if how == "vanish" else 1000)


async def test_the_hold_ends() -> None:
    """After the hold the connection slot is free again."""
    async with Simulator(limits=Limits(dead_session_hold_s=0.05)) as sim:
        async with dial(sim) as first:
            first.ws.transport.abort()
        await until(lambda: not sim.sessions, "the first session to end")

        async with dial(sim, login=False) as second:
            await second.greet()
            async with asyncio.timeout(GUARD_S):
                while await second.login() == LIMIT:
                    pass
            assert sim.sessions[0].authenticated


async def test_auth_may_be_answered_late(sim: Simulator) -> None:
    """Other connections are served in between; after a short delay the answer comes."""
    sim.faults.auth_delay_s = 600.0
    async with dial(sim, login=False, close_timeout=0.01) as talk:
        await talk.greet()
        answering = asyncio.create_task(talk.login())
        await until(lambda: sim.received.messages("auth"), "the auth")
        await exchange(sim)
        assert not answering.done()
        answering.cancel()
    sim.limits.connections = 2
    sim.faults.auth_delay_s = 0.01
    async with dial(sim):
        pass


async def test_auth_may_stay_unanswered(sim: Simulator) -> None:
    """The next message that the client receives answers its next request."""
    sim.faults.auth_silent = True
    async with dial(sim, login=False) as talk:
        await talk.greet()
        await talk.say(AUTH)
        assert (await talk.ask({"action": "nonsense"}))["code"] == 400
