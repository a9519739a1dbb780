"""The rules of the soak: each with its grace, and why spotd or this checker cannot know earlier.

What breaks them is decided in ``rules``.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.soak.contradictions import Rule

READ_S = 0.3  # between two readings, with what a reading takes
CALL_S = 0.8  # spotd gives a call to Redis up after this
CONNECT_S = 0.5  # and a connection to it after this
CLOSE_S = 1.0  # the close handshake with Alpaca


@dataclass(frozen=True, slots=True)
class Times:
    """The settings that the graces follow from, in seconds."""

    ttl_s: float = 5.0
    keep_stream_s: float = 0.0

    @property
    def renew_s(self) -> float:
        """How long a leader may not ask for its key, where nothing else tells it."""
        return self.ttl_s / 4


class RuleTable:
    """The rules for one setting of the times. Times are seconds."""

    def __init__(self, times: Times) -> None:
        self.times = times
        learns_s = times.renew_s + CALL_S + READ_S
        self.leads_without_key = Rule(
            "leads without the key",
            learns_s + CONNECT_S,
            "a leader learns it from the next call: a renewal each TTL/4, a new connection 0.5 s, "
            "the call 0.8 s, our reading 0.3 s",
        )
        self.key_without_lead = Rule(
            "has the key and does not say so",
            0.2 + CALL_S + CONNECT_S + READ_S,
            "a request whose answer was lost is repeated after 0.2 s, a new connection 0.5 s, "
            "the call 0.8 s, our reading 0.3 s",
        )
        self.two_leaders = Rule(
            "two daemons say that they lead",
            times.renew_s + CALL_S / 2,
            "where FLUSHALL deleted the key, the former leader learns it from its next call",
        )
        self.nobody_leads = Rule(
            "nobody leads though the key is free",
            0.5 + 1.0 + CONNECT_S + CALL_S + READ_S,
            "a standby asks each 0.5 s, and waits 1 s where its last request failed, so that who "
            "holds the stream is first; a new connection, the call, our reading 0.3 s",
        )
        self.held_by_nobody = Rule(
            "the key is held by no daemon that runs",
            times.ttl_s + CALL_S + READ_S,
            "the key of a dead leader lapses after its TTL; a call of it may still arrive",
        )
        self.state_and_metric = Rule(
            "state and spotd_leader disagree", 2 * READ_S, "two pages are two requests"
        )
        self.streams_without_session = Rule(
            "streaming without a subscribed session",
            0.5,
            "a cut connection is told by the kernel at once; our reading 0.3 s",
        )
        self.streams_without_redis = Rule(
            "streaming while Redis does not answer",
            learns_s + CONNECT_S,
            "as for leads without the key; prices that are published tell it earlier",
        )
        self.connected = Rule(
            "spotd_stream_connected is not what Alpaca sees",
            CLOSE_S + READ_S,
            "the close handshake takes up to 1 s, the frames of the handshake some ms",
        )
        self.session_without_right = Rule(
            "a session without the right to one",
            learns_s + CONNECT_S + CLOSE_S,
            "as for leads without the key, then the close handshake of up to 1 s",
        )
        self.second_session = Rule(
            "a second session beside an open one",
            2 * READ_S,
            "a daemon ends a session before it opens the next; our reading 0.3 s",
        )
        self.asks_without_right = Rule(
            "a session is opened without the right to one",
            2 * READ_S,
            "the key is read up to 0.3 s after it was taken; that it was lost is learnt as above",
        )
        self.publishes_without_key = Rule(
            "publishes without the key",
            2 * READ_S,
            "an update is counted with the answer of its call, which takes up to 0.8 s",
        )
        self.ready_without_redis = Rule(
            "ready while Redis does not answer",
            max(times.renew_s, 0.5) + CALL_S + CONNECT_S + READ_S,
            "a leader asks each TTL/4, a standby each 0.5 s; connection, call, reading",
        )
        self.ready_without_session = Rule(
            "ready without a session though symbols are desired",
            1.0 + READ_S,
            "a new entry of the demand is read within 0.5 s, and its session takes some time",
        )
        self.unready = Rule(
            "not ready though all is well",
            2.0,
            "after its return Redis counts as away for another 0.75 s; our reading 0.3 s",
        )
        self.status = Rule(
            "spotd:status is not what its leader says",
            1.5,
            "written at every change, after up to 0.2 s of states, with a call of up to 0.8 s",
        )
        self.counts = Rule(
            "spotd:status counts other states than spotd:states holds",
            2.5,
            "states are written first, then the status, each with a call of up to 0.8 s",
        )
        self.counted = Rule(
            "spotd_symbols counts other states than spotd:states holds",
            2.5,
            "states are written with a call of up to 0.8 s, and its retry",
        )
        self.desired = Rule(
            "spotd:status tells another number of desired symbols",
            2.5,
            "the contract's 1 s, and the status' call of up to 0.8 s",
        )
        self.breaker = Rule(
            "status and spotd_breaker_state disagree", 2 * READ_S, "two pages are two requests"
        )
        self.no_state = Rule(
            "a desired symbol has no state",
            2.5,
            "the contract's 1 s, a retry after 0.5 s, a call of up to 0.8 s",
        )
        self.undesired = Rule(
            "an undesired symbol has a state or a price",
            4.0,
            "the contract's 1 s; the state waits up to 1.2 s for a price that goes out before it; "
            "a call of up to 0.8 s and its retry",
        )
        self.live_unsubscribed = Rule(
            "live without being subscribed",
            1.0 + CALL_S,
            "a state waits up to 1.2 s for prices that are still to be published",
        )
        self.subscribed_not_live = Rule(
            "subscribed and not said to be live", 2.0, "one write, and its retry after 0.5 s"
        )
        self.live_and_old = Rule(
            "live without its newest price",
            1.0,
            "throttle and reading are counted before; the contract's 1 s after Redis' return",
        )
        self.withheld = Rule(
            "a newer price is not published though stream and Redis work",
            1.0 + READ_S,
            "the contract's 1 s after Redis' return, our reading 0.3 s; throttle counted before",
        )
        self.silent_http = Rule(
            "HTTP does not answer", 2.0, "each page is answered at once; the limit is 1 s"
        )
        self.relay_ready = Rule(
            "the relay's /readyz is not what is",
            16.0,
            "it tries a silent connection each 10 s, with 5 s for the answer",
        )

    def all(self) -> list[Rule]:
        """Return every rule."""
        return [rule for rule in vars(self).values() if isinstance(rule, Rule)]
