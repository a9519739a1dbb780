"""The messages of the stream: types, key order, defaults, channels and errors.

Tables and pure functions; this module sends nothing.
"""

import re
from itertools import count

from spotd.simulator.wire import Message, nanoseconds

SYMBOL = re.compile(r"[A-Z]+(\.[A-Z]+)?", re.ASCII)
"""A well-formed symbol. Alpaca refuses a whole request that names a malformed one."""

ERRORS = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    407: "slow client",
    408: "v2 not enabled",
    409: "insufficient subscription",
    410: "invalid subscribe action for this feed",
    411: "insufficient scope",
    412: "option messages are only available in MsgPack format",
    413: "star subscription is not allowed for option quotes",
    500: "internal error",
}

CHANNEL_OF = {
    "t": "trades",
    "q": "quotes",
    "b": "bars",
    "u": "updatedBars",
    "d": "dailyBars",
    "s": "statuses",
    "l": "lulds",
    "c": "corrections",
    "x": "cancelErrors",
    "i": "imbalances",
}
ACKNOWLEDGED = tuple(CHANNEL_OF.values())[:9]
MIRRORS = ("corrections", "cancelErrors")
"""Channels that follow `trades` and cannot be subscribed to themselves."""

FEEDS = {
    "iex": "/v2/iex",
    "sip": "/v2/sip",
    "delayed_sip": "/v2/delayed_sip",
    "test": "/v2/test",
    "boats": "/v1beta1/boats",
    "overnight": "/v1beta1/overnight",
}
CHANNELS_OF_TEST = ("trades", "quotes", "bars")
TEST_SYMBOL = "FAKEPACA"

_BAR: Message = {
    "o": 100.0,
    "h": 100.1,
    "l": 99.9,
    "c": 100.0,
    "v": 1000,
    "t": None,
    "n": 10,
    "vw": 100.0,
}
_DEFAULTS: dict[str, Message] = {
    "q": {
        "bx": "V",
        "bp": 100.0,
        "bs": 100,
        "ax": "V",
        "ap": 100.02,
        "as": 100,
        "c": ["R"],
        "z": "C",
        "t": None,
    },
    "t": {"i": None, "x": "V", "p": 100.0, "s": 100, "c": ["@"], "z": "C", "t": None},
    "b": _BAR,
    "u": _BAR,
    "d": _BAR,
    "s": {
        "sc": "H",
        "sm": "Trading Halt",
        "rc": "T12",
        "rm": "Trading Halted; For information requested by NASDAQ",
        "t": None,
        "z": "C",
    },
    "l": {"u": 110.0, "d": 90.0, "i": "B", "t": None, "z": "C"},
    "c": {
        "x": "V",
        "oi": 1,
        "op": 100.0,
        "os": 100,
        "oc": ["@"],
        "ci": 2,
        "cp": 100.01,
        "cs": 100,
        "cc": ["@"],
        "z": "C",
        "t": None,
    },
    "x": {"i": 1, "x": "V", "p": 100.0, "s": 100, "a": "C", "z": "C", "t": None},
    "i": {"p": 100.0, "z": "C", "t": None},
}
_ids = count(1)


def success(message: str) -> Message:
    """Return the message `connected` or `authenticated`."""
    return {"T": "success", "msg": message}


def error(code: int) -> Message:
    """Return an error with Alpaca's text for the code."""
    return {"T": "error", "code": code, "msg": ERRORS.get(code, "unknown error")}


def complete(given: Message, now_ns: int) -> Message:
    """Return a message in Alpaca's key order, absent fields filled in; a given None stays None.

    `T` is the first key, since Alpaca's Go SDK fails otherwise. A message of an unknown type gets
    no other field. Raise `ValueError` without `T`, or if `t` or `r` is not a time.
    """
    if "T" not in given:
        raise ValueError(f"a message without its type T: {given}")
    kind = given["T"]
    message: Message = {"T": kind}
    if "S" in given:
        message["S"] = given["S"]
    message |= _DEFAULTS.get(kind, {})
    if kind == "q" and ("bp" in given) != ("ap" in given):
        message["bp"], message["ap"] = _other_side(given)
    message |= given
    if kind == "t" and "i" not in given:
        message["i"] = next(_ids)
    for name in ("t", "r"):
        if given.get(name) is not None:
            message[name] = nanoseconds(given[name])
    if "t" in message and "t" not in given:
        message["t"] = now_ns
    return message


def _other_side(given: Message) -> tuple[float | None, float | None]:
    """Return both prices of a quote, two cents apart, of which one is given."""
    if "bp" in given:
        bid = given["bp"]
        return bid, None if bid is None else round(bid + 0.02, 4)
    ask = given["ap"]
    return None if ask is None else round(ask - 0.02, 4), ask
