"""Decides what is wrong at one moment: where what spotd says is not what is. Talks to nothing.

A claim of a daemon that did not answer is no claim. The checker reads everything in turn within
``READ_S``, so two readings that contradict each other once prove nothing: see ``rule_table``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from tests.soak.contradictions import Wrong
from tests.soak.moment import DaemonNow, Moment, RedisNow
from tests.soak.rule_table import CALL_S, READ_S, RuleTable

BREAKERS = ("closed", "half_open", "open")  # by the number of ``spotd_breaker_state``
LEADS = ("idle", "connecting", "streaming", "waiting")
_BEHIND_S = 0.5  # throttle window 0.2 s, its slack 0.05 s, and a reading


class Rules(RuleTable):
    """What breaks each rule."""

    def wrong(self, moment: Moment) -> list[Wrong]:
        """Return all that is wrong at a moment."""
        checks: tuple[Callable[[Moment], Iterator[Wrong]], ...] = (
            self._each_daemon, self._leaders, self._withheld, self._stored, self._relay,
        )  # fmt: skip
        return [wrong for check in checks for wrong in check(moment)]

    # Each daemon

    def _each_daemon(self, moment: Moment) -> Iterator[Wrong]:
        for daemon in moment.daemons:
            if daemon.frozen:
                continue
            yield from self._right_to_session(moment, daemon)
            yield from self._sessions(moment, daemon)
            yield from self._publishes(moment, daemon)
            if daemon.said is None:
                if not daemon.stopping:
                    yield Wrong(self.silent_http, daemon.name, "nothing", "it runs")
                continue
            yield from self._leadership(moment, daemon)
            yield from self._stream(moment, daemon)
            yield from self._readiness(moment, daemon)

    def _leadership(self, moment: Moment, daemon: DaemonNow) -> Iterator[Wrong]:
        said = daemon.said
        assert said is not None
        if said.leader and (why := self._key_is_not_its(moment, daemon)):
            yield Wrong(self.leads_without_key, daemon.name, "spotd_leader 1", why)
        if moment.holder is daemon and not said.leader and not daemon.stopping:
            yield Wrong(
                self.key_without_lead, daemon.name, f"{said.state} ({said.code})", "the key is its"
            )
        if said.breaker_metric != BREAKERS.index(said.breaker):
            yield Wrong(
                self.breaker,
                daemon.name,
                said.breaker,
                f"spotd_breaker_state {said.breaker_metric}",
            )
        if said.state != "stopping" and said.leader != (said.state in LEADS):
            yield Wrong(
                self.state_and_metric, daemon.name, said.state, f"spotd_leader {said.leader:d}"
            )

    def _key_is_not_its(self, moment: Moment, daemon: DaemonNow) -> str | None:
        """Return why the leader key is not this daemon's, None if it is or may be."""
        if moment.redis is not None:
            return None if moment.holder is daemon else f"the key holds {moment.redis.token}"
        # Nothing can be read. The key may have been renewed at the last moment before that.
        lapsed_s = moment.now - max(moment.redis_since, daemon.key_seen_at) - self.times.ttl_s
        return f"the key lapsed {lapsed_s:.1f} s ago at least" if lapsed_s > 0 else None

    def _stream(self, moment: Moment, daemon: DaemonNow) -> Iterator[Wrong]:
        said = daemon.said
        assert said is not None
        if said.state == "streaming":
            if not daemon.subscribed:
                yield Wrong(
                    self.streams_without_session, daemon.name, "streaming",
                    "its sessions: " + (str([s.id for s in daemon.sessions]) or "none"),
                )  # fmt: skip
            if moment.redis is None:
                silent_s = moment.now - moment.redis_since
                yield Wrong(
                    self.streams_without_redis, daemon.name, "streaming",
                    f"Redis has not answered for {silent_s:.1f} s",
                )  # fmt: skip
        if said.connected != bool(daemon.sessions):
            yield Wrong(
                self.connected, daemon.name, f"spotd_stream_connected {said.connected:d}",
                f"{len(daemon.sessions)} sessions", moment.hides("connection"),
            )  # fmt: skip

    def _right_to_session(self, moment: Moment, daemon: DaemonNow) -> Iterator[Wrong]:
        if not daemon.sessions or moment.holder is daemon:
            return
        if moment.holder is not None:
            why = f"{moment.holder.name} has the key"
        elif (lapsed := self._key_is_not_its(moment, daemon)) and not self._may_keep(moment):
            why = lapsed
        else:
            return
        yield Wrong(self.session_without_right, daemon.name, "an open session", why)

    def _sessions(self, moment: Moment, daemon: DaemonNow) -> Iterator[Wrong]:
        newest = max((session.id for session in daemon.sessions), default=daemon.attempted)
        if len(daemon.sessions) > 1 or daemon.attempted > newest:
            yield Wrong(
                self.second_session, daemon.name, f"session {daemon.attempted}",
                f"{[session.id for session in daemon.sessions]} is open",
                moment.hides("connection"),
            )  # fmt: skip
        if moment.holder is daemon or moment.redis is None:
            return
        had_right_at = max(daemon.key_seen_at, moment.unread_at)
        since_s = daemon.attempted_at - had_right_at
        if since_s > self.session_without_right.grace_s:
            yield Wrong(
                self.asks_without_right, daemon.name, f"session {daemon.attempted}",
                f"the key was last its {since_s:.1f} s before",
            )  # fmt: skip

    def _publishes(self, moment: Moment, daemon: DaemonNow) -> Iterator[Wrong]:
        """Yield where a daemon went on publishing, also where it does not say that it leads."""
        if moment.holder is daemon or moment.redis is None:
            return
        had_right_at = max(daemon.key_seen_at, moment.unread_at)
        since_s = daemon.published_at - had_right_at
        if since_s > CALL_S + 2 * READ_S:
            yield Wrong(
                self.publishes_without_key, daemon.name, "spotd_updates_published_total rises",
                f"the key was last its {since_s:.1f} s before",
            )  # fmt: skip

    def _may_keep(self, moment: Moment) -> bool:
        """Return whether a stream may be kept while nobody is known to hold the key."""
        kept_s = self.times.keep_stream_s + self.times.ttl_s
        return moment.redis is None and moment.now - moment.redis_since < kept_s

    def _readiness(self, moment: Moment, daemon: DaemonNow) -> Iterator[Wrong]:
        said = daemon.said
        assert said is not None
        if said.ready:
            if moment.redis is None:
                silent_s = moment.now - moment.redis_since
                yield Wrong(
                    self.ready_without_redis, daemon.name, f"200 ({said.state})",
                    f"Redis has not answered for {silent_s:.1f} s",
                )  # fmt: skip
            elif moment.holder is daemon and moment.redis.desired and not daemon.subscribed:
                yield Wrong(
                    self.ready_without_session, daemon.name, f"200 ({said.state})", "no session"
                )
        elif not daemon.stopping and moment.redis is not None and self._is_well(moment, daemon):
            yield Wrong(self.unready, daemon.name, f"503 {said.reasons}", "it works")

    @staticmethod
    def _is_well(moment: Moment, daemon: DaemonNow) -> bool:
        """Return whether nothing is in the way of a daemon being ready."""
        holder = moment.holder
        if moment.now - max(moment.redis_since, daemon.acts_since) < 2.0 or holder is None:
            return False
        if holder is not daemon:
            return True
        states = {} if moment.redis is None else moment.redis.states
        live = [since for s, since in moment.behind.items() if states.get(s) == "live"]
        up_to_date = all(moment.now - since < _BEHIND_S for since in live)
        return bool(daemon.subscribed) and up_to_date and moment.calm_for(2.0)

    # All daemons

    def _leaders(self, moment: Moment) -> Iterator[Wrong]:
        leaders = [d.name for d in moment.daemons if d.said is not None and d.said.leader]
        if len(leaders) > 1:
            token = None if moment.redis is None else moment.redis.token
            yield Wrong(self.two_leaders, "all", " and ".join(leaders), f"the key holds {token}")
        redis = moment.redis
        able = [d.name for d in moment.daemons if d.said and not d.frozen and not d.stopping]
        if redis is None or moment.holder is not None or not able:
            return
        if redis.token is None:
            yield Wrong(self.nobody_leads, "all", "nothing", " and ".join(able))
        else:
            yield Wrong(self.held_by_nobody, "all", redis.token, " and ".join(able))

    # Prices

    def _withheld(self, moment: Moment) -> Iterator[Wrong]:
        """Yield the prices that a daemon could publish, whatever is said of them."""
        redis, holder = moment.redis, moment.holder
        for daemon in moment.daemons:
            if redis is None or daemon.frozen or daemon.stopping or holder not in (daemon, None):
                continue
            for session in daemon.sessions:
                for symbol in session.symbols & redis.desired & moment.behind.keys():
                    came_at = max(moment.behind[symbol], session.since.get(symbol, moment.now))
                    if moment.now - came_at > _BEHIND_S:
                        yield Wrong(
                            self.withheld, symbol, f"{redis.states.get(symbol)}",
                            f"{daemon.name} got a newer quote {moment.now - came_at:.2f} s ago",
                            moment.hides("prices", "connection"),
                        )  # fmt: skip

    # What is stored

    def _stored(self, moment: Moment) -> Iterator[Wrong]:
        holder, redis = moment.holder, moment.redis
        if holder is None or redis is None or holder.frozen or holder.stopping:
            return
        if holder.said is not None and holder.said.leader:
            yield from self._stored_status(holder, redis)
            yield from self._counted(holder, redis)
            yield from self._stored_states(moment, holder, redis)

    def _stored_status(self, holder: DaemonNow, redis: RedisNow) -> Iterator[Wrong]:
        assert holder.said is not None
        told = redis.status or {}
        stored = (told.get("instance"), told.get("state"), told.get("code"))
        true = (holder.said.instance, holder.said.state, holder.said.code)
        if stored != true:
            yield Wrong(self.status, holder.name, f"spotd:status {stored}", f"HTTP {true}")
        counted = {s: n for s, n in told.get("symbols", {}).items() if n and s != "desired"}
        held = dict(Counter(redis.states.values()))
        if told and counted != held:
            yield Wrong(self.counts, holder.name, f"{counted}", f"{held}")

    def _counted(self, holder: DaemonNow, redis: RedisNow) -> Iterator[Wrong]:
        assert holder.said is not None
        counted = {state: number for state, number in holder.said.symbols.items() if number}
        held = dict(Counter(redis.states.values()))
        if counted != held:
            yield Wrong(self.counted, holder.name, f"{counted}", f"{held}")
        told = (redis.status or {}).get("symbols", {}).get("desired")
        if redis.status and told != len(redis.desired):
            yield Wrong(self.desired, holder.name, f"{told}", f"{len(redis.desired)}")

    def _stored_states(self, moment: Moment, holder: DaemonNow, redis: RedisNow) -> Iterator[Wrong]:
        states, subscribed = redis.states, holder.subscribed
        for symbol in redis.desired - states.keys():
            yield Wrong(self.no_state, symbol, "nothing", "desired")
        left = {s for s, state in states.items() if state != "refused"} | redis.last
        for symbol in left - redis.desired:
            yield Wrong(self.undesired, symbol, f"{states.get(symbol)}", "nobody wants it")
        for symbol, state in states.items():
            if symbol not in redis.desired:
                continue
            if state == "live" and symbol not in subscribed:
                yield Wrong(self.live_unsubscribed, symbol, "live", f"{holder.name} has it not")
            elif state in ("pending", "stale") and symbol in subscribed:
                yield Wrong(
                    self.subscribed_not_live, symbol, state, "subscribed",
                    moment.hides("answers", "connection"),
                )  # fmt: skip
            old_s = moment.now - moment.behind.get(symbol, moment.now)
            if state == "live" and old_s > _BEHIND_S:
                yield Wrong(
                    self.live_and_old, symbol, "live", f"a newer quote came {old_s:.2f} s ago",
                    moment.hides("prices"),
                )  # fmt: skip

    # The relay

    def _relay(self, moment: Moment) -> Iterator[Wrong]:
        if moment.relay_ready is True and moment.redis is None:
            yield Wrong(self.relay_ready, "relay", "200", "Redis does not answer")
        elif moment.relay_ready is False and moment.calm_for(2.0) and moment.redis is not None:
            yield Wrong(self.relay_ready, "relay", "503", "Redis and a daemon work")
