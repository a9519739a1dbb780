"""``spotd symbols``: plain demand from the command line."""

from __future__ import annotations

import json
import time

import pytest
import redis

from tests.cli.conftest import Call
from tests.kit.publisher import KEYS, publish, state_of, status_of


def test_add_and_remove(spotd: Call, server: redis.Redis) -> None:
    """Symbols are added and removed in the contract's form, and one line says which."""
    assert spotd("symbols", "add", "spy", "QQQ ") == (0, "added 2: SPY, QQQ\n", "")
    told = "added 1: IWM; already there: SPY\n"
    assert spotd("symbols", "add", "spy", "iwm", "IWM") == (0, told, "")
    assert spotd("symbols", "remove", "IWM", "dia") == (0, "removed 1: IWM; not there: DIA\n", "")
    assert spotd("symbols", "remove", "dia") == (0, "not there: DIA\n", "")
    assert server.smembers(KEYS.symbols) == {b"SPY", b"QQQ"}
    assert spotd("symbols", "remove", "Spy") == (0, "removed 1: SPY\n", "")
    assert server.smembers(KEYS.symbols) == {b"QQQ"}
    server.sadd(KEYS.symbols, "sp-y", "qqq ")
    assert spotd("symbols", "remove", "sp-y", "QQQ").out == "removed 2: QQQ, sp-y\n"
    assert server.smembers(KEYS.symbols) == set()


def test_commas_and_spaces(spotd: Call, server: redis.Redis) -> None:
    """Symbols are listed with either, and a malformed entry with a comma is removed as stored."""
    assert spotd("symbols", "add", "spy,QQQ", "IWM, dia").out == "added 4: SPY, QQQ, IWM, DIA\n"
    server.sadd(KEYS.symbols, "a,b")
    assert spotd("symbols", "remove", "spy,qqq", "a,b").out == "removed 3: QQQ, SPY, a,b\n"
    assert server.smembers(KEYS.symbols) == {b"IWM", b"DIA"}
    outcome = spotd("symbols", "add", ",")
    assert (outcome.code, "not a symbol: ','" in outcome.err) == (2, True)


def test_wildcard(spotd: Call, server: redis.Redis) -> None:
    """The whole market is added, with a hint at the setting that it needs."""
    outcome = spotd("symbols", "add", "*")
    assert (outcome.code, outcome.out) == (0, "added 1: *\n")
    assert "SPOTD_ALLOW_WILDCARD" in outcome.err
    assert server.smembers(KEYS.symbols) == {b"*"}


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


def test_states_of_a_daemon_that_is_gone(spotd: Call, server: redis.Redis) -> None:
    """States count only while there is a status; without one it is said."""
    server.hset(KEYS.states, "SPY", state_of("SPY").to_json())
    assert spotd("symbols", "list").err == (
        "no daemon runs: these states were left behind, and do not count\n"
    )
    server.set(KEYS.status, status_of().to_json())
    assert spotd("symbols", "list").err == ""


def test_empty_list(spotd: Call, server: redis.Redis) -> None:
    """An empty demand is a hint to people and an empty list to programs."""
    outcome = spotd("symbols", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert "nothing is desired" in outcome.err
    assert spotd("symbols", "list", "--json") == (0, "[]\n", "")
