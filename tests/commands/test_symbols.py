"""``spotd symbols``: plain demand from the command line."""

from __future__ import annotations

import json
import time

import pytest
import redis

from .conftest import Call
from .terminal import KEYS, publish, state_of


def test_add_and_remove(spotd: Call, server: redis.Redis) -> None:
    """Symbols come and go as the contract writes them, and say nothing."""
    assert spotd("symbols", "add", "spy", "QQQ ") == (0, "", "")
    assert server.smembers(KEYS.symbols) == {b"SPY", b"QQQ"}
    assert spotd("symbols", "remove", "Spy") == (0, "", "")
    assert server.smembers(KEYS.symbols) == {b"QQQ"}


@pytest.mark.parametrize("command", ["add", "remove"])
def test_malformed(spotd: Call, server: redis.Redis, command: str) -> None:
    """A malformed symbol is named, is exit code 2, and nothing is changed."""
    server.sadd(KEYS.symbols, "QQQ")
    outcome = spotd("symbols", command, "QQQ", "sp-y", "SPY")
    assert outcome.code == 2
    assert "not a symbol: 'sp-y'" in outcome.err
    assert server.smembers(KEYS.symbols) == {b"QQQ"}


def test_list(spotd: Call, server: redis.Redis) -> None:
    """Every desired symbol and refused entry has a line, also those no daemon has seen."""
    server.sadd(KEYS.symbols, "SPY", "sp-y")
    server.zadd(KEYS.leases, {"QQQ@me": time.time() + 60})
    server.hset(KEYS.states, "SPY", state_of("SPY").to_json())
    server.hset(KEYS.states, "sp-y", state_of("sp-y", "refused", "invalid_symbol").to_json())
    publish(server, "SPY")
    assert [line.split() for line in spotd("symbols", "list").out.splitlines()] == [
        ["QQQ", "-", "-"],
        ["SPY", "live", "421.37"],
        ["sp-y", "refused", "-", "invalid_symbol:", "more", "words"],
    ]
    assert json.loads(spotd("symbols", "list", "--json").out)[1:] == [
        {"symbol": "SPY", "state": "live", "mid_price": 421.37, "reason": None, "detail": None},
        {
            "symbol": "sp-y",
            "state": "refused",
            "mid_price": None,
            "reason": "invalid_symbol",
            "detail": "more words",
        },
    ]


def test_empty_list(spotd: Call, server: redis.Redis) -> None:
    """Nothing desired is said to people, and is an empty list to programs."""
    outcome = spotd("symbols", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert "nothing is desired" in outcome.err
    assert spotd("symbols", "list", "--json") == (0, "[]\n", "")
