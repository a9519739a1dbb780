"""The floor under any Python program: frames off the socket, decoded, one dictionary store a quote.

    python -m tests.bench.floor STREAM_URL SYMBOLS

The websocket framing, the decoder and the structs of spotd, and nothing else: no market rules, no
throttle, no Redis. What it costs more with more symbols is what memory costs.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence

import msgpack
import picows

from spotd.alpaca.frames import UNREADABLE, decode
from spotd.core.messages import Message, Quote, Success
from tests.bench import frames

_AT_ONCE = 500  # symbols per request
_BINARY = picows.WSMsgType.BINARY


class Floor(picows.WSListener):
    """Keeps the newest quote of each symbol, and does nothing with it."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.newest: dict[str, Quote] = {}
        self._names = names

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take in a frame of quotes, or of the handshake."""
        try:
            messages = decode(frame.get_payload_as_bytes())
        except UNREADABLE:
            return  # a ping
        if type(messages[0]) is not Quote:
            self._greeted(transport, messages[0])
            return
        self.take(messages)

    def take(self, messages: Sequence[Message]) -> None:
        """Take in the messages of a frame that begins with a quote."""
        newest = self.newest
        for message in messages:
            newest[message.symbol] = message  # type: ignore[union-attr, assignment]

    def _greeted(self, transport: picows.WSTransport, message: object) -> None:
        if not isinstance(message, Success):
            return  # an acknowledgement
        requests: list[object] = [{"action": "auth", "key": "key", "secret": "secret"}]
        if message.msg == "authenticated":
            requests = [
                {"action": "subscribe", "quotes": self._names[start : start + _AT_ONCE]}
                for start in range(0, len(self._names), _AT_ONCE)
            ]
        for request in requests:
            transport.send(_BINARY, msgpack.packb(request))


async def main(stream_url: str, symbols: int) -> None:
    """Stream until killed."""
    names = frames.symbols(symbols)
    transport, _ = await picows.ws_connect(
        lambda: Floor(names), stream_url, max_frame_size=16 * 1024 * 1024, use_aiofastnet=False
    )
    gc.freeze()
    await transport.wait_disconnected()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
