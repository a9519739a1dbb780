"""Whether this daemon leads: every kind of answer, by a manual clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.leadership import (
    ANOTHER_LEADS,
    CLAIM_S,
    KEY_LAPSED,
    RETRY_S,
    RETRY_TO_KEEP_S,
    STANDBY_TRIES_EVERY_S,
    YIELD_S,
    Change,
    Held,
    LeaderKey,
    LeaderKeyAnswer,
    LeaderKeyRequest,
    Leadership,
    feed_in,
    token_of,
)

ANSWERED = {"answered": True, "started": True}
TTL_S = 5.0
VALID_S = 4.5  # the TTL less its margin
RENEW_EVERY_S = 1.25


class Dialogue:
    """A leader key, its clock, and what it is told."""

    def __init__(self, keep_stream_s: float = 0.0) -> None:
        numbers = count(1)
        self.key = LeaderKey(
            ttl_s=TTL_S,
            new_token=lambda: f"us:{next(numbers)}",
            is_ours=lambda token: token.startswith("us:"),
            keep_stream_s=keep_stream_s,
        )
        self.now = 100.0

    @property
    def value(self) -> Leadership:
        return self.key.leadership

    def ask(self) -> LeaderKeyRequest:
        """Send a request now."""
        return self.key.request(self.now)

    def answer(
        self,
        held: Held,
        after_s: float = 0.0,
        *,
        request: LeaderKeyRequest | None = None,
        seq: int | None = None,
        by: str | None = None,
        unix_s: float = 0.0,
    ) -> Change:
        """Answer a request, by default one sent now, ``after_s`` from now."""
        request = self.ask() if request is None else request
        self.now += after_s
        return self.key.answered(request, LeaderKeyAnswer(held, seq, by, unix_s), self.now)

    def passes(self, seconds: float) -> Change:
        """Let time pass, and have the key look at the clock."""
        self.now += seconds
        return self.key.checked(self.now)


@pytest.fixture
def dialogue() -> Dialogue:
    """Return a daemon that has just started."""
    return Dialogue()


@pytest.fixture
def leader(dialogue: Dialogue) -> Dialogue:
    """Return a daemon in its first term."""
    dialogue.answer("acquired")
    return dialogue


class TestBeginning:
    """How a term begins."""

    def test_a_daemon_that_has_just_started_has_no_right(self, dialogue: Dialogue) -> None:
        """Before the first answer nobody leads, and that is told apart from a standby."""
        assert dialogue.value == Leadership(token="us:1")
        assert not dialogue.value.started
        assert not dialogue.value.may_publish(-inf)
        assert not dialogue.value.may_hold(-inf)

    @pytest.mark.parametrize("held", ["acquired", "renewed"])
    def test_a_term_begins_with_either_answer(self, dialogue: Dialogue, held: Held) -> None:
        """ "Renewed" may be the first answer: the one that said "acquired" was lost."""
        change = dialogue.answer(held)
        assert change == Change(
            Leadership(term=1, reign=0, token="us:1", leads=True, **ANSWERED),
            begins=True,
        )

    def test_the_right_counts_from_sending_less_a_margin(self, dialogue: Dialogue) -> None:
        """Redis cannot have set the key before the request was sent."""
        dialogue.answer("acquired", after_s=1.0)
        assert dialogue.value.publish_until == 100.0 + VALID_S
        assert dialogue.value.may_publish(104.4)
        assert not dialogue.value.may_publish(104.5)

    @pytest.mark.parametrize("held", ["acquired", "renewed"])
    def test_an_answer_that_came_too_late_begins_nothing(
        self, dialogue: Dialogue, held: Held
    ) -> None:
        """The key may have lapsed since; the next answer, in time, begins the term."""
        late = dialogue.answer(held, after_s=VALID_S)
        assert not late.begins
        assert not dialogue.value.leads
        assert dialogue.key.next_try_at(calm=True) == dialogue.now
        dialogue.now += 0.1
        assert dialogue.answer("renewed").begins
        assert dialogue.value.term == 1

    def test_redis_hung_while_we_started(self, dialogue: Dialogue) -> None:
        """The request that acquired the key was given up, the next one hears "renewed"."""
        dialogue.ask()
        dialogue.now += 2.0
        assert dialogue.key.failed(dialogue.now) == Change(dialogue.value)
        assert dialogue.value.answered is False
        change = dialogue.answer("renewed")
        assert change.begins
        assert change.leadership.leads
        assert change.leadership.term == 1


class TestGoingOn:
    """How a term goes on."""

    def test_a_renewal_prolongs_the_term_and_changes_nothing_else(self, leader: Dialogue) -> None:
        """A renewal every second or so must not wake whoever depends on the value."""
        before = leader.value
        leader.now += RENEW_EVERY_S
        change = leader.answer("renewed")
        assert change == Change(before)
        assert change.leadership.publish_until == before.publish_until + RENEW_EVERY_S

    def test_a_failed_renewal_changes_the_right_only_when_its_time_is_over(
        self, leader: Dialogue
    ) -> None:
        """A request that was not answered says nothing about the key."""
        leader.now += 1.0
        assert leader.key.failed(leader.now).ends is None
        assert leader.value.leads
        leader.now = 100.0 + VALID_S
        assert leader.key.failed(leader.now).ends == KEY_LAPSED

    def test_a_key_that_vanished_begins_a_new_term_at_once(self, leader: Dialogue) -> None:
        """Redis lost its data: all is written anew, under the same token, with the same reign."""
        leader.now += RENEW_EVERY_S
        change = leader.answer("acquired")
        assert change == Change(
            Leadership(term=2, reign=0, token="us:1", leads=True, **ANSWERED),
            begins=True,
        )

    def test_a_key_that_another_had_meanwhile_raises_the_reign(self, leader: Dialogue) -> None:
        """It took the vanished key, published and left before we asked: our prices may be old."""
        leader.now += RENEW_EVERY_S
        change = leader.answer("acquired", seq=7, by="them:1")
        assert change.begins
        assert change.forget
        assert change.leadership.reign == 1

    def test_a_renewal_that_is_read_after_the_right_was_over_ends_the_term(
        self, leader: Dialogue
    ) -> None:
        """Another loop may have seen that it was over. The key is ours to take over at once."""
        leader.now = 104.0
        change = leader.answer("renewed", after_s=1.0)
        assert change.ends == KEY_LAPSED
        assert not change.forget
        assert not leader.value.leads
        assert leader.key.next_try_at(calm=True) == 105.0
        assert leader.ask().former == "us:1"
        change = leader.answer("acquired", seq=7, by="us:1")
        assert change == Change(
            Leadership(term=2, reign=0, token="us:2", leads=True, **ANSWERED), begins=True
        )

    def test_anothers_key_that_is_read_after_the_right_was_over(self, leader: Dialogue) -> None:
        """The term ends once, by the clock, and the prices are forgotten all the same."""
        leader.now = 104.0
        change = leader.answer("another", after_s=1.0)
        assert change.ends == KEY_LAPSED
        assert change.forget
        assert change.leadership == Leadership(
            term=1, reign=1, token="us:2", another=True, **ANSWERED
        )

    def test_a_late_renewal_does_not_save_the_term(self, leader: Dialogue) -> None:
        """Read so late that the renewed key may have lapsed, it ends the term like any silence."""
        leader.now += 1.0
        change = leader.answer("renewed", after_s=VALID_S)
        assert change.ends == KEY_LAPSED
        assert not leader.value.leads


class TestEnd:
    """How a term ends, and what follows."""

    def test_it_ends_by_our_clock(self, leader: Dialogue) -> None:
        """A term ends by our clock, whatever Redis says later; the next has another token."""
        assert leader.passes(VALID_S - 0.1) == Change(leader.value)
        change = leader.passes(0.1)
        assert change.ends == KEY_LAPSED
        assert not change.forget
        assert change.leadership == Leadership(term=1, token="us:2", **ANSWERED)
        assert change.leadership.publish_until == -inf
        assert leader.passes(1.0).ends is None

    def test_a_key_that_still_holds_the_former_token_is_ours(self, leader: Dialogue) -> None:
        """A key with the former token is ours: nobody published, so prices and reign stay."""
        leader.passes(10.0)
        request = leader.ask()
        assert (request.token, request.former) == ("us:2", "us:1")
        change = leader.answer("acquired", request=request, seq=7, by="us:1")
        assert change.begins
        assert not change.forget
        assert (change.leadership.term, change.leadership.reign) == (2, 0)
        assert leader.ask().former == ""

    def test_redis_was_frozen_for_longer_than_the_ttl(self, leader: Dialogue) -> None:
        """The request that acquired the key was given up, and "renewed" begins the next term."""
        leader.now += RENEW_EVERY_S
        leader.ask()
        leader.now += 7.0
        assert leader.key.failed(leader.now).ends is not None
        leader.ask()
        leader.now += 0.8
        leader.key.failed(leader.now)
        change = leader.answer("renewed", seq=7, by="us:1")
        assert change == Change(
            Leadership(term=2, reign=0, token="us:2", leads=True, **ANSWERED),
            begins=True,
        )

    @pytest.mark.parametrize("held", ["acquired", "renewed"])
    def test_an_answer_to_a_request_of_the_term_before(self, leader: Dialogue, held: Held) -> None:
        """The key holds the former token: a request with the present one has to take it over."""
        leader.now = 104.0
        request = leader.ask()
        leader.passes(1.0)
        change = leader.answer(held, request=request)
        assert not change.begins
        assert not leader.value.leads
        assert leader.key.next_try_at(calm=True) == leader.now
        assert leader.ask().former == "us:1"

    def test_anothers_key_ends_it_at_once(self, leader: Dialogue) -> None:
        """Our clock may say what it likes; our prices are older than what the other publishes."""
        leader.now += 1.0
        change = leader.answer("another")
        assert change.ends == ANOTHER_LEADS
        assert change.forget
        assert change.leadership == Leadership(
            term=1, reign=1, token="us:2", another=True, **ANSWERED
        )
        assert leader.ask().former == "us:1"

    @pytest.mark.parametrize("by", ["us:1", "them:1"])
    def test_a_fail_over_brings_our_former_key_back(self, leader: Dialogue, by: str) -> None:
        """We take it, else nobody leads until it lapses. Prices of before count no more."""
        leader.now += 1.0
        leader.answer("another")
        leader.now += 0.5
        leader.answer("another")
        leader.now += 0.5
        request = leader.ask()
        assert (request.token, request.former) == ("us:2", "us:1")
        change = leader.answer("acquired", request=request, seq=7, by=by)
        assert change.begins
        assert change.forget
        assert change.leadership.leads
        assert not change.leadership.another
        assert (change.leadership.term, change.leadership.reign) == (2, 1)
        assert leader.ask().former == ""

    def test_a_standby_hears_of_anothers_key_again_and_again(self, dialogue: Dialogue) -> None:
        """The reign rises once, the token stays."""
        values = set()
        for _ in range(3):
            dialogue.now += STANDBY_TRIES_EVERY_S
            values.add(dialogue.answer("another").leadership)
        assert values == {Leadership(reign=1, token="us:1", another=True, **ANSWERED)}

    def test_a_term_after_anothers_forgets_what_came_in_since(self, leader: Dialogue) -> None:
        """A snapshot that was under way may be older than what the other published."""
        leader.answer("another", after_s=1.0)
        leader.now += 1.0
        change = leader.answer("acquired", seq=9, by="them:1")
        assert change.begins
        assert change.forget
        assert change.leadership.reign == 1

    def test_another_led_and_left_unseen(self, leader: Dialogue) -> None:
        """Another daemon may lead between two of our requests: who published last tells."""
        leader.passes(10.0)
        change = leader.answer("acquired", seq=9, by="them:1")
        assert change.begins
        assert change.forget
        assert change.leadership.reign == 1

    @pytest.mark.parametrize(
        ("seq", "by", "forget"),
        [(None, None, False), (7, "us:1", False), (7, None, True), (7, "them:1", True)],
    )
    def test_who_published_last_decides_about_the_prices(
        self, leader: Dialogue, seq: int | None, by: str | None, forget: bool
    ) -> None:
        """Redis without any seq has lost its data, and gets back the prices that we hold."""
        leader.passes(10.0)
        assert leader.answer("acquired", seq=seq, by=by).forget is forget


class TestOrder:
    """Answers that come doubled or in another order than their requests."""

    def test_an_older_grant_does_not_follow_a_newer_refusal(self, leader: Dialogue) -> None:
        """What the key held earlier says nothing about what it holds now."""
        older = leader.ask()
        leader.now += 0.1
        leader.answer("another")
        for held in ("acquired", "renewed"):
            assert not leader.answer(held, request=older).begins
            assert not leader.value.leads

    def test_an_older_refusal_does_not_follow_a_newer_grant(self, leader: Dialogue) -> None:
        """The key was taken after the other had left."""
        older = leader.ask()
        leader.now += 0.1
        leader.answer("renewed")
        assert leader.answer("another", request=older) == Change(leader.value)
        assert leader.value.leads

    def test_an_older_grant_does_not_shorten_a_newer_one(self, leader: Dialogue) -> None:
        """The end of the right never moves back."""
        older = leader.ask()
        leader.now += 1.0
        leader.answer("renewed")
        leader.answer("renewed", request=older)
        assert leader.value.publish_until == 101.0 + VALID_S

    @pytest.mark.parametrize("held", ["acquired", "renewed", "another"])
    def test_an_answer_told_twice_counts_once(self, leader: Dialogue, held: Held) -> None:
        """The second time nothing begins and nothing is forgotten."""
        leader.now += 1.0
        request = leader.ask()
        leader.answer(held, request=request)
        value = leader.value
        assert leader.answer(held, request=request) == Change(value)
        assert leader.value.publish_until == value.publish_until


class TestClock:
    """A clock that jumps."""

    def test_a_clock_that_jumped_ahead_ends_the_term(self, leader: Dialogue) -> None:
        """After a freeze the clock decides, not the timer that should have fired."""
        assert not leader.value.may_publish(1_000_000.0)
        assert leader.passes(1_000_000.0).ends is not None

    def test_a_clock_that_was_set_back_lengthens_no_right(self, leader: Dialogue) -> None:
        """The latest moment that was ever seen counts."""
        leader.key.checked(103.0)
        leader.now = 90.0
        leader.answer("renewed")
        assert leader.value.publish_until == 103.0 + VALID_S
        leader.key.checked(103.0 + VALID_S)
        assert not leader.value.leads


class TestStream:
    """The right to hold an open stream."""

    def test_it_may_outlast_the_right_to_publish(self) -> None:
        """While Redis does not answer, the stream is kept; another's key ends it at once."""
        dialogue = Dialogue(keep_stream_s=20.0)
        dialogue.answer("acquired")
        dialogue.passes(VALID_S)
        assert not dialogue.value.may_publish(dialogue.now)
        assert dialogue.value.may_hold(dialogue.now)
        assert dialogue.value.hold_until == 100.0 + VALID_S + 20.0
        dialogue.answer("another")
        assert not dialogue.value.may_hold(dialogue.now)

    def test_it_is_over_when_its_time_is_over(self) -> None:
        """A failed request prolongs no right."""
        dialogue = Dialogue(keep_stream_s=20.0)
        dialogue.answer("acquired")
        dialogue.now += VALID_S + 20.0
        dialogue.key.failed(dialogue.now)
        assert not dialogue.value.may_hold(dialogue.now)

    def test_it_goes_on_into_the_next_term(self) -> None:
        """A key that is taken in time keeps prices and stream: the reign stays."""
        dialogue = Dialogue(keep_stream_s=20.0)
        dialogue.answer("acquired")
        dialogue.passes(15.0)
        change = dialogue.answer("acquired", seq=7, by="us:1")
        assert change.begins
        assert not change.forget
        assert change.leadership.reign == 0
        assert change.leadership.hold_until == 115.0 + VALID_S + 20.0

    def test_without_a_time_to_keep_it_both_end_together(self, leader: Dialogue) -> None:
        """The daemon closes the stream when it may publish no more."""
        assert leader.value.hold_until == leader.value.publish_until


class TestFreeKey:
    """Who takes a key that nobody holds, and until when. Redis' clock is 1,000 s ahead of ours."""

    def test_the_first_request_takes_no_free_key(self, dialogue: Dialogue) -> None:
        """Redis' clock is not known yet. The second request follows at once, and is told of."""
        assert dialogue.ask().claim_unix_s == 0.0
        change = dialogue.answer("free", unix_s=1_100.0)
        assert change == Change(Leadership(token="us:1", answered=True, free=True))
        assert dialogue.key.next_try_at(calm=True) == dialogue.now
        assert dialogue.ask().claim_unix_s == 1_100.0 + CLAIM_S
        dialogue.now += 0.01
        assert dialogue.answer("acquired", unix_s=1_100.01).begins
        assert not dialogue.value.free

    def test_a_standby_claims_a_free_key_for_a_short_time(self, dialogue: Dialogue) -> None:
        """What Redis executes later than that may be a request that was given up."""
        dialogue.answer("another", unix_s=1_100.0)
        dialogue.now += STANDBY_TRIES_EVERY_S
        assert dialogue.ask().claim_unix_s == 1_000.0 + dialogue.now + CLAIM_S

    def test_who_holds_the_stream_claims_the_key_as_long_as_it_may(self) -> None:
        """Its request may be executed when a server that was frozen goes on."""
        dialogue = Dialogue(keep_stream_s=20.0)
        dialogue.answer("acquired", unix_s=1_100.0)
        dialogue.passes(10.0)
        dialogue.key.failed(dialogue.now)
        assert dialogue.ask().claim_unix_s == 1_100.0 + VALID_S + 20.0

    def test_a_standby_whose_last_request_failed_lets_the_other_go_first(
        self, dialogue: Dialogue
    ) -> None:
        """From the first answer on it waits, asks meanwhile, and then takes the key."""
        dialogue.answer("another", unix_s=1_100.0)
        dialogue.now = 110.0
        dialogue.key.failed(dialogue.now)
        assert dialogue.ask().claim_unix_s == 0.0
        change = dialogue.answer("free", unix_s=1_110.0)
        assert not change.leadership.leads
        assert change.leadership.free
        assert change.leadership.another
        assert dialogue.key.next_try_at(calm=True) == 110.0 + STANDBY_TRIES_EVERY_S
        dialogue.now += 0.7
        assert dialogue.ask().claim_unix_s == 0.0
        dialogue.answer("free", unix_s=1_110.7)
        assert dialogue.key.next_try_at(calm=True) == 110.0 + YIELD_S
        assert dialogue.key.claims_at == 110.0 + YIELD_S
        dialogue.now = 110.0 + YIELD_S
        assert dialogue.ask().claim_unix_s == pytest.approx(1_000.0 + dialogue.now + CLAIM_S)
        assert dialogue.answer("acquired", unix_s=1_111.0).begins
        assert dialogue.key.claims_at is None

    def test_a_failure_meanwhile_begins_the_wait_anew(self, dialogue: Dialogue) -> None:
        """Redis is not back before it answers."""
        dialogue.answer("another", unix_s=1_100.0)
        dialogue.key.failed(110.0)
        dialogue.now = 110.0
        dialogue.answer("free", unix_s=1_110.0)
        dialogue.key.failed(110.5)
        dialogue.now = 112.0
        assert dialogue.ask().claim_unix_s == 0.0
        dialogue.answer("free", unix_s=1_112.0)
        dialogue.now = 112.0 + YIELD_S
        assert dialogue.ask().claim_unix_s > 0.0

    def test_a_daemon_that_was_started_while_redis_was_away_waits_too(
        self, dialogue: Dialogue
    ) -> None:
        """Another daemon may hold the stream."""
        dialogue.key.failed(dialogue.now)
        dialogue.answer("free", unix_s=1_100.0)
        assert dialogue.ask().claim_unix_s == 0.0
        dialogue.now += YIELD_S
        assert dialogue.ask().claim_unix_s > 0.0

    @pytest.mark.parametrize("away_s", [2.0, 10.0, 60.0])
    def test_the_daemon_that_led_last_waits_for_nobody(self, away_s: float) -> None:
        """It holds the stream, or at least the newest prices, as far as it knows."""
        dialogue = Dialogue(keep_stream_s=20.0)
        dialogue.answer("acquired", unix_s=1_100.0)
        dialogue.now += away_s
        dialogue.key.failed(dialogue.now)
        assert dialogue.ask().claim_unix_s >= 1_000.0 + dialogue.now + CLAIM_S

    def test_a_claim_that_came_too_late_is_made_anew_soon(self, dialogue: Dialogue) -> None:
        """Redis' clock was set ahead: the next claim is counted by what it says now."""
        dialogue.answer("another", unix_s=1_100.0)
        dialogue.now += STANDBY_TRIES_EVERY_S
        dialogue.answer("free", unix_s=5_000.0)
        assert dialogue.key.next_try_at(calm=True) == dialogue.now + RETRY_S
        assert dialogue.ask().claim_unix_s > 5_000.0


@pytest.mark.parametrize(
    ("token", "feed"),
    [
        (token_of("host-4711-ab12", "delayed_sip", "1a2b3c4d"), "delayed_sip"),
        ("host-4711-ab12:1a2b3c4d", None),  # of version 0.2
        ("", None),
    ],
)
def test_a_token_tells_the_feed(token: str, feed: str | None) -> None:
    """The daemon's name stands in front of the token's last colon."""
    assert feed_in(token) == feed
    assert token.rpartition(":")[0] in ("host-4711-ab12", "")


class TestNextTry:
    """When Redis is asked again."""

    def test_a_leader_renews_four_times_per_ttl(self, leader: Dialogue) -> None:
        """A leader renews four times per TTL, counted from the request, not from its answer."""
        assert leader.key.next_try_at(calm=True) == 100.0 + RENEW_EVERY_S

    def test_a_leader_asks_before_its_right_ends(self, leader: Dialogue) -> None:
        """A leader asks before its right ends, also where a renewal was read late."""
        leader.now = 101.0
        leader.answer("renewed", after_s=3.0)
        assert leader.key.next_try_at(calm=True) == 101.0 + RENEW_EVERY_S

    def test_a_standby_waits_for_a_free_key(self, dialogue: Dialogue) -> None:
        """A standby waits before it asks again, since another daemon leads."""
        dialogue.answer("another")
        assert dialogue.key.next_try_at(calm=True) == 100.0 + STANDBY_TRIES_EVERY_S

    def test_after_a_failure_it_asks_again_soon(self, leader: Dialogue) -> None:
        """A failure of any call is a reason to look whether Redis is back."""
        assert leader.key.next_try_at(calm=False) == 100.0 + RETRY_S
        leader.key.failed(101.0)
        assert leader.key.next_try_at(calm=True) == 101.0 + RETRY_S

    def test_who_keeps_the_stream_asks_at_a_faster_pace(self) -> None:
        """It must be heard before a standby may take the key."""
        dialogue = Dialogue(keep_stream_s=20.0)
        dialogue.answer("acquired")
        dialogue.now += 10.0
        dialogue.key.failed(dialogue.now)
        assert dialogue.key.next_try_at(calm=False) == dialogue.now + RETRY_TO_KEEP_S
        dialogue.now += 20.0
        dialogue.key.failed(dialogue.now)
        assert dialogue.key.next_try_at(calm=False) == dialogue.now + RETRY_S

    def test_after_a_failure_the_end_of_the_right_is_not_missed(self, leader: Dialogue) -> None:
        """The next try is at the end of the right at the latest, and then the term ends."""
        over_at = 100.0 + VALID_S
        leader.key.failed(over_at - RETRY_S / 2)
        assert leader.key.next_try_at(calm=False) == over_at
        assert leader.key.checked(over_at).ends is not None


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["acquired", "renewed", "another", "free", "failed", "late", "old", "checked"]
        ),
        st.floats(0.0, 8.0),
        st.sampled_from([(None, None), (1, "us:1"), (2, "them:1")]),
    ),
    max_size=40,
)


@given(EVENTS)
def test_invariants(events: list[tuple[str, float, tuple[int | None, str | None]]]) -> None:
    """Whatever comes in whatever order, the value is consistent with itself."""
    dialogue = Dialogue(keep_stream_s=1.0)
    requests = [dialogue.ask()]
    steps: dict[str, Callable[[Held, float, int | None, str | None], Change]] = {
        "failed": lambda *_: dialogue.key.failed(dialogue.now),
        "checked": lambda *_: dialogue.key.checked(dialogue.now),
        "old": lambda *_: dialogue.answer("renewed", request=requests[0]),
        "late": lambda *_: dialogue.answer("acquired", after_s=VALID_S),
    }
    tokens_that_led = set()
    for kind, seconds, (seq, by) in events:
        before = dialogue.value
        dialogue.now += seconds
        requests.append(dialogue.ask())
        if kind in steps:
            change = steps[kind]("renewed", seconds, seq, by)
        else:
            held: Held = kind  # type: ignore[assignment]
            change = dialogue.answer(held, seq=seq, by=by)
        after = dialogue.value
        assert change.leadership == after
        assert after.term - before.term == int(change.begins)
        assert after.reign - before.reign in (0, 1)
        assert after.reign == before.reign or change.forget
        assert after.leads == after.may_publish(dialogue.now)
        assert after.publish_until <= max(before.publish_until, dialogue.now + VALID_S)
        assert after.hold_until >= after.publish_until
        assert not (before.leads and not after.leads and change.ends is None)
        if before.leads and not after.leads:
            assert after.token != before.token
        if change.begins and not before.leads:
            assert after.token not in tokens_that_led
        if after.leads:
            tokens_that_led.add(after.token)
        assert replace(after, publish_until=0.0, hold_until=0.0) == after


# Two daemons and a server that is away

_KEEP_S = 20.0
_STEP_S = 0.05
_CALL_LIMIT_S = 0.8


class Redis:
    """The leader key on a server. While it is frozen, requests wait, also those given up.

    While it is gone, requests are lost.
    """

    def __init__(self) -> None:
        self.holder = ""
        self.lapses_at = -inf
        self.frozen = False
        self.gone = False
        self.waiting: list[tuple[LeaderKeyRequest, Callable[[LeaderKeyAnswer], None]]] = []

    def ask(
        self, request: LeaderKeyRequest, answer: Callable[[LeaderKeyAnswer], None], now: float
    ) -> None:
        """Take a request, and answer it once the server does not freeze."""
        if not self.gone:
            self.waiting.append((request, answer))
            self.serve(now)

    def serve(self, now: float) -> None:
        """Execute what waits, in order, unless the server is frozen."""
        while self.waiting and not self.frozen:
            request, answer = self.waiting.pop(0)
            answer(LeaderKeyAnswer(self._held(request, now), unix_s=now + 1_000.0))

    def _held(self, request: LeaderKeyRequest, now: float) -> Held:
        holder = self.holder if now < self.lapses_at else ""
        if holder not in ("", request.token, request.former):
            return "another"
        if not holder and now + 1_000.0 > request.claim_unix_s:
            return "free"
        self.holder, self.lapses_at = request.token, now + TTL_S
        return "renewed" if holder == request.token else "acquired"


class Node:
    """One daemon's requests to such a server, one at a time, each given up after a while."""

    def __init__(self, name: str, redis: Redis) -> None:
        numbers = count(1)
        self.key = LeaderKey(
            ttl_s=TTL_S,
            new_token=lambda: f"{name}:{next(numbers)}",
            is_ours=lambda token: token.startswith(f"{name}:"),
            keep_stream_s=_KEEP_S,
        )
        self._redis = redis
        self._awaits: LeaderKeyRequest | None = None
        self._next_at = -inf

    def turn(self, now: float) -> None:
        """Do what the loop of a daemon does."""
        if self._awaits is not None and now - self._awaits.sent_at >= _CALL_LIMIT_S:
            self._awaits = None
            self.key.failed(now)
            self._next_at = self.key.next_try_at(calm=False)
        self.key.checked(now)
        if self._awaits is None and now >= self._next_at:
            self._awaits = request = self.key.request(now)
            self._redis.ask(request, lambda answer: self._answered(request, answer, now), now)

    def _answered(self, request: LeaderKeyRequest, answer: LeaderKeyAnswer, now: float) -> None:
        if request is self._awaits:  # else it was given up, and nobody hears the answer
            self._awaits = None
            self.key.answered(request, answer, max(now, self.now))
            self._next_at = self.key.next_try_at(calm=answer.held != "free")

    now = -inf


@given(
    st.lists(
        st.tuples(st.booleans(), st.floats(0.1, 19.0), st.floats(3.0, 9.0)),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 7),
    st.booleans(),
)
def test_who_holds_the_stream_gets_the_key_when_redis_is_back(
    outages: list[tuple[bool, float, float]], phase: int, standby_first: bool
) -> None:
    """However long it was frozen, or gone, within the time to keep the stream."""
    redis = Redis()
    leader, standby = Node("us", redis), Node("them", redis)
    nodes = [standby, leader] if standby_first else [leader, standby]
    now = 100.0

    def run(seconds: float, *turning: Node) -> None:
        nonlocal now
        ends = now + seconds
        while now < ends:
            now += _STEP_S
            for node in turning:
                node.now = now
            redis.serve(now)
            for node in turning:
                node.turn(now)
            rights = [node.key.leadership.may_publish(now) for node in nodes]
            assert rights.count(True) <= 1

    run(1.0, leader)
    assert leader.key.leadership.leads
    run(1.0 + phase * 0.1, *nodes)
    for gone, away_s, works_s in outages:
        redis.gone, redis.frozen = gone, not gone
        run(away_s, *nodes)
        assert leader.key.leadership.may_hold(now)
        redis.gone = redis.frozen = False
        run(1.5, *nodes)
        assert leader.key.leadership.leads
        run(works_s, *nodes)
        assert leader.key.leadership.leads
        assert not standby.key.leadership.leads
        assert leader.key.leadership.reign == 0


def test_a_standby_takes_the_key_of_a_leader_that_died_while_the_server_was_frozen() -> None:
    """It waits for the leader for a second, and then for nobody."""
    redis = Redis()
    leader, standby = Node("us", redis), Node("them", redis)
    now = 100.0
    for node in (leader, standby):
        for _ in range(20):
            now += _STEP_S
            node.now = now
            node.turn(now)
    redis.frozen = True
    for _ in range(160):
        now += _STEP_S
        standby.now = now
        standby.turn(now)
    redis.frozen = False
    back_at = now
    while not standby.key.leadership.leads:
        now += _STEP_S
        assert now < back_at + YIELD_S + STANDBY_TRIES_EVERY_S + _CALL_LIMIT_S
        standby.now = now
        redis.serve(now)
        standby.turn(now)
