"""Decides with which codes the relay closes a websocket, and what each asks of the client.

RFC 6455 leaves 4000 to 4999 to applications: 4000 to 4099 ask the client to try again, 4100 to
4199 ask it not to. One table, which the documents show too.
"""

from __future__ import annotations

from typing import NamedTuple


class CloseCode(NamedTuple):
    """A code, the reason in the close frame, whether to try again, and the meaning for people."""

    code: int
    reason: str
    try_again: bool
    meaning: str


PROTOCOL_ERROR = CloseCode(
    1002, "protocol error", False, "the client broke the rules of the websocket protocol"
)
INVALID_TEXT = CloseCode(1007, "invalid UTF-8", False, "a text message was not valid UTF-8")
TOO_LARGE = CloseCode(
    1009, "message too large", False, "a message was longer than `limits.message_bytes` of `hello`"
)
INTERNAL_ERROR = CloseCode(1011, "internal error", True, "a defect of the relay; its log says more")
STOPPING = CloseCode(4000, "the relay stops, try again", True, "the relay stops or restarts")
NOT_READING = CloseCode(
    4001,
    "the client does not answer or does not read, try again",
    True,
    "no answer to pings, or nothing read, for a minute; such a client may get 1006 instead",
)
TOO_MANY_MESSAGES = CloseCode(
    4101,
    "too many messages",
    False,
    "the client sent more than `limits.messages_per_s` of `hello`, for longer than a burst",
)

CLOSE_CODES = (
    PROTOCOL_ERROR,
    INVALID_TEXT,
    TOO_LARGE,
    INTERNAL_ERROR,
    STOPPING,
    NOT_READING,
    TOO_MANY_MESSAGES,
)


def table() -> str:
    """Return all codes as a table of Markdown."""
    rows = [
        f"| {each.code} | {each.reason} | {'yes' if each.try_again else 'no'} | {each.meaning} |"
        for each in CLOSE_CODES
    ]
    return "\n".join(
        ["| close code | reason | try again | meaning |", "| --- | --- | --- | --- |", *rows]
    )
