"""What a quote costs inside the daemon, stage by stage: in-process, without sockets or Redis.

    python -m tests.bench.profile_hot_path [--symbols 100,500,11500] [--per-frame 1,50] …

- decode: msgpack to structs
- floor: decode, and the newest quote of each symbol in a dictionary, which no program does without
- receive: the price cache, the conflator's slot included
- frame: the session's frame callback, with decode and receive in it, as the daemon wires them
- take+render: emit what is due and write its JSON, per *update*, and settle it
- pack: the call to Redis with 500 updates as bytes, per *update*
- whole: frame, and take+render+pack as often as the throttle lets out at ``--rate`` quotes/s

Best of ``--repeat``, because what others do on the machine can only add. For tuning; the figures
that count come from ``python -m tests.bench``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import picows
from picows.picows import _make_test_ws_frame
from redis.connection import Connection

from spotd.alpaca.frames import FrameDecoder
from spotd.alpaca.session import Session
from spotd.core.conflate import Batch
from spotd.core.demand import Demand
from spotd.core.freshness import Silence
from spotd.core.messages import Message, Quote
from spotd.core.publishing import BatchSize
from spotd.daemon.prices import Prices
from spotd.daemon.publish import render
from spotd.daemon.value import Value
from spotd.keys import Keys
from spotd.ops.metrics import Metrics
from spotd.redaction import Redactor
from tests.bench import frames

_STAGES = ("decode", "floor", "receive", "frame", "take+render", "pack", "whole")
_SHA = "0" * 40
_THROTTLE_S = 0.2


class HotPath:
    """The daemon's parts on the way of a quote, fed with frames made beforehand."""

    def __init__(self, names: Sequence[str], per_frame: int, quotes: int, rate: float) -> None:
        self.quotes = max(1, quotes // per_frame) * per_frame
        self._per_frame_s = per_frame / rate
        self._payloads = [
            frames.message(group)
            for group in frames.messages(names, quotes=self.quotes, per_frame=per_frame)
        ]
        self._frames = [
            _make_test_ws_frame(picows.WSMsgType.BINARY, payload, True, False)
            for payload in self._payloads
        ]
        self.prices = Prices(
            throttle_s=_THROTTLE_S,
            demand=Value(Demand(frozenset(names))),
            silence=Silence(),
            metrics=Metrics(),
        )
        self._session = Session(FrameDecoder(), cast(Any, self.prices.receive), Redactor())
        self._session.authenticated()
        connection: Any = Connection
        self._pack: Callable[..., list[bytes]] = connection().pack_command
        self._now = time.monotonic()
        self.updates = 0

    # Stages: each returns the number by which its time is divided

    def decode(self) -> int:
        """Decode msgpack to structs. Return the number of quotes, as all stages of quotes do."""
        decode = FrameDecoder().decode
        for payload in self._payloads:
            decode(payload)
        return self.quotes

    def floor(self) -> int:
        """Do what any program does that keeps the newest quote of every symbol."""
        decode = FrameDecoder().decode
        newest = {}
        for payload in self._payloads:
            for message in cast(Sequence[Quote], decode(payload)):
                newest[message.symbol] = message
        return self.quotes

    def receive_stage(self) -> Callable[[], int]:
        """Return the stage of the price cache, with messages decoded beforehand."""
        decode = FrameDecoder().decode
        decoded = [cast(Sequence[Message], decode(payload)) for payload in self._payloads]

        def receive() -> int:
            take_in = self.prices.cache.receive
            for some in decoded:
                take_in(some, self._now)
            return self.quotes

        return receive

    def frame(self) -> int:
        """Call what picows calls for every frame."""
        on_frame, transport = self._session.on_ws_frame, cast(Any, None)
        for frame in self._frames:
            on_frame(transport, frame)
        return self.quotes

    def take_render(self) -> int:
        """Take and render everything that changed, in batches as the publisher does."""
        self._change_all()
        return self._emit(pack=False)

    def pack_stage(self) -> Callable[[], int]:
        """Return the stage in which redis-py turns one full call into bytes."""
        self._change_all()
        taken = self._take()
        lines, highest_seq = render(taken, self.prices.seq)
        self.prices.conflator.settle(taken, self._now, delivered=True)

        def pack() -> int:
            self._packed(lines, highest_seq)
            return len(taken)

        return pack

    def whole(self) -> int:
        """Do all of it at the rate of the quotes, by a clock that follows them."""
        on_frame, transport = self._session.on_ws_frame, cast(Any, None)
        conflator = self.prices.conflator
        for frame in self._frames:
            on_frame(transport, frame)
            self._now += self._per_frame_s
            next_at = conflator.next_at()
            if next_at is not None and next_at <= self._now:
                self.updates += self._emit(pack=True)
        return self.quotes

    # Inside

    def _change_all(self) -> None:
        self._now += 1.0
        for slot in self.prices.cache.slots.values():
            if slot.quoted_at is not None:
                self.prices.conflator.offer(slot, self._now)

    def _take(self) -> Batch:
        return self.prices.conflator.take(self._now, BatchSize().limit)

    def _emit(self, *, pack: bool) -> int:
        emitted = 0
        while taken := self._take():
            lines, highest_seq = render(taken, self.prices.seq)
            if pack:
                self._packed(lines, highest_seq)
            self.prices.conflator.settle(taken, self._now, delivered=True)
            emitted += len(taken)
        return emitted

    def _packed(self, lines: bytes, highest_seq: int) -> None:
        keys = Keys()
        self._pack(
            "EVALSHA", _SHA, 3, keys.leader, keys.last, keys.seq,
            "token", keys.channel_prefix, highest_seq, highest_seq, lines,
        )  # fmt: skip


def best_ns(stage: Callable[[], int], repeat: int) -> float:
    """Return nanoseconds per item, best of ``repeat``; one run beforehand warms up."""
    stage()
    best = float("inf")
    for _ in range(repeat):
        gc.collect()
        before = time.perf_counter_ns()
        items = stage()
        best = min(best, (time.perf_counter_ns() - before) / max(1, items))
    return best


async def profile(
    names: Sequence[str], per_frame: int, *, quotes: int, repeat: int, rate: float
) -> dict[str, float]:
    """Return nanoseconds of every stage, and as ``updates`` those out per 1,000 quotes of whole."""
    path = HotPath(names, per_frame, quotes, rate)
    # The order matters: the cache must hold prices before anything can be emitted.
    figures = {
        "decode": best_ns(path.decode, repeat),
        "floor": best_ns(path.floor, repeat),
        "receive": best_ns(path.receive_stage(), repeat),
        "frame": best_ns(path.frame, repeat),
        "take+render": best_ns(path.take_render, repeat),
        "pack": best_ns(path.pack_stage(), repeat * 10),
    }
    path._emit(pack=False)
    path.updates = 0
    figures["whole"] = best_ns(path.whole, repeat)
    figures["updates"] = 1_000 * path.updates / (path.quotes * (repeat + 1))
    return figures


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Print one line for each number of symbols and of quotes per frame."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quotes", type=int, default=200_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--rate", type=float, default=400_000.0, help="quotes per second, in whole")
    parser.add_argument("--symbols", type=_numbers, default=[100, 500, 11_500])
    parser.add_argument("--per-frame", type=_numbers, default=[1, 50])
    options = parser.parse_args()
    print("ns per quote; take+render and pack: ns per update")
    heads = "".join(f"{stage:>13}" for stage in _STAGES)
    print(f"{'symbols':>8}{'per frame':>11}{heads}{'updates/1000':>14}")
    for per_frame in options.per_frame:
        for count in options.symbols:
            figures = asyncio.run(
                profile(
                    frames.symbols(count),
                    per_frame,
                    quotes=max(options.quotes, 2 * count),
                    repeat=options.repeat,
                    rate=options.rate,
                )
            )
            cells = "".join(f"{figures[stage]:>13,.0f}" for stage in _STAGES)
            print(f"{count:>8,}{per_frame:>11}{cells}{figures['updates']:>14,.1f}", flush=True)


if __name__ == "__main__":
    main()
