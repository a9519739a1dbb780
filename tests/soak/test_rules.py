"""Each rule finds the lie that it is about, and nothing in a moment where all is well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.contradictions import Contradictions, Window
from tests.soak.moment import AlpacaSession, DaemonNow, Moment, RedisNow, Said
from tests.soak.plan import Truth
from tests.soak.rule_table import Times
from tests.soak.rules import Rules

RULES = Rules(Times(ttl_s=5.0))
NOW = 1_000.0
LEADER = DaemonNow(
    name="a1",
    said=Said(
        "streaming",
        None,
        "host-1",
        leader=True,
        connected=True,
        ready=True,
        reasons="[]",
        symbols={"live": 1, "refused": 1, "stale": 0},
    ),
    instance="host-1",
    attempted=1,
    attempted_at=NOW - 90,
    published_at=NOW - 0.2,
    sessions=(AlpacaSession(1, frozenset({"SPY"}), {"SPY": NOW - 90}),),
    key_seen_at=NOW,
)
STANDBY = DaemonNow(
    name="b1",
    said=Said(
        "standby",
        "another_leads",
        "host-2",
        leader=False,
        connected=False,
        ready=True,
        reasons="[]",
    ),
    instance="host-2",
)
REDIS = RedisNow(
    token="host-1:abcd",
    status={
        "instance": "host-1",
        "state": "streaming",
        "code": None,
        "symbols": {"desired": 1, "live": 1, "refused": 1},
    },
    states={"SPY": "live", "not a symbol": "refused"},
    last=frozenset({"SPY"}),
    desired=frozenset({"SPY"}),
)
WELL = Moment(
    now=NOW,
    daemons=(LEADER, STANDBY),
    redis=REDIS,
    behind={"SPY": NOW - 0.1},
    calm_since=NOW - 60,
    relay_ready=True,
)


def _said(daemon: DaemonNow, **changed: object) -> DaemonNow:
    assert daemon.said is not None
    return replace(daemon, said=replace(daemon.said, **changed))  # type: ignore[arg-type]


def _with(leader: DaemonNow = LEADER, standby: DaemonNow = STANDBY, **changed: object) -> Moment:
    return replace(WELL, daemons=(leader, standby), **changed)  # type: ignore[arg-type]


def _away(seconds: float, leader: DaemonNow = LEADER, standby: DaemonNow = STANDBY) -> Moment:
    seen = replace(leader, key_seen_at=NOW - seconds)
    return _with(seen, standby, redis=None, redis_since=NOW - seconds)


def _found(moment: Moment) -> set[str]:
    return {wrong.rule.name for wrong in RULES.wrong(moment)}


def test_nothing_is_wrong_where_all_is_well() -> None:
    """A leader that streams and a standby, and what is stored is what is."""
    assert not RULES.wrong(WELL)


NOBODY = replace(REDIS, token=None)
CUT = replace(LEADER, sessions=())
DOWN = _said(CUT, state="waiting", code="backoff", connected=False, ready=False, reasons="[…]",
             symbols={"stale": 1})  # fmt: skip
TOLD_DOWN = replace(
    REDIS,
    status={
        "instance": "host-1",
        "state": "waiting",
        "code": "backoff",
        "symbols": {"desired": 1, "stale": 1},
    },
)

LIES: list[tuple[str, Moment]] = [
    ("leads_without_key", _with(redis=NOBODY)),
    ("leads_without_key", _with(redis=replace(REDIS, token="host-2:ef"))),
    ("leads_without_key", _away(5.1)),
    ("key_without_lead", _with(_said(LEADER, leader=False, state="standby"))),
    ("two_leaders", _with(standby=_said(STANDBY, leader=True, state="connecting"))),
    ("nobody_leads", _with(redis=NOBODY)),
    ("held_by_nobody", _with(redis=replace(REDIS, token="host-3:ef"))),
    ("state_and_metric", _with(standby=_said(STANDBY, state="idle"))),
    ("streams_without_session", _with(CUT)),
    ("streams_without_session", _with(replace(LEADER, sessions=(AlpacaSession(1),)))),
    ("streams_without_redis", _away(0.5)),
    ("connected", _with(_said(LEADER, connected=False))),
    ("connected", _with(CUT)),
    ("session_without_right", _with(redis=replace(REDIS, token="host-2:ef"))),
    ("session_without_right", _away(5.1)),
    ("second_session", _with(replace(LEADER, attempted=2))),
    (
        "second_session",
        _with(replace(LEADER, sessions=(*LEADER.sessions, AlpacaSession(0)))),
    ),
    ("asks_without_right", _with(standby=replace(STANDBY, attempted=2, attempted_at=NOW - 1))),
    (
        "asks_without_right",
        _with(
            standby=replace(STANDBY, attempted=2, attempted_at=NOW - 1, key_seen_at=NOW - 10),
        ),
    ),
    ("publishes_without_key", _with(standby=replace(STANDBY, published_at=NOW))),
    (
        "publishes_without_key",
        _with(
            replace(LEADER, key_seen_at=NOW - 1.7, published_at=NOW),
            redis=replace(REDIS, token="host-2:ef"),
        ),
    ),
    ("ready_without_redis", _away(0.5)),
    ("ready_without_session", _with(CUT)),
    ("unready", _with(_said(LEADER, ready=False, reasons="[…]"))),
    ("unready", _with(standby=_said(STANDBY, ready=False, reasons="[…]"))),
    ("status", _with(redis=replace(REDIS, status=None))),
    ("status", _with(redis=TOLD_DOWN)),
    ("counts", _with(redis=replace(REDIS, states={"SPY": "live"}))),
    ("counted", _with(_said(LEADER, symbols={"live": 2, "refused": 1}))),
    ("counted", _with(_said(LEADER, symbols={"stale": 1, "refused": 1}))),
    ("desired", _with(redis=replace(REDIS, desired=frozenset({"SPY", "QQQ"})))),
    ("breaker", _with(_said(LEADER, breaker="open"))),
    ("withheld", _with(behind={"SPY": NOW - 0.6})),
    (
        "withheld",
        _with(
            _said(LEADER, state="waiting", code="redis_away", ready=False, leader=False),
            redis=replace(REDIS, token=None, states={"SPY": "stale"}),
            behind={"SPY": NOW - 9.0},
        ),
    ),
    ("no_state", _with(redis=replace(REDIS, desired=frozenset({"SPY", "QQQ"})))),
    ("undesired", _with(redis=replace(REDIS, desired=frozenset()))),
    ("undesired", _with(redis=replace(REDIS, last=frozenset({"SPY", "OLD"})))),
    ("live_unsubscribed", _with(DOWN, redis=TOLD_DOWN)),
    ("subscribed_not_live", _with(redis=replace(REDIS, states={"SPY": "stale"}))),
    ("subscribed_not_live", _with(redis=replace(REDIS, states={"SPY": "pending"}))),
    ("live_and_old", _with(behind={"SPY": NOW - 0.6})),
    ("silent_http", _with(standby=replace(STANDBY, said=None))),
    ("relay_ready", _away(0.5)),
    ("relay_ready", _with(relay_ready=False)),
]


@pytest.mark.parametrize(("rule", "moment"), LIES, ids=[rule for rule, _ in LIES])
def test_a_lie_that_lasts_is_a_violation(rule: str, moment: Moment) -> None:
    """A recording in which nothing changes breaks the rule once its grace is over, and not before.

    The checker reads every 0.2 s.
    """
    broken = getattr(RULES, rule)
    seen, found, violated_at = Contradictions(begun_at=0.0), RULES.wrong(moment), []
    for reading in range(200):
        now = reading * 0.2
        violations = seen.seen(found, now, waited_s=0.0)
        violated_at += [now for violation in violations if violation.rule == broken.name]
    assert broken.grace_s < violated_at[0] < broken.grace_s + 0.41


def test_every_rule_is_tried() -> None:
    """No rule is without its lie."""
    assert {getattr(RULES, rule).name for rule, _ in LIES} == {r.name for r in RULES.all()}


TRUTHS = {
    "a stream that is down, and says so": _with(
        DOWN, redis=replace(TOLD_DOWN, states={"SPY": "stale"}), calm_since=None
    ),
    "Redis is away, and it is said": _away(
        6.0,
        _said(CUT, state="standby", code="redis_away", leader=False, connected=False, ready=False),
        _said(STANDBY, ready=False),
    ),
    "a frozen leader says nothing": _with(replace(LEADER, frozen=True, said=None)),
    "one that stops": _with(
        replace(
            _said(LEADER, state="stopping", ready=False, leader=False),
            stopping=True,
        )
    ),
    "one that published while Redis could not be read": _with(
        standby=replace(STANDBY, published_at=NOW - 5, attempted_at=NOW - 5),
        unread_at=NOW - 4,
    ),
    "a symbol that was subscribed a moment ago": _with(
        replace(
            _said(LEADER, symbols={"pending": 1}),
            sessions=(AlpacaSession(1, frozenset({"SPY"}), {"SPY": NOW - 0.4}),),
        ),
        redis=replace(
            REDIS,
            states={"SPY": "pending"},
            status={**(REDIS.status or {}), "symbols": {"desired": 1, "pending": 1}},
        ),
        behind={"SPY": NOW - 600},
    ),
    "a symbol that is stale and old": _with(
        DOWN,
        redis=replace(TOLD_DOWN, states={"SPY": "stale"}),
        behind={"SPY": NOW - 30},
        calm_since=None,
    ),
}


@pytest.mark.parametrize("moment", TRUTHS.values(), ids=TRUTHS.keys())
def test_the_truth_is_no_lie(moment: Moment) -> None:
    """What is told as it is breaks no rule, however bad it is; a state may be a write late."""
    found = _found(replace(moment, relay_ready=None))
    assert not found - {RULES.subscribed_not_live.name}


def test_a_stream_may_be_kept_while_redis_is_away() -> None:
    """A kept stream is no session without a right, until its time is over too."""
    rules = Rules(Times(ttl_s=5.0, keep_stream_s=20.0))
    name = rules.session_without_right.name
    assert name not in {wrong.rule.name for wrong in rules.wrong(_away(24.0))}
    assert name in {wrong.rule.name for wrong in rules.wrong(_away(26.0))}


def test_a_leader_may_learn_that_it_lost_the_key() -> None:
    """What it publishes or opens up to a call after that breaks no rule yet."""
    found = _found(
        _with(
            replace(LEADER, key_seen_at=NOW - 1.0, attempted_at=NOW - 0.5, published_at=NOW - 0.1),
            redis=replace(REDIS, token="host-2:ef"),
        )
    )
    assert not found & {RULES.publishes_without_key.name, RULES.asks_without_right.name}


@pytest.mark.parametrize(
    ("rule", "truths"),
    [
        ("live_and_old", {"prices"}),
        ("withheld", {"prices", "connection"}),
        ("subscribed_not_live", {"answers", "connection"}),
        ("connected", {"connection"}),
    ],
)
def test_what_a_fault_hides_is_told_with_what_is_wrong(rule: str, truths: set[Truth]) -> None:
    """A rule about prices has time while prices are hidden, and none while the end of a connection
    is."""
    windows = (Window(NOW - 5, NOW),)
    wrong = _with(
        _said(LEADER, connected=False),
        redis=replace(REDIS, states={"SPY": "stale"}),
        behind={"SPY": NOW - 3},
    )
    live = replace(wrong, redis=REDIS)
    name = getattr(RULES, rule).name
    every: tuple[Truth, ...] = ("prices", "answers", "connection")
    for hidden in every:
        moments = (replace(each, hidden={hidden: windows}) for each in (wrong, live))
        found = [w.hidden for m in moments for w in RULES.wrong(m) if w.rule.name == name]
        assert set(found) == {windows if hidden in truths else ()}
