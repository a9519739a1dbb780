"""Every reason that spotd gives: its code, which programs compare, and what a person does about it.

A ``Reason`` is made where its cause is known, with its code and its sentence together. Nobody takes
a sentence apart to find out what it means. Codes may be added, and none changes its meaning (the
wire contract, section 4). Must not talk to anything.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Code = Literal[
    "all_refused",
    "another_leads",
    "backoff",
    "breaker_open",
    "clock_wrong",
    "connecting",
    "connection_limit",
    "demand_crowded",
    "demand_unreadable",
    "interrupted",
    "invalid_symbol",
    "lagging",
    "leader_changed",
    "leader_key_failed",
    "leader_key_free",
    "leader_key_lapsed",
    "leader_unknown",
    "mute",
    "no_daemon",
    "no_leader",
    "no_quote_yet",
    "reading_demand",
    "redis_away",
    "refused_by_alpaca",
    "stopping",
    "subscribing",
    "symbol_limit",
    "two_leaders",
    "wake_unheard",
    "wildcard_not_allowed",
]


class Reason(NamedTuple):
    """Why something is as it is. ``text`` is a sentence for a person, and never holds a secret."""

    code: Code
    text: str

    def __str__(self) -> str:
        """Return code and sentence, as ``/readyz`` lists them."""
        return f"{self.code}: {self.text}"

    def for_clients(self) -> Reason:
        """Return the reason as a relay tells it to browsers: without the address of Redis.

        A sentence that may name one is replaced by the meaning of its code.
        """
        if self.code not in _NAMES_REDIS:
            return self
        return Reason(self.code, MEANINGS[self.code].meaning.removesuffix("."))


class Meaning(NamedTuple):
    """What a code means, and what an operator does about it."""

    meaning: str
    action: str


_NOTHING = "Nothing."

# Their sentences say what Redis answered, and where it is.
_NAMES_REDIS: frozenset[str] = frozenset({"demand_unreadable", "redis_away"})

MEANINGS: dict[Code, Meaning] = {
    "all_refused": Meaning(
        "Every desired symbol is refused, so no price comes.",
        "Read the reasons of the symbols: `spotd symbols list`.",
    ),
    "another_leads": Meaning("Another daemon is the leader; this one stands by.", _NOTHING),
    "backoff": Meaning(
        "The stream to Alpaca failed, and the next try is timed.",
        "Nothing, unless it lasts: then read the sentence, and Alpaca's status page.",
    ),
    "breaker_open": Meaning(
        "Several sessions in a row failed, so spotd waits `SPOTD_BREAKER_RECOVERY_S`.",
        "Read the sentence: it names the last failure.",
    ),
    "clock_wrong": Meaning(
        "The clock of the machine differs from Alpaca's, so the lag is measured by Alpaca's.",
        "Set the clock: `timedatectl`, chrony.",
    ),
    "connecting": Meaning(
        "The stream to Alpaca is being opened.",
        "Nothing, unless it lasts: then read the sentence, which names the last failure.",
    ),
    "connection_limit": Meaning(
        "Another session holds the account's one connection (Alpaca's error 406).",
        "End the other program, or use keys of another account. A dead session is freed by Alpaca "
        "after about 90 s.",
    ),
    "demand_crowded": Meaning(
        "More than 10,000 entries of the demand name no symbol. Reading them takes so long that a "
        "change is seen later than promised.",
        "Remove them: `spotd symbols list`, `spotd symbols remove`; and end the program that adds "
        "them.",
    ),
    "demand_unreadable": Meaning(
        "Redis refuses to let spotd read a part of the demand.",
        "Read the sentence. It names a key of the wrong type: delete that key. If a right is "
        "missing, `spotd check` names the command to grant.",
    ),
    "interrupted": Meaning(
        "The stream to Alpaca was interrupted: a price may be older than the market's.",
        "Nothing, unless it lasts: then read the daemon's reason.",
    ),
    "invalid_symbol": Meaning(
        "The entry of the demand is not a symbol.", "Remove the entry, or correct it."
    ),
    "lagging": Meaning(
        "Prices arrive too long after their exchange time (`SPOTD_MAX_LAG_S`).",
        "Nothing, unless it repeats: then look at the network and at the load of the machine.",
    ),
    "leader_changed": Meaning(
        "The daemon that published before ended or lost the leader key.",
        "Nothing, unless nobody restarted it: then read the log of the other daemon.",
    ),
    "leader_key_failed": Meaning(
        "The last request for the leader key failed.", "Check Redis: `spotd check`."
    ),
    "leader_key_free": Meaning(
        "Redis is back, and no daemon holds the leader key yet: the one that kept its stream goes "
        "first, for a second.",
        _NOTHING,
    ),
    "leader_key_lapsed": Meaning(
        "The leader key lapsed before Redis renewed it.", "Check Redis: `spotd check`."
    ),
    "leader_unknown": Meaning(
        "Redis has not answered yet who leads.", "Nothing, unless it lasts: `spotd check`."
    ),
    "mute": Meaning(
        "The stream was open without bringing prices that Alpaca's REST knew.",
        "Nothing: the stream is opened anew, or the one symbol is subscribed anew.",
    ),
    "no_daemon": Meaning(
        "No daemon runs, or Redis takes no writes, so no status is there. The relay says so.",
        "Start `spotd run`. If one runs already, `spotd check` says why Redis refuses its writes.",
    ),
    "no_leader": Meaning(
        "A status is there, but no daemon holds the leader key: the one that wrote it was killed, "
        "cannot reach Redis, or Redis takes no writes. `spotd status` says so.",
        "Nothing, where a standby runs: it leads within a second. If it does not, `spotd check`. "
        "Without one, start `spotd run`.",
    ),
    "no_quote_yet": Meaning(
        "The symbol is live, and no quote of it has come yet.",
        "Nothing: some symbols are quoted rarely.",
    ),
    "reading_demand": Meaning("A term has begun, and the demand is being read.", _NOTHING),
    "redis_away": Meaning(
        "Redis does not answer, or answers with an error.", "Check Redis: `spotd check`."
    ),
    "refused_by_alpaca": Meaning(
        "Alpaca refused the symbol.", "Remove it from the demand; it is tried again every hour."
    ),
    "stopping": Meaning("The process was asked to stop.", _NOTHING),
    "subscribing": Meaning("The stream is open, and no symbol is acknowledged yet.", _NOTHING),
    "symbol_limit": Meaning(
        "There is no room for the symbol: the plan's limit, `SPOTD_MAX_SYMBOLS`, or the relay's.",
        "Remove symbols, raise the setting, or change the plan.",
    ),
    "two_leaders": Meaning(
        "Another daemon leads in another database of this Redis, or with another key prefix, and "
        "both publish on the same channels.",
        "Give each its own `SPOTD_KEY_PREFIX` and `SPOTD_CHANNEL_PREFIX`.",
    ),
    "wake_unheard": Meaning(
        "`spotd:wake` cannot be listened to, so a change of the demand takes up to 1 s.",
        "`spotd check` names the right that is missing. If none is, check the network to Redis.",
    ),
    "wildcard_not_allowed": Meaning(
        "`*` is demanded, and `SPOTD_ALLOW_WILDCARD` is not true.", "Set it, or remove `*`."
    ),
}
