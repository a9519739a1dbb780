"""The small commands in a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from spotd.keys import Keys
from tests.cli.conftest import Call
from tests.kit.ports import free_port
from tests.kit.publisher import state_of, status_of, update_of, write_status
from tests.kit.servers import ClusterServers, Server

KEYS = Keys(key_prefix="{spotd}:")


@pytest.fixture(autouse=True)
def prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put all keys on one node, as the daemon demands in a cluster."""
    monkeypatch.setenv("SPOTD_KEY_PREFIX", KEYS.key_prefix)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterServers]:
    """Yield three masters, whose addresses SPOTD_REDIS_URL names."""
    with ClusterServers(tmp_path) as running:
        monkeypatch.setenv("SPOTD_REDIS_URL", running.url)
        yield running


def test_commands(process: Call, cluster: ClusterServers) -> None:
    """Demand, status, states and prices come from the node that holds them."""
    assert process("symbols", "add", "SPY").code == 0
    listed = process("symbols", "list", "--json")
    assert [row["symbol"] for row in json.loads(listed.out)] == ["SPY"]
    assert "no daemon runs here" in process("status").out
    [holder] = [node for node in cluster.nodes if _holds(node, KEYS.symbols)]
    with holder.client() as client:
        write_status(client, status_of(), KEYS)
        client.hset(KEYS.last, "SPY", update_of("SPY").to_json())
        client.hset(KEYS.states, "SPY", state_of("SPY", "stale").to_json())
    assert process("status").out.startswith("state        streaming since")
    assert process("symbols", "list").out.split()[:3] == ["SPY", "stale", "421.37"]
    assert process("watch", "SPY", "--count", "1").out.split()[1] == "SPY"
    assert "redis       ok" in process("check").out


def test_prefix(spotd: Call, cluster: ClusterServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix that scatters the keys over the cluster is a wrong setting."""
    monkeypatch.setenv("SPOTD_KEY_PREFIX", "spotd:")
    outcome = spotd("status")
    assert outcome.code == 2
    assert "SPOTD_KEY_PREFIX" in outcome.err
    assert "{spotd}:" in outcome.err


@pytest.mark.parametrize("command", [["status"], ["symbols", "list"], ["watch", "SPY"], ["check"]])
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
