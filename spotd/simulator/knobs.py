"""Every limit, every fault and the market model: each knob a field with its meaning and unit.

Plain data that tests set in Python and users by flag; nothing here acts. A change of a limit or a
fault takes effect at once, also on open sessions.
"""

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from spotd.simulator.changes import Changes

T = TypeVar("T")


def knob(default: T, meaning: str) -> T:
    """Return a field with its meaning, which is also the help of its flag."""
    return field(default=default, metadata={"help": meaning})


def meanings(knobs: type) -> list[tuple[Field[Any], str]]:
    """Return the fields of a class of knobs, with the meaning of each."""
    return [(each, each.metadata["help"]) for each in fields(knobs)]


class Knobs:
    """Base of the knobs: an assignment wakes up all waiters of the simulator."""

    _changes: ClassVar[Changes | None] = None

    def attach(self, changes: Changes) -> None:
        """Belong to the simulator that owns these changes."""
        object.__setattr__(self, "_changes", changes)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.__dataclass_fields__:  # type: ignore[attr-defined]
            raise AttributeError(f"{type(self).__name__} has no knob {name!r}")
        object.__setattr__(self, name, value)
        if self._changes is not None:
            self._changes.wake_up()


@dataclass
class Limits(Knobs):
    """The limits of a plan, and the server's own timers."""

    connections: int = knob(1, "Sessions per key and endpoint; the next one receives 406.")
    symbols: int | None = knob(
        None, "Most symbols of a session; beyond, 405. With a limit, '*' is refused, too."
    )
    count: str = knob(
        "entries",
        "What counts against the symbol limit: 'entries' of quotes and trades, or 'symbols'.",
    )
    empty_subscribe: bool = knob(False, "Acknowledge a subscribe without symbols, instead of 400.")
    close_after_refused_auth: bool = knob(False, "Close after 402 or 409 (406 never closes).")
    auth_timeout_s: float = knob(10.0, "Time to authenticate; then 404 and the end.")
    dead_session_hold_s: float = knob(
        0.0,
        "Time for which a session that vanished without a close frame keeps its connection slot "
        "(Alpaca: about 90).",
    )
    ping_period_s: float = knob(10.0, "Time between the server's own pings; 0: none.")
    ping_timeout_s: float = knob(20.0, "Silence after which a client is cut.")
    close_timeout_s: float = knob(1.0, "Time for the client to answer a close frame.")
    out_buffer_bytes: int = knob(
        64 << 20, "Most bytes that may wait for a client; beyond, it is a slow client: 407."
    )
    deflate: bool = knob(True, "Offer permessage-deflate.")
    rest_per_min: int | None = knob(None, "REST requests per key and minute; beyond, 429.")


@dataclass
class Faults(Knobs):
    """Faults of Alpaca and of the network, off by default. `_p` is a probability per frame."""

    # at the handshake
    handshake_status: int = knob(0, "Answer the handshake with this HTTP status; 0: accept.")
    handshake_hang: bool = knob(False, "Never answer the handshake.")
    handshake_delay_s: float = knob(0.0, "Answer the handshake this late.")
    # greeting and authentication
    no_greeting: bool = knob(False, "Accept, but never greet.")
    greeting_delay_s: float = knob(0.0, "Greet this late.")
    greeting_error: int = knob(0, "Send this error code instead of the greeting; 0: greet.")
    auth_silent: bool = knob(False, "Never answer an authentication.")
    auth_delay_s: float = knob(0.0, "Answer an authentication this late.")
    auth_error: int = knob(0, "Answer every authentication with this error code; 0: check it.")
    # subscriptions
    ack_silent: bool = knob(
        False, "Carry out a subscribe or unsubscribe, but never acknowledge it."
    )
    ack_delay_s: float = knob(0.0, "Acknowledge this late.")
    ack_omits: set[str] = field(
        default_factory=set,
        metadata={"help": "Symbols that are silently left out of subscribe and ack."},
    )
    subscribe_error: int = knob(0, "Answer every subscribe with this error code; 0: check it.")
    bad_symbols: set[str] = field(
        default_factory=set, metadata={"help": "Well-formed symbols that are refused with 400."}
    )
    unavailable_channels: set[str] = field(
        default_factory=set, metadata={"help": "Channels that are refused with 410."}
    )
    late_data_s: float = knob(0.0, "Go on sending data after an unsubscribe for this long.")
    # silence
    mute: bool = knob(False, "Send no data at all, but answer pings.")
    mute_symbols: set[str] = field(default_factory=set, metadata={"help": "Symbols without data."})
    data_delay_s: float = knob(
        0.0, "Deliver data this late; a session that ends takes its backlog with it."
    )
    clock_behind_s: float = knob(
        0.0, "How far Alpaca's clock is behind this machine's, in new data and in REST."
    )
    ignore_pings: bool = knob(False, "Answer no ping of the client.")
    half_open: bool = knob(False, "Neither read nor write on any session, like a dead peer.")
    market_closed: bool = knob(False, "The market sends nothing and the clock says closed.")
    # endings
    close_after_messages: int = knob(0, "Close a session after this many data messages; 0: never.")
    close_code: int = knob(
        1001,
        "The close code of that: 1000, 1001, 1008, 1009, 1011...; 1006 resets the TCP connection.",
    )
    slow_client_silent: bool = knob(False, "Cut a slow client without its 407.")
    # damaged data
    garbage_p: float = knob(0.0, "Send a frame of garbage before the good one.")
    text_frame_p: float = knob(0.0, "Send JSON in a text frame, whatever the client asked for.")
    unknown_type_p: float = knob(0.0, "Add a message of an unknown type to the frame.")
    malformed_p: float = knob(0.0, "Add a malformed message to the frame.")
    oversize_p: float = knob(0.0, "Make the frame larger than 1 MiB.")
    drip_bytes_per_s: int = knob(0, "Write frames slowly, in small pieces; 0: at once.")
    # REST
    rest_status: int = knob(
        0, "Answer REST with this HTTP status (429, 403, 500, 502...); 0: serve."
    )
    rest_hang: bool = knob(False, "Never answer REST.")
    rest_delay_s: float = knob(0.0, "Answer REST this late.")
    rest_null: bool = knob(False, "Have no data for any symbol: snapshots null, quotes absent.")
    rest_null_symbols: set[str] = field(
        default_factory=set, metadata={"help": "Have no data for these symbols."}
    )
    rest_bad_symbols: set[str] = field(
        default_factory=set, metadata={"help": "Well-formed symbols that REST refuses as invalid."}
    )
    rest_garbage: bool = knob(False, "Answer REST with 200 and a page that is not JSON.")

    @property
    def damaging(self) -> bool:
        """Whether a frame may have to be damaged."""
        return bool(
            self.garbage_p
            or self.text_frame_p
            or self.unknown_type_p
            or self.malformed_p
            or self.oversize_p
        )


@dataclass
class MarketModel(Knobs):
    """How the simulated market behaves. `_p` is a probability per quote."""

    seed: int = knob(1, "Prices, spreads and activity follow from it.")
    quotes_per_s: float = knob(100.0, "Quotes per second, over all subscribed symbols of a feed.")
    trades_per_quote: float = knob(0.1, "Trades, as a share of the quotes.")
    quotes_per_frame: int = knob(250, "Most messages in one frame.")
    bursts_per_min: float = knob(6.0, "Bursts per minute; each is of one symbol.")
    burst_factor: float = knob(
        4.0, "By how much a burst multiplies all quotes; those added are of its symbol."
    )
    burst_lasts_s: float = knob(0.5, "How long a burst lasts on average.")
    one_sided_p: float = knob(0.002, "A quote without bid or ask (exchange ' ', price 0, size 0).")
    locked_p: float = knob(0.003, "A quote with bid = ask.")
    crossed_p: float = knob(0.001, "A quote with bid > ask.")
    two_flags_p: float = knob(0.01, "A quote with a condition flag for each side.")
    received_at_p: float = knob(0.01, "A quote with the undocumented key `r`.")
    duplicate_time_p: float = knob(0.01, "A quote with the time of the one before it.")
    out_of_order_p: float = knob(0.01, "A quote older than the one before it.")
    int_price_p: float = knob(0.0, "A quote whose bid is a whole number, encoded as an integer.")

    def oddities(self) -> Iterator[tuple[str, float]]:
        """Yield in which ways a quote may be odd, and the probability of each."""
        for name in (
            "one_sided", "locked", "crossed", "two_flags", "received_at", "duplicate_time",
            "out_of_order", "int_price",
        ):  # fmt: skip
            yield name, getattr(self, f"{name}_p")

    @property
    def odd_p(self) -> float:
        """The probability that a quote is odd in any way."""
        return sum(chance for _, chance in self.oddities())
