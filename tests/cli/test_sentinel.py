"""The small commands behind Sentinel, which knows where the master is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.cli.conftest import Call
from tests.cli.terminal import KEYS, free_port, publish, until
from tests.kit.servers import Server


@pytest.fixture
def sentinel(shared_server: Server, tmp_path: Path) -> Iterator[str]:
    """A Sentinel that watches the server as ``main``; gives the address to use."""
    port, config = free_port(), tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {shared_server.port} 1\n"
    )
    process = subprocess.Popen(
        [str(shared_server.binary), str(config), "--sentinel"], stdout=subprocess.DEVNULL
    )

    def knows() -> bool:
        try:
            with redis.Redis(port=port) as client:
                return bool(client.sentinel_master("main")["num-other-sentinels"] == 0)
        except redis.ConnectionError:
            return False

    try:
        until(knows)
        yield f"redis+sentinel://127.0.0.1:{port}/main/0"
    finally:
        process.terminate()
        process.wait(timeout=15)


def test_commands(
    process: Call, server: redis.Redis, sentinel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demand, list, prices and the check of Redis go to the master."""
    monkeypatch.setenv("SPOTD_REDIS_URL", sentinel)
    assert process("symbols", "add", "SPY") == (0, "added 1: SPY\n", "")
    assert server.smembers(KEYS.symbols) == {b"SPY"}
    publish(server, "SPY")
    assert process("watch", "SPY", "--count", "1").out.split()[1] == "SPY"
    assert "redis     ok" in process("check").out
