"""Decides which reason is given for a stream that failed. Must not know how it failed in detail.

``label`` is the short name of a ``StreamError``, ``sentence`` its text.
"""

from __future__ import annotations

from spotd.models import BreakerStateName
from spotd.reasons import Code, Reason

INTERRUPTED = Reason("interrupted", "the stream is interrupted")
BREAKER_OPEN = Reason("breaker_open", "the circuit breaker spot_price_stream is open")

# Sessions that spotd itself ended, because their prices could not be trusted.
_GIVEN_UP: dict[str, Code] = {"mute": "mute", "lagging": "lagging"}


def why_stale(label: str, sentence: str) -> Reason:
    """Return why the prices are suspect that a session brought which failed so."""
    code = _GIVEN_UP.get(label)
    return INTERRUPTED if code is None else Reason(code, sentence)


def why_waiting(label: str, sentence: str, breaker: BreakerStateName) -> Reason:
    """Return why the next try is timed after a try, or its session, failed so.

    Source: the wire contract, section 4: backoff, connection limit or open breaker.
    """
    if breaker == "open":
        return Reason("breaker_open", f"{sentence}; {BREAKER_OPEN.text}")
    if label == "connection_limit":
        return Reason("connection_limit", sentence)
    return Reason(_GIVEN_UP.get(label, "backoff"), sentence)


def why_connecting(failure: str | None) -> Reason:
    """Return the reason while the stream is opened. ``failure``: the sentence of the last failure.

    Pauses may be shorter than tries. Without the sentence an operator would seldom read it.
    """
    text = "opening the stream"
    if failure is not None:
        text = f"{text}; the last one failed: {failure}"
    return Reason("connecting", text)
