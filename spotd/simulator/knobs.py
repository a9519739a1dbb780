"""Every limit and every fault of the simulator, each a field with its meaning and unit.

Plain data that tests turn in Python and users by flag; nothing here acts. A change rings the
simulator's bell, so that it acts at once, also on sessions that are open.
"""

from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from spotd.simulator.bell import Bell

T = TypeVar("T")


def knob(default: T, meaning: str) -> T:
    """A field with its meaning, which is also the help text of its flag."""
    return field(default=default, metadata={"help": meaning})


def meanings(knobs: type) -> list[tuple[Field[Any], str]]:
    """The fields of a class of knobs that have a flag, with the meaning of each."""
    return [(each, each.metadata["help"]) for each in fields(knobs) if "help" in each.metadata]


class Knobs:
    """Base of the knobs: every assignment acts at once, by ringing two bells.

    `turned` rings at changes of these knobs alone, the attached one is the simulator's.
    """

    turned: ClassVar[Bell]
    _attached: ClassVar[Bell | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "turned", Bell())

    def attach(self, bell: Bell) -> None:
        """Belong to the simulator that owns this bell."""
        object.__setattr__(self, "_attached", bell)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.__dataclass_fields__:  # type: ignore[attr-defined]
            raise AttributeError(f"{type(self).__name__} has no knob {name!r}")
        object.__setattr__(self, name, value)
        if self._attached is not None:
            self._attached.ring()
            self.turned.ring()


@dataclass
class Limits(Knobs):
    """What a plan allows, and the server's own timers. Durations in seconds, sizes in bytes."""

    connections: int = knob(1, "Sessions per key and endpoint; the next one gets 406.")
    symbols: int | None = knob(None, "Most symbols a session may ask for; beyond: 405.")
    count: str = knob(
        "entries",
        "What counts against the symbol limit: 'entries' of quotes and trades, or 'symbols'.",
    )
    wildcard: bool = knob(True, "'*' may be subscribed to (never where there is a symbol limit).")
    empty_subscribe: bool = knob(False, "A subscribe naming no symbol is acknowledged, not 400.")
    header_auth: bool = knob(True, "Keys in the headers of the handshake authenticate a session.")
    close_after_refused_auth: bool = knob(False, "Close after 402 or 409 (406 never closes).")
    auth_timeout_s: float = knob(10.0, "Time to authenticate before 404 and the end.")
    dead_session_hold_s: float = knob(
        0.0, "How long a session that vanished without a close frame keeps its seat (Alpaca: 90)."
    )
    ping_period_s: float = knob(10.0, "Time between the server's own pings; 0: none.")
    ping_timeout_s: float = knob(20.0, "Silence after which a client that answers no ping is cut.")
    close_timeout_s: float = knob(1.0, "How long the client may take to answer a close frame.")
    out_buffer_bytes: int = knob(64 << 20, "Bytes waiting for a client before it is a slow client.")
    max_message_bytes: int = knob(4 << 20, "Longest message taken from a client; beyond: 1009.")
    deflate: bool = knob(True, "Offer permessage-deflate.")
    rest_per_min: int | None = knob(None, "REST requests per key and minute; beyond: 429.")


@dataclass
class Faults(Knobs):
    """What goes wrong. All off by default; `_p` is a probability per frame, `_s` are seconds."""

    # at the handshake
    handshake_status: int = knob(0, "Answer the handshake with this HTTP status; 0: accept.")
    handshake_hang: bool = knob(False, "Never answer the handshake.")
    handshake_delay_s: float = knob(0.0, "Answer the handshake this late.")
    # greeting and authentication
    no_greeting: bool = knob(False, "Accept, but never greet.")
    greeting_delay_s: float = knob(0.0, "Greet this late.")
    greeting_error: int = knob(0, "Greet with this error code instead; 0: greet.")
    auth_silent: bool = knob(False, "Never answer an authentication.")
    auth_delay_s: float = knob(0.0, "Answer an authentication this late.")
    auth_error: int = knob(0, "Answer every authentication with this error code; 0: judge it.")
    # subscriptions
    ack_silent: bool = knob(
        False, "Carry out a subscribe or unsubscribe, but never acknowledge it."
    )
    ack_delay_s: float = knob(0.0, "Acknowledge this late.")
    ack_omits: set[str] = field(
        default_factory=set,
        metadata={"help": "Symbols neither subscribed nor acknowledged, silently."},
    )
    subscribe_error: int = knob(0, "Answer every subscribe with this error code; 0: judge it.")
    bad_symbols: set[str] = field(
        default_factory=set, metadata={"help": "Well-formed symbols refused with 400 all the same."}
    )
    unavailable_channels: set[str] = field(
        default_factory=set, metadata={"help": "Channels answered with 410."}
    )
    late_data_s: float = knob(0.0, "Data goes on this long after an unsubscribe.")
    # silence
    mute: bool = knob(False, "No data at all, while pings are answered.")
    mute_symbols: set[str] = field(default_factory=set, metadata={"help": "Symbols without data."})
    ignore_pings: bool = knob(False, "Answer no ping of the client.")
    half_open: bool = knob(False, "Neither read nor write on any session, as a dead peer.")
    market_closed: bool = knob(False, "The market sends nothing and the clock says closed.")
    # endings
    close_after_messages: int = knob(0, "Close each session after so many data messages; 0: never.")
    close_every_s: float = knob(0.0, "Close each session when it is this old; 0: never.")
    close_code: int = knob(1001, "Close code of those two: 1000, 1001, 1011...; 1006: TCP reset.")
    error_every_s: float = knob(0.0, "Send each session an error this often; 0: never.")
    error_code: int = knob(500, "The code of that error; 407 also ends the session.")
    slow_client_silent: bool = knob(False, "A slow client is cut without its 407.")
    # damaged data
    garbage_p: float = knob(0.0, "A frame of garbage goes before the good one.")
    text_frame_p: float = knob(0.0, "The frame is JSON text, whatever was asked for.")
    unknown_type_p: float = knob(0.0, "A message of an unknown type stands inside the frame.")
    malformed_p: float = knob(0.0, "One malformed message stands inside the frame.")
    oversize_p: float = knob(0.0, "The frame is padded beyond 1 MiB.")
    drip_bytes_per_s: int = knob(0, "Frames trickle out at this pace, byte by byte; 0: at once.")
    # REST
    rest_status: int = knob(
        0, "Answer REST with this HTTP status (429, 403, 500, 502...); 0: serve."
    )
    rest_hang: bool = knob(False, "Never answer REST.")
    rest_delay_s: float = knob(0.0, "Answer REST this late.")
    rest_null: bool = knob(False, "Snapshots are null, latest quotes and trades absent.")
    rest_null_symbols: set[str] = field(
        default_factory=set, metadata={"help": "The same, for these symbols."}
    )
    rest_bad_symbols: set[str] = field(
        default_factory=set,
        metadata={"help": "Well-formed symbols REST calls invalid all the same."},
    )
    rest_garbage: bool = knob(False, "Answer REST with 200 and a page that is not JSON.")

    @property
    def damaging(self) -> bool:
        """Whether any frame may have to be damaged."""
        return bool(
            self.garbage_p
            or self.text_frame_p
            or self.unknown_type_p
            or self.malformed_p
            or self.oversize_p
        )
