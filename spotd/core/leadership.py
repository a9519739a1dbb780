"""Decides whether this daemon leads, from Redis' answers about the leader key and from the clock.

The leader key lives ``ttl_s`` from the moment Redis set or renewed it, and that moment is never
earlier than the moment the request was sent. A leader counts from *sending*, by its own monotonic
clock. As a consequence, it stops before the key can lapse, however late the answer came.

The states, and what moves between them::

    starting  --any answer----------------------------------------> standby or leader
    standby   --acquired or renewed, in time----------------------> leader, a new term
    standby   --the key is free, and this request did not take it-> standby
    leader    --acquired (the key had vanished)-------------------> leader, a new term
    leader    --renewed, in time----------------------------------> leader, for longer
    leader    --another's key, or publish_until has passed--------> standby

An answer is *in time* while the key that it tells of cannot have lapsed. "Renewed" begins a term
just as "acquired" does: the request that acquired the key may be one whose answer never came.
The clock decides before an answer is taken in: a right that is over is never prolonged.
An answer to an older request than the last one that counted says nothing and is ignored, and so
is the same answer told twice.

While Redis does not answer, a leader keeps its stream beyond its term, for ``keep_stream_s``. It
goes first when Redis is back: nobody has newer prices, and Alpaca holds its session. So a free key
is taken under two conditions:

- A daemon whose last request failed, and that is not the one that led last, as far as it knows,
  waits ``YIELD_S`` from the first answer on. Until then its requests take no free key.
- A request is *claimed* until a time by Redis' own clock. Redis may execute it much later than it
  was sent, when a frozen server goes on, also where its sender has given it up. Without the limit,
  a standby's last request before the freeze would take the key that lapsed during the freeze.

Each answer tells Redis' clock. As a consequence, the first request of a daemon takes no free key.

Each term has a token of its own. A write of an earlier term that arrives late carries the old
token, so Redis refuses it. ``former`` is the token of the term before: a key that holds it is ours
to take. That may be so even after another daemon's key was seen, where a fail-over of Redis leads
to a server that missed that key. Without taking it, nobody would lead until it lapses.

Where Redis lost its data it knows no seq, and nobody can tell who published last. Then the reign
stays: a Redis that restarts empty must get the prices back that we hold.

Must not talk to Redis, and must not read a clock or make up tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from spotd.reasons import Reason

RENEWALS_PER_TTL = 4
MARGIN_SHARE = 0.1  # of the TTL: clocks of two machines do not run at exactly the same speed
STANDBY_TRIES_EVERY_S = 0.5
RETRY_S = 0.2
# With a call that is given up after 0.8 s, this is less than a standby waits.
RETRY_TO_KEEP_S = 0.05
YIELD_S = 1.0  # to the daemon that holds the stream, once Redis is back
CLAIM_S = 1.0  # how long after it was sent a request may take a free key

ANOTHER_LEADS = Reason("another_leads", "another daemon is the leader")
KEY_LAPSED = Reason("leader_key_lapsed", "the leader key lapsed before it was renewed")

Held = Literal["acquired", "renewed", "another", "free"]

_NEVER = float("-inf")
_WHENEVER_BACK = float("inf")


@dataclass(frozen=True, slots=True)
class LeaderKeyRequest:
    """Renew the key if it holds ``token``; take it if it holds ``former``, or if it is free.

    A free key is taken until ``claim_unix_s`` by Redis' clock. 0: it is not taken.
    """

    token: str
    former: str
    sent_at: float
    claim_unix_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaderKeyAnswer:
    """What Redis said to a request for the leader key.

    "Free": the key holds no token, and the request was not to take it, or came too late.
    ``highest_seq`` is the highest seq that was ever published, ``published_by`` the token of the
    daemon that published it; both are None where Redis does not know. ``unix_s`` is Redis' clock.
    ``leader`` is the token that the key holds where it is another daemon's, else None.
    """

    held: Held
    highest_seq: int | None = None
    published_by: str | None = None
    unix_s: float = field(default=0.0, compare=False)
    leader: str | None = None


@dataclass(frozen=True, slots=True)
class Leadership:
    """What this daemon may do. Two values are equal if they differ in nothing but times.

    ``term`` rises with each tenure. ``reign`` rises only if another daemon may have published
    since this one last did: then the prices held here may be older than the published ones.
    ``publish_until`` and ``hold_until`` are monotonic seconds, minus infinity without the right:
    until when we may publish, and until when we may hold an open stream.
    ``answered``: the last request for the leader key was answered. ``another``: it said that the
    key is another daemon's, and no term of ours began since. ``free``: it said that the key is
    nobody's. ``started``: one ever said whose the key is. ``renewed_at`` is when the request was
    sent that last prolonged these rights, in monotonic seconds. ``begun_after_seq`` is the highest
    seq that Redis knew when the term began, or None. ``lapsed_since``: where the term before had
    lapsed when this one began, its last renewal, in monotonic seconds; else None.
    """

    term: int = 0
    reign: int = 0
    token: str = ""
    leads: bool = False
    started: bool = False
    answered: bool = False
    another: bool = False
    free: bool = False
    publish_until: float = field(default=_NEVER, compare=False)
    hold_until: float = field(default=_NEVER, compare=False)
    renewed_at: float = field(default=_NEVER, compare=False)
    begun_after_seq: int | None = field(default=None, compare=False)
    lapsed_since: float | None = field(default=None, compare=False)

    def may_publish(self, now: float) -> bool:
        """Return whether the leader key is certainly ours at ``now``."""
        return now < self.publish_until

    def may_hold(self, now: float) -> bool:
        """Return whether an open stream may be kept at ``now``."""
        return now < self.hold_until


@dataclass(frozen=True, slots=True)
class Change:
    """A new value, and what has to be done in the same turn as it is published.

    ``forget``: drop every price held here. ``begins``: a term begins; whatever an earlier term
    was going to drop from Redis must not be dropped, and all that is known is written anew.
    ``ends`` says why a term ended, None: none did.
    """

    leadership: Leadership
    begins: bool = False
    forget: bool = False
    ends: Reason | None = None


def token_of(instance: str, feed: str, unique: str) -> str:
    """Return a token: the daemon's name, a colon, what is ``unique`` to the term, and the feed."""
    return f"{instance}:{unique}-{feed}"


def feed_in(token: str) -> str | None:
    """Return the feed of the daemon with this token; None where it names none, as in 0.1."""
    return token.rpartition(":")[2].partition("-")[2] or None


class LeaderKey:
    """One daemon's view of the leader key.

    ``new_token`` returns a token that nobody used before; ``is_ours`` says whether a token came
    from it. ``keep_stream_s`` is how long the right to hold a stream outlasts the right to publish.
    """

    def __init__(
        self,
        *,
        ttl_s: float,
        new_token: Callable[[], str],
        is_ours: Callable[[str], bool],
        keep_stream_s: float = 0.0,
    ) -> None:
        self.leadership = Leadership(token=new_token())
        self._valid_s = ttl_s * (1.0 - MARGIN_SHARE)
        self._renew_every_s = ttl_s / RENEWALS_PER_TTL
        self._keep_stream_s = keep_stream_s
        self._new_token = new_token
        self._is_ours = is_ours
        self._former = ""
        self._now = _NEVER
        self._sent_at = _NEVER  # of the newest request whose answer counted
        self._claimed = False  # whether that request could take a free key
        self._redis_ahead_s: float | None = None  # Redis' unix seconds less our monotonic ones
        self._yields_until = _NEVER  # infinity while the first answer is awaited

    def request(self, now: float) -> LeaderKeyRequest:
        """Return what to ask Redis at ``now``."""
        now = self._advance(now)
        return LeaderKeyRequest(
            self.leadership.token, self._former, now, claim_unix_s=self._claim_unix_s(now)
        )

    def answered(self, request: LeaderKeyRequest, answer: LeaderKeyAnswer, now: float) -> Change:
        """Take in the answer to a request. Return what follows.

        The clock decides first. A term whose right is over has ended, also where this answer says
        that the key was renewed in time: another loop may have seen already that the right was
        over, and only a change of the value tells it that the right is back.
        """
        over = self.checked(now)
        change = self._take_in(request, answer, self._advance(now))
        return change if over.ends is None else replace(change, ends=over.ends)

    def _take_in(self, request: LeaderKeyRequest, answer: LeaderKeyAnswer, now: float) -> Change:
        if request.sent_at <= self._sent_at:
            return Change(self.leadership)
        self._sent_at = request.sent_at
        self._claimed = request.claim_unix_s > 0.0
        # Counted from sending, so the time on the way to Redis is not taken from the claim.
        self._redis_ahead_s = answer.unix_s - request.sent_at
        if self._yields_until == _WHENEVER_BACK:
            self._yields_until = now + YIELD_S
        free = answer.held == "free"
        self.leadership = replace(
            self.leadership,
            answered=True,
            free=free,
            started=self.leadership.started or not free,
        )
        if free:
            return Change(self.leadership)
        if answer.held == "another":
            return self._another_leads()
        if request.token != self.leadership.token:
            # The key holds the token of a term that is over: the next request takes the key over.
            self._former = request.token
            return Change(self.leadership)
        until = request.sent_at + self._valid_s
        if until <= now:
            return Change(self.leadership)  # the key may have lapsed since: ask again
        if self.leadership.leads and answer.held == "renewed":
            self._extend(until)
            return Change(self.leadership)
        return self._begin_term(answer, until)

    def failed(self, now: float) -> Change:
        """Take in that a request failed or was not answered. Return what follows."""
        self.leadership = replace(self.leadership, answered=False)
        change = self.checked(now)
        if self._goes_first(self._now):
            self._yields_until = _NEVER
        else:
            self._yields_until = _WHENEVER_BACK
        return change

    def checked(self, now: float) -> Change:
        """Take in that time has passed. Return what follows.

        A term ends by our own clock, whatever Redis says later.
        """
        now = self._advance(now)
        if not self.leadership.leads or self.leadership.may_publish(now):
            return Change(self.leadership)
        self._former = self.leadership.token
        self._end_term(hold_until=self.leadership.hold_until)
        return Change(self.leadership, ends=KEY_LAPSED)

    def next_try_at(self, *, calm: bool) -> float:
        """Return when to ask Redis again, in monotonic seconds; ``calm``: no call has failed.

        Never later than the moment at which the right to publish ends, so that the term ends then.
        """
        leadership = self.leadership
        at = self._now + RETRY_S
        if not leadership.leads and leadership.may_hold(self._now):
            at = self._now + RETRY_TO_KEEP_S
        elif leadership.answered and leadership.free:
            if self._now < self._yields_until:
                at = min(self._yields_until, self._now + STANDBY_TRIES_EVERY_S)
            elif not self._claimed:
                at = self._now
        elif leadership.answered and calm:
            at = self._now + (STANDBY_TRIES_EVERY_S if leadership.another else 0.0)
            if leadership.leads:
                at = self._sent_at + self._renew_every_s
        return min(at, leadership.publish_until) if leadership.leads else at

    @property
    def claims_at(self) -> float | None:
        """When a free key is asked for that was left to another daemon until then; else None."""
        yields = self.leadership.free and self._now < self._yields_until
        return self._yields_until if yields else None

    def _goes_first(self, now: float) -> bool:
        """Return whether no other daemon can be ahead of us, as far as we know.

        We hold the stream, or did so until Redis was away for too long.
        """
        leadership = self.leadership
        return leadership.may_hold(now) or (leadership.term > 0 and not leadership.another)

    def _claim_unix_s(self, now: float) -> float:
        if self._redis_ahead_s is None or now < self._yields_until:
            return 0.0
        until = now + CLAIM_S
        if self.leadership.may_hold(now):
            # As long as we hold the stream, we want the key, however late Redis takes the request.
            until = max(until, self.leadership.hold_until)
        return until + self._redis_ahead_s

    def _begin_term(self, answer: LeaderKeyAnswer, until: float) -> Change:
        before = self.leadership
        published = answer.highest_seq is not None
        by_another = published and not self._is_ours(answer.published_by or "")
        # Where another's key was seen, the reign has risen already. Prices that came in since, such
        # as a snapshot that was under way, are not known to be newer than what it published.
        forget = by_another or before.another
        reign = before.reign + (by_another and not before.another)
        self._former = ""  # the key holds the present token, so no key holds the former one
        self.leadership = replace(
            before,
            term=before.term + 1,
            reign=reign,
            leads=True,
            another=False,
            begun_after_seq=answer.highest_seq,
            lapsed_since=None if before.leads or not before.term else before.renewed_at,
        )
        self._extend(until)
        return Change(self.leadership, begins=True, forget=forget)

    def _another_leads(self) -> Change:
        ends = ANOTHER_LEADS if self.leadership.leads else None
        if not self.leadership.another:
            reign = self.leadership.reign + 1
            self.leadership = replace(self.leadership, another=True, reign=reign)
        if self.leadership.leads:
            self._former = self.leadership.token
        self._end_term(hold_until=_NEVER)
        return Change(self.leadership, forget=True, ends=ends)

    def _end_term(self, *, hold_until: float) -> None:
        # Since what was sent in the term carries its token, a standby that never led keeps its own.
        token = self._new_token() if self.leadership.leads else self.leadership.token
        self.leadership = replace(
            self.leadership, leads=False, token=token, publish_until=_NEVER, hold_until=hold_until
        )

    def _extend(self, until: float) -> None:
        publish_until = max(until, self.leadership.publish_until)
        self.leadership = replace(
            self.leadership,
            publish_until=publish_until,
            hold_until=publish_until + self._keep_stream_s,
            renewed_at=publish_until - self._valid_s,
        )

    def _advance(self, now: float) -> float:
        """Return the latest moment that was ever told: a clock set back prolongs no right."""
        self._now = max(self._now, now)
        return self._now
