"""The data source of a measurement: a process that speaks Alpaca's stream and REST, by order.

    python -m tests.bench.source

Orders (see ``orders``): ``pool`` encodes frames beforehand; ``burst`` sends a number of quotes
as fast as the client reads; ``pace`` sends a number per second, several at once if asked;
``recorded`` and ``uneven`` make a schedule, which ``play`` sends at its own pace; ``mark``
sends one quote that shows that all before it were taken in, ``ping`` asks for that without a quote;
``state`` tells about a client.
"""

from __future__ import annotations

import asyncio
import gc
import time
from bisect import bisect_right
from typing import Literal

import picows

from tests.bench import frames, schedules
from tests.bench.orders import Json, serve
from tests.bench.source_rest import Rest
from tests.bench.source_session import Session

MARK = "ZZZZZ"  # the symbol of marks: no pool has it
_WRITE_BYTES = 64 * 1024

Stamp = Literal["sent", "due"]


class Source:
    """All clients, and the frames that were made for them."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._pools: dict[str, frames.Pool] = {}
        self._schedules: dict[str, schedules.Schedule] = {}
        self._ports: Json = {}
        self._halts = 0

    async def run(self) -> None:
        """Listen on loopback, take orders, end with them."""
        loop = asyncio.get_running_loop()
        stream = await picows.ws_create_server(
            self._accept, "127.0.0.1", 0, use_aiofastnet=False, max_frame_size=16 * 1024 * 1024
        )
        rest = await loop.create_server(Rest, "127.0.0.1", 0)
        self._ports = {
            "stream": stream.sockets[0].getsockname()[1],
            "rest": rest.sockets[0].getsockname()[1],
        }
        gc.freeze()
        await serve(
            {
                "ports": self.ports,
                "state": self.state,
                "pool": self.pool,
                "burst": self.burst,
                "pace": self.pace,
                "recorded": self.recorded,
                "uneven": self.uneven,
                "play": self.play,
                "halt": self.halt,
                "mark": self.mark,
                "ping": self.ping,
            }
        )

    def _accept(self, request: picows.WSUpgradeRequest) -> Session:
        name = request.path.decode().strip("/")
        session = self._sessions[name] = Session(name)
        return session

    # Orders

    async def ports(self) -> Json:
        """Return where it listens."""
        return self._ports

    async def state(self, client: str) -> Json:
        """Return what a client is subscribed to, and since when."""
        session = self._sessions.get(client)
        if session is None:
            return {"open": False, "quotes": 0, "trades": 0}
        return {
            "open": session.open,
            "quotes": len(session.subscribed["quotes"]),
            "trades": len(session.subscribed["trades"]),
            "first_subscribe_at": session.first_subscribe_at,
            "acknowledged_at": session.acknowledged_at,
        }

    async def pool(
        self,
        name: str,
        symbols: int,
        quotes: int,
        per_frame: int,
        first_letter: str = "",
    ) -> Json:
        """Encode frames, which are sent again and again as the market."""
        names = frames.symbols(symbols, first_letter=first_letter)
        made = frames.pool(names, quotes=quotes, per_frame=per_frame)
        self._pools[name] = made
        return {"frames": made.frames, "bytes": len(made.data)}

    async def burst(self, client: str, pool: str, quotes: int) -> Json:
        """Send ``quotes`` quotes as fast as the client reads."""
        session, source = self._sessions[client], self._pools[pool]
        data, bounds = memoryview(source.data), source.bounds
        at, left = 0, max(1, quotes // source.per_frame)
        step = max(1, _WRITE_BYTES * source.frames // len(source.data))
        sent, began = 0, time.monotonic()
        while left:
            end = min(at + step, at + left, source.frames)
            await session.write(data[bounds[at] : bounds[end]])
            await asyncio.sleep(0)
            left -= end - at
            sent += (end - at) * source.per_frame
            at = end % source.frames
        return {"quotes": sent, "seconds": time.monotonic() - began}

    async def pace(
        self, client: str, pool: str, rate: float, seconds: float, stamp: Stamp | None = None
    ) -> Json:
        """Send ``rate`` quotes per second for ``seconds``.

        ``stamp`` says which time is written into them: ``sent`` is the moment of sending, ``due``
        the moment at which they were to be sent, so that a client that holds up the source shows.
        """
        session, source = self._sessions[client], self._pools[pool]
        data, bounds = memoryview(source.data), source.bounds
        step = max(1, _WRITE_BYTES * source.frames // len(source.data))
        every_s = source.per_frame / rate
        whole, halts = int(seconds / every_s), self._halts
        sent, late_s = 0, 0.0
        began, began_ns = time.monotonic(), time.time_ns()
        while sent < whole and halts == self._halts:
            gone_s = time.monotonic() - began
            due = min(whole, int(gone_s / every_s) + 1)
            if due <= sent:
                await asyncio.sleep(max(0.0, sent * every_s - gone_s))
                continue
            at = sent % source.frames
            end = min(at + step, at + due - sent, source.frames)
            late_s = max(late_s, gone_s - sent * every_s)
            if stamp is not None:
                due_ns = began_ns + int(sent * every_s * 1e9)
                source.stamp(at, end, time.time_ns() if stamp == "sent" else due_ns)
            await session.write(data[bounds[at] : bounds[end]])
            await asyncio.sleep(0)
            sent += end - at
        took_s = time.monotonic() - began
        return {"quotes": sent * source.per_frame, "seconds": took_s, "late_ms": late_s * 1e3}

    async def recorded(self, name: str, seconds: float) -> Json:
        """Make a schedule of a recorded day, whose quotes are those of the first symbol."""
        made = self._schedules[name] = schedules.recorded(frames.symbols(1)[0], seconds)
        return {"quotes": len(made.frames)}

    async def uneven(self, name: str, symbols: int, rate: float, seconds: float) -> Json:
        """Make a schedule of uneven activity."""
        made = self._schedules[name] = schedules.uneven(frames.symbols(symbols), rate, seconds)
        return {"quotes": len(made.frames)}

    async def play(self, client: str, schedule: str) -> Json:
        """Send the frames of a schedule, each when it is due, or as soon as the client reads."""
        session, made = self._sessions[client], self._schedules[schedule]
        sent, whole, began = 0, len(made.frames), time.monotonic()
        while sent < whole:
            gone_s = time.monotonic() - began
            due = bisect_right(made.at_s, gone_s, lo=sent)
            if due == sent:
                await asyncio.sleep(made.at_s[sent] - gone_s)
                continue
            # A quote's last bytes are its time. A stream of old quotes would be remade.
            now = frames.time_bytes(time.time_ns() | 1)
            whole_frames = b"".join(frame + now for frame in made.frames[sent:due])
            await session.write(memoryview(whole_frames))
            await asyncio.sleep(0)
            sent = due
        return {"quotes": sent, "seconds": time.monotonic() - began}

    async def halt(self) -> Json:
        """End every ``pace`` now."""
        self._halts += 1
        return {}

    async def mark(self, client: str, number: int) -> Json:
        """Send one quote with this number as its bid."""
        one = frames.quote(MARK, float(number), number + 0.01, time.time_ns())
        frame = frames.framed(frames.message([one]))
        await self._sessions[client].write(memoryview(frame))
        return {}

    async def ping(self, client: str) -> Json:
        """Wait until a client that answers pings in order has taken in what was sent."""
        await self._sessions[client].ping()
        return {}


if __name__ == "__main__":
    asyncio.run(Source().run())
