"""The knobs of the simulated market.

Plain data; `market` and `instrument` act on it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from spotd.simulator.knobs import Knobs, knob


@dataclass
class MarketModel(Knobs):
    """How the market behaves. `_p` is a probability, per quote or per trade."""

    seed: int = knob(1, "The same seed, the same market: prices, spreads, activity.")
    quotes_per_s: float = knob(100.0, "Quotes a second over all subscribed symbols of a feed.")
    trades_per_quote: float = knob(0.1, "Trades, as a share of the quotes.")
    quotes_per_frame: int = knob(250, "Most messages in one frame.")
    tick_s: float = knob(0.01, "What falls into the same tick goes out together.")
    bursts_per_min: float = knob(6.0, "How often one symbol gets hot.")
    burst_factor: float = knob(
        4.0, "How much faster all quotes come meanwhile, all of them its own."
    )
    burst_lasts_s: float = knob(0.5, "How long it stays hot, on average.")
    halts_per_hour: float = knob(0.0, "How often a subscribed symbol is halted.")
    halt_lasts_s: float = knob(10.0, "How long a halt lasts.")
    universe: int = knob(11_500, "How many symbols '*' means.")
    one_sided_p: float = knob(0.002, "A quote without bid or ask (exchange ' ', price 0, size 0).")
    locked_p: float = knob(0.003, "A quote with bid = ask.")
    crossed_p: float = knob(0.001, "A quote with bid > ask.")
    two_flags_p: float = knob(0.01, "A quote with a condition flag for each side.")
    received_at_p: float = knob(0.01, "A quote with the undocumented key `r`.")
    duplicate_time_p: float = knob(0.01, "A quote with the time of the one before it.")
    out_of_order_p: float = knob(0.01, "A quote older than the one before it.")
    int_price_p: float = knob(0.0, "A quote whose bid is a whole number, encoded as an integer.")
    odd_lot_p: float = knob(0.4, "A trade below 100 shares, with condition I.")
    extended_hours_p: float = knob(0.02, "A trade with condition T.")
    special_trade_p: float = knob(0.01, "A trade off the market that must not set the last sale.")

    def oddities(self) -> Iterator[tuple[str, float]]:
        """What may be odd about a quote, and how often."""
        for name in (
            "one_sided", "locked", "crossed", "two_flags", "received_at", "duplicate_time",
            "out_of_order", "int_price",
        ):  # fmt: skip
            yield name, getattr(self, f"{name}_p")

    @property
    def odd_p(self) -> float:
        """How often anything at all is odd about a quote."""
        return (
            self.one_sided_p
            + self.locked_p
            + self.crossed_p
            + self.two_flags_p
            + self.received_at_p
            + self.duplicate_time_p
            + self.out_of_order_p
            + self.int_price_p
        )
