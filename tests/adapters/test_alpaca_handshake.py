"""The socket under the websocket hands over a bounded amount at a time."""

from __future__ import annotations

import asyncio
import socket

from spotd.adapters.alpaca_handshake import _dial

_SENT = 4 * 1024 * 1024


async def test_no_turn_of_the_loop_reads_all_that_waits() -> None:
    """However much has come in meanwhile, others get their turn after a part of it."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = await _dial("127.0.0.1", listener.getsockname()[1], loop.time() + 5)
        sender, _ = listener.accept()
    with dialled, sender:
        sending = asyncio.create_task(asyncio.to_thread(sender.sendall, bytes(_SENT)))
        buffer, got, most = memoryview(bytearray(_SENT)), 0, 0
        async with asyncio.timeout(5):
            while got < _SENT:
                await asyncio.sleep(0.005)  # more comes in than is read
                part = await loop.sock_recv_into(dialled, buffer)
                got, most = got + part, max(most, part)
        await sending
    assert 0 < most <= 128 * 1024
