"""The small commands behind Sentinel, which knows the master."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.cli.conftest import Call
from tests.kit.publisher import KEYS, publish
from tests.kit.servers import Server


@pytest.fixture
def sentinel(shared_server: Server, tmp_path: Path) -> Iterator[str]:
    """Yield a Sentinel that watches the server as ``main``: its address for the commands."""
    config = f"sentinel monitor main 127.0.0.1 {shared_server.port} 1\n"
    with Server(tmp_path / "sentinel", "--sentinel", config=config) as running:
        yield f"redis+sentinel://127.0.0.1:{running.port}/main/0"


def test_commands(
    process: Call, server: redis.Redis, sentinel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand, list, prices and the check of Redis go to the master."""
    monkeypatch.setenv("SPOTD_REDIS_URL", sentinel)
    assert process("symbols", "add", "SPY")[:2] == (0, "added 1: SPY\n")
    assert server.smembers(KEYS.symbols) == {b"SPY"}
    publish(server, "SPY")
    assert process("watch", "SPY", "--count", "1").out.split()[1] == "SPY"
    assert "redis       ok" in process("check").out
