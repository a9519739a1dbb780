"""``spotd relay`` as a process: what it says, and how it ends."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import redis

from tests.cli.conftest import Call
from tests.kit.ports import free_port
from tests.kit.processes import Command
from tests.kit.publisher import KEYS, status_of
from tests.kit.servers import Server
from tests.kit.waiting import until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_it_serves_until_it_is_asked_to_stop(
    shared_server: Server, server: redis.Redis, tmp_path: Path, number: signal.Signals
) -> None:
    """Ready with Redis and a daemon; exit code 0; the token stands in no line of its log."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("the signal is ignored here, as under nohup")
    server.set(KEYS.status, status_of().to_json())
    port = free_port()
    env = {
        "SPOTD_REDIS_URL": shared_server.url,
        "SPOTD_RELAY_PORT": str(port),
        "SPOTD_RELAY_TOKEN": "tell-nobody",
        "SPOTD_LOG_LEVEL": "debug",
    }
    command = await Command.start("relay", home=tmp_path / "relay", env=env, http_port=port)
    try:
        await until(command.ready, "the relay to be ready", logs=command.tail)
        assert (await command.get("/api/spot-prices?symbols=SPY&token=tell-nobody"))[0] == 401
        assert (await command.get("/sse?symbols=9&token=tell-nobody"))[0] == 422
        assert await command.stop(number) == 0
    finally:
        await command.kill()
    assert "tell-nobody" not in command.output
    assert command.events() == ["listening", "stopped"]


async def test_it_warns_where_others_may_reach_it(
    shared_server: Server, server: redis.Redis, tmp_path: Path
) -> None:
    """Before it listens."""
    env = {
        "SPOTD_REDIS_URL": shared_server.url,
        "SPOTD_RELAY_HOST": "0.0.0.0",  # noqa: S104 - that is what is warned of
        "SPOTD_RELAY_PORT": "0",
    }
    command = await Command.start("relay", home=tmp_path / "relay", env=env)
    try:
        await until(lambda: "listening" in command.events(), "the relay", logs=command.tail)
        assert await command.stop() == 0
    finally:
        await command.kill()
    [warning] = [line for line in command.log() if "exchanges" in line["event"]]
    assert warning["level"] == "warning"
    assert "SPOTD_RELAY_TOKEN" in warning["event"]


def test_wrong_settings_are_told_in_one_line(spotd: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 2."""
    monkeypatch.setenv("SPOTD_RELAY_MAX_SYMBOLS", "none")
    outcome = spotd("relay")
    assert outcome.code == 2
    assert "SPOTD_RELAY_MAX_SYMBOLS" in outcome.err
