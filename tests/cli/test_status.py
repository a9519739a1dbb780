"""``spotd status``: the daemon's own words and its demand, for people and for programs."""

from __future__ import annotations

import json
import os
import re
import signal
import termios
from datetime import timedelta
from typing import Any

import pytest
import redis
from msgspec.structs import replace

from spotd.cli.overview import Overview, action_of
from spotd.cli.overview_text import lines_of
from spotd.core.demand_origins import origins
from spotd.keys import Keys
from spotd.models import DaemonStatus, SymbolCounts, SymbolState
from tests.cli.conftest import Call
from tests.cli.terminal import hang_up, on_terminal, read_until
from tests.kit.ports import free_port
from tests.kit.processes import popen
from tests.kit.publisher import AT, KEYS, gap_of, state_of, status_of, write_status
from tests.kit.waiting import GUARD_S


def said(seen: Overview, age_s: float = 0.0) -> dict[str, list[str]]:
    """Return what is said under each name."""
    told: dict[str, list[str]] = {}
    name = ""
    for line in lines_of(seen, AT + timedelta(seconds=age_s)):
        name = line.name or name
        told.setdefault(name, []).append(line.text)
    return told


def test_lines(spotd: Call, server: redis.Redis) -> None:
    """Every fact has its line."""
    write_status(server, status_of())
    server.sadd(KEYS.symbols, "SPY", "sp-y")
    server.zadd(KEYS.leases, {"QQQ@svc-a": "inf", "IWM@svc-a": "inf", "DIA@old": 5})
    for state in (state_of("SPY"), state_of("sp-y", "refused", "invalid_symbol")):
        server.hset(KEYS.states, state.symbol, state.to_json())
    outcome = spotd("status")
    assert (outcome.code, outcome.err) == (0, "")
    told = {line[:13].strip(): line[13:] for line in outcome.out.splitlines()}
    assert told["state"].startswith("streaming since 2026-01-20 05:12:00Z (")
    assert told["daemon"].startswith("host-1-ab, version 1.2.3, feed iex, reported ")
    assert told["market"] == "unknown"
    assert told["symbols"] == "3 desired, 2 live, 1 refused"
    assert told["last message"].endswith(" ago), lag 12.5 ms")
    assert told["stream"] == "breaker closed, 0 connections lost or not made"
    assert told["traffic"] == "1,234 quotes received, 56 updates published"
    assert told["gaps"] == "none stated since this daemon started"
    assert told["demand"] == "1 symbol in the set, 2 leases of 1 owner"
    assert "             svc-a: IWM, QQQ\n" in outcome.out
    assert told["garbage"] == "1 names no symbol: sp-y"
    assert told["refused"] == "invalid_symbol: sp-y"
    assert server.zcard(KEYS.leases) == 3  # to remove the lapsed is the daemon's part


def test_what_is_wrong_and_what_to_do() -> None:
    """A reason has its code, and the remedy of that code."""
    status = replace(status_of("waiting", "another session is open"), code="connection_limit")
    told = said(Overview(status), age_s=61)
    assert told["state"] == ["waiting since 2026-01-20 05:12:00Z (1 min ago)"]
    assert told["reason"] == ["connection_limit: another session is open"]
    assert told["do"][0].startswith("End the other program, or use keys of another account.")
    assert "do" not in said(Overview(replace(status, code="a_newer_code")))
    assert said(Overview(replace(status, code=None)))["reason"] == ["another session is open"]


def test_market_and_messages() -> None:
    """The state of the market has its next change; what is not known says so."""
    status = replace(status_of(), market="open")
    assert said(Overview(status))["market"] == ["open"]
    status = replace(status, market_changes_at=AT + timedelta(hours=3, minutes=5, seconds=1))
    assert said(Overview(status))["market"] == ["open until 2026-01-20 08:17:01Z (3 h)"]
    status = replace(status, last_message_at=None, lag_ms=None)
    assert said(Overview(status))["last message"] == ["none yet, lag unknown"]


def test_gaps() -> None:
    """The newest come first, each with its times, its symbols and its reason."""
    gaps = tuple(gap_of(code, number) for number, code in enumerate(("mute", "a", "b", "c"), 1))
    told = said(Overview(replace(status_of(), gaps=(*gaps[:-1], replace(gaps[-1], code=None)))))
    span = "2026-01-20 05:11:59Z to 05:12:00Z (1.0 s)"
    assert told["gaps"] == [
        f"{span}, 4 symbols, more words",
        f"{span}, 3 symbols, b: more words",
        f"{span}, 2 symbols, a: more words",
    ]


def test_symbols_without_a_live_price() -> None:
    """They are grouped by state and reason, with the detail, or what to do about a refusal."""
    limit = replace(state_of("IWM", "refused", "symbol_limit"), detail="the limit is 2")
    others = (replace(limit, symbol=name) for name in ("DIA", "TLT"))
    unknown = replace(state_of("sp-y", "refused", "invalid_symbol"), detail=None)
    stale = replace(state_of("SPY", "stale", "interrupted"), detail=None)
    states = [unknown, limit, *others, stale, state_of("TSLA", "halted"), state_of("A", "pending")]
    told = said(Overview(status_of(), not_live=states))
    assert told["refused"] == [
        "invalid_symbol: sp-y",
        "Remove the entry, or correct it.",
        "symbol_limit: IWM, DIA, TLT",
        "the limit is 2",
    ]
    assert told["stale"] == ["interrupted: SPY", "and 2 symbols more: spotd symbols list"]


def test_demand() -> None:
    """The owners with most symbols are named, and what is left is counted."""
    assert said(Overview(status_of(), demand=origins([], [], 0.0)))["demand"][0].startswith(
        "none: "
    )
    leases = [(f"{a}{b}@one".encode(), 9.0) for a in "ABCDEFGH" for b in "ABCDEFGH"]
    leases += [(b"SPY", 9.0), (b"SPY@b", 9.0), (b"SPY@c", 9.0)]
    told = said(Overview(status_of(), demand=origins([b"SPY"], leases, 1.0)))["demand"]
    assert told[0] == "1 symbol in the set, 67 leases of 4 owners"
    assert told[1].startswith("one: AA, AB, ")
    assert told[1].endswith(" and 54 more")
    assert told[2:] == ["(no owner): SPY", "and 2 owners more: status --json"]


def worst() -> Overview:
    """Return all that can be wrong at once."""
    status = replace(
        status_of("waiting", "no answer"), code="backoff", market="closed",
        gaps=(gap_of(),) * 5, market_changes_at=AT,
        symbols=SymbolCounts(desired=9, stale=1, refused=5, halted=1, pending=1),
    )  # fmt: skip
    states: list[SymbolState] = [
        state_of(f"{code}{n}", "refused", code) for code in ("a", "b", "c", "d") for n in range(90)
    ]
    leases = [(f"{name * 3}@{name}".encode(), 9.0) for name in "ABCDE"]
    return Overview(status, True, origins([b"sp-y"], leases, 1.0), states)


def test_one_screen() -> None:
    """Whatever is wrong, there are 24 lines, and lists of names fit 80 characters."""
    lines = list(lines_of(worst(), AT))
    assert len(lines) == 24
    lists = [line for line in lines if " and " in line.text and line.name != "do"]
    assert len(lists) == 3
    assert max(len(line.text) + 13 for line in lists) <= 80


def test_nothing_is_carried_out_by_the_terminal(spotd: Call, server: redis.Redis) -> None:
    """What others wrote is escaped."""
    write_status(server, replace(status_of("waiting", "\x1b[2J"), code="\x1b[2J"))
    server.zadd(KEYS.leases, {"SPY@\x1b[2J": "inf"})
    server.sadd(KEYS.symbols, "\x1b[2J")
    outcome = spotd("status")
    assert outcome.code == 1
    assert "\x1b" not in outcome.out


def test_a_text_of_megabytes_is_cut() -> None:
    """Whoever may write a status may write a very long one, and a screen of it must still turn."""
    seen = Overview(status_of("connecting", "a b " * 500_000), True, origins([], [], 1.0))
    for line in lines_of(seen, AT):
        assert sum(len(text) for text, _ in line.line) < 1_100


def test_json(spotd: Call, server: redis.Redis) -> None:
    """Programs get the object of the contract, and beside it what else is known."""
    status = replace(status_of("streaming", "late"), code="lagging", gaps=(gap_of(),))
    raw, stale = status.to_json(), state_of("SPY", "stale", "lagging")
    write_status(server, status)
    server.hset(KEYS.states, "SPY", stale.to_json())
    server.sadd(KEYS.symbols, "SPY", "sp-y")
    server.zadd(KEYS.leases, {"QQQ@svc": "inf"})
    outcome = spotd("status", "--json")
    assert outcome.code == 1
    told = json.loads(outcome.out)
    assert told.items() >= json.loads(raw).items()
    assert told["ready"] is False
    assert told["action"].startswith("Nothing, unless it repeats")
    assert told["demand"] == {
        "set": ["SPY"], "leases": 1, "owners": {"svc": ["QQQ"]}, "garbage": ["sp-y"],
    }  # fmt: skip
    assert told["not_live"] == [json.loads(stale.to_json())]
    assert DaemonStatus.from_json(outcome.out) == status


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (status_of(), 0),
        (status_of("idle"), 0),
        (replace(status_of("streaming", "x"), code="wake_unheard"), 0),
        (replace(status_of("streaming", "x"), code="demand_unreadable"), 1),
        (status_of("connecting"), 1),
        (status_of("waiting"), 1),
    ],
)
def test_exit_codes(spotd: Call, server: redis.Redis, status: DaemonStatus, code: int) -> None:
    """0 exactly where a daemon leads and works, as its ``/readyz`` says."""
    write_status(server, status)
    assert spotd("status").code == code


def test_other_prefix(spotd: Call, server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix of the settings says which daemon is asked."""
    monkeypatch.setenv("SPOTD_KEY_PREFIX", "sip:")
    write_status(server, status_of(), Keys("sip:"))
    assert spotd("status").code == 0


def test_no_daemon(spotd: Call, server: redis.Redis) -> None:
    """Without a daemon that is said, its last states do not count, and the exit code is 1."""
    server.hset(KEYS.states, "SPY", state_of("SPY", "stale", "mute").to_json())
    server.sadd(KEYS.symbols, "SPY")
    outcome = spotd("status")
    assert (outcome.code, outcome.err) == (1, "")
    assert outcome.out.splitlines() == [
        "state        no daemon runs here: Redis answers, but holds no status",
        f"do           {action_of('no_daemon')}",
        "demand       1 symbol in the set, 0 leases of 0 owners",
    ]
    outcome = spotd("status", "--json")
    assert outcome.code == 1
    told = json.loads(outcome.out)
    assert (told["state"], told["code"], told["not_live"]) == ("absent", "no_daemon", [])


def test_a_status_without_a_leader(spotd: Call, server: redis.Redis) -> None:
    """What a killed daemon left says nothing about now: no leader, its age, and exit code 1."""
    write_status(server, status_of())
    server.hset(KEYS.states, "SPY", state_of("SPY", "stale", "mute").to_json())
    server.delete(KEYS.leader)
    outcome = spotd("status")
    assert (outcome.code, outcome.err) == (1, "")
    told = {line[:13].strip(): line[13:] for line in outcome.out.splitlines()}
    assert re.fullmatch(r"no leader \(last status is \d+ d old\)", told["state"])
    assert told["last status"] == "streaming, written by host-1-ab"
    assert told["do"].startswith("Nothing, where a standby runs: ")
    assert set(told) == {"state", "last status", "do", "demand"}
    outcome = spotd("status", "--json")
    assert outcome.code == 1
    as_json = json.loads(outcome.out)
    assert (as_json["state"], as_json["code"], as_json["ready"]) == ("absent", "no_leader", False)
    assert as_json["reason"].startswith("no leader: host-1-ab wrote the last status, streaming, at")
    assert "symbols" not in as_json
    assert as_json["not_live"] == []


def test_a_user_who_may_not_read_the_leader_key(spotd: Call, server: Any) -> None:
    """The status is shown as it is."""
    write_status(server, status_of())
    server.execute_command("ACL", "SETUSER", "poor", "reset", "on", ">pw", "+@all", "~spotd:s*",
        "~spotd:leases")  # fmt: skip
    url = f"redis://poor:pw@127.0.0.1:{server.get_connection_kwargs()['port']}/0"
    try:
        outcome = spotd("status", "--redis-url", url)
    finally:
        server.acl_deluser("poor")
    assert outcome.code == 0
    assert "streaming since" in outcome.out


@pytest.mark.parametrize(("denied", "name"), [("-smembers", "demand"), ("-hvals", "states")])
def test_a_user_who_may_not_read_all(spotd: Call, server: Any, denied: str, name: str) -> None:
    """The rest is shown, and why the demand or the states are not known."""
    write_status(server, status_of())
    rules = ("reset", "on", ">pw", "~*", "+@all", denied)
    server.execute_command("ACL", "SETUSER", "poor", *rules)
    url = f"redis://poor:pw@127.0.0.1:{server.get_connection_kwargs()['port']}/0"
    try:
        outcome = spotd("status", "--redis-url", url)
        told = json.loads(spotd("status", "--json", "--redis-url", url).out)
    finally:
        server.acl_deluser("poor")
    assert outcome.code == 0
    assert "streaming since" in outcome.out
    assert re.search(f"^{name} +unknown: Redis at .* refused: ", outcome.out, re.MULTILINE)
    assert (told["demand"] is None) == (name == "demand")
    assert told["not_live"] == []
    assert list(told["unreadable"]) == [name]


def test_a_demand_of_the_wrong_type(spotd: Call, server: redis.Redis) -> None:
    """The key is named, since no right is missing."""
    write_status(server, status_of())
    server.set(KEYS.symbols, "SPY")
    outcome = spotd("status")
    assert outcome.code == 0
    assert "demand       unknown: Redis at " in outcome.out
    assert f"{KEYS.symbols} is of the wrong type" in outcome.out


@pytest.mark.parametrize("as_option", [True, False])
def test_no_redis(spotd: Call, monkeypatch: pytest.MonkeyPatch, as_option: bool) -> None:
    """A Redis that is not there is named without its password, with code and remedy."""
    url = f"redis://:hunter2@127.0.0.1:{free_port()}/0"
    if not as_option:
        monkeypatch.setenv("SPOTD_REDIS_URL", url)
    options = ["--redis-url", url] if as_option else []
    outcome = spotd("status", *options)
    assert outcome.code == 1
    lines = [line.split(maxsplit=1) for line in outcome.out.splitlines()]
    assert [name for name, _ in lines] == ["state", "reason", "do"]
    assert lines[0][1] == "unknown"
    assert lines[1][1].startswith("redis_away: Redis at 127.0.0.1:")
    assert "spotd check" in lines[2][1]
    as_json = spotd("status", "--json", *options)
    assert as_json.code == 1
    told = json.loads(as_json.out)
    assert (told["state"], told["code"], told["ready"]) == ("unknown", "redis_away", False)
    assert "hunter2" not in outcome.out + outcome.err + as_json.out


def test_unreadable_address(spotd: Call) -> None:
    """An address of another kind is a matter of settings."""
    assert spotd("status", "--redis-url", "http://h").code == 2


class TestWatch:
    """Shown again and again, until it is asked to stop."""

    def test_lines_of_json(self, server: redis.Redis) -> None:
        """A program reads one object a line, each with the state at its time."""
        with popen("status", "--watch", "--every", "0.2", "--json") as watching:
            assert watching.stdout is not None
            assert json.loads(watching.stdout.readline())["state"] == "absent"
            write_status(server, status_of())
            states = (json.loads(line)["state"] for line in watching.stdout)
            assert "streaming" in states
            watching.send_signal(signal.SIGTERM)  # which is no failure
            assert watching.wait(timeout=GUARD_S) == 0

    @pytest.mark.parametrize("end", ["q", "Ctrl-C"])
    def test_on_a_terminal(self, server: redis.Redis, end: str) -> None:
        """The screen is drawn anew, q or Ctrl-C ends it with 0, and what it showed last stays."""
        with on_terminal("status", "--watch", "--every", "0.2") as (watching, ours):
            read_until(ours, b"no daemon runs here")
            write_status(server, status_of())
            read_until(ours, b"streaming since")
            if end == "q":
                os.write(ours, b"q")
            else:
                watching.send_signal(signal.SIGINT)
            # The alternate screen is left, and the last text is written below.
            read_until(ours, re.compile(rb"\x1b\[\?1049l.*streaming since", re.DOTALL))
            assert watching.wait(GUARD_S) == 0

    def test_a_terminal_that_changes(self, server: redis.Redis) -> None:
        """After a resize and Ctrl-L all is shown anew, broken at its width; a hang-up ends it."""
        write_status(server, status_of("waiting", "no answer from the other side of the network"))
        env = {"COLUMNS": "100", "NO_COLOR": ""}
        with on_terminal("status", "--watch", "--every", "3600", env=env) as (watching, ours):
            read_until(ours, b"no answer from the other side of the network")
            termios.tcsetwinsize(ours, (24, 40))
            read_until(ours, b"\x1b[1;31mside of the network")
            os.write(ours, b"\x0c")
            read_until(ours, b"\x1b[1;31mside of the network")
            hang_up(ours)
            assert watching.wait(GUARD_S) == 0
