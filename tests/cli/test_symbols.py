"""``spotd symbols``: plain demand from the command line."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from tests.cli.conftest import Call
from tests.kit.acl import rules_of
from tests.kit.publisher import KEYS, publish, state_of, status_of
from tests.kit.waiting import GUARD_S

NO_DAEMON = "no daemon runs here, so nothing is streamed: spotd run\n"


def test_add_and_remove(spotd: Call, server: redis.Redis) -> None:
    """Symbols are added and removed in the contract's form, and one line says which."""
    assert spotd("symbols", "add", "spy", "QQQ ") == (0, "added 2: SPY, QQQ\n", NO_DAEMON)
    told = "added 1: IWM; already there: SPY\n"
    assert spotd("symbols", "add", "spy", "iwm", "IWM") == (0, told, NO_DAEMON)
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


def test_a_long_entry(spotd: Call, server: redis.Redis) -> None:
    """It has one line, with the state that the daemon wrote under its first 64 characters."""
    entry = "sp-y" * 20
    server.sadd(KEYS.symbols, entry)
    server.set(KEYS.status, status_of().to_json())
    cut = entry[:64]
    server.hset(KEYS.states, cut, state_of(cut, "refused", "invalid_symbol").to_json())
    [row] = json.loads(spotd("symbols", "list", "--json").out)
    assert (row["symbol"], row["state"]) == (entry, "refused")
    assert spotd("symbols", "remove", row["symbol"]).code == 0
    assert server.scard(KEYS.symbols) == 0


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
    server.set(KEYS.status, status_of().to_json())
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
        {
            "symbol": "SPY",
            "state": "live",
            "mid_price": 421.37,
            "reason": None,
            "detail": None,
            "last_state": None,
        },
        {
            "symbol": "sp-y",
            "state": "refused",
            "mid_price": None,
            "reason": "invalid_symbol",
            "detail": "more words",
            "last_state": None,
        },
    ]


@pytest.mark.parametrize("command", [("list",), ("who", "SPY"), ("add", "SPY")])
def test_details_of_any_length_are_cut(
    spotd: Call, server: redis.Redis, command: tuple[str, ...]
) -> None:
    """Whoever may write a state may write megabytes of a detail. A line of it stays short."""
    server.set(KEYS.status, status_of().to_json())
    state = replace(state_of("SPY", "refused", "symbol_limit"), detail="a b " * 500_000)
    server.hset(KEYS.states, "SPY", state.to_json())
    outcome = spotd("symbols", *command)
    [line] = [line for line in (outcome.out + outcome.err).splitlines() if "symbol_limit" in line]
    assert "symbol_limit: a b a b" in line
    assert len(line) < 1_100


def test_empty_list(spotd: Call, server: redis.Redis) -> None:
    """An empty demand is a hint to people and an empty list to programs."""
    outcome = spotd("symbols", "list")
    assert (outcome.code, outcome.out) == (0, "")
    assert "nothing is desired" in outcome.err
    server.set(KEYS.status, status_of().to_json())
    assert spotd("symbols", "list", "--json") == (0, "[]\n", "")


def test_a_list_without_a_daemon(spotd: Call, server: redis.Redis) -> None:
    """States count only while a daemon runs: then nobody reads that a symbol is live."""
    server.hset(KEYS.states, "SPY", state_of("SPY").to_json())
    outcome = spotd("symbols", "list")
    assert outcome.out.split() == ["SPY", "was", "live", "-"]
    assert outcome.err == "no daemon runs here: states and prices are the last known\n"
    [row] = json.loads(spotd("symbols", "list", "--json").out)
    assert (row["state"], row["last_state"]) == (None, "live")


def test_a_part_of_the_list(spotd: Call, server: redis.Redis) -> None:
    """Only the symbols that are named, however they are separated."""
    server.set(KEYS.status, status_of().to_json())
    server.sadd(KEYS.symbols, "SPY", "QQQ", "IWM")
    shown = [
        line.split()[0] for line in spotd("symbols", "list", "spy,iwm", "DIA").out.splitlines()
    ]
    assert shown == ["IWM", "SPY"]
    assert "none of these is desired" in spotd("symbols", "list", "DIA").err


def test_an_entry_with_commas_is_removed_as_it_is_stored(spotd: Call, server: redis.Redis) -> None:
    """Somebody stored a whole list as one entry. Its parts stay."""
    server.sadd(KEYS.symbols, "SPY,QQQ", "SPY", "QQQ")
    assert spotd("symbols", "remove", "SPY,QQQ").out == "removed 1: SPY,QQQ\n"
    assert server.smembers(KEYS.symbols) == {b"SPY", b"QQQ"}


def test_a_removed_entry_is_told_without_control_characters(
    spotd: Call, server: redis.Redis
) -> None:
    """A terminal carries out nothing of what somebody stored."""
    server.sadd(KEYS.symbols, "\x1b]0;x\x07")
    assert spotd("symbols", "remove", "\x1b]0;x\x07").out == "removed 1: \\x1b]0;x\\x07\n"


@pytest.mark.parametrize("command", ["add", "remove", "who", "list"])
def test_a_lease_is_no_symbol(spotd: Call, server: redis.Redis, command: str) -> None:
    """Its form is refused as any other, and the error says to leave the owner out."""
    server.zadd(KEYS.leases, {"B@d": "inf"})
    outcome = spotd("symbols", command, "b@d")
    assert outcome.code == 2
    assert "not a symbol: 'b@d'. A symbol is 1 to 8 letters" in outcome.err
    assert "Name it without an owner" in outcome.err
    assert "owner" not in spotd("symbols", command, "sp-y").err


def test_a_refused_entry_is_listed_by_its_name(spotd: Call, server: redis.Redis) -> None:
    """It is named as it was written, beside symbols as a person writes them."""
    server.sadd(KEYS.symbols, "b@d", "a,b", "SPY", "QQQ")
    rows = json.loads(spotd("symbols", "list", "--json", "b@d", "a,b", "spy").out)
    assert [row["symbol"] for row in rows] == ["SPY", "a,b", "b@d"]


@pytest.mark.parametrize("command", ["add", "remove", "who", "list"])
def test_only_separators(spotd: Call, server: redis.Redis, command: str) -> None:
    """What names no symbol is wrong usage."""
    outcome = spotd("symbols", command, " , ")
    assert outcome.code == 2
    assert "not a symbol: ' , '" in outcome.err


def test_a_refusal_is_told_at_once(spotd: Call, server: redis.Redis) -> None:
    """Where a daemon runs, its answer is waited for. What it refuses is exit code 1."""
    server.set(KEYS.status, status_of().to_json())
    refused = state_of("QQQ", "refused", "symbol_limit")
    for state in (state_of("SPY"), refused):
        server.hset(KEYS.states, state.symbol, state.to_json())
    outcome = spotd("symbols", "add", "SPY,QQQ")
    assert outcome.out == "added 2: SPY, QQQ\n"
    assert outcome.err == "refused QQQ: symbol_limit: more words\n"
    assert outcome.code == 1
    assert spotd("symbols", "add", "SPY") == (0, "already there: SPY\n", "")


def test_an_answer_that_may_not_be_read(spotd: Call, server: Any) -> None:
    """The symbol is added, and nobody is told that no daemon runs."""
    server.set(KEYS.status, status_of().to_json())
    rules = ("reset", "on", ">pw", f"~{KEYS.symbols}", "&*", "+@all")
    server.execute_command("ACL", "SETUSER", "poor", *rules)
    url = f"redis://poor:pw@127.0.0.1:{server.get_connection_kwargs()['port']}/0"
    try:
        outcome = spotd("symbols", "add", "SPY", "--redis-url", url)
    finally:
        server.acl_deluser("poor")
    assert (outcome.code, outcome.out) == (0, "added 1: SPY\n")
    assert outcome.err.startswith("the daemon's answer is not known: Redis at ")


def test_a_daemon_that_is_late(spotd: Call, server: redis.Redis) -> None:
    """The command ends all the same, and the symbol is added."""
    server.set(KEYS.status, status_of().to_json())
    assert spotd("symbols", "add", "SPY") == (0, "added 1: SPY\n", "")


class TestWho:
    """Who asks for a symbol."""

    def test_all_that_ask(self, spotd: Call, server: Any) -> None:
        """Set, leases by the clock of Redis, and subscribers, below the symbol's state."""
        server.set(KEYS.status, status_of().to_json())
        server.hset(KEYS.states, "SPY", state_of("SPY", "stale", "mute").to_json())
        server.sadd(KEYS.symbols, "SPY", "spy ", "*", "sp-y")
        seconds, _ = server.time()
        leases = {"SPY@svc-a": seconds + 100, "SPY@svc-b": "inf", "SPY": seconds + 90}
        server.zadd(KEYS.leases, {"DIA@js": seconds * 1000})
        server.zadd(KEYS.leases, {**leases, "SPY@gone": seconds - 1})
        with server.pubsub() as pubsub:
            pubsub.subscribe(KEYS.channel("SPY"))
            assert pubsub.get_message(timeout=GUARD_S)
            outcome = spotd("symbols", "who", "spy,DIA")
            told = json.loads(spotd("symbols", "who", "SPY", "--json").out)
        assert (outcome.code, outcome.err) == (0, "")
        text = re.sub(r"[\d,]+\.\d s left", "n s left", outcome.out)
        assert text.splitlines() == [
            "SPY is stale: mute: more words",
            "  set, written 'spy '",
            "  lease of (no owner), n s left",
            "  lease of svc-a, n s left",
            "  lease of svc-b, never lapses",
            "  1 subscriber, which is no demand",
            "  the whole market is asked for (*)",
            "DIA has no state",
            "  lease of js, n s left; is its score in milliseconds?",
            "  the whole market is asked for (*)",
        ]
        [asked] = told
        assert asked["entries"] == ["SPY", "spy "]
        left = {each["owner"]: each["left_s"] for each in asked["leases"]}
        assert left.keys() == {"", "svc-a", "svc-b"}
        assert left["svc-b"] is None
        assert left[""] < left["svc-a"] <= 100
        assert (asked["subscribers"], asked["subscribers_are_demand"]) == (1, False)
        assert (asked["whole_market"], asked["daemon"]) == (True, True)
        assert asked["state"]["state"] == "stale"

    def test_nobody(self, spotd: Call, server: redis.Redis) -> None:
        """Without a daemon, a state that the last one left does not count."""
        server.hset(KEYS.states, "SPY", state_of("SPY").to_json())
        told = "SPY has no state: no daemon runs here\n  nobody asks for it\n"
        assert spotd("symbols", "who", "SPY") == (0, told, "")

    def test_subscribers_as_demand(
        self, spotd: Call, server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The setting says whether subscribers are demand."""
        monkeypatch.setenv("SPOTD_SUBSCRIBERS_ARE_DEMAND", "true")
        with server.pubsub() as pubsub:
            pubsub.subscribe(KEYS.channel("SPY"))
            assert pubsub.get_message(timeout=GUARD_S)
            assert spotd("symbols", "who", "SPY").out.endswith("\n  1 subscriber\n")

    def test_least_rights(self, spotd: Call, server: Any) -> None:
        """A consumer may not count subscribers, which is said; all else is shown."""
        server.sadd(KEYS.symbols, "SPY")
        rules = rules_of("spotd-consumer")
        server.execute_command("ACL", "SETUSER", "least", "reset", ">pw", *rules)
        url = f"redis://least:pw@127.0.0.1:{server.get_connection_kwargs()['port']}/"
        try:
            outcome = spotd("symbols", "who", "SPY", "--redis-url", url)
            others = [
                spotd(*command, "--redis-url", url).code
                for command in (("status",), ("symbols", "add", "QQQ"), ("symbols", "list"))
            ]
        finally:
            server.acl_deluser("least")
        assert outcome.out.splitlines()[1:] == [
            "  set",
            "  subscribers: unknown, the user of Redis may not ask (PUBSUB NUMSUB)",
        ]
        assert others == [1, 0, 0]  # no daemon runs
