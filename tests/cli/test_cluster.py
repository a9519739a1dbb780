"""The small commands in a cluster: single calls work, subscribing needs a node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spotd.keys import Keys
from tests.cli.conftest import Call
from tests.cli.terminal import free_port, status_of
from tests.kit.servers import ClusterServers, Server

KEYS = Keys(key_prefix="{spotd}:")


@pytest.fixture(autouse=True)
def prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys on one node, as the daemon asks for in a cluster."""
    monkeypatch.setenv("SPOTD_KEY_PREFIX", KEYS.key_prefix)


def test_commands(process: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Demand and status reach the node that holds them; ``watch`` works on that node's address."""
    with ClusterServers(tmp_path) as cluster:
        monkeypatch.setenv("SPOTD_REDIS_URL", cluster.url)
        assert process("symbols", "add", "SPY").code == 0
        listed = process("symbols", "list", "--json")
        assert [row["symbol"] for row in json.loads(listed.out)] == ["SPY"]
        assert "no daemon runs here" in process("status").err
        [holder] = [node for node in cluster.nodes if _holds(node, KEYS.symbols)]
        with holder.client() as client:
            client.set(KEYS.status, status_of().to_json())
        assert process("status").out.startswith("state        streaming")
        url = f"redis://127.0.0.1:{holder.port}"
        assert process("watch", "SPY", "--seconds", "0.2", "--redis-url", url) == (0, "", "")


def test_watch(spotd: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be done in a cluster is told in a command line's words."""
    monkeypatch.setenv("SPOTD_REDIS_URL", "redis+cluster://:hunter2@127.0.0.1:1")
    outcome = spotd("watch", "SPY")
    assert outcome.code == 2
    assert "--redis-url redis://host:port" in outcome.err
    assert "redis.asyncio" not in outcome.err


@pytest.mark.parametrize("command", [["status"], ["symbols", "list"], ["check"]])
def test_nobody_there(spotd: Call, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """A cluster that is away is one line, without the password."""
    monkeypatch.setenv("SPOTD_REDIS_URL", f"redis+cluster://:hunter2@127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALPACA_API_KEY", "k")
    outcome = spotd(*command)
    assert outcome.code in (1, 2)
    assert "hunter2" not in outcome.out + outcome.err
    assert "Traceback" not in outcome.err


def _holds(node: Server, key: str) -> bool:
    with node.client() as client:
        return bool(client.keys(key))
